//! The newest offset of every key, in a table that does not grow.
//!
//! Keys are known by a hash of 128 bits; a seed that nobody outside knows keeps others from preparing two that agree.
//! When the table is full it takes no more: the log is compacted up to where it came, and the next time from there on.

use twox_hash::XxHash3_128;

use crate::model::{Offset, TimestampMs};

/// Two halves of a hash, and the offset plus one; all zero is a free slot.
type Slot = [u64; 3];

/// What a key takes.
pub const SLOT_BYTES: usize = size_of::<Slot>();

/// The least that a table of any use takes.
pub const MAP_BYTES_MIN: usize = 16 * SLOT_BYTES;

/// Keys and their newest offsets.
#[derive(Debug)]
pub struct OffsetMap {
    slots: Vec<Slot>,
    seed: u64,
    count: usize,
    reached: Offset,
}

impl OffsetMap {
    /// A table for records from `begin` on, at most `records_max` of them, in no more than `bytes_max`.
    ///
    /// # Panics
    /// With less than [`MAP_BYTES_MIN`].
    #[must_use]
    pub fn new(begin: Offset, records_max: u64, bytes_max: usize, seed: u64) -> Self {
        assert!(bytes_max >= MAP_BYTES_MIN, "a map of {bytes_max} bytes holds nothing");
        // A tenth stays free, so that looking for a key that is not there ends soon.
        let wanted = records_max.saturating_mul(10) / 9 + 2;
        let slots = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes_max / SLOT_BYTES);
        Self { slots: vec![Slot::default(); slots], seed, count: 0, reached: begin }
    }

    /// Notes a record. `false`: the table is full, and the record's offset is where the next compaction begins.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let (hash, place) = self.find(key);
        if self.slots[place][2] == 0 {
            let slots = self.slots.len();
            if self.count >= (slots * 9).div_ceil(10).min(slots - 1) {
                return false;
            }
            self.count += 1;
        }
        self.slots[place] = [hash[0], hash[1], offset.0 as u64 + 1];
        self.reached = offset.plus(1);
        true
    }

    /// Records below `offset` were all looked at.
    pub fn pass_to(&mut self, offset: Offset) {
        self.reached = self.reached.max(offset);
    }

    /// Records from here on were not looked at.
    #[must_use]
    pub fn reached(&self) -> Offset {
        self.reached
    }

    /// Keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The newest offset noted of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots[self.find(key).1];
        (slot[2] != 0).then(|| Offset((slot[2] - 1) as i64))
    }

    /// Whether a record stays: no newer one of its key is known, and it has a value or is a tombstone that may not go
    /// yet. `delete_horizon` is its batch's.
    #[must_use]
    pub fn keeps(
        &self,
        offset: Offset,
        key: Option<&[u8]>,
        has_value: bool,
        delete_horizon: Option<TimestampMs>,
        now: TimestampMs,
    ) -> bool {
        if offset >= self.reached {
            return true;
        }
        // It can be told from no other, and was written before the topic was compacted.
        let Some(key) = key else { return false };
        let is_newest = self.get(key).is_none_or(|newest| offset >= newest);
        is_newest && (has_value || delete_horizon.is_none_or(|horizon| now < horizon))
    }

    /// A key's hash, and its slot or the one that it would have.
    fn find(&self, key: &[u8]) -> ([u64; 2], usize) {
        let hash = XxHash3_128::oneshot_with_seed(self.seed, key);
        let hash = [(hash >> 64) as u64, hash as u64];
        let slots = self.slots.len();
        let mut place = ((u128::from(hash[0]) * slots as u128) >> 64) as usize;
        loop {
            let slot = &self.slots[place];
            if slot[2] == 0 || slot[..2] == hash {
                return (hash, place);
            }
            place = if place + 1 == slots { 0 } else { place + 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const NOW: TimestampMs = TimestampMs(1000);

    fn map(records_max: u64, bytes_max: usize) -> OffsetMap {
        OffsetMap::new(Offset(0), records_max, bytes_max, 7)
    }

    #[test]
    fn the_newest_of_a_key_stays_and_a_tombstone_until_its_horizon() {
        let mut map = map(10, 1 << 20);
        assert!(map.put(b"a", Offset(0)));
        assert!(map.put(b"b", Offset(1)));
        assert!(map.put(b"a", Offset(2)));
        let keeps = |offset, key, has_value, horizon: Option<i64>| {
            map.keeps(Offset(offset), key, has_value, horizon.map(TimestampMs), NOW)
        };
        let (a, b) = (Some(&b"a"[..]), Some(&b"b"[..]));
        assert!(!keeps(0, a, true, None));
        assert!(keeps(2, a, true, Some(1)), "a value has no horizon");
        assert!(keeps(1, b, false, None));
        assert!(keeps(1, b, false, Some(1001)));
        assert!(!keeps(1, b, false, Some(1000)));
        assert!(!keeps(0, None, true, None), "without a key there is no newest");
        assert!(keeps(3, None, true, None), "not looked at");
        assert!(keeps(0, Some(b"c"), true, None), "of a key that the dirty part has not");
    }

    #[test]
    fn a_full_map_takes_known_keys_and_says_how_far_it_came() {
        let mut map = map(u64::MAX, MAP_BYTES_MIN);
        let full = (0..).find(|offset| !map.put(&[*offset as u8], Offset(*offset))).unwrap();
        assert_eq!(map.len() as i64, full);
        assert!((14..16).contains(&full), "{full} of 16");
        assert_eq!(map.reached(), Offset(full));
        assert!(map.put(&[0], Offset(full)));
        assert_eq!(map.reached(), Offset(full + 1));
        assert!(!map.put(b"other", Offset(full + 1)));
    }

    #[test]
    fn a_map_for_few_records_is_small_and_takes_them_all() {
        for records in 0..50u64 {
            let mut map = map(records, 1 << 30);
            assert!(map.slots.len() as u64 <= records + records / 9 + 3);
            for offset in 0..records {
                assert!(map.put(&offset.to_be_bytes(), Offset(offset as i64)), "{records}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map_that_keeps_the_keys(
            keys in vec(0u8..30, 0..200),
            slots in 16usize..60,
            seed in any::<u64>(),
        ) {
            let mut map = OffsetMap::new(Offset(0), u64::MAX, slots * SLOT_BYTES, seed);
            let mut model = BTreeMap::new();
            let mut reached = Offset(0);
            for (offset, key) in (0..).zip(&keys) {
                if !map.put(&[*key], Offset(offset)) {
                    break;
                }
                model.insert(*key, Offset(offset));
                reached = Offset(offset + 1);
            }
            prop_assert_eq!(map.reached(), reached);
            prop_assert_eq!(map.len(), model.len());
            for key in 0..30 {
                prop_assert_eq!(map.get(&[key]), model.get(&key).copied());
            }
        }
    }
}
