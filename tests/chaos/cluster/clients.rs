//! Clients that go where the leader is: producers, each of one partition, and consumers of all of them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::fetch_request::FetchPartition;
use chronik_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use chronik_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use chronik_protocol::messages::produce_response::ProduceResponse;

use super::scene::{Leaders, Scene};
use crate::ledger::{Acknowledged, Identity, Ledger};
use crate::support::batch::Batch;
use crate::support::client::{Client, is_closed};
use crate::support::poll_pause;
use crate::support::random::Random;
use crate::support::requests::{
    FETCH_BY_NAME, FetchBounds, PRODUCE_BY_NAME, batches, error, fetch_request, produce_request,
    produced,
};

/// As many batches of a producer as the server must recognize when they come again.
const IN_FLIGHT_MAX: usize = 5;
const BATCH_RECORDS_MAX: usize = 10;

/// Pause between two batches, at most: the machine has to have something left for the nodes.
const PAUSE_MICROS_MAX: usize = 8000;

/// How long an answer may take until a client looks for another leader.
const PATIENCE: Duration = Duration::from_secs(2);
/// Likewise of a client that outlasts a frozen leader, to hear what it says when it thaws.
const LONG_PATIENCE: Duration = Duration::from_secs(20);

/// How long it may take at the end until what was begun is acknowledged.
const END_PATIENCE: Duration = Duration::from_secs(60);

/// Between the names that a producer without idempotence goes by on one connection and on the next.
const GENERATION: u32 = 1000;

/// What a producer is.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub worker: u32,
    pub partition: usize,
    pub acks: i16,
    pub is_idempotent: bool,
    pub is_patient: bool,
    pub seed: u64,
}

struct Sent {
    first: Identity,
    count: u32,
    bytes: Bytes,
}

/// A producer's state, which outlives its connections.
pub struct Producer<'a> {
    profile: Profile,
    scene: &'a Scene,
    ledger: &'a Ledger,
    random: Random,
    leaders: Leaders,
    producer: Option<(i64, i16)>,
    next_number: u32,
    unacknowledged: VecDeque<Sent>,
}

impl<'a> Producer<'a> {
    pub fn new(profile: Profile, scene: &'a Scene, ledger: &'a Ledger) -> Self {
        Self {
            profile,
            scene,
            ledger,
            random: Random::new(profile.seed),
            leaders: Leaders::new(scene, profile.seed + 1),
            producer: None,
            next_number: 0,
            unacknowledged: VecDeque::new(),
        }
    }

    /// Until the end is announced and everything is answered.
    pub fn run(mut self) {
        let _watch = self.scene.watch();
        let mut end_by = None;
        while !self.scene.has_failed() {
            if self.scene.is_ending() {
                let end_by = *end_by.get_or_insert_with(|| Instant::now() + END_PATIENCE);
                assert!(Instant::now() < end_by, "{:?}: no acknowledgement", self.profile);
            }
            let patience = if self.profile.is_patient { LONG_PATIENCE } else { PATIENCE };
            let leader = self.leaders.of(self.profile.partition);
            let client = leader.and_then(|leader| self.scene.connect(leader.node, patience));
            match client.map(|mut client| self.converse(&mut client)) {
                Some(Ok(())) => return,
                Some(Err(error)) => {
                    assert!(is_gone(&error), "{:?}: {error}", self.profile);
                    self.give_up();
                }
                None => poll_pause(),
            }
            self.leaders.refresh(self.scene);
        }
    }

    /// Without idempotence nobody knows whether what was not acknowledged is stored: sent again it could be there
    /// twice. Nor does it stand before what is sent on the next connection, so that begins anew.
    fn give_up(&mut self) {
        if !self.profile.is_idempotent {
            self.unacknowledged.clear();
            self.profile.worker += GENERATION;
            self.next_number = 0;
        }
    }

    fn converse(&mut self, client: &mut Client) -> io::Result<()> {
        if self.profile.is_idempotent && self.producer.is_none() {
            self.producer = Some(init(client)?);
        }
        self.ledger.note_resent(self.unacknowledged.len());
        for sent in &self.unacknowledged {
            self.send(client, sent)?;
        }
        loop {
            while !self.scene.is_ending() && self.unacknowledged.len() < IN_FLIGHT_MAX {
                let sent = self.next_batch();
                let result = self.send(client, &sent);
                self.unacknowledged.push_back(sent);
                result?;
                let pause = self.random.below(PAUSE_MICROS_MAX) as u64;
                std::thread::sleep(Duration::from_micros(pause));
            }
            let Some(sent) = self.unacknowledged.front() else { return Ok(()) };
            let response = produced(client.try_receive::<ProduceResponse>()?);
            match error(response.error_code) {
                ErrorCode::None => {
                    // What one replica acknowledged may go with it.
                    if self.profile.acks == -1 {
                        let (base_offset, first, count) =
                            (response.base_offset, sent.first, sent.count);
                        let batch = Acknowledged { base_offset, first, count };
                        self.ledger.acknowledge(self.profile.partition, batch);
                    }
                    self.scene.note_acknowledged();
                    self.unacknowledged.pop_front();
                }
                // What a client that retries does: from the first unanswered batch on, in order.
                code if code.is_retriable() && code != ErrorCode::CorruptMessage => {
                    let reason = format!("{code:?}: again");
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason));
                }
                code => panic!("{:?}: {code:?} {:?}", self.profile, response.error_message),
            }
        }
    }

    fn next_batch(&mut self) -> Sent {
        let count = self.random.between(1, BATCH_RECORDS_MAX) as u32;
        let number = self.next_number;
        self.next_number += count;
        let worker = self.profile.worker;
        let first = Identity { worker, number };
        let values = (number..number + count).map(|number| Identity { worker, number }.value());
        let mut batch = Batch::of(values);
        if let Some((id, epoch)) = self.producer {
            batch = batch.idempotent(id, epoch, number as i32);
        }
        Sent { first, count, bytes: batch.encode() }
    }

    fn send(&self, client: &mut Client, sent: &Sent) -> io::Result<()> {
        let Profile { partition, acks, .. } = self.profile;
        let bytes = sent.bytes.clone();
        let request = produce_request(&self.scene.topic, partition as i32, acks, bytes);
        client.try_send(PRODUCE_BY_NAME, &request)
    }
}

fn init(client: &mut Client) -> io::Result<(i64, i16)> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let response = client.try_call(4, &request)?;
    match error(response.error_code) {
        ErrorCode::None => Ok((response.producer_id, response.producer_epoch)),
        code if code.is_retriable() => {
            Err(io::Error::new(io::ErrorKind::ConnectionAborted, format!("{code:?}: again")))
        }
        code => panic!("InitProducerId: {code:?}"),
    }
}

/// Where a consumer reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    Leaders,
    /// Any replica, another one from time to time.
    Replicas,
}

/// A consumer of all partitions, which reads every record once and in order.
pub struct Consumer<'a> {
    from: From,
    scene: &'a Scene,
    ledger: &'a Ledger,
    random: Random,
    leaders: Leaders,
    clients: BTreeMap<i32, Client>,
    next: Vec<i64>,
    high_watermarks: Vec<i64>,
}

impl<'a> Consumer<'a> {
    pub fn new(from: From, scene: &'a Scene, ledger: &'a Ledger, seed: u64) -> Self {
        Self {
            from,
            scene,
            ledger,
            random: Random::new(seed),
            leaders: Leaders::new(scene, seed + 1),
            clients: BTreeMap::new(),
            next: vec![0; scene.partitions],
            high_watermarks: vec![0; scene.partitions],
        }
    }

    /// Until the end is announced.
    pub fn run(mut self) {
        let _watch = self.scene.watch();
        while !self.scene.is_ending() {
            self.leaders.refresh(self.scene);
            for _ in 0..20 {
                if !self.round() {
                    break;
                }
            }
        }
    }

    /// Asks every node once; false when the leaders should be looked for.
    fn round(&mut self) -> bool {
        let mut by_node: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for partition in 0..self.next.len() {
            let node = match self.from {
                From::Leaders => self.leaders.of(partition).map(|leader| leader.node),
                From::Replicas => Some(1 + self.random.below(3) as i32),
            };
            if let Some(node) = node {
                by_node.entry(node).or_default().push(partition);
            }
        }
        let mut is_fine = !by_node.is_empty();
        for (node, partitions) in by_node {
            is_fine &= self.poll(node, &partitions);
        }
        is_fine
    }

    fn poll(&mut self, node: i32, partitions: &[usize]) -> bool {
        let client = self.clients.remove(&node).or_else(|| self.scene.connect(node, PATIENCE));
        let Some(mut client) = client else {
            poll_pause();
            return false;
        };
        match self.fetch(&mut client, partitions) {
            Ok(is_fine) => {
                self.clients.insert(node, client);
                is_fine
            }
            Err(error) => {
                assert!(is_gone(&error), "the consumer: {error}");
                false
            }
        }
    }

    fn fetch(&mut self, client: &mut Client, partitions: &[usize]) -> io::Result<bool> {
        let bounds = FetchBounds { max_wait_ms: 50, min_bytes: 1, ..FetchBounds::default() };
        let mut request = fetch_request(&self.scene.topic, 0, 0, bounds);
        let template = request.topics[0].partitions[0].clone();
        let wanted = partitions.iter().map(|partition| FetchPartition {
            partition: *partition as i32,
            fetch_offset: self.next[*partition],
            current_leader_epoch: match self.from {
                From::Leaders => self.leaders.of(*partition).map_or(-1, |leader| leader.epoch),
                From::Replicas => -1,
            },
            ..template.clone()
        });
        request.topics[0].partitions = wanted.collect();
        client.try_send(FETCH_BY_NAME, &request)?;
        let response: FetchResponse = client.try_receive()?;
        let mut is_fine = true;
        for data in response.responses.iter().flat_map(|topic| &topic.partitions) {
            is_fine &= self.take(data);
        }
        Ok(is_fine)
    }

    /// False when the leader should be looked for.
    fn take(&mut self, data: &PartitionData) -> bool {
        let partition = data.partition_index as usize;
        let next = self.next[partition];
        match error(data.error_code) {
            ErrorCode::None => {}
            ErrorCode::NotLeaderOrFollower
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::OffsetNotAvailable => return false,
            // A replica that is behind; its leader has what was seen.
            ErrorCode::OffsetOutOfRange if self.from == From::Replicas => return false,
            code => panic!("{:?}: {code:?} at {partition}/{next}", self.from),
        }
        if self.from == From::Leaders {
            let before =
                std::mem::replace(&mut self.high_watermarks[partition], data.high_watermark);
            assert!(
                data.high_watermark >= before,
                "partition {partition}: the high watermark fell from {before} to {}",
                data.high_watermark
            );
        }
        for (offset, record) in batches(data).iter().flat_map(|batch| batch.records()) {
            assert!(offset < data.high_watermark, "a record beyond the high watermark");
            if offset >= self.next[partition] {
                self.ledger.see(partition, offset, Identity::of(&record.value.unwrap()));
                self.next[partition] = offset + 1;
            }
        }
        true
    }
}

/// Whether the connection is of no use any more, or no answer came.
fn is_gone(error: &io::Error) -> bool {
    let is_silent = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind());
    is_closed(error) || is_silent || error.kind() == io::ErrorKind::ConnectionRefused
}
