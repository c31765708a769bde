//! Producers and a consumer that behave like real ones: they pipeline, and come back after a crash.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::fetch_response::FetchResponse;
use chronik_protocol::messages::produce_response::ProduceResponse;

use super::gate::Gate;
use super::ledger::{Acknowledged, Identity, Ledger};
use crate::support::batch::Batch;
use crate::support::client::{Client, is_closed};
use crate::support::poll_pause;
use crate::support::random::Random;
use crate::support::requests::{
    FETCH_BY_NAME, FetchBounds, PRODUCE_BY_NAME, batches, error, fetch_request, init_producer,
    produce_request, produced,
};

/// As many batches of a producer as the server must recognize when they come again.
const IN_FLIGHT_MAX: usize = 5;
const BATCH_RECORDS_MAX: usize = 20;

/// What a producer is.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub worker: u32,
    pub acks: i16,
    pub is_idempotent: bool,
    pub seed: u64,
}

struct Sent {
    partition: usize,
    first: Identity,
    count: u32,
    bytes: Bytes,
}

/// A producer's state, which outlives its connections.
pub struct Producer<'a> {
    profile: Profile,
    topic: &'a str,
    gate: &'a Gate,
    ledger: &'a Ledger,
    random: Random,
    producer: Option<(i64, i16)>,
    next_number: Vec<u32>,
    unacknowledged: VecDeque<Sent>,
}

impl<'a> Producer<'a> {
    pub fn new(profile: Profile, topic: &'a str, gate: &'a Gate, ledger: &'a Ledger) -> Self {
        Self {
            profile,
            topic,
            gate,
            ledger,
            random: Random::new(profile.seed),
            producer: None,
            next_number: vec![0; ledger.partitions()],
            unacknowledged: VecDeque::new(),
        }
    }

    /// Until the end is announced and everything is answered.
    pub fn run(mut self) {
        let _watch = self.gate.watch();
        while let Some(mut client) = connect(self.gate) {
            match self.converse(&mut client) {
                Ok(()) => return,
                Err(error) => assert!(is_gone(&error), "worker {:?}: {error}", self.profile),
            }
            if !self.profile.is_idempotent {
                // Whether these were stored nobody knows; sent again they could be there twice.
                self.unacknowledged.clear();
            }
        }
    }

    fn converse(&mut self, client: &mut Client) -> io::Result<()> {
        if self.profile.is_idempotent && self.producer.is_none() {
            // The connection may go while it is asked for: an id that got lost is no harm.
            self.producer = Some(try_init(client)?);
        }
        self.ledger.note_resent(self.unacknowledged.len());
        for sent in &self.unacknowledged {
            self.send(client, sent)?;
        }
        loop {
            while !self.gate.is_ending() && self.unacknowledged.len() < IN_FLIGHT_MAX {
                let sent = self.next_batch();
                let result = self.send(client, &sent);
                self.unacknowledged.push_back(sent);
                result?;
            }
            let Some(sent) = self.unacknowledged.front() else { return Ok(()) };
            let response = produced(client.try_receive::<ProduceResponse>()?);
            match error(response.error_code) {
                ErrorCode::None => {
                    let (base_offset, first, count) =
                        (response.base_offset, sent.first, sent.count);
                    let batch = Acknowledged { base_offset, first, count };
                    self.ledger.acknowledge(sent.partition, batch);
                    self.unacknowledged.pop_front();
                }
                // What a client that retries does: from the first unanswered batch on, in order.
                code if code.is_retriable() && code != ErrorCode::CorruptMessage => {
                    let reason = format!("{code:?}: again");
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason));
                }
                code => panic!("worker {:?}: {code:?} {:?}", self.profile, response.error_message),
            }
        }
    }

    fn next_batch(&mut self) -> Sent {
        let partition = self.random.below(self.next_number.len());
        let count = self.random.between(1, BATCH_RECORDS_MAX) as u32;
        let number = self.next_number[partition];
        self.next_number[partition] += count;
        let worker = self.profile.worker;
        let first = Identity { worker, number };
        let values = (number..number + count).map(|number| Identity { worker, number }.value());
        let mut batch = Batch::of(values);
        if let Some((id, epoch)) = self.producer {
            batch = batch.idempotent(id, epoch, number as i32);
        }
        Sent { partition, first, count, bytes: batch.encode() }
    }

    fn send(&self, client: &mut Client, sent: &Sent) -> io::Result<()> {
        let partition = sent.partition as i32;
        let request = produce_request(self.topic, partition, self.profile.acks, sent.bytes.clone());
        client.try_send(PRODUCE_BY_NAME, &request)
    }
}

fn try_init(client: &mut Client) -> io::Result<(i64, i16)> {
    use chronik_protocol::messages::init_producer_id_request::InitProducerIdRequest;
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let response = client.try_call(4, &request)?;
    match error(response.error_code) {
        ErrorCode::None => Ok((response.producer_id, response.producer_epoch)),
        code if code.is_retriable() => Ok(init_producer(client)),
        code => panic!("InitProducerId: {code:?}"),
    }
}

/// A consumer of all partitions, which reads every record once and in order.
pub fn consume(topic: &str, gate: &Gate, ledger: &Ledger) {
    let _watch = gate.watch();
    let mut next = vec![0i64; ledger.partitions()];
    let mut high_watermarks = vec![0i64; ledger.partitions()];
    while let Some(mut client) = connect(gate) {
        loop {
            if gate.is_ending() {
                return;
            }
            match poll(&mut client, topic, ledger, &mut next, &mut high_watermarks) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => break,
                Err(error) => panic!("the consumer: {error}"),
            }
        }
    }
}

fn poll(
    client: &mut Client,
    topic: &str,
    ledger: &Ledger,
    next: &mut [i64],
    high_watermarks: &mut [i64],
) -> io::Result<()> {
    let bounds = FetchBounds { max_wait_ms: 100, min_bytes: 1, ..FetchBounds::default() };
    let mut request = fetch_request(topic, 0, next[0], bounds);
    for (partition, offset) in next.iter().enumerate().skip(1) {
        let mut more = request.topics[0].partitions[0].clone();
        more.partition = partition as i32;
        more.fetch_offset = *offset;
        request.topics[0].partitions.push(more);
    }
    client.try_send(FETCH_BY_NAME, &request)?;
    let response: FetchResponse = client.try_receive()?;
    for data in response.responses.iter().flat_map(|topic| &topic.partitions) {
        let partition = data.partition_index as usize;
        let code = error(data.error_code);
        if code == ErrorCode::NotLeaderOrFollower {
            continue;
        }
        assert_eq!(code, ErrorCode::None, "the consumer at {partition}/{}", next[partition]);
        let before = std::mem::replace(&mut high_watermarks[partition], data.high_watermark);
        assert!(
            data.high_watermark >= before,
            "partition {partition}: the high watermark fell from {before} to {}",
            data.high_watermark
        );
        for (offset, record) in batches(data).iter().flat_map(|batch| batch.records()) {
            assert!(offset < data.high_watermark, "a record beyond the high watermark");
            if offset >= next[partition] {
                ledger.see(partition, offset, Identity::of(&record.value.unwrap()));
                next[partition] = offset + 1;
            }
        }
    }
    Ok(())
}

/// A connection as soon as there is one; `None` when everybody goes home.
fn connect(gate: &Gate) -> Option<Client> {
    loop {
        let address = gate.pass()?;
        if let Ok(client) = Client::try_connect(address) {
            return Some(client);
        }
        poll_pause();
    }
}

fn is_gone(error: &io::Error) -> bool {
    is_closed(error) || error.kind() == io::ErrorKind::ConnectionRefused
}
