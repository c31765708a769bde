//! What must hold, whatever happens: looked at with every update that any node's shards get.

use std::collections::{BTreeMap, BTreeSet};

use chronik_shards::format::metadata_command::MetadataCommand;
use chronik_shards::machine::metadata::MetadataImage;
use chronik_shards::model::{LeaderEpoch, NodeId, ReplicaKey};

use crate::control::MetadataUpdate;

/// Names of settings that tell proposals apart.
pub(super) const MARKER: &str = "marker.";

/// What all nodes together have been seen to do.
#[derive(Default)]
pub(super) struct Checker {
    /// The image after each index, as the first node had it that came there.
    images: BTreeMap<u64, MetadataImage>,
    /// Who led in which epoch.
    leaders: BTreeMap<(ReplicaKey, LeaderEpoch), Option<NodeId>>,
    /// Where each marker is in the log.
    markers: BTreeMap<String, u64>,
    /// Markers whose proposers were told that they are.
    acknowledged: BTreeSet<String>,
    /// Elections after a failure.
    pub(super) failovers: u64,
    /// Whole images that were handed to shards.
    pub(super) images_installed: u64,
}

impl Checker {
    /// A shard of a node applies `update` to its image.
    pub(super) fn apply(&mut self, image: &mut MetadataImage, update: MetadataUpdate) {
        let before = image.clone();
        match update {
            MetadataUpdate::Command(committed) => {
                assert!(committed.index > image.applied(), "commands come in order, each once");
                let outcome = image.apply(committed.index, &committed.command).outcome;
                if outcome.is_ok() {
                    self.command(committed.index, &committed.command, image);
                }
                let first = self.images.entry(committed.index).or_insert_with(|| image.clone());
                assert_eq!(first, image, "two images at index {}", committed.index);
            }
            MetadataUpdate::Controller(_) => {}
            MetadataUpdate::Image(newer) => {
                assert!(newer.applied() > image.applied(), "a snapshot is newer");
                self.images_installed += 1;
                *image = MetadataImage::clone(&newer);
            }
        }
        image.check_invariants();
        self.epochs(&before, image);
    }

    fn command(&mut self, index: u64, command: &MetadataCommand, image: &MetadataImage) {
        match command {
            MetadataCommand::SetClusterConfig(command) => {
                for entry in command.set.iter().filter(|entry| entry.name.starts_with(MARKER)) {
                    let at = *self.markers.entry(entry.name.clone()).or_insert(index);
                    assert_eq!(at, index, "{} is applied twice", entry.name);
                }
            }
            MetadataCommand::RegisterBroker(command) => {
                // Until somebody has seen this incarnation catch up.
                let epoch = image.broker(command.node_id).map(|broker| broker.epoch.get());
                if epoch == Some(index as i64) {
                    for partition in image.topics().flat_map(|topic| &topic.partitions) {
                        assert!(!partition.isr.contains(&command.node_id), "in sync as it comes");
                    }
                }
            }
            _ => {}
        }
    }

    fn epochs(&mut self, before: &MetadataImage, after: &MetadataImage) {
        for topic in after.topics() {
            for (key, partition) in topic.replicas() {
                let led = (key, partition.leader_epoch);
                let leader = *self.leaders.entry(led).or_insert(partition.leader);
                assert_eq!(leader, partition.leader, "two leaders of {key} in one epoch");
                let Some(old) = before.partition(key) else { continue };
                assert!(partition.leader_epoch >= old.leader_epoch, "{key}: epochs only grow");
                assert!(
                    partition.partition_epoch >= old.partition_epoch,
                    "{key}: epochs only grow"
                );
                if partition.leader != old.leader {
                    assert!(
                        partition.leader_epoch > old.leader_epoch,
                        "{key}: a new leader's epoch"
                    );
                    self.failovers += 1;
                }
            }
        }
    }

    /// A proposer was told that its marker is in the metadata.
    pub(super) fn acknowledge(&mut self, marker: String) {
        assert!(self.markers.contains_key(&marker), "{marker} is acknowledged and applied nowhere");
        self.acknowledged.insert(marker);
    }

    /// How many markers are acknowledged.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// Every acknowledged change is in an image that is as new as that.
    pub(super) fn check_acknowledged_before(&self, image: &MetadataImage) {
        for marker in &self.acknowledged {
            if self.markers[marker] > image.applied() {
                continue;
            }
            assert!(image.cluster_configs().contains_key(marker), "{marker} is lost");
        }
    }
}
