//! What clients of a cluster share: where its nodes are, who leads what, and whether it is over.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chronik_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};

use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::poll_pause;
use crate::support::random::Random;
use crate::support::replicated::Leader;

/// How long an answer that no record waits for may take, before another node is asked: some are frozen.
const METADATA_PATIENCE: Duration = Duration::from_millis(1500);

/// See the module.
#[derive(Debug)]
pub struct Scene {
    pub topic: String,
    pub partitions: usize,
    addresses: Vec<SocketAddr>,
    is_ending: AtomicBool,
    has_failed: AtomicBool,
    /// Batches that were acknowledged, whatever for.
    acknowledged: AtomicU64,
}

impl Scene {
    pub fn new(cluster: &Cluster, topic: &str, partitions: usize) -> Self {
        Self {
            topic: topic.to_owned(),
            partitions,
            addresses: cluster.ids().map(|id| cluster.address(id)).collect(),
            is_ending: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
        }
    }

    /// Producers finish what they began, consumers stop.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    pub fn note_acknowledged(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// A guard that sends everybody home when its thread panics.
    pub fn watch(&self) -> Watch<'_> {
        Watch(self)
    }

    /// A connection to a node; no answer may take longer than `patience`.
    pub fn connect(&self, node: i32, patience: Duration) -> Option<Client> {
        let address = self.addresses.get(usize::try_from(node).ok()?.checked_sub(1)?)?;
        let client = Client::try_connect(*address).ok()?;
        client.set_read_timeout(patience);
        client.stream().set_write_timeout(Some(patience)).ok()?;
        Some(client)
    }

    /// A connection to any node.
    pub fn connect_any(&self, random: &mut Random, patience: Duration) -> Option<Client> {
        self.connect(1 + random.below(self.addresses.len()) as i32, patience)
    }
}

/// See [`Scene::watch`].
#[derive(Debug)]
pub struct Watch<'a>(&'a Scene);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.has_failed.store(true, Ordering::Relaxed);
            self.0.end();
        }
    }
}

/// Who leads, as one client knows it. As a real client it believes nothing older than what it knows.
#[derive(Debug)]
pub struct Leaders {
    known: Vec<Option<Leader>>,
    random: Random,
}

impl Leaders {
    pub fn new(scene: &Scene, seed: u64) -> Self {
        Self { known: vec![None; scene.partitions], random: Random::new(seed) }
    }

    pub fn of(&self, partition: usize) -> Option<Leader> {
        self.known[partition].filter(|leader| leader.node >= 0)
    }

    /// Asks some node.
    pub fn refresh(&mut self, scene: &Scene) {
        let Some(mut client) = scene.connect_any(&mut self.random, METADATA_PATIENCE) else {
            return poll_pause();
        };
        let topic = MetadataRequestTopic {
            name: Some(scene.topic.as_str().into()),
            ..MetadataRequestTopic::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        let Ok(response) = client.try_call(12, &request) else { return poll_pause() };
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            let known = &mut self.known[partition.partition_index as usize];
            let found = Leader { node: partition.leader_id, epoch: partition.leader_epoch };
            if known.is_none_or(|known| known.epoch <= found.epoch) {
                *known = Some(found);
            }
        }
    }
}
