//! Fetches that wait for more to become readable.
//!
//! A wait counts bytes as high watermarks move; it is looked at only when one of its partitions does,
//! and answered once. Partitions hold the ids of their waits, this holds the rest.
//!
//! Bounded: beyond the limit a wait is answered at once, which costs the client another round trip.

use std::collections::{BTreeSet, HashMap};

use super::effect::Effect;
use super::input::{FetchWait, Token};
use super::partitions::{FixedHash, Partitions, Slot};
use crate::model::MonotonicMicros;

/// Names a wait. Valid until it is answered or cancelled, when it also leaves its partitions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WaitId(u32);

#[derive(Debug)]
struct Wait {
    token: Token,
    deadline: MonotonicMicros,
    missing_bytes: u64,
    partitions: Vec<Slot>,
}

/// The waits of a shard.
#[derive(Debug, Default)]
pub struct FetchWaits {
    places: Vec<Option<Wait>>,
    free: Vec<u32>,
    by_token: HashMap<Token, WaitId, FixedHash>,
    deadlines: BTreeSet<(MonotonicMicros, WaitId)>,
}

impl FetchWaits {
    /// Parks a wait that misses `missing_bytes`, at least one, in `slots`, each named once.
    ///
    /// # Panics
    /// When its token is parked already.
    pub fn park(
        &mut self,
        wait: &FetchWait,
        missing_bytes: u64,
        slots: Vec<Slot>,
        partitions: &mut Partitions,
    ) {
        debug_assert!(missing_bytes > 0, "nothing to wait for");
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        let id = WaitId(index);
        for slot in &slots {
            if let Some(partition) = partitions.get_mut(*slot) {
                partition.fetch_waits.push(id);
            }
        }
        self.places[index as usize] = Some(Wait {
            token: wait.token,
            deadline: wait.deadline,
            missing_bytes,
            partitions: slots,
        });
        let before = self.by_token.insert(wait.token, id);
        assert!(before.is_none(), "{:?} is parked already", wait.token);
        self.deadlines.insert((wait.deadline, id));
    }

    /// How many are parked.
    pub fn len(&self) -> usize {
        self.by_token.len()
    }

    /// `bytes` more became readable in `slot`.
    pub fn readable(
        &mut self,
        slot: Slot,
        bytes: u64,
        partitions: &mut Partitions,
        out: &mut Vec<Effect>,
    ) {
        let mut ids = take_waits(slot, partitions);
        ids.retain(|id| {
            let Some(wait) = &mut self.places[id.0 as usize] else { return false };
            wait.missing_bytes = wait.missing_bytes.saturating_sub(bytes);
            let enough = wait.missing_bytes == 0;
            if enough {
                self.answer(*id, partitions, out);
            }
            !enough
        });
        if let Some(partition) = partitions.get_mut(slot) {
            partition.fetch_waits = ids;
        }
    }

    /// Answers all who wait on `slot`: it cannot be waited for any more.
    pub fn answer_all(&mut self, slot: Slot, partitions: &mut Partitions, out: &mut Vec<Effect>) {
        for id in take_waits(slot, partitions) {
            self.answer(id, partitions, out);
        }
    }

    /// Forgets a wait; nothing happens when it is answered already.
    pub fn cancel(&mut self, token: Token, partitions: &mut Partitions) {
        if let Some(id) = self.by_token.get(&token).copied() {
            self.remove(id, partitions);
        }
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<MonotonicMicros> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Answers those whose time is up, earliest first. `MonotonicMicros(u64::MAX)` answers all.
    pub fn expire(
        &mut self,
        now: MonotonicMicros,
        partitions: &mut Partitions,
        out: &mut Vec<Effect>,
    ) {
        while let Some((deadline, id)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            self.answer(id, partitions, out);
        }
    }

    fn answer(&mut self, id: WaitId, partitions: &mut Partitions, out: &mut Vec<Effect>) {
        if let Some(wait) = self.remove(id, partitions) {
            out.push(Effect::FetchReady { token: wait.token });
        }
    }

    fn remove(&mut self, id: WaitId, partitions: &mut Partitions) -> Option<Wait> {
        let wait = self.places[id.0 as usize].take()?;
        self.free.push(id.0);
        self.by_token.remove(&wait.token);
        self.deadlines.remove(&(wait.deadline, id));
        for slot in &wait.partitions {
            if let Some(partition) = partitions.get_mut(*slot) {
                partition.fetch_waits.retain(|other| *other != id);
            }
        }
        Some(wait)
    }

    /// Panics where waits and partitions disagree.
    pub fn check_invariants(&self, partitions: &Partitions) {
        let parked = self.places.iter().flatten().count();
        assert_eq!(parked, self.by_token.len(), "every wait has its token");
        assert_eq!(parked, self.deadlines.len(), "every wait has its deadline");
        let listed: usize = partitions.iter().map(|(_, found)| found.fetch_waits.len()).sum();
        let places = self.places.iter().flatten().flat_map(|wait| &wait.partitions);
        let open = places.filter(|slot| partitions.get(**slot).is_some()).count();
        assert_eq!(listed, open, "partitions list their waits");
        assert!(
            self.places.iter().flatten().all(|wait| wait.missing_bytes > 0),
            "no one has enough"
        );
    }
}

fn take_waits(slot: Slot, partitions: &mut Partitions) -> Vec<WaitId> {
    partitions.get_mut(slot).map(|found| std::mem::take(&mut found.fetch_waits)).unwrap_or_default()
}
