//! The coordinator, driven by hand. [`Scene`] appends what it asks for and keeps what it answers.

mod consumers;
mod conversion;
mod joining;
mod leaving;
mod loading;
mod offsets;
mod standing;
mod statics;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::model::{Offset, PartitionIndex, TimestampMs, TopicId};

/// A coordinator, its log, and what it has answered.
struct Scene {
    coordinator: Coordinator,
    log: Vec<GroupRecord>,
    now: Now,
    answers: BTreeMap<Ticket, (GroupResponse, After)>,
    next_ticket: u64,
}

impl Scene {
    /// With an initial delay of 3 s and no group.
    fn new() -> Self {
        Self::with(GroupSettings::default())
    }

    fn with(settings: GroupSettings) -> Self {
        Self::from_log(settings, Vec::new())
    }

    /// As another coordinator finds it.
    fn from_log(settings: GroupSettings, log: Vec<GroupRecord>) -> Self {
        let mut coordinator = Coordinator::new(settings, LeaderEpoch(1));
        for record in &log {
            let (key, value) = record.encode();
            let read =
                GroupRecord::decode(&key, value.as_deref()).expect("what is written is read");
            assert_eq!(read, *record);
            coordinator.replay(record);
        }
        let now = Now { monotonic: MonotonicMicros(1_000_000), wall: TimestampMs(1_000_000) };
        let mut scene = Self { coordinator, log, now, answers: BTreeMap::new(), next_ticket: 0 };
        let output = scene.coordinator.loaded(now);
        scene.take(output);
        scene
    }

    /// The coordinator's successor, which has read the same log.
    fn failed_over(&self) -> Self {
        let settings = self.coordinator.settings.clone();
        let mut next = Self::from_log(settings, self.log.clone());
        assert!(next.coordinator.agrees_with(&self.coordinator));
        next.now = self.now;
        next.next_ticket = self.next_ticket;
        next
    }

    fn take(&mut self, output: Output) {
        assert_eq!(output.leader_epoch, LeaderEpoch(1));
        for record in output.records {
            self.coordinator.replay(&record);
            self.log.push(record);
        }
        for reply in output.replies {
            let before = self.answers.insert(reply.ticket, (reply.response, reply.after));
            assert!(before.is_none(), "{:?} is answered twice", reply.ticket);
        }
        self.coordinator.check_invariants();
    }

    fn ask(&mut self, request: GroupRequest) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let output = self.coordinator.handle(self.now, ticket, request);
        self.take(output);
        ticket
    }

    /// Lets time go by, and what becomes due be done at its time.
    fn pass(&mut self, ms: u64) {
        let end = self.now.monotonic.plus_millis(ms);
        while let Some(at) = self.coordinator.next_deadline().filter(|at| *at <= end) {
            self.set(at.max(self.now.monotonic));
            let output = self.coordinator.tick(self.now);
            self.take(output);
        }
        self.set(end);
    }

    fn set(&mut self, at: MonotonicMicros) {
        let passed_ms = (at.0 - self.now.monotonic.0) / 1000;
        self.now = Now { monotonic: at, wall: TimestampMs(self.now.wall.0 + passed_ms as i64) };
    }

    fn answer(&self, ticket: Ticket) -> Option<&GroupResponse> {
        self.answers.get(&ticket).map(|(response, _)| response)
    }

    fn after(&self, ticket: Ticket) -> After {
        self.answers[&ticket].1
    }

    fn join(&mut self, request: JoinGroup) -> Ticket {
        self.ask(GroupRequest::Join(request))
    }

    fn joined(&self, ticket: Ticket) -> Joined {
        match self.answer(ticket) {
            Some(GroupResponse::Join(Ok(joined))) => joined.clone(),
            other => panic!("joined? {other:?}"),
        }
    }

    fn join_error(&self, ticket: Ticket) -> GroupError {
        match self.answer(ticket) {
            Some(GroupResponse::Join(Err(error))) => error.clone(),
            other => panic!("refused? {other:?}"),
        }
    }

    fn sync(&mut self, joined: &Joined, parts: &[(&str, &'static str)]) -> Ticket {
        let part = |(id, part): &(&str, &'static str)| {
            ((*id).to_owned(), Bytes::from_static(part.as_bytes()))
        };
        self.ask(GroupRequest::Sync(SyncGroup {
            group_id: "g".to_owned(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            instance_id: None,
            protocol_type: Some("consumer".to_owned()),
            protocol: joined.protocol.clone(),
            assignments: parts.iter().map(part).collect(),
        }))
    }

    fn synced(&self, ticket: Ticket) -> Result<String, GroupError> {
        match self.answer(ticket) {
            Some(GroupResponse::Sync(Ok(synced))) => {
                Ok(String::from_utf8(synced.assignment.to_vec()).unwrap())
            }
            Some(GroupResponse::Sync(Err(error))) => Err(error.clone()),
            other => panic!("synced? {other:?}"),
        }
    }

    fn beat(&mut self, member_id: &str, generation: i32) -> Result<(), GroupError> {
        let ticket = self.ask(GroupRequest::Heartbeat(Heartbeat {
            group_id: "g".to_owned(),
            generation,
            member_id: member_id.to_owned(),
            instance_id: None,
        }));
        match self.answer(ticket) {
            Some(GroupResponse::Heartbeat(outcome)) => outcome.clone(),
            other => panic!("heard? {other:?}"),
        }
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Result<(), GroupError>> {
        let members = members.iter().map(|(id, name)| ((*id).to_owned(), name.map(str::to_owned)));
        let request = LeaveGroup { group_id: "g".to_owned(), members: members.collect() };
        let ticket = self.ask(GroupRequest::Leave(request));
        match self.answer(ticket) {
            Some(GroupResponse::Leave(Ok(left))) => {
                left.iter().map(|member| member.outcome.clone()).collect()
            }
            other => panic!("left? {other:?}"),
        }
    }

    fn state(&mut self) -> DescribedGroup {
        let ticket = self.ask(GroupRequest::DescribeGroups(vec!["g".to_owned()]));
        match self.answer(ticket) {
            Some(GroupResponse::DescribeGroups(groups)) => groups[0].1.clone().unwrap(),
            other => panic!("described? {other:?}"),
        }
    }

    /// A stable group of members a, b, … that joined in the initial phase; ids in order of joining.
    fn stable(&mut self, count: u8) -> Vec<Joined> {
        let tickets: Vec<Ticket> = (0..count).map(|n| self.join(new_member(n))).collect();
        while tickets.iter().any(|ticket| self.answer(*ticket).is_none()) {
            self.pass(1_000);
        }
        let joined: Vec<Joined> = tickets.iter().map(|ticket| self.joined(*ticket)).collect();
        let leader = joined.iter().find(|it| it.leader == it.member_id).unwrap().clone();
        for member in joined.iter().filter(|it| it.member_id != leader.member_id) {
            self.sync(member, &[]);
        }
        let parts: Vec<(&str, &str)> =
            joined.iter().map(|it| (it.member_id.as_str(), "part")).collect();
        let ticket = self.sync(&leader, &parts);
        assert_eq!(self.synced(ticket), Ok("part".to_owned()));
        assert_eq!(self.state().state, "Stable");
        joined
    }
}

/// A consumer's subscription to one topic.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 3, 0, 0, 0, 1, 0, topic.len() as u8];
    bytes.extend(topic.as_bytes());
    bytes.extend([0xff; 4]);
    Bytes::from(bytes)
}

/// Member `n` of group `g`, in a version that needs no second request.
fn new_member(n: u8) -> JoinGroup {
    JoinGroup {
        group_id: "g".to_owned(),
        client: Client { id: char::from(b'a' + n).to_string(), host: "/127.0.0.1".to_owned() },
        member_id: String::new(),
        instance_id: None,
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), subscription("t"))],
        fresh_id: [n; 16],
        knows_member_id_required: false,
        knows_skip_assignment: true,
    }
}

/// The same member, once more.
fn again(n: u8, member_id: &str) -> JoinGroup {
    JoinGroup { member_id: member_id.to_owned(), ..new_member(n) }
}

/// A static member.
fn static_member(n: u8, instance_id: &str) -> JoinGroup {
    JoinGroup { instance_id: Some(instance_id.to_owned()), ..new_member(n) }
}
