//! A server without a log: it speaks as much of the protocol as this benchmark does, and keeps nothing.
//!
//! Measures the client itself, and shows in tests that a server which answers wrongly is found out. One thread,
//! an epoll loop over its connections.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::thread::JoinHandle;

use bytes::Bytes;
use chronik_protocol::messages::api_versions_response::ApiVersion;
use chronik_protocol::messages::create_topics_response::CreatableTopicResult;
use chronik_protocol::messages::delete_topics_response::DeletableTopicResult;
use chronik_protocol::messages::list_offsets_request::ListOffsetsTopic;
use chronik_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use chronik_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use chronik_protocol::messages::produce_request::PartitionProduceData;
use chronik_protocol::messages::produce_response::{
    PartitionProduceResponse, TopicProduceResponse,
};
use chronik_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
};
use chronik_protocol::{
    ApiKey, DecodeError, EncodeError, Message, Records, RequestFrame, Response, encode_response,
};
use chronik_shards::format::record_batch::{BatchHeader, HEADER_BYTES};
use rustix::event::epoll;

use crate::child::{ChildError, ServerChild, free_port, serve_until_unwanted};
use crate::engine::{Frame, FrameReader, Outbox, ReadEnd, StopFlag};
use crate::produce::answer::AnswerTemplate;

const FRAME_BYTES_MAX: usize = 256 << 20;
const SCRATCH_BYTES: usize = 1 << 20;
const EVENTS_MAX: usize = 256;
/// Of a Produce request, what comes before its first records; more is not looked at.
const GLANCE_BYTES: usize = 512;
/// How long until a stop is seen.
const SLEEP_MS: i64 = 50;
const LISTENER: u64 = u64::MAX;
const NODE_ID: i32 = 1;

/// How the sink answers Produce requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// As a broker would.
    Truthful,
    /// With this error code for every batch.
    Refusing(i16),
    /// With the same offset again and again.
    Repeating,
    /// As a broker would, but the log ends before what was acknowledged.
    Forgetful,
}

/// Why the sink ended.
#[derive(Debug, thiserror::Error)]
enum SinkError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("{0} is not served")]
    NotServed(ApiKey),
}

impl From<rustix::io::Errno> for SinkError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A sink that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    stop: StopFlag,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on an address; port 0 takes any.
    ///
    /// # Errors
    /// The system's.
    pub fn start(address: SocketAddr, manner: Manner) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = StopFlag::default();
        let mut server = Server::new(listener, Log::new(address, manner))?;
        let seen = stop.clone();
        let thread = std::thread::Builder::new().name("sink".to_owned()).spawn(move || {
            if let Err(error) = server.run(&seen) {
                eprintln!("null sink: {error}");
            }
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The hidden subcommand of a sink in a process of its own.
pub const SUBCOMMAND: &str = "null-sink";

/// A sink in a process of its own. Dropping it stops it.
#[derive(Debug)]
pub struct SinkProcess {
    address: SocketAddr,
    process: ServerChild,
}

impl SinkProcess {
    /// Starts it. `program` is this program's executable.
    ///
    /// # Errors
    /// [`ChildError`].
    pub fn start(program: &Path) -> Result<Self, ChildError> {
        let port = free_port()?;
        let process = ServerChild::start(program, SUBCOMMAND, [port.to_string()])?;
        Ok(Self { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), process })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// What the process of the sink does. `arguments` are those behind the subcommand: a port.
pub fn serve(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let port = arguments.next().and_then(|port| port.to_str()?.parse().ok()).unwrap_or(0);
    let sink = Sink::start((Ipv4Addr::LOCALHOST, port).into(), Manner::Truthful);
    match sink.and_then(|sink| serve_until_unwanted().map(|()| drop(sink))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("null sink: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            // A panic has shown itself already.
            drop(thread.join());
        }
    }
}

struct Peer {
    stream: TcpStream,
    reader: FrameReader,
    outbox: Outbox,
}

struct Server {
    listener: TcpListener,
    epoll: OwnedFd,
    peers: BTreeMap<u64, Peer>,
    next_peer: u64,
    log: Log,
    scratch: Vec<u8>,
}

impl Server {
    fn new(listener: TcpListener, log: Log) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener, data, epoll::EventFlags::IN)?;
        let (peers, scratch) = (BTreeMap::new(), vec![0; SCRATCH_BYTES]);
        Ok(Self { listener, epoll, peers, next_peer: 0, log, scratch })
    }

    fn run(&mut self, stop: &StopFlag) -> Result<(), SinkError> {
        let none =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [none; EVENTS_MAX];
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: SLEEP_MS * 1_000_000 };
        while !stop.is_raised() {
            let count = match epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => 0,
                count => count?,
            };
            for event in &events[..count] {
                let data = event.data;
                match data.u64() {
                    LISTENER => self.accept()?,
                    peer => self.serve(peer),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), SinkError> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            let id = self.next_peer;
            self.next_peer += 1;
            epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(id), flags)?;
            let (reader, outbox) = (FrameReader::default(), Outbox::default());
            self.peers.insert(id, Peer { stream, reader, outbox });
        }
    }

    /// Answers what a peer has sent. A peer that sends nonsense, or has gone, is let go.
    fn serve(&mut self, id: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Peer { stream, reader, outbox } = peer;
        let log = &mut self.log;
        let each = |frame: Frame<'_>| log.answer(frame, outbox);
        let served = reader
            .read(stream, &mut self.scratch, FRAME_BYTES_MAX, each)
            .and_then(|end| outbox.write_to(stream).map(|_| end).map_err(SinkError::from));
        match served {
            Ok(ReadEnd::Drained) => {}
            Ok(ReadEnd::Closed) => drop(self.peers.remove(&id)),
            Err(error) => {
                tracing::debug!(%error, "a peer is let go");
                self.peers.remove(&id);
            }
        }
    }
}

/// Where logs would end if there were any.
struct Log {
    address: SocketAddr,
    manner: Manner,
    topics: BTreeMap<String, SinkTopic>,
}

#[derive(Default)]
struct SinkTopic {
    ends: Vec<i64>,
    /// In the version that was asked in last.
    answers: Option<(i16, AnswerTemplate)>,
}

impl Log {
    const fn new(address: SocketAddr, manner: Manner) -> Self {
        Self { address, manner, topics: BTreeMap::new() }
    }

    fn answer(&mut self, frame: Frame<'_>, outbox: &mut Outbox) -> Result<(), SinkError> {
        if self.answer_at_a_glance(frame.as_slice(), outbox).is_some() {
            return Ok(());
        }
        let frame = RequestFrame::parse(frame.to_bytes())?;
        let (id, version) = (frame.header.correlation_id, frame.version());
        let chunks = match frame.api {
            ApiKey::Produce => match self.produce(&frame.decode()?) {
                Some(response) => encode_response(id, version, &response)?,
                None => return Ok(()),
            },
            ApiKey::ApiVersions => encode(id, version, &api_versions(&frame.decode()?))?,
            ApiKey::Metadata => encode(id, version, &self.metadata(&frame.decode()?))?,
            ApiKey::CreateTopics => encode(id, version, &self.create(&frame.decode()?))?,
            ApiKey::DeleteTopics => encode(id, version, &self.delete(&frame.decode()?))?,
            ApiKey::ListOffsets => encode(id, version, &self.ends(&frame.decode()?))?,
            other => return Err(SinkError::NotServed(other)),
        };
        let length: usize = chunks.iter().map(Bytes::len).sum();
        outbox.copy(&u32::try_from(length).expect("answers are small").to_be_bytes());
        for chunk in chunks {
            outbox.copy(&chunk);
        }
        Ok(())
    }

    /// Answers a Produce request with one batch by its first bytes, so that the sink costs less than the client that
    /// it is to show the limit of. `None`, and nothing done, for any other request.
    fn answer_at_a_glance(&mut self, frame: &[u8], outbox: &mut Outbox) -> Option<()> {
        if !matches!(self.manner, Manner::Truthful) {
            return None;
        }
        let head = &frame[..frame.len().min(GLANCE_BYTES)];
        let request = RequestFrame::parse(Bytes::copy_from_slice(head)).ok()?;
        let version = request.version();
        if request.api != ApiKey::Produce || !ProduceRequest::is_flexible(version) {
            return None;
        }
        // As the schema has them: transactional id, acks, time-out, one topic's name, one partition and its records.
        let mut body = request.body;
        body.nullable_string(true).ok()?;
        let acks = body.i16().ok()?;
        body.i32().ok()?;
        let is_one = |length: u32| (length == 2).then_some(());
        is_one(body.varint().ok()?)?;
        let name = body.string(true).ok()?;
        let topic = self.topics.get_mut(name.as_str())?;
        is_one(body.varint().ok()?)?;
        let partition = body.i32().ok()?;
        let records = usize::try_from(body.varint().ok()?).ok()?.checked_sub(1)?;
        let header = BatchHeader::parse(&body.slice(HEADER_BYTES).ok()?).ok()?;
        if header.total_bytes != records {
            return None;
        }
        let end = topic.ends.get_mut(usize::try_from(partition).ok()?)?;
        if topic.answers.as_ref().is_none_or(|(known, _)| *known != version) {
            topic.answers = Some((version, AnswerTemplate::new(version, name.as_str()).ok()?));
        }
        let (_, answers) = topic.answers.as_ref()?;
        let base_offset = *end;
        *end += header.offset_count();
        if acks != 0 {
            answers.append(outbox, request.header.correlation_id, partition, base_offset);
        }
        Some(())
    }

    fn produce(&mut self, request: &ProduceRequest) -> Option<ProduceResponse> {
        let manner = self.manner;
        let mut responses = Vec::with_capacity(request.topic_data.len());
        for topic in &request.topic_data {
            let ends = self.topics.get_mut(topic.name.as_str());
            let ends = ends.map(|topic| topic.ends.as_mut_slice()).unwrap_or_default();
            let place = |data: &PartitionProduceData| {
                let (error_code, base_offset) =
                    place(ends, manner, data.index, data.records.as_ref());
                PartitionProduceResponse {
                    index: data.index,
                    error_code,
                    base_offset,
                    log_start_offset: 0,
                    ..PartitionProduceResponse::default()
                }
            };
            responses.push(TopicProduceResponse {
                name: topic.name.clone(),
                partition_responses: topic.partition_data.iter().map(place).collect(),
                ..TopicProduceResponse::default()
            });
        }
        (request.acks != 0).then(|| ProduceResponse { responses, ..ProduceResponse::default() })
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let partition = |index: usize| MetadataResponsePartition {
            partition_index: index as i32,
            leader_id: NODE_ID,
            replica_nodes: vec![NODE_ID],
            isr_nodes: vec![NODE_ID],
            ..MetadataResponsePartition::default()
        };
        let asked = request.topics.iter().flatten().filter_map(|topic| topic.name.as_ref());
        let topics = asked.map(|name| match self.topics.get(name.as_str()) {
            Some(topic) => MetadataResponseTopic {
                name: Some(name.clone()),
                partitions: (0..topic.ends.len()).map(partition).collect(),
                ..MetadataResponseTopic::default()
            },
            None => MetadataResponseTopic {
                error_code: UNKNOWN_TOPIC,
                name: Some(name.clone()),
                ..MetadataResponseTopic::default()
            },
        });
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: NODE_ID,
                host: self.address.ip().to_string().into(),
                port: self.address.port().into(),
                ..MetadataResponseBroker::default()
            }],
            controller_id: NODE_ID,
            topics: topics.collect(),
            ..MetadataResponse::default()
        }
    }

    fn create(&mut self, request: &CreateTopicsRequest) -> CreateTopicsResponse {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let count = usize::try_from(topic.num_partitions).unwrap_or(1).min(PARTITIONS_MAX);
            self.topics
                .insert(topic.name.to_string(), SinkTopic { ends: vec![0; count], answers: None });
            let name = topic.name.clone();
            topics.push(CreatableTopicResult { name, ..CreatableTopicResult::default() });
        }
        CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
    }

    fn delete(&mut self, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
        let mut responses = Vec::with_capacity(request.topic_names.len());
        for name in &request.topic_names {
            self.topics.remove(name.as_str());
            let name = Some(name.clone());
            responses.push(DeletableTopicResult { name, ..DeletableTopicResult::default() });
        }
        DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
    }

    fn ends(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let forgetful = self.manner == Manner::Forgetful;
        let topic = |asked: &ListOffsetsTopic| {
            let ends = self.topics.get(asked.name.as_str()).map(|topic| &topic.ends);
            let partition = |index: i32| {
                let end = ends.zip(usize::try_from(index).ok()).and_then(|(ends, at)| ends.get(at));
                ListOffsetsPartitionResponse {
                    partition_index: index,
                    error_code: if end.is_some() { 0 } else { UNKNOWN_TOPIC },
                    offset: end.map_or(-1, |end| if forgetful { *end / 2 } else { *end }),
                    ..ListOffsetsPartitionResponse::default()
                }
            };
            ListOffsetsTopicResponse {
                name: asked.name.clone(),
                partitions: asked.partitions.iter().map(|p| partition(p.partition_index)).collect(),
                ..ListOffsetsTopicResponse::default()
            }
        };
        let topics = request.topics.iter().map(topic).collect();
        ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
    }
}

/// UNKNOWN_TOPIC_OR_PARTITION.
const UNKNOWN_TOPIC: i16 = 3;
/// Partitions of a topic, whatever is asked for.
const PARTITIONS_MAX: usize = 100_000;

/// Error code and base offset of a batch.
fn place(
    ends: &mut [i64],
    manner: Manner,
    partition: i32,
    records: Option<&Records>,
) -> (i16, i64) {
    let end = usize::try_from(partition).ok().and_then(|index| ends.get_mut(index));
    let header =
        records.and_then(|records| records.chunks().first()).map(|chunk| BatchHeader::parse(chunk));
    let (Some(end), Some(Ok(header))) = (end, header) else { return (UNKNOWN_TOPIC, -1) };
    match manner {
        Manner::Truthful | Manner::Forgetful => {
            let base = *end;
            *end += header.offset_count();
            (0, base)
        }
        Manner::Refusing(code) => (code, -1),
        Manner::Repeating => (0, 0),
    }
}

fn api_versions(_: &ApiVersionsRequest) -> ApiVersionsResponse {
    let served = [
        ApiKey::Produce,
        ApiKey::Metadata,
        ApiKey::ApiVersions,
        ApiKey::CreateTopics,
        ApiKey::DeleteTopics,
        ApiKey::ListOffsets,
    ];
    let version = |api: ApiKey| {
        let versions = api.valid_versions();
        ApiVersion {
            api_key: api.key(),
            min_version: versions.min,
            max_version: versions.max,
            ..ApiVersion::default()
        }
    };
    let api_keys = served.into_iter().map(version).collect();
    ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() }
}

fn encode<R: Response>(id: i32, version: i16, response: &R) -> Result<Vec<Bytes>, EncodeError> {
    encode_response(id, version, response)
}
