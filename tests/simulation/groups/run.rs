//! One run: members, coordinators, a network and faults, from one seed.

use std::collections::{BTreeMap, BTreeSet};

use chronik_shards::machine::group::{GroupRequest, GroupResponse, Reply, Ticket};

use super::checker::Checker;
use super::coordinators::{Coordinators, Faults, PARTITIONS};
use super::members::{Kind, Member};
use super::terms::Terms;
use crate::rng::Rng;

/// How long faults last.
const FAULTS_US: u64 = 40_000_000;
/// How long a group may take to be well afterwards: a ghost's time to join, a session, a rebalance.
const HEALING_US: u64 = 50_000_000;

/// Something that is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    None,
    /// An answer leaves before what it tells of is committed.
    AnswersEarly,
    /// A coordinator that loads passes over what members have.
    ForgetsAssignments,
    /// Appends are not fenced.
    DeposedAppends,
}

/// What a run has seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    Crash,
    Farewell,
    Pause,
    Failover,
    LostRecords,
    LostMessage,
    AskedDeposed,
    Assignment,
    Commit,
}

impl Event {
    pub const ALL: [Self; 9] = [
        Self::Crash,
        Self::Farewell,
        Self::Pause,
        Self::Failover,
        Self::LostRecords,
        Self::LostMessage,
        Self::AskedDeposed,
        Self::Assignment,
        Self::Commit,
    ];
}

/// What a member does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The next request.
    Next,
    /// The next request, after a while.
    Rest,
    /// It looks for the coordinator.
    FindCoordinator,
    /// It cannot go on.
    Die,
}

pub struct Outcome {
    pub events: BTreeMap<Event, u64>,
    pub trace: u64,
}

/// A place for one member after the other.
struct Slot {
    member: Option<Member>,
    is_static: bool,
    /// Counts what it was scheduled for: what is older is void.
    turn: u64,
    waits_for: Option<Ticket>,
    paused_until: u64,
    asks_deposed: bool,
}

enum Happening {
    /// A member acts, unless it has acted since.
    Turn {
        slot: usize,
        turn: u64,
    },
    Request {
        ticket: Ticket,
        to_deposed: bool,
        request: GroupRequest,
    },
    Answer {
        slot: usize,
        ticket: Ticket,
        life: u64,
        response: GroupResponse,
    },
    Start {
        slot: usize,
    },
    Commit {
        to: usize,
    },
    Loaded,
    Resign,
    Trouble,
}

pub struct Run {
    rng: Rng,
    now: u64,
    kind: Kind,
    terms: Terms,
    happenings: BTreeMap<(u64, u64), Happening>,
    next_happening: u64,
    coordinators: Coordinators,
    slots: Vec<Slot>,
    next_ticket: u64,
    asked: BTreeMap<Ticket, usize>,
    /// What each request to commit is about.
    commits: BTreeMap<Ticket, Vec<(i32, i64)>>,
    checker: Checker,
    events: BTreeMap<Event, u64>,
    trace: u64,
}

impl Run {
    pub fn new(seed: u64, bug: Bug) -> Self {
        let faults = Faults {
            answers_early: bug == Bug::AnswersEarly,
            forgets_assignments: bug == Bug::ForgetsAssignments,
            deposed_appends: bug == Bug::DeposedAppends,
        };
        let mut run = Self {
            rng: Rng::new(seed),
            now: 0,
            kind: Kind::ALL[(seed % 3) as usize],
            terms: Terms::default(),
            happenings: BTreeMap::new(),
            next_happening: 0,
            coordinators: Coordinators::new(faults),
            slots: Vec::new(),
            next_ticket: 0,
            asked: BTreeMap::new(),
            commits: BTreeMap::new(),
            checker: Checker::new(Kind::ALL[(seed % 3) as usize]),
            events: BTreeMap::new(),
            trace: 0,
        };
        for slot in 0..3 + run.rng.place(3) {
            let is_static = run.rng.one_in(3);
            run.slots.push(Slot {
                member: None,
                is_static,
                turn: 0,
                waits_for: None,
                paused_until: 0,
                asks_deposed: false,
            });
            let at = run.rng.below(4_000_000);
            run.at(at, Happening::Start { slot });
        }
        run.at(0, Happening::Loaded);
        run.at(1_000_000, Happening::Trouble);
        run
    }

    pub fn finish(mut self) -> Outcome {
        let end = FAULTS_US + HEALING_US;
        loop {
            let next = self.happenings.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
            let due = self.coordinators.next_deadline().unwrap_or(u64::MAX);
            if next.min(due) > end {
                break;
            }
            if due <= next {
                self.now = self.now.max(due);
                let replies = self.coordinators.tick(self.now);
                self.send_answers(replies);
            } else if let Some(((at, _), happening)) = self.happenings.pop_first() {
                self.now = self.now.max(at);
                self.happen(happening);
            }
            self.commit_later();
        }
        self.check_the_end();
        self.events.insert(Event::Assignment, self.checker.assignments);
        self.events.insert(Event::Commit, self.checker.commits);
        self.events.retain(|_, count| *count > 0);
        Outcome { events: self.events, trace: self.trace }
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.happenings.insert((at, self.next_happening), happening);
        self.next_happening += 1;
    }

    fn seen(&mut self, event: Event) {
        *self.events.entry(event).or_default() += 1;
    }

    fn is_healing(&self) -> bool {
        self.now >= FAULTS_US
    }

    fn happen(&mut self, happening: Happening) {
        self.trace = (self.trace.rotate_left(5) ^ self.now).wrapping_mul(0x517c_c1b7_2722_0a95);
        match happening {
            Happening::Turn { slot, turn } => {
                if self.slots[slot].turn == turn {
                    self.take_turn(slot);
                }
            }
            Happening::Request { ticket, to_deposed, request } => {
                let to_deposed = to_deposed && self.coordinators.deposed.is_some();
                if to_deposed {
                    self.seen(Event::AskedDeposed);
                }
                if let GroupRequest::CommitOffsets(commit) = &request {
                    let offsets = commit.offsets.iter().map(|it| (it.partition.0, it.offset.0));
                    self.commits.insert(ticket, offsets.collect());
                }
                let replies = self.coordinators.handle(self.now, to_deposed, ticket, request);
                self.send_answers(replies);
            }
            Happening::Answer { slot, ticket, life, response } => {
                let paused_until = self.slots[slot].paused_until;
                if paused_until > self.now {
                    self.at(paused_until, Happening::Answer { slot, ticket, life, response });
                } else if self.slots[slot].waits_for == Some(ticket) {
                    self.checker.hears(life);
                    self.answer(slot, response);
                }
            }
            Happening::Start { slot } => self.start(slot),
            Happening::Commit { to } => {
                let replies = self.coordinators.commit(to);
                self.send_answers(replies);
            }
            Happening::Loaded => {
                let replies = self.coordinators.loaded(self.now);
                self.send_answers(replies);
            }
            Happening::Resign => {
                let replies = self.coordinators.resign(self.now);
                self.send_answers(replies);
            }
            Happening::Trouble => {
                if !self.is_healing() {
                    let next = self.now + 200_000 + self.rng.below(4_000_000);
                    self.at(next, Happening::Trouble);
                    self.trouble();
                }
            }
        }
    }

    fn start(&mut self, slot: usize) {
        let is_static = self.slots[slot].is_static;
        let member = Member::new(self.kind, slot as u8, is_static, &mut self.rng);
        self.slots[slot].member = Some(member);
        self.next_turn(slot, 0);
    }

    /// The member acts after `delay_us`, whatever else it was to do.
    fn next_turn(&mut self, slot: usize, delay_us: u64) {
        self.slots[slot].turn += 1;
        let turn = self.slots[slot].turn;
        let at = (self.now + delay_us).max(self.slots[slot].paused_until);
        self.at(at, Happening::Turn { slot, turn });
    }

    fn take_turn(&mut self, slot: usize) {
        let place = &mut self.slots[slot];
        if place.paused_until > self.now {
            return self.next_turn(slot, 0);
        }
        let Some(member) = &mut place.member else { return };
        if place.waits_for.take().is_some() {
            let step = member.timed_out();
            return self.step(slot, step);
        }
        let (request, wait_us) = member.request(&self.terms, &mut self.rng, &self.checker);
        let ticket = self.send(slot, request);
        self.slots[slot].waits_for = Some(ticket);
        self.next_turn(slot, wait_us);
    }

    fn send(&mut self, slot: usize, request: GroupRequest) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.asked.insert(ticket, slot);
        let to_deposed = self.slots[slot].asks_deposed;
        if !self.is_lost() {
            let at = self.now + 100 + self.rng.below(40_000);
            self.at(at, Happening::Request { ticket, to_deposed, request });
        }
        ticket
    }

    fn is_lost(&mut self) -> bool {
        let is_lost = !self.is_healing() && self.rng.one_in(40);
        if is_lost {
            self.seen(Event::LostMessage);
        }
        is_lost
    }

    fn send_answers(&mut self, replies: Vec<Reply>) {
        for reply in replies {
            // A request has one answer.
            let slot = self.asked.remove(&reply.ticket).expect("asked, and not answered before");
            let committed = self.commits.remove(&reply.ticket).unwrap_or_default();
            if let GroupResponse::CommitOffsets(Ok(_)) = reply.response {
                for (partition, offset) in committed {
                    self.checker.committed(partition, offset);
                }
            }
            let life = self.checker.answered(&reply.response);
            if !self.is_lost() {
                let at = self.now + 100 + self.rng.below(40_000);
                let (ticket, response) = (reply.ticket, reply.response);
                self.at(at, Happening::Answer { slot, ticket, life, response });
            }
        }
    }

    fn answer(&mut self, slot: usize, response: GroupResponse) {
        let place = &mut self.slots[slot];
        place.waits_for = None;
        let Some(member) = &mut place.member else { return };
        let step = member.answer(response, &mut self.checker);
        self.step(slot, step);
    }

    fn step(&mut self, slot: usize, step: Step) {
        match step {
            Step::Next => {
                let delay_us = self.rng.below(20_000);
                self.next_turn(slot, delay_us);
            }
            Step::Rest => {
                let delay_us = 100_000 + self.rng.below(600_000);
                self.next_turn(slot, delay_us);
            }
            Step::FindCoordinator => {
                // Somebody may still name the one that was.
                self.slots[slot].asks_deposed = !self.is_healing() && self.rng.one_in(4);
                let delay_us = 100_000 + self.rng.below(200_000);
                self.next_turn(slot, delay_us);
            }
            Step::Die => self.crash(slot),
        }
    }

    fn crash(&mut self, slot: usize) {
        let place = &mut self.slots[slot];
        place.member = None;
        place.waits_for = None;
        place.turn += 1;
        place.paused_until = 0;
        let at = self.now + 100_000 + self.rng.below(8_000_000);
        self.at(at, Happening::Start { slot });
    }

    fn trouble(&mut self) {
        let slot = self.rng.place(self.slots.len());
        match self.rng.below(5) {
            0 if self.slots[slot].member.is_some() => {
                self.seen(Event::Crash);
                let member = self.slots[slot].member.as_ref();
                let farewell = member.and_then(|member| member.farewell(&self.terms));
                if let Some(request) = farewell.filter(|_| self.rng.one_in(2)) {
                    self.seen(Event::Farewell);
                    self.send(slot, request);
                }
                self.crash(slot);
            }
            1 | 2 => {
                self.seen(Event::Pause);
                self.slots[slot].paused_until = self.now + 500_000 + self.rng.below(12_000_000);
            }
            _ => {
                self.seen(Event::Failover);
                let uncommitted = self.coordinators.uncommitted();
                let kept = self.rng.below(uncommitted as u64 + 1) as usize;
                if kept < uncommitted {
                    self.seen(Event::LostRecords);
                }
                self.coordinators.elect(self.now, kept);
                let loaded = self.now + 1_000 + self.rng.below(600_000);
                self.at(loaded, Happening::Loaded);
                let resigned = self.now + self.rng.below(3_000_000);
                self.at(resigned, Happening::Resign);
                // Half of the members still know the old one.
                for slot in &mut self.slots {
                    slot.asks_deposed = self.rng.one_in(2);
                }
            }
        }
    }

    fn commit_later(&mut self) {
        let end = self.coordinators.end();
        let is_due =
            |happening: &Happening| matches!(happening, Happening::Commit { to } if *to == end);
        if self.coordinators.uncommitted() > 0 && !self.happenings.values().any(is_due) {
            let at = self.now + 200 + self.rng.below(60_000);
            self.at(at, Happening::Commit { to: end });
        }
    }

    /// The group is well: every member is in one generation, and every partition is with one of them.
    fn check_the_end(&mut self) {
        let mut generations = BTreeSet::new();
        let mut places = Vec::new();
        for (slot, place) in self.slots.iter().enumerate() {
            let member = place.member.as_ref().expect("everybody is back");
            assert!(member.is_settled(), "member {slot} is not settled");
            generations.insert(member.generation());
            places.extend(member.parts());
        }
        assert_eq!(generations.len(), 1, "members are in generations {generations:?}");
        places.sort_unstable();
        assert_eq!(places, (0..PARTITIONS).collect::<Vec<_>>(), "every partition is with one");
        self.coordinators.check_the_end(self.now);
    }
}
