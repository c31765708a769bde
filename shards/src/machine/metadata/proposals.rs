//! Proposals that are applied at most once, though they may be in the log more than once.
//!
//! A node numbers its proposals. When it does not see one in the log it proposes it again, under the
//! same number; the first that is committed counts and later ones change nothing. What must be
//! remembered for that is part of the replicated state and bounded: with every proposal a node says
//! below which number it waits for nothing more, and it keeps at most [`PROPOSAL_WINDOW`] above that.
//!
//! A new incarnation begins a new numbering with its registration. Proposals of an incarnation that
//! is not registered any more change nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::{Applied, MetadataImage, Rejection};
use crate::format::metadata_command::MetadataCommand;
use crate::format::metadata_frame::MetadataFormatError;
use crate::format::metadata_snapshot::{MetadataSnapshot, ProposerRecord};
use crate::model::NodeId;

/// How far above the lowest proposal that it waits for a node's numbers may go.
pub const PROPOSAL_WINDOW: u64 = 2048;

/// Which proposal a log entry is.
///
/// | offset | size | field |
/// | ---: | ---: | --- |
/// | 0 | 16 | incarnation |
/// | 16 | 8 | number |
/// | 24 | 8 | floor |
/// | 32 | 4 | node |
///
/// All numbers are little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProposalId {
    /// Who proposed.
    pub node_id: NodeId,
    /// In which incarnation.
    pub incarnation: [u8; 16],
    /// Unique within the incarnation.
    pub number: u64,
    /// The proposer waits for nothing below.
    pub floor: u64,
}

impl ProposalId {
    /// Bytes of an encoded id.
    pub const BYTES: usize = 36;

    /// The id as it stands beside a command in the log.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.incarnation);
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.floor.to_le_bytes());
        bytes[32..].copy_from_slice(&self.node_id.get().to_le_bytes());
        bytes
    }

    /// Reads an id; `None` when the bytes are none, as in logs of nodes that were alone.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes of a fixed array"))
        };
        let node = bytes[32..].try_into().expect("four bytes of a fixed array");
        Some(Self {
            incarnation: bytes[..16].try_into().expect("sixteen bytes of a fixed array"),
            number: number(16),
            floor: number(24),
            node_id: NodeId(i32::from_le_bytes(node)),
        })
    }
}

/// What is remembered of one node's proposals.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Proposer {
    incarnation: [u8; 16],
    /// Every number below is settled: the node waits for none of them.
    floor: u64,
    /// From the floor on.
    applied: BTreeSet<u64>,
}

impl Proposer {
    fn new(incarnation: [u8; 16]) -> Self {
        Self { incarnation, floor: 0, applied: BTreeSet::new() }
    }

    /// Whether this is the first time.
    fn admit(&mut self, id: &ProposalId) -> bool {
        if id.floor > self.floor {
            self.floor = id.floor;
            self.applied = self.applied.split_off(&id.floor);
        }
        let window = self.floor..self.floor.saturating_add(PROPOSAL_WINDOW);
        window.contains(&id.number) && self.applied.insert(id.number)
    }
}

/// Everything that the log adds up to: the image that shards see, and which proposals are in it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicatedState {
    image: MetadataImage,
    proposers: BTreeMap<NodeId, Proposer>,
}

impl ReplicatedState {
    /// What shards see.
    #[must_use]
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// Notes that log index `index` held nothing to apply.
    pub fn skip(&mut self, index: u64) {
        self.image.skip(index);
    }

    /// Applies the command at `index`, unless its proposal was applied before: `None` then.
    pub fn apply(
        &mut self,
        index: u64,
        proposal: Option<&ProposalId>,
        command: &MetadataCommand,
    ) -> Option<Applied> {
        let Some(id) = proposal else { return Some(self.image.apply(index, command)) };
        if let MetadataCommand::RegisterBroker(registration) = command
            && registration.node_id == id.node_id
            && registration.incarnation == id.incarnation
        {
            let applied = self.image.apply(index, command);
            let is_known =
                self.proposers.get(&id.node_id).is_some_and(|it| it.incarnation == id.incarnation);
            if applied.outcome.is_ok() && !is_known {
                self.proposers.insert(id.node_id, Proposer::new(id.incarnation));
            }
            return Some(applied);
        }
        match self.proposers.get_mut(&id.node_id) {
            Some(proposer) if proposer.incarnation == id.incarnation => {
                if proposer.admit(id) {
                    return Some(self.image.apply(index, command));
                }
                self.image.skip(index);
                None
            }
            _ => {
                self.image.skip(index);
                let outcome = Err(Rejection::StaleProposer(id.node_id));
                Some(Applied { outcome, changes: Vec::new() })
            }
        }
    }

    /// Whether a proposal of a node's incarnation is in the state. For a proposer that got a snapshot and
    /// has not seen the log.
    #[must_use]
    pub fn contains(&self, node_id: NodeId, incarnation: [u8; 16], number: u64) -> bool {
        self.proposers.get(&node_id).is_some_and(|proposer| {
            proposer.incarnation == incarnation
                && (number < proposer.floor || proposer.applied.contains(&number))
        })
    }

    /// Everything as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let record = |(node_id, proposer): (&NodeId, &Proposer)| ProposerRecord {
            node_id: *node_id,
            incarnation: proposer.incarnation,
            floor: proposer.floor,
            applied: proposer.applied.iter().copied().collect(),
        };
        let proposers = self.proposers.iter().map(record).collect();
        MetadataSnapshot { proposers, ..self.image.to_snapshot() }.encode()
    }

    /// The state that [`ReplicatedState::encode`] wrote.
    ///
    /// # Errors
    /// [`MetadataFormatError`] when the bytes are not a snapshot, or one that contradicts itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetadataFormatError> {
        let mut snapshot = MetadataSnapshot::decode(bytes)?;
        let mut proposers = BTreeMap::new();
        for record in std::mem::take(&mut snapshot.proposers) {
            let ProposerRecord { node_id, incarnation, floor, applied } = record;
            let applied: BTreeSet<u64> = applied.into_iter().collect();
            let within = floor..floor.saturating_add(PROPOSAL_WINDOW);
            let fits = applied.iter().all(|number| within.contains(number));
            let proposer = Proposer { incarnation, floor, applied };
            if !fits || proposers.insert(node_id, proposer).is_some() {
                return Err(MetadataFormatError::Body(format!("the proposals of node {node_id}")));
            }
        }
        Ok(Self { image: MetadataImage::from_snapshot(snapshot)?, proposers })
    }
}
