//! The shard's partitions: found by key from outside, by slot from within.
//!
//! A slot is an index with a generation. What is still under way for a closed partition (commits,
//! cache order, waiters) names its slot and finds nothing, even when the index serves another one.

use std::collections::HashMap;
use std::hash::BuildHasher;

use ahash::AHasher;

use super::partition::Partition;
use crate::model::ReplicaKey;

/// Hashes with the same seeds in every process, so that a run can be repeated exactly.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedHash;

impl BuildHasher for FixedHash {
    type Hasher = AHasher;

    fn build_hasher(&self) -> AHasher {
        const SEEDED: ahash::RandomState = ahash::RandomState::with_seeds(
            0x6368_726f_6e69_6b01,
            0x6368_726f_6e69_6b02,
            0x6368_726f_6e69_6b03,
            0x6368_726f_6e69_6b04,
        );
        SEEDED.build_hasher()
    }
}

/// Names a partition within its shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot {
    index: u32,
    generation: u32,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    partition: Option<Box<Partition>>,
}

/// All partitions of a shard.
#[derive(Debug, Default)]
pub struct Partitions {
    by_key: HashMap<ReplicaKey, Slot, FixedHash>,
    places: Vec<Place>,
    free: Vec<u32>,
}

impl Partitions {
    /// Takes a partition in.
    ///
    /// # Panics
    /// When its key is here already.
    pub fn insert(&mut self, partition: Partition) -> Slot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("partitions fit memory, so 32 bits")
        });
        let key = partition.key;
        let place = &mut self.places[index as usize];
        place.partition = Some(Box::new(partition));
        let slot = Slot { index, generation: place.generation };
        let before = self.by_key.insert(key, slot);
        assert!(before.is_none(), "{key} is open already");
        slot
    }

    /// Takes a partition out.
    pub fn remove(&mut self, slot: Slot) -> Option<Box<Partition>> {
        let place = self.places.get_mut(slot.index as usize)?;
        if place.generation != slot.generation {
            return None;
        }
        let partition = place.partition.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(slot.index);
        self.by_key.remove(&partition.key);
        Some(partition)
    }

    /// Where `key` is.
    pub fn slot(&self, key: &ReplicaKey) -> Option<Slot> {
        self.by_key.get(key).copied()
    }

    /// The partition in a slot, unless it was closed.
    pub fn get(&self, slot: Slot) -> Option<&Partition> {
        let place = self.places.get(slot.index as usize)?;
        if place.generation == slot.generation { place.partition.as_deref() } else { None }
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Partition> {
        let place = self.places.get_mut(slot.index as usize)?;
        if place.generation == slot.generation { place.partition.as_deref_mut() } else { None }
    }

    /// The partition `key`.
    pub fn find(&self, key: &ReplicaKey) -> Option<&Partition> {
        self.get(self.slot(key)?)
    }

    /// The partition `key`, to change it, and where it is.
    pub fn find_mut(&mut self, key: &ReplicaKey) -> Option<(Slot, &mut Partition)> {
        let slot = self.slot(key)?;
        Some((slot, self.get_mut(slot)?))
    }

    /// Places that there are, whether somebody is in them or not.
    pub fn place_count(&self) -> usize {
        self.places.len()
    }

    /// Those in `count` places from place `first` on.
    pub fn within(&self, first: usize, count: usize) -> impl Iterator<Item = &Partition> {
        let places = self.places.iter().skip(first).take(count);
        places.filter_map(|place| place.partition.as_deref())
    }

    /// All of them, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Partition)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let slot = Slot { index: index as u32, generation: place.generation };
            Some((slot, place.partition.as_deref()?))
        })
    }

    /// All of them, in slot order, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Partition)> {
        self.places.iter_mut().enumerate().filter_map(|(index, place)| {
            let slot = Slot { index: index as u32, generation: place.generation };
            Some((slot, place.partition.as_deref_mut()?))
        })
    }

    /// Panics where keys and places disagree.
    pub fn check_invariants(&self) {
        assert_eq!(self.by_key.len(), self.iter().count(), "every partition has its key");
        for (slot, partition) in self.iter() {
            assert_eq!(self.slot(&partition.key), Some(slot), "{} is in its place", partition.key);
        }
    }
}
