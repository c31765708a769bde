//! The control thread: proposals in, durable log entries, committed commands out.
//!
//! Order, for every entry: on disk, then applied to the image, then handed to every sink, then the
//! proposer's answer. So a client that has its answer finds its topic queued on every shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use chronik_shards::format::metadata_command::{MetadataCommand, RegisterBroker};
use chronik_shards::format::metadata_frame::MetadataFormatError;
use chronik_shards::machine::metadata::{ApplyOutcome, MetadataImage};
use chronik_shards::model::BrokerEpoch;
use crossbeam::channel::{Receiver, bounded};
use raft::eraftpb::{Entry, EntryType};
use raft::{RawNode, StateRole};

use super::handle::{CommittedCommand, ControlError, MetadataSink, ReplyOnce, Request};
use super::identity::random_bytes;
use super::log::{LogError, RaftLog, raft_id};
use super::{CompactionPolicy, ControlConfig, ControlStartError, PROPOSALS_MAX, log_bridge};

/// The state of the control thread.
pub(super) struct ControlNode {
    raft: RawNode<RaftLog>,
    image: MetadataImage,
    sinks: Vec<MetadataSink>,
    /// Of this process: tells its proposals from those of earlier ones that are still in the log.
    incarnation: [u8; 16],
    next_proposal: u64,
    waiting: BTreeMap<u64, ReplyOnce>,
    compaction: CompactionPolicy,
}

impl ControlNode {
    /// Opens the log, becomes leader, applies everything and registers this node.
    pub(super) fn open(config: &ControlConfig) -> Result<(Self, BrokerEpoch), ControlStartError> {
        let log = RaftLog::open(&config.directory, config.node_id, config.accept_data_loss)?;
        let image = match log.snapshot_data() {
            [] => MetadataImage::default(),
            data => MetadataImage::decode(data).map_err(|error| unreadable(config, &error))?,
        };
        if image.applied() != log.snapshot_index() {
            let reason = format!(
                "the snapshot at {} holds an image at {}",
                log.snapshot_index(),
                image.applied()
            );
            return Err(damaged(config, reason).into());
        }
        let raft_config = raft::Config {
            id: raft_id(config.node_id),
            applied: image.applied(),
            max_size_per_msg: 1 << 20,
            ..raft::Config::default()
        };
        let raft = RawNode::new(&raft_config, log, &log_bridge::logger())?;
        let mut node = Self {
            raft,
            image,
            sinks: Vec::new(),
            incarnation: random_bytes()
                .map_err(|error| ControlStartError::Thread(error.to_string()))?,
            next_proposal: 0,
            waiting: BTreeMap::new(),
            compaction: config.compaction,
        };
        // Alone there is nobody to wait for: the only voter elects itself at once.
        node.raft.campaign()?;
        node.drive().map_err(|error| error.at_start(config))?;
        assert_eq!(node.raft.raft.state, StateRole::Leader, "the only voter leads");
        let broker_epoch = node.register(config)?;
        Ok((node, broker_epoch))
    }

    pub(super) fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Serves requests until told to stop or until nobody can ask any more.
    pub(super) fn serve(&mut self, requests: &Receiver<Request>) {
        while let Ok(request) = requests.recv() {
            let mut running = self.take(request);
            // What has gathered meanwhile shares one write.
            for request in requests.try_iter().take(PROPOSALS_MAX) {
                running &= self.take(request);
            }
            if let Err(failure) = self.drive() {
                // Nothing may be acknowledged any more, and a write that failed once must not be
                // tried again: the kernel may have dropped its pages.
                tracing::error!("{failure}; stopping the process");
                std::process::abort();
            }
            if !running {
                return;
            }
        }
    }

    /// Whether to go on.
    fn take(&mut self, request: Request) -> bool {
        match request {
            Request::Propose { command, reply } => self.propose(command, reply),
            Request::Subscribe { after, sink, reply } => {
                // The starter may have given up waiting.
                let _ = reply.send(self.subscribe(after, sink));
            }
            Request::Stop => return false,
        }
        true
    }

    fn propose(&mut self, command: Vec<u8>, reply: ReplyOnce) {
        let id = self.next_proposal;
        self.next_proposal += 1;
        let mut context = self.incarnation.to_vec();
        context.extend_from_slice(&id.to_le_bytes());
        match self.raft.propose(context, command) {
            Ok(()) => drop(self.waiting.insert(id, reply)),
            Err(_) => reply.answer(Err(ControlError::NotController)),
        }
    }

    fn subscribe(&mut self, after: u64, sink: MetadataSink) -> Result<(), ControlError> {
        let missed = self
            .raft
            .store()
            .entries_after(after, self.image.applied())
            .ok_or(ControlError::Compacted(after))?;
        for entry in missed.filter(|entry| is_command(entry)) {
            let command = MetadataCommand::decode(&entry.data)
                .expect("an applied entry decoded when it was applied");
            sink(Arc::new(CommittedCommand { index: entry.index, command }));
        }
        self.sinks.push(sink);
        Ok(())
    }

    /// Performs what raft wants done until it wants nothing.
    fn drive(&mut self) -> Result<(), ControlFailure> {
        while self.raft.has_ready() {
            let mut ready = self.raft.ready();
            // Messages would leave here, before the write; those of `persisted_messages` after it.
            assert!(ready.messages().is_empty(), "a lone voter has nobody to write to");
            assert_eq!(ready.snapshot().get_metadata().index, 0, "nor gets snapshots");
            let sync = ready.must_sync();
            self.raft.mut_store().persist(ready.entries(), ready.hs(), sync)?;
            assert!(ready.persisted_messages().is_empty(), "a lone voter has nobody to write to");
            self.apply(&ready.take_committed_entries())?;

            let mut light = self.raft.advance(ready);
            assert!(light.messages().is_empty(), "a lone voter has nobody to write to");
            self.apply(&light.take_committed_entries())?;
            self.raft.advance_apply();
        }
        self.compact_if_due()
    }

    fn apply(&mut self, entries: &[Entry]) -> Result<(), ControlFailure> {
        if let Some(last) = entries.last() {
            self.raft.mut_store().commit_to(last.index)?;
        }
        for entry in entries {
            if !is_command(entry) {
                // A new leader's empty entry.
                self.image.skip(entry.index);
                continue;
            }
            let command = MetadataCommand::decode(&entry.data)
                .map_err(|error| ControlFailure::Unreadable { index: entry.index, error })?;
            let applied = self.image.apply(entry.index, &command);
            let committed = Arc::new(CommittedCommand { index: entry.index, command });
            for sink in &self.sinks {
                sink(Arc::clone(&committed));
            }
            if let Some(reply) = self.own_proposal(entry).and_then(|id| self.waiting.remove(&id)) {
                reply.answer(applied.outcome.map_err(ControlError::from));
            }
        }
        Ok(())
    }

    /// The number of this process's proposal that became `entry`.
    fn own_proposal(&self, entry: &Entry) -> Option<u64> {
        let id = entry.context.strip_prefix(&self.incarnation)?;
        Some(u64::from_le_bytes(id.try_into().ok()?))
    }

    fn compact_if_due(&mut self) -> Result<(), ControlFailure> {
        let (entries, bytes) = self.raft.store().since_snapshot();
        if entries < self.compaction.entries as u64 && bytes < self.compaction.bytes {
            return Ok(());
        }
        let index = self.image.applied();
        let data = self.image.encode();
        self.raft.mut_store().compact(index, data, self.compaction.kept_entries)?;
        Ok(())
    }

    /// A new incarnation of this node: its leader epochs grow.
    fn register(&mut self, config: &ControlConfig) -> Result<BrokerEpoch, ControlStartError> {
        let command = MetadataCommand::RegisterBroker(RegisterBroker {
            node_id: config.node_id,
            incarnation: self.incarnation,
            shards: config.shards,
            host: config.advertised_host.clone(),
            port: config.advertised_port,
            directory_id: [0; 16],
            rack: None,
            fenced: false,
        });
        let (answer, answered) = bounded(1);
        let reply = ReplyOnce::new(Box::new(move |result| drop(answer.send(result))));
        self.propose(command.encode(), reply);
        self.drive().map_err(|error| error.at_start(config))?;
        match answered.try_recv().unwrap_or(Err(ControlError::Stopped)) {
            Ok(ApplyOutcome::BrokerRegistered { broker_epoch }) => Ok(broker_epoch),
            Ok(other) => unreachable!("a registration is answered with {other:?}"),
            Err(error) => Err(ControlStartError::Registration(error)),
        }
    }
}

fn is_command(entry: &Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty()
}

/// Stop: the log cannot be written, or holds something that this release cannot apply.
#[derive(Debug, thiserror::Error)]
enum ControlFailure {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("entry {index} of the metadata log: {error}")]
    Unreadable { index: u64, error: MetadataFormatError },
}

impl ControlFailure {
    fn at_start(self, config: &ControlConfig) -> ControlStartError {
        match self {
            Self::Log(error) => error.into(),
            Self::Unreadable { .. } => damaged(config, self.to_string()).into(),
        }
    }
}

fn unreadable(config: &ControlConfig, error: &MetadataFormatError) -> LogError {
    damaged(config, format!("its snapshot: {error}"))
}

fn damaged(config: &ControlConfig, reason: String) -> LogError {
    LogError::Damaged { directory: config.directory.display().to_string(), reason }
}
