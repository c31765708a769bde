//! The topics that a node has lately heard are deleted.
//!
//! A partition's directory is named after its topic, and a topic that was deleted may be created again at once. The two
//! have different ids, so they may be on different shards, whose stores open and remove directories each at a pace of
//! its own. The newer topic puts the older one's directory aside; a store that comes to open the older one only then
//! must not do the same to the newer one's, where records may be already. It asks here.
//!
//! Invariant: a deletion is noted before anybody opens a partition of the next topic of that name.
//!
//! Bounded: of more than [`REMEMBERED_MAX`] the oldest is forgotten. A store would have to be that many deletions behind
//! the metadata to need it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::TopicId;

/// How many are remembered.
const REMEMBERED_MAX: usize = 16_384;

/// See the module's head. Owner: the node; shards note, stores ask. Both happen with topics only, never with records.
#[derive(Clone, Debug, Default)]
pub struct DeletedTopics(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    topics: BTreeSet<TopicId>,
    order: VecDeque<TopicId>,
}

impl DeletedTopics {
    /// The topic is deleted by the committed metadata.
    pub fn note(&self, topic_id: TopicId) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !remembered.topics.insert(topic_id) {
            return;
        }
        remembered.order.push_back(topic_id);
        if remembered.order.len() > REMEMBERED_MAX
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.topics.remove(&oldest);
        }
    }

    /// Whether that was noted, and not too long ago.
    pub(super) fn contains(&self, topic_id: TopicId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).topics.contains(&topic_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_for_one_too_many() {
        let deleted = DeletedTopics::default();
        let topic = |number: usize| TopicId((number as u128).to_be_bytes());
        for number in (0..=REMEMBERED_MAX).flat_map(|number| [number, number]) {
            deleted.note(topic(number));
        }
        assert!(!deleted.contains(topic(0)));
        assert!(deleted.contains(topic(1)) && deleted.contains(topic(REMEMBERED_MAX)));
    }
}
