//! Groups in a cluster: members ask whom they believe to coordinate, coordinators come and go with the leaders of
//! their partitions.
//!
//! Members are those of the simulation of groups alone, in a hurry: a run lasts some seconds. Their requests and
//! answers get lost, wait for frozen nodes, are repeated. They crash, and pause past their sessions.

mod checks;
mod loading;
mod requests;

use chronik_shards::format::metadata_command::{CreateTopic, MetadataCommand};
use chronik_shards::machine::coordinators::GROUPS_TOPIC;
use chronik_shards::machine::group::{GroupRequest, GroupResponse, GroupSettings, TopicFacts};
use chronik_shards::machine::shard::ShardMachine;
use chronik_shards::model::TopicId;

use self::loading::Load;
use self::requests::{Asked, Request};
use super::*;
use crate::groups::checker::Checker;
use crate::groups::coordinators::{PARTITIONS, TOPIC, TOPIC_ID as READ_TOPIC_ID};
use crate::groups::members::{Kind, Member};
use crate::groups::run::Step;
use crate::groups::terms::Terms;

/// The topic of the groups.
pub const TOPIC_ID: TopicId = TopicId([0xff; 16]);
const COORDINATED: usize = 2;
const GROUPS: usize = 3;
/// How long a group may take to be well after the last fault, while all else gets well, too.
const HEALING_US: u64 = 15_000_000;

/// Whether a partition is one that groups are in.
pub fn is_of_groups(key: ReplicaKey) -> bool {
    key.topic_id == TOPIC_ID
}

pub(super) fn settings() -> GroupSettings {
    GroupSettings {
        session_timeout_min_ms: 100,
        initial_rebalance_delay_ms: 60,
        consumer_session_timeout_ms: 700,
        consumer_heartbeat_interval_ms: 60,
        new_member_join_timeout_ms: 1_500,
        commit_timeout_ms: 500,
        group_record_bytes_max: 8_000,
        ..GroupSettings::default()
    }
}

fn terms(group: usize) -> Terms {
    Terms {
        group_id: format!("group-{group}"),
        session_ms: 700,
        rebalance_ms: 800,
        wait_us: 250_000,
        wait_join_us: 1_200_000,
        commits: true,
    }
}

/// Has a machine coordinate groups, and tells it of the topic that they read.
pub fn coordinate(machine: &mut ShardMachine, now: Now) {
    machine.coordinate_groups(settings());
    let facts = TopicFacts { topic_id: READ_TOPIC_ID, partitions: PARTITIONS };
    let mut effects = Vec::new();
    machine.group_topic_changed(now, 1, TOPIC, Some(facts), &mut effects);
    assert!(effects.is_empty(), "nothing is coordinated yet");
}

/// A place for one member after the other.
struct Place {
    member: Option<Member>,
    is_static: bool,
    /// When it does something by itself.
    acts_at: u64,
    waits_for: Option<Token>,
    /// What it asked last; `None` when that is not repeated.
    repeatable: Option<(GroupRequest, u64)>,
    paused_until: u64,
}

/// A group and its members.
struct Group {
    key: ReplicaKey,
    kind: Kind,
    terms: Terms,
    checker: Checker,
    places: Vec<Place>,
}

/// An answer on its way to a member.
struct Answer {
    arrives_at: u64,
    group: usize,
    place: usize,
    token: Token,
    life: u64,
    response: GroupResponse,
}

/// All groups, and what is on its way.
#[derive(Default)]
pub struct Groups {
    groups: Vec<Group>,
    requests: Vec<Request>,
    answers: Vec<Answer>,
    asked: BTreeMap<Token, Asked>,
    loads: Vec<Load>,
    /// Since when there are no faults.
    calm_since: Option<u64>,
}

impl World {
    /// There will be groups: nodes start accordingly, and less goes wrong at a time.
    pub(super) fn plan_groups(&mut self) {
        self.faults = [3, 8][self.rng.place(2)];
        self.groups = Some(Groups::default());
    }

    /// Creates the topic of the groups, and their members.
    pub(super) fn found_groups(&mut self) {
        let assigned = self.controller.image().assign(0, COORDINATED, admin::REPLICAS);
        let partitions = assigned.expect("all nodes are there");
        let configs = vec![
            admin::entry("cleanup.policy", "compact"),
            admin::entry("min.insync.replicas", 2),
            admin::entry("segment.bytes", 3000 + self.rng.below(12_000)),
            admin::entry("min.cleanable.dirty.ratio", 0.2),
        ];
        let name = GROUPS_TOPIC.to_owned();
        let create = CreateTopic { name, topic_id: TOPIC_ID, partitions, configs };
        self.controller.apply(MetadataCommand::CreateTopic(create)).expect("it is the first");
        let keys: Vec<ReplicaKey> =
            self.all_keys().into_iter().filter(|key| is_of_groups(*key)).collect();
        let first_kind = self.rng.place(3);
        for group in 0..GROUPS {
            let mut places = Vec::new();
            for _ in 0..2 + self.rng.place(3) {
                places.push(Place {
                    member: None,
                    is_static: self.rng.one_in(3),
                    acts_at: self.micros + self.rng.below(800_000),
                    waits_for: None,
                    repeatable: None,
                    paused_until: 0,
                });
            }
            let kind = Kind::ALL[(group + first_kind) % 3];
            let key = keys[group % COORDINATED];
            let terms = terms(group);
            let checker = Checker::new(kind);
            let group = Group { key, kind, terms, checker, places };
            self.groups.as_mut().expect("there are groups").groups.push(group);
        }
    }

    /// Whatever has become due.
    pub(super) fn groups_step(&mut self) -> Result<(), Breach> {
        if self.groups.is_none() {
            return Ok(());
        }
        // What members do takes several writes each, one after the other: nodes are faster than in the runs without them.
        for _ in 0..3 {
            self.perform_one()?;
            self.deliver_one()?;
            self.load_one()?;
        }
        if self.rng.one_in(4) {
            self.controller_step()?;
        }
        self.deliver_requests()?;
        self.deliver_answers();
        self.members_act();
        if !self.is_calm && self.rng.one_in(250) {
            self.trouble_groups();
        }
        if self.rng.one_in(200) {
            self.check_coordinators()?;
        }
        Ok(())
    }

    fn groups(&mut self) -> &mut Groups {
        self.groups.as_mut().expect("there are groups")
    }

    fn place(&mut self, group: usize, place: usize) -> &mut Place {
        &mut self.groups().groups[group].places[place]
    }

    fn places(&self) -> Vec<(usize, usize)> {
        let groups = self.groups.iter().flat_map(|groups| groups.groups.iter().enumerate());
        groups.flat_map(|(at, group)| (0..group.places.len()).map(move |it| (at, it))).collect()
    }

    fn members_act(&mut self) {
        let now = self.micros;
        for (group, place) in self.places() {
            let found = self.place(group, place);
            if found.acts_at <= now && found.paused_until <= now {
                self.member_acts(group, place);
            }
        }
    }

    fn member_acts(&mut self, group: usize, place: usize) {
        let groups = self.groups.as_mut().expect("there are groups");
        let Group { kind, terms, checker, places, .. } = &mut groups.groups[group];
        let found = &mut places[place];
        let Some(member) = &mut found.member else {
            let number = place as u8;
            let member = Member::new(*kind, number, found.is_static, &mut self.rng);
            found.member = Some(member);
            return;
        };
        let repeated = found.repeatable.take();
        if found.waits_for.take().is_some() {
            if let Some((mut request, wait_us)) = repeated.filter(|_| self.rng.one_in(2)) {
                self.note(Event::GroupRequestRepeated);
                // The bytes are the same; what the node adds to each request is not.
                if let GroupRequest::Join(join) = &mut request {
                    join.fresh_id[..8].copy_from_slice(&self.rng.next().to_be_bytes());
                }
                return self.ask(group, place, request, wait_us);
            }
            let step = member.timed_out();
            return self.go_on(group, place, step);
        }
        let (request, wait_us) = member.request(terms, &mut self.rng, checker);
        // A heartbeat tells what is new since the last one: after silence it is another one.
        if !matches!(request, GroupRequest::ConsumerHeartbeat(_)) {
            found.repeatable = Some((request.clone(), wait_us));
        }
        self.ask(group, place, request, wait_us);
    }

    fn ask(&mut self, group: usize, place: usize, request: GroupRequest, wait_us: u64) {
        let token = self.send_group_request(group, place, request);
        let acts_at = self.micros + wait_us;
        let found = self.place(group, place);
        found.waits_for = Some(token);
        found.acts_at = acts_at;
    }

    fn go_on(&mut self, group: usize, place: usize, step: Step) {
        let delay_us = match step {
            Step::Next => self.rng.below(3_000),
            Step::Rest => 20_000 + self.rng.below(100_000),
            Step::FindCoordinator => 10_000 + self.rng.below(60_000),
            Step::Die => return self.crash_member(group, place),
        };
        let acts_at = self.micros + delay_us;
        self.place(group, place).acts_at = acts_at;
    }

    fn deliver_answers(&mut self) {
        let now = self.micros;
        let mut due: Vec<Answer> =
            self.groups().answers.extract_if(.., |answer| answer.arrives_at <= now).collect();
        due.sort_by_key(|answer| answer.arrives_at);
        for answer in due {
            let Answer { group, place, token, life, .. } = answer;
            let paused_until = self.place(group, place).paused_until;
            if paused_until > now {
                self.groups().answers.push(Answer { arrives_at: paused_until, ..answer });
            } else if self.place(group, place).waits_for == Some(token) {
                let response = answer.response;
                self.trace(|| format!("group {group} member {place} <- {response:?}"));
                let found = &mut self.groups().groups[group];
                found.places[place].waits_for = None;
                let Some(member) = &mut found.places[place].member else { continue };
                found.checker.hears(life);
                let step = member.answer(response, &mut found.checker);
                self.go_on(group, place, step);
            }
        }
    }

    fn crash_member(&mut self, group: usize, place: usize) {
        let back_at = self.micros + 20_000 + self.rng.below(900_000);
        let found = self.place(group, place);
        found.member = None;
        found.waits_for = None;
        found.repeatable = None;
        found.paused_until = 0;
        found.acts_at = back_at;
    }

    /// Something happens to a member, or to a coordinator alone.
    fn trouble_groups(&mut self) {
        let places = self.places();
        let (group, place) = places[self.rng.place(places.len())];
        match self.rng.below(6) {
            0 | 1 => {
                let groups = self.groups.as_ref().expect("there are groups");
                let found = &groups.groups[group];
                let Some(member) = &found.places[place].member else { return };
                let farewell = member.farewell(&found.terms);
                self.trace(|| format!("group {group} member {place} crashes"));
                self.note(Event::MemberCrashed);
                if let Some(request) = farewell.filter(|_| self.rng.one_in(2)) {
                    self.note(Event::MemberLeft);
                    self.send_group_request(group, place, request);
                }
                self.crash_member(group, place);
            }
            2 | 3 => {
                let until = self.micros + 50_000 + self.rng.below(1_500_000);
                self.trace(|| format!("group {group} member {place} pauses"));
                self.place(group, place).paused_until = until;
                self.note(Event::MemberPaused);
            }
            _ => {
                let key = self.groups().groups[group].key;
                self.move_leader_of(key);
            }
        }
    }

    /// From now on nothing happens to members or messages.
    pub(super) fn calm_groups(&mut self) {
        let now = self.micros;
        let Some(groups) = &mut self.groups else { return };
        groups.calm_since = Some(now);
        for group in &mut groups.groups {
            group.terms.commits = false;
            for place in &mut group.places {
                place.paused_until = 0;
            }
        }
    }
}
