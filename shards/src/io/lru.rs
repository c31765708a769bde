//! A bounded cache: the least recently used goes first. One thread, deterministic.

use std::collections::BTreeMap;

/// Holds values up to a total weight.
#[derive(Debug)]
pub struct Lru<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    by_age: BTreeMap<u64, K>,
    clock: u64,
    weight: usize,
    weight_max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: u64,
    weight: usize,
}

impl<K: Ord + Copy, V> Lru<K, V> {
    /// An empty cache for `weight_max` at most.
    pub fn new(weight_max: usize) -> Self {
        Self { entries: BTreeMap::new(), by_age: BTreeMap::new(), clock: 0, weight: 0, weight_max }
    }

    /// The value of `key`, which becomes the youngest.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        self.by_age.remove(&entry.used);
        entry.used = self.clock;
        self.by_age.insert(self.clock, *key);
        Some(&entry.value)
    }

    /// Puts a value in, and the oldest out until there is room. What is too heavy for the whole
    /// cache is not kept.
    pub fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.weight_max {
            return;
        }
        while self.weight + weight > self.weight_max {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.weight -= entry.weight;
            }
        }
        self.clock += 1;
        self.by_age.insert(self.clock, key);
        self.entries.insert(key, Entry { value, used: self.clock, weight });
        self.weight += weight;
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.by_age.remove(&entry.used);
        self.weight -= entry.weight;
        Some(entry.value)
    }

    /// Drops what `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        let gone: Vec<K> = self.entries.keys().filter(|key| !keep(key)).copied().collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_goes_first_and_use_makes_young() {
        let mut cache = Lru::new(3);
        for key in 1..=3 {
            cache.insert(key, key * 10, 1);
        }
        assert_eq!(cache.get(&1), Some(&10));
        cache.insert(4, 40, 1);
        assert_eq!(cache.get(&2), None);
        assert_eq!(cache.get(&1), Some(&10));
        assert_eq!(cache.len(), 3);
        cache.insert(5, 50, 3);
        assert_eq!(cache.get(&5), Some(&50));
        assert_eq!(cache.len(), 1);
        cache.insert(6, 60, 4);
        assert_eq!(cache.get(&6), None, "too heavy to be kept");
        cache.retain(|key| *key != 5);
        assert!(cache.is_empty());
        assert_eq!(cache.by_age.len(), 0);
    }
}
