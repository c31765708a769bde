//! The topics that a node has lately heard are deleted.
//!
//! A partition's directory is named after its topic, and a topic that was deleted may be created again at once. The two
//! have different ids, so they may be on different shards, whose stores open and remove directories each at a pace of
//! its own. The newer topic puts the older one's directory aside; a store that comes to open the older one only then
//! must not do the same to the newer one's, where records may be already. It knows from here.
//!
//! Invariant: every store is told of a deletion before any of them opens a partition of the next topic of that name.
//!
//! Bounded: of more than `REMEMBERED_MAX` the oldest is forgotten, and a store that has not looked for as many is
//! told no more. It would have to be that many deletions behind the metadata to need it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::model::TopicId;

/// How many are remembered.
const REMEMBERED_MAX: usize = 16_384;

/// Tells the stores of a node. Owner: the node; every shard has one.
#[derive(Clone, Debug)]
pub struct DeletedTopics(Vec<SyncSender<TopicId>>);

impl DeletedTopics {
    /// For so many stores, and what each of them is told by.
    #[must_use]
    pub fn new(stores: usize) -> (Self, Vec<HeardDeletions>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..stores).map(|_| sync_channel(REMEMBERED_MAX)).unzip();
        let heard = |news| HeardDeletions { news: Some(news), ..HeardDeletions::default() };
        (Self(senders), receivers.into_iter().map(heard).collect())
    }

    /// The topic is deleted by the committed metadata. Never waits.
    pub fn note(&self, topic_id: TopicId) {
        for store in &self.0 {
            // A store that has ended needs it no more, and one that is too far behind is the module's head's.
            let _ = store.try_send(topic_id);
        }
    }
}

/// What a store was told. Owner: the store.
#[derive(Debug, Default)]
pub struct HeardDeletions {
    /// `None`: nobody tells it anything.
    news: Option<Receiver<TopicId>>,
    topics: BTreeSet<TopicId>,
    order: VecDeque<TopicId>,
}

impl HeardDeletions {
    /// Takes in what is new.
    pub(super) fn listen(&mut self) {
        // Every shard tells of every deletion.
        for topic_id in self.news.iter().flat_map(Receiver::try_iter) {
            if self.topics.insert(topic_id) {
                self.order.push_back(topic_id);
            }
            if self.order.len() > REMEMBERED_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.topics.remove(&oldest);
            }
        }
    }

    /// Whether that was told before it listened last, and not too long ago.
    pub(super) fn contains(&self, topic_id: TopicId) -> bool {
        self.topics.contains(&topic_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_for_one_too_many() {
        let (deleted, mut heard) = DeletedTopics::new(2);
        let topic = |number: usize| TopicId((number as u128).to_be_bytes());
        for number in 0..=REMEMBERED_MAX {
            deleted.note(topic(number));
            deleted.note(topic(number));
            heard[1].listen();
        }
        assert!(!heard[1].contains(topic(0)));
        assert!(heard[1].contains(topic(1)) && heard[1].contains(topic(REMEMBERED_MAX)));
    }

    #[test]
    fn a_store_that_does_not_listen_keeps_nobody_waiting() {
        let (deleted, mut heard) = DeletedTopics::new(1);
        let topic = |number: usize| TopicId((number as u128).to_be_bytes());
        (0..=REMEMBERED_MAX).for_each(|number| deleted.note(topic(number)));
        heard[0].listen();
        assert!(heard[0].contains(topic(0)) && !heard[0].contains(topic(REMEMBERED_MAX)));
    }
}
