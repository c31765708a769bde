//! What is due when.
//!
//! A heartbeat only notes the later time; the queue learns of it when the earlier one comes. So a session
//! costs the queue one change a session time-out, however often its member is heard.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::MonotonicMicros;

/// What can become due. One of each at a time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// A member was silent for its session time-out.
    Session { group_id: String, member_id: String },
    /// The join phase of a classic group ends.
    Join { group_id: String },
    /// Members of a classic group that did not ask for their part are given up.
    Sync { group_id: String },
    /// A member of a consumer group has to have given up what it was told to.
    Revocation { group_id: String, member_id: String },
    /// A classic member of a consumer group has to have joined again.
    MemberJoin { group_id: String, member_id: String },
    /// A classic member of a consumer group has to have asked for its part.
    MemberSync { group_id: String, member_id: String },
    /// Offsets are looked through for such as have expired.
    Expiry,
}

/// Deadlines by what they are for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Timers {
    /// When each is due.
    due: BTreeMap<Timer, MonotonicMicros>,
    /// When to look at each: never later than it is due.
    queue: BTreeSet<(MonotonicMicros, Timer)>,
    /// Where each is in the queue.
    queued: BTreeMap<Timer, MonotonicMicros>,
}

impl Timers {
    /// Makes `timer` due at `at`, whatever it was before.
    pub(super) fn arm(&mut self, timer: Timer, at: MonotonicMicros) {
        match self.queued.get(&timer) {
            Some(queued) if *queued <= at => {}
            queued => {
                if let Some(queued) = queued {
                    self.queue.remove(&(*queued, timer.clone()));
                }
                self.queue.insert((at, timer.clone()));
                self.queued.insert(timer.clone(), at);
            }
        }
        self.due.insert(timer, at);
    }

    /// Forgets `timer`.
    pub(super) fn disarm(&mut self, timer: &Timer) {
        self.due.remove(timer);
        if let Some(queued) = self.queued.remove(timer) {
            self.queue.remove(&(queued, timer.clone()));
        }
    }

    /// When to look again; something may be due then.
    pub(super) fn next(&self) -> Option<MonotonicMicros> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the first of what is due at `now`.
    pub(super) fn pop(&mut self, now: MonotonicMicros) -> Option<Timer> {
        while self.next().is_some_and(|at| at <= now) {
            let (_, timer) = self.queue.pop_first()?;
            self.queued.remove(&timer);
            match self.due.get(&timer) {
                Some(due) if *due <= now => {
                    self.due.remove(&timer);
                    return Some(timer);
                }
                Some(later) => {
                    self.queued.insert(timer.clone(), *later);
                    self.queue.insert((*later, timer));
                }
                None => {}
            }
        }
        None
    }

    /// Whether `timer` is armed.
    pub(super) fn is_armed(&self, timer: &Timer) -> bool {
        self.due.contains_key(timer)
    }

    /// Scans the whole state.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.due.len(), self.queue.len(), "each timer is queued once");
        for (at, timer) in &self.queue {
            assert_eq!(self.queued.get(timer), Some(at), "{timer:?} is where it is said to be");
            assert!(self.due.get(timer).is_some_and(|due| due >= at), "{timer:?} is not late");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(member: &str) -> Timer {
        Timer::Session { group_id: "g".to_owned(), member_id: member.to_owned() }
    }

    #[test]
    fn a_timer_that_is_moved_is_due_at_its_last_time_only() {
        let mut timers = Timers::default();
        timers.arm(session("a"), MonotonicMicros(10));
        timers.arm(session("a"), MonotonicMicros(30));
        timers.arm(session("b"), MonotonicMicros(20));
        timers.arm(session("b"), MonotonicMicros(5));
        timers.check_invariants();
        assert_eq!(timers.next(), Some(MonotonicMicros(5)));
        assert_eq!(timers.pop(MonotonicMicros(29)), Some(session("b")));
        assert_eq!(timers.pop(MonotonicMicros(29)), None);
        assert_eq!(timers.next(), Some(MonotonicMicros(30)));
        assert_eq!(timers.pop(MonotonicMicros(30)), Some(session("a")));
        assert_eq!(timers, Timers::default());
    }

    #[test]
    fn a_timer_that_is_disarmed_is_never_due() {
        let mut timers = Timers::default();
        timers.arm(session("a"), MonotonicMicros(10));
        timers.disarm(&session("a"));
        timers.disarm(&session("b"));
        assert!(!timers.is_armed(&session("a")));
        assert_eq!(timers.pop(MonotonicMicros(99)), None);
        assert_eq!(timers, Timers::default());
    }
}
