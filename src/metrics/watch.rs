//! What a shard's thread does for a scrape: it looks at itself, a bounded step at a time, with a rest after each.
//!
//! A step takes some tens of microseconds, whatever there is to look at: `STEP` partitions, groups or offsets (and
//! the offsets that a group has in one topic, or the partitions of one topic, are not torn apart). So a hundred
//! thousand partitions on a shard are looked at in a hundred steps, in a tenth of a second of which the shard gives a
//! small part. Questions about partitions of other shards go over the mesh as everybody's do, one at a time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use chronik_shards::io::local::Signal;
use chronik_shards::machine::group::{GroupsLook, TopicStanding};
use chronik_shards::machine::metadata::Partition;
use chronik_shards::machine::survey::Survey;
use chronik_shards::model::{NodeId, Offset, PartitionIndex, ReplicaKey, ShardId};
use chronik_shards::shard::ShardHandle;

use super::figures::{
    Answer, NodeFigures, PartitionLag, Question, ShardFigures, Standing, TopicLag,
};
use super::limits::MetricsLimits;
use crate::handlers::KafkaDispatcher;
use crate::handlers::request_counts::RequestCounts;
use crate::metadata_view::MetadataView;
use crate::net::ShardConnections;

/// Partitions, groups or offsets that are looked at without a rest.
const STEP: usize = 1024;
/// The rest: others run.
const REST: Duration = Duration::from_millis(1);

/// The question that waits for this shard to answer it; a newer one takes its place.
#[derive(Debug, Default)]
pub struct Asked {
    question: RefCell<Option<Question>>,
    arrived: Signal,
}

impl Asked {
    /// Takes a question.
    pub fn put(&self, question: Question) {
        *self.question.borrow_mut() = Some(question);
        self.arrived.raise();
    }

    async fn next(&self) -> Question {
        loop {
            let question = self.question.borrow_mut().take();
            match question {
                Some(question) => return question,
                None => self.arrived.wait().await,
            }
        }
    }
}

/// What a shard looks at.
pub struct Watch {
    /// The shard.
    pub shard: ShardHandle,
    /// What it knows of the cluster.
    pub view: Rc<RefCell<MetadataView>>,
    /// Its connections.
    pub connections: ShardConnections<KafkaDispatcher>,
    /// Their requests.
    pub counts: Rc<RequestCounts>,
}

impl Watch {
    /// Answers questions, for ever.
    pub async fn answer(self, asked: Rc<Asked>) {
        loop {
            let Question { round, limits, answers } = asked.next().await;
            let figures = match limits {
                Some(limits) => Some(Box::new(self.figures(limits).await)),
                None => None,
            };
            let (shard, standing) = (self.shard.id(), self.standing());
            // Whoever asked has ended, or has room.
            let _ = answers.try_send(Answer { round, shard, standing, figures });
        }
    }

    fn standing(&self) -> Standing {
        let view = self.view.borrow();
        let controller = view.known_controller();
        let is_there = |node| view.image().broker(node).is_some_and(|broker| !broker.fenced);
        Standing {
            is_unfenced: is_there(view.node_id()),
            knows_controller: controller.is_some(),
            is_controller: controller == Some(view.node_id()),
            is_stopping: self.shard.is_stopping(),
        }
    }

    async fn figures(&self, limits: MetricsLimits) -> ShardFigures {
        let report = self.shard.report(self.shard.id()).await;
        let (net, requests) = (self.connections.stats(), self.counts.figures());
        let mut survey = Survey::default();
        let mut next = self.shard.survey(0, STEP, &mut survey);
        while let Some(first) = next {
            rest().await;
            next = self.shard.survey(first, STEP, &mut survey);
        }
        let mut groups = GroupsLook::new(limits.groups_max, limits.group_partitions_max);
        let mut next = self.shard.look_at_groups(None, STEP, &mut groups);
        while next.is_some() {
            rest().await;
            next = self.shard.look_at_groups(next, STEP, &mut groups);
        }
        let lags = self.lags(std::mem::take(&mut groups.offsets)).await;
        let node = match self.shard.id() {
            ShardId(0) => Some(self.node(limits.partitions_max).await),
            _ => None,
        };
        ShardFigures { report, survey, net, requests, groups, lags, node }
    }

    /// Sets the high watermarks beside what groups have committed.
    async fn lags(&self, committed: Vec<TopicStanding>) -> Vec<TopicLag> {
        let mut lags: Vec<TopicLag> = committed.into_iter().map(without_lag).collect();
        // Topic and partition among `lags`, and whether the leader is here.
        let mut places = Vec::new();
        let mut keys = Vec::new();
        let mut looked_at = 0;
        for (topic, lag) in lags.iter().enumerate() {
            looked_at += lag.partitions.len();
            if looked_at >= STEP {
                looked_at = 0;
                rest().await;
            }
            let view = self.view.borrow();
            let Some(found) = view.image().topic_named(&lag.topic) else { continue };
            for (place, line) in lag.partitions.iter().enumerate() {
                let Some(partition) = found.partition(line.partition) else { continue };
                if let Some(leads) = knows(view.node_id(), partition) {
                    places.push((topic, place, leads));
                    keys.push(ReplicaKey { topic_id: found.id, partition: line.partition });
                }
            }
        }
        let known = self.high_watermarks(&keys).await;
        for ((topic, place, leads), high_watermark) in places.into_iter().zip(known) {
            let line = &mut lags[topic].partitions[place];
            line.lag = high_watermark.map(|reached| lag(reached, line.committed, leads));
        }
        lags
    }

    /// The node and the cluster, as the metadata and the shards have them.
    async fn node(&self, partitions_max: usize) -> NodeFigures {
        let mut figures = NodeFigures::default();
        let mut led: Vec<(String, ReplicaKey)> = Vec::new();
        let mut next = Some(String::new());
        while let Some(from) = next {
            next = self.topics(&from, partitions_max, &mut figures, &mut led);
            if next.is_some() {
                rest().await;
            }
        }
        for (_, broker) in self.view.borrow().image().brokers() {
            let count = match broker.fenced {
                true => &mut figures.nodes_fenced,
                false => &mut figures.nodes_serving,
            };
            *count += 1;
        }
        let keys: Vec<ReplicaKey> = led.iter().map(|(_, key)| *key).collect();
        let known = self.high_watermarks(&keys).await;
        let lines = led.into_iter().zip(known);
        figures.high_watermarks = lines
            .filter_map(|((topic, key), reached)| Some((topic, key.partition, reached?)))
            .collect();
        figures
    }

    /// Counts topics from a name on until a step is done. Returns where to go on.
    fn topics(
        &self,
        from: &str,
        partitions_max: usize,
        figures: &mut NodeFigures,
        led: &mut Vec<(String, ReplicaKey)>,
    ) -> Option<String> {
        let view = self.view.borrow();
        let node_id = view.node_id();
        let mut looked_at = 0;
        for topic in view.image().topics_from(from) {
            if looked_at >= STEP {
                return Some(topic.name.clone());
            }
            looked_at += 1 + topic.partitions.len();
            figures.topics += 1;
            figures.partitions += topic.partitions.len() as u64;
            for (key, partition) in topic.replicas() {
                figures.leaderless += u64::from(partition.leader.is_none());
                if partition.leader == Some(node_id) {
                    figures.led += 1;
                    if led.len() < partitions_max {
                        led.push((topic.name.clone(), key));
                    }
                }
            }
        }
        None
    }

    /// High watermarks as far as shards of this node know them, in the order of the keys.
    async fn high_watermarks(&self, keys: &[ReplicaKey]) -> Vec<Option<Offset>> {
        let mut known = vec![None; keys.len()];
        for shard in (0..self.shard.shard_count()).map(ShardId) {
            let of_shard =
                keys.iter().enumerate().filter(|(_, key)| self.shard.shard_of(key) == shard);
            let of_shard: Vec<(usize, ReplicaKey)> = of_shard.map(|(at, key)| (at, *key)).collect();
            for some in of_shard.chunks(STEP) {
                let asked = some.iter().map(|(_, key)| *key).collect();
                let answers = self.shard.known_high_watermarks(shard, asked).await;
                for ((at, _), answer) in some.iter().zip(answers) {
                    known[*at] = answer;
                }
                rest().await;
            }
        }
        known
    }
}

fn without_lag(committed: TopicStanding) -> TopicLag {
    let TopicStanding { group_id, topic, offsets } = committed;
    let line = |(partition, committed): (PartitionIndex, Offset)| PartitionLag {
        partition,
        committed,
        lag: None,
    };
    TopicLag { group_id, topic, partitions: offsets.into_iter().map(line).collect() }
}

/// Whether a node leads a partition; `None` where it cannot know how far the leader is. A replica that is in sync hears
/// of it with the records, or is not in sync for long.
fn knows(node_id: NodeId, partition: &Partition) -> Option<bool> {
    let leads = partition.leader == Some(node_id);
    (leads || partition.isr.contains(&node_id)).then_some(leads)
}

/// As the tools of clients count it. What a follower knows may be older than what the group has committed.
fn lag(high_watermark: Offset, committed: Offset, leads: bool) -> i64 {
    let lag = high_watermark.since(committed);
    if leads { lag } else { lag.max(0) }
}

async fn rest() {
    glommio::timer::sleep(REST).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_tells_a_lag_as_it_is_and_a_follower_none_below_zero() {
        assert_eq!(lag(Offset(10), Offset(4), true), 6);
        assert_eq!(lag(Offset(4), Offset(10), true), -6, "somebody has committed beyond the end");
        assert_eq!(lag(Offset(10), Offset(4), false), 6);
        assert_eq!(lag(Offset(4), Offset(10), false), 0, "it has not heard of it yet");
    }

    #[test]
    fn a_newer_question_takes_the_place_of_an_older_one() {
        let asked = Asked::default();
        let (answers, _) = crossbeam::channel::bounded(1);
        for round in 1..=2 {
            asked.put(Question { round, limits: None, answers: answers.clone() });
        }
        assert_eq!(asked.question.borrow().as_ref().map(|question| question.round), Some(2));
    }
}
