//! Requests of members on their way to the coordinator, and what it answers.

use super::*;

/// A request on its way to a node.
pub(super) struct Request {
    arrives_at: u64,
    token: Token,
    seat: usize,
    incarnation: u64,
    key: ReplicaKey,
    request: GroupRequest,
}

/// A request that a node was given.
pub(super) struct Asked {
    seat: usize,
    group: usize,
    place: usize,
    /// What it commits.
    commits: Vec<(i32, i64)>,
}

impl World {
    /// Sends a request to whom some node takes for the coordinator.
    pub(super) fn send_group_request(
        &mut self,
        group: usize,
        place: usize,
        request: GroupRequest,
    ) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        let key = self.groups().groups[group].key;
        let Some(seat) = self.leader_by_hearsay(key) else { return token };
        self.trace(|| format!("group {group} member {place} -> node {}: {request:?}", seat + 1));
        if self.loses_message() {
            return token;
        }
        let commits = match &request {
            GroupRequest::CommitOffsets(commit) => {
                commit.offsets.iter().map(|it| (it.partition.0, it.offset.0)).collect()
            }
            _ => Vec::new(),
        };
        let arrives_at = self.micros + 100 + self.rng.below(5_000);
        let incarnation = self.seats[seat].incarnation;
        // What was not taken of a connection is gone when the member gives it up.
        let groups = self.groups();
        let is_its = |asked: &Asked| asked.group == group && asked.place == place;
        let waits = |request: &Request| groups.asked.get(&request.token).is_some_and(is_its);
        let abandoned: Vec<Token> =
            groups.requests.iter().filter(|it| waits(it)).map(|it| it.token).collect();
        groups.requests.retain(|request| !abandoned.contains(&request.token));
        abandoned.iter().for_each(|token| drop(groups.asked.remove(token)));
        groups.asked.insert(token, Asked { seat, group, place, commits });
        groups.requests.push(Request { arrives_at, token, seat, incarnation, key, request });
        token
    }

    fn loses_message(&mut self) -> bool {
        let is_lost = !self.is_calm && self.rng.one_in(40);
        if is_lost {
            self.note(Event::GroupMessageLost);
        }
        is_lost
    }

    pub(super) fn deliver_requests(&mut self) -> Result<(), Breach> {
        let now = self.micros;
        let seats: Vec<(usize, u64)> = (0..NODES)
            .filter(|seat| self.runs(*seat))
            .map(|seat| (seat, self.seats[seat].incarnation))
            .collect();
        let is_due = |request: &mut Request| {
            request.arrives_at <= now && seats.contains(&(request.seat, request.incarnation))
        };
        let mut due: Vec<Request> = self.groups().requests.extract_if(.., is_due).collect();
        due.sort_by_key(|request| request.arrives_at);
        for Request { token, seat, key, request, incarnation, .. } in due {
            if !self.runs(seat) || self.seats[seat].incarnation != incarnation {
                continue;
            }
            if self.is_deposed(seat, key) {
                self.note(Event::DeposedCoordinatorAsked);
            }
            let (now, mut effects) = (self.now(seat), Vec::new());
            let has_bug = self.bug == Some(Bug::GroupAnswersEarly);
            let node = self.seats[seat].node.as_mut().expect("it runs");
            let owner = node.owner(key);
            node.act(now, owner, &mut effects, |machine, out| {
                machine.group_request(now, key, token, request, out);
                if has_bug {
                    machine.release_group_answers(&key, Offset(i64::MAX), out);
                }
            });
            self.take(seat, effects)?;
        }
        Ok(())
    }

    /// A coordinator has answered.
    pub(in crate::cluster) fn group_answered(
        &mut self,
        seat: usize,
        token: Token,
        response: GroupResponse,
    ) {
        let Some(asked) = self.groups().asked.remove(&token) else { return };
        let Asked { group, place, commits, .. } = asked;
        let key = self.groups().groups[group].key;
        match &response {
            GroupResponse::CommitOffsets(Ok(_)) => {
                self.note(Event::OffsetsCommitted);
                let checker = &mut self.groups().groups[group].checker;
                for (partition, offset) in commits {
                    checker.acknowledged(partition, offset);
                }
            }
            // Without a record nothing shows that it is deposed: members that ask it find what was, and go on from
            // there.
            GroupResponse::FetchOffsets(Ok(lines)) if self.is_deposed(seat, key) => {
                for line in lines.clone() {
                    let offset = line.committed.map_or(-1, |(offset, ..)| offset.0);
                    let checker = &mut self.groups().groups[group].checker;
                    if offset < checker.known(line.partition.0) {
                        checker.take_back(line.partition.0, offset);
                        self.note(Event::StaleOffsetsFetched);
                    }
                }
            }
            GroupResponse::Sync(Ok(_)) | GroupResponse::ConsumerHeartbeat(Ok(_)) => {
                self.note(Event::MemberAssigned);
            }
            _ => {}
        }
        let life = self.groups().groups[group].checker.answered(&response);
        if !self.loses_message() {
            let arrives_at = self.micros + 100 + self.rng.below(5_000);
            self.groups().answers.push(Answer { arrives_at, group, place, token, life, response });
        }
    }

    /// Whoever waited for a node that is gone will never know.
    pub(in crate::cluster) fn forget_groups(&mut self, seat: usize) {
        let Some(groups) = &mut self.groups else { return };
        groups.asked.retain(|_, asked| asked.seat != seat);
        groups.requests.retain(|request| request.seat != seat);
        groups.loads.retain(|load| load.seat != seat);
    }
}
