//! The write-ahead log's bytes.
//!
//! A WAL file is a row of *commits*, each at a multiple of [`BLOCK_BYTES`] and padded to it with
//! zeroes. A commit is one write: a header, then entries. Files are recycled, so behind the last
//! commit lie zeroes or commits of the file's former life; those carry another generation (or
//! another shard) and count as nothing. Integers are little-endian, except inside record batches,
//! which are Kafka's own bytes.
//!
//! A commit:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic, `CHWL` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | shard |
//! | 8 | 8 | generation: the sequence number of the file |
//! | 16 | 8 | LSN |
//! | 24 | 8 | durable LSN when the commit was built; less than the LSN |
//! | 32 | 8 | position of this header in the file |
//! | 40 | 4 | payload bytes, padding excluded |
//! | 44 | 4 | entry count |
//! | 48 | 4 | CRC-32C of the payload |
//! | 52 | 4 | CRC-32C of bytes 0 to 51, and so of the payload too |
//! | 56 | | payload: the entries |
//!
//! The header's own CRC makes a damaged payload nameable: number, place and length are known.
//!
//! A file that is prepared and holds no commit yet begins with a block that says so, which the first
//! commit overwrites. Nothing in such a file was ever acknowledged, whatever lies behind:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic, `CHWU` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | shard |
//! | 8 | 8 | generation: the sequence number of the file |
//! | 16 | 4 | CRC-32C of bytes 0 to 15 |
//! | 20 | | zeroes |
//!
//! An entry:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | kind: 1 opened, 2 batch, 3 log start, 4 truncated, 5 closed, 6 flushed |
//! | 4 | 4 | body bytes |
//! | 8 | 16 | topic id |
//! | 24 | 4 | partition |
//! | 28 | | body |
//!
//! Bodies: *opened* leader epoch (4), then the topic's name in UTF-8; *batch* one record batch as in
//! a segment; *log start*, *truncated* and *flushed* an offset (8); *closed* nothing.
//!
//! Deliberately absent: which commits count as acknowledged, and what a hole means. That is decided
//! by recovery, which sees all files.

use std::io;

use bytes::{Bytes, BytesMut};

use super::record_batch::{BatchError, BatchHeader, StoredBatch};
use super::wal_entry::{Commit, WalEntry};
use crate::model::{
    LeaderEpoch, Lsn, Offset, PartitionIndex, ReplicaKey, ShardId, TopicId, WalFileSeq,
};

/// Commits begin at multiples of this and are padded to it with zeroes.
pub const BLOCK_BYTES: u64 = 4096;

/// Bytes of a commit before its entries.
pub const COMMIT_HEADER_BYTES: usize = 56;

/// Bytes of an entry before its body.
pub const ENTRY_HEADER_BYTES: usize = 28;

const MAGIC: [u8; 4] = *b"CHWL";
const UNUSED_MAGIC: [u8; 4] = *b"CHWU";
const VERSION: u16 = 1;
const BLOCK: usize = BLOCK_BYTES as usize;

const OPENED: u32 = 1;
const BATCH: u32 = 2;
const LOG_START: u32 = 3;
const TRUNCATED: u32 = 4;
const CLOSED: u32 = 5;
const FLUSHED: u32 = 6;

const _: () = assert!(COMMIT_HEADER_BYTES < BLOCK, "a header lies within one block");

/// Name of the WAL file `seq` in its shard's directory.
#[must_use]
pub fn file_name(seq: WalFileSeq) -> String {
    format!("{:020}.wal", seq.0)
}

/// The sequence number that a WAL file's name says, or `None` for another kind of file.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<WalFileSeq> {
    let digits = name.strip_suffix(".wal")?;
    let plain = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
    plain.then(|| digits.parse().ok().map(WalFileSeq)).flatten()
}

/// Bytes of one encoded entry.
#[must_use]
pub fn entry_bytes(entry: &WalEntry) -> usize {
    ENTRY_HEADER_BYTES + body_bytes(entry)
}

/// Bytes of a commit of `entries`, padding included: a multiple of [`BLOCK_BYTES`].
#[must_use]
pub fn encoded_bytes(entries: &[WalEntry]) -> usize {
    padded(COMMIT_HEADER_BYTES + entries.iter().map(entry_bytes).sum::<usize>())
}

/// Writes a commit over all of `out`, padding included.
///
/// # Panics
/// When `out` is not exactly [`encoded_bytes`] long, when the commit's position is not on a block,
/// or when its durable LSN is not below its own: all three are mistakes of the caller.
pub fn encode(shard: ShardId, commit: &Commit, out: &mut [u8]) {
    assert_eq!(out.len(), encoded_bytes(&commit.entries), "the buffer fits the commit");
    assert!(commit.position.is_multiple_of(BLOCK_BYTES), "commit at {}", commit.position);
    assert!(commit.durable < commit.lsn, "{:?} durable before written", commit.lsn);

    let mut writer = Writer { out, at: COMMIT_HEADER_BYTES };
    for entry in &commit.entries {
        encode_entry(entry, &mut writer);
    }
    let end = writer.at;
    out[end..].fill(0);

    let payload_crc = crc32c::crc32c(&out[COMMIT_HEADER_BYTES..end]);
    let payload_bytes = u32_len(end - COMMIT_HEADER_BYTES);
    let mut writer = Writer { out, at: 0 };
    writer.put(&MAGIC);
    writer.put(&VERSION.to_le_bytes());
    writer.put(&shard.0.to_le_bytes());
    writer.put(&commit.file.0.to_le_bytes());
    writer.put(&commit.lsn.0.to_le_bytes());
    writer.put(&commit.durable.0.to_le_bytes());
    writer.put(&commit.position.to_le_bytes());
    writer.put(&payload_bytes.to_le_bytes());
    writer.put(&u32_len(commit.entries.len()).to_le_bytes());
    writer.put(&payload_crc.to_le_bytes());
    let header_crc = crc32c::crc32c(&out[..52]);
    out[52..56].copy_from_slice(&header_crc.to_le_bytes());
}

/// The first block of a file that is prepared for `generation` and holds no commit yet.
#[must_use]
pub fn unused_block(shard: ShardId, generation: WalFileSeq) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut writer = Writer { out: &mut block, at: 0 };
    writer.put(&UNUSED_MAGIC);
    writer.put(&VERSION.to_le_bytes());
    writer.put(&shard.0.to_le_bytes());
    writer.put(&generation.0.to_le_bytes());
    let crc = crc32c::crc32c(&block[..16]);
    block[16..20].copy_from_slice(&crc.to_le_bytes());
    block
}

/// Whether a file that begins with `block` was prepared for `generation` and never used.
#[must_use]
pub fn is_unused(block: &[u8], shard: ShardId, generation: WalFileSeq) -> bool {
    block == unused_block(shard, generation)
}

/// Rounds up to whole blocks.
fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK)
}

fn u32_len(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a commit fits a WAL file, which is far below 4 GiB")
}

fn body_bytes(entry: &WalEntry) -> usize {
    match entry {
        WalEntry::Opened { topic_name, .. } => 4 + topic_name.len(),
        WalEntry::Batch { batch, .. } => batch.total_bytes(),
        WalEntry::LogStart { .. } | WalEntry::Truncated { .. } | WalEntry::Flushed { .. } => 8,
        WalEntry::Closed { .. } => 0,
    }
}

fn encode_entry(entry: &WalEntry, writer: &mut Writer<'_>) {
    let (kind, key) = match entry {
        WalEntry::Opened { key, .. } => (OPENED, key),
        WalEntry::Batch { key, .. } => (BATCH, key),
        WalEntry::LogStart { key, .. } => (LOG_START, key),
        WalEntry::Truncated { key, .. } => (TRUNCATED, key),
        WalEntry::Closed { key } => (CLOSED, key),
        WalEntry::Flushed { key, .. } => (FLUSHED, key),
    };
    writer.put(&kind.to_le_bytes());
    writer.put(&u32_len(body_bytes(entry)).to_le_bytes());
    writer.put(&key.topic_id.0);
    writer.put(&key.partition.0.to_le_bytes());
    match entry {
        WalEntry::Opened { topic_name, leader_epoch, .. } => {
            writer.put(&leader_epoch.0.to_le_bytes());
            writer.put(topic_name.as_bytes());
        }
        WalEntry::Batch { batch, .. } => {
            writer.put(&batch.stamp());
            writer.put(batch.tail());
        }
        WalEntry::LogStart { log_start_offset: offset, .. }
        | WalEntry::Truncated { end_offset: offset, .. }
        | WalEntry::Flushed { end_offset: offset, .. } => {
            writer.put(&offset.0.to_le_bytes());
        }
        WalEntry::Closed { .. } => {}
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

/// A commit's header, verified by its own CRC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitHeader {
    /// Whose WAL it belongs to.
    pub shard: ShardId,
    /// The file it was written for.
    pub generation: WalFileSeq,
    /// Its number.
    pub lsn: Lsn,
    /// Every commit up to this one was durable when this one was built.
    pub durable: Lsn,
    /// Where in the file it belongs.
    pub position: u64,
    /// Bytes of its entries.
    pub payload_bytes: usize,
    /// Number of its entries.
    pub entry_count: u32,
    /// CRC-32C of its entries.
    pub payload_crc: u32,
}

impl CommitHeader {
    /// Reads a header from the first bytes of a block. `None`: there is none, or it is damaged.
    #[must_use]
    pub fn parse(block: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes: block.get(..COMMIT_HEADER_BYTES)? };
        if reader.array::<4>()? != MAGIC
            || reader.u16()? != VERSION
            || crc32c::crc32c(&block[..52]) != u32::from_le_bytes(block[52..56].try_into().ok()?)
        {
            return None;
        }
        let header = Self {
            shard: ShardId(reader.u16()?),
            generation: WalFileSeq(reader.u64()?),
            lsn: Lsn(reader.u64()?),
            durable: Lsn(reader.u64()?),
            position: reader.u64()?,
            payload_bytes: reader.u32()? as usize,
            entry_count: reader.u32()?,
            payload_crc: reader.u32()?,
        };
        (header.durable < header.lsn).then_some(header)
    }

    /// Bytes the commit takes in the file, padding included.
    #[must_use]
    pub fn padded_bytes(&self) -> u64 {
        padded(COMMIT_HEADER_BYTES + self.payload_bytes) as u64
    }

    /// Where the next commit of the file begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.position + self.padded_bytes()
    }
}

/// Why the entries of a commit whose CRC is right cannot be read: a writer's mistake, or a format of
/// another version.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WalError {
    /// An entry claims more bytes than the commit has.
    #[error("an entry ends beyond its commit")]
    Truncated,
    /// Bytes follow the last entry.
    #[error("{0} bytes follow the last entry")]
    Trailing(usize),
    /// An entry of an unknown kind.
    #[error("unknown entry kind {0}")]
    UnknownKind(u32),
    /// An entry's body has the wrong size for its kind.
    #[error("an entry of kind {kind} has a body of {bytes} bytes")]
    BodyBytes {
        /// The kind.
        kind: u32,
        /// The size found.
        bytes: usize,
    },
    /// A topic's name is not UTF-8.
    #[error("a topic name is not UTF-8")]
    TopicName,
    /// A record batch does not verify.
    #[error("a record batch of {key}: {error}")]
    Batch {
        /// Whose.
        key: ReplicaKey,
        /// What is wrong with it.
        error: BatchError,
    },
}

/// Reads the entries of a commit whose CRC was right. Batches alias `payload`.
///
/// # Errors
/// When the bytes are not exactly `entry_count` well-formed entries.
pub fn decode_entries(payload: &Bytes, entry_count: u32) -> Result<Vec<WalEntry>, WalError> {
    let most = payload.len() / ENTRY_HEADER_BYTES;
    let mut entries = Vec::with_capacity(most.min(entry_count as usize));
    let mut at = 0;
    for _ in 0..entry_count {
        let (head, body) = split_entry(&payload[at..]).ok_or(WalError::Truncated)?;
        let start = at + ENTRY_HEADER_BYTES;
        at = start + body.len();
        entries.push(decode_entry(&head, payload.slice(start..at))?);
    }
    match payload.len() - at {
        0 => Ok(entries),
        trailing => Err(WalError::Trailing(trailing)),
    }
}

struct EntryHead {
    kind: u32,
    key: ReplicaKey,
}

fn split_entry(bytes: &[u8]) -> Option<(EntryHead, &[u8])> {
    let mut reader = Reader { bytes };
    let kind = reader.u32()?;
    let body_bytes = reader.u32()? as usize;
    let topic_id = TopicId(reader.array()?);
    let partition = PartitionIndex(i32::from_le_bytes(reader.array()?));
    let body = reader.bytes.get(..body_bytes)?;
    Some((EntryHead { kind, key: ReplicaKey { topic_id, partition } }, body))
}

fn decode_entry(head: &EntryHead, body: Bytes) -> Result<WalEntry, WalError> {
    let key = head.key;
    let wrong_size = WalError::BodyBytes { kind: head.kind, bytes: body.len() };
    let offset = || -> Result<Offset, WalError> {
        let raw = body[..].try_into().map_err(|_| wrong_size.clone())?;
        Ok(Offset(i64::from_le_bytes(raw)))
    };
    Ok(match head.kind {
        OPENED => {
            let (epoch, name) = body.split_first_chunk::<4>().ok_or(wrong_size)?;
            WalEntry::Opened {
                key,
                topic_name: str::from_utf8(name).map_err(|_| WalError::TopicName)?.to_owned(),
                leader_epoch: LeaderEpoch(i32::from_le_bytes(*epoch)),
            }
        }
        BATCH => {
            let batch =
                StoredBatch::from_log(body).map_err(|error| WalError::Batch { key, error })?;
            WalEntry::Batch { key, batch }
        }
        LOG_START => WalEntry::LogStart { key, log_start_offset: offset()? },
        TRUNCATED => WalEntry::Truncated { key, end_offset: offset()? },
        FLUSHED => WalEntry::Flushed { key, end_offset: offset()? },
        CLOSED if body.is_empty() => WalEntry::Closed { key },
        CLOSED => return Err(wrong_size),
        kind => return Err(WalError::UnknownKind(kind)),
    })
}

/// What can still be said of an entry in a damaged commit. Not verified: for messages only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SalvagedEntry {
    /// Whose entry it says it is.
    pub key: ReplicaKey,
    /// For a batch: the offsets it says it holds, end exclusive.
    pub offsets: Option<(Offset, Offset)>,
}

/// Reads entry headers from where a damaged commit begins, until something makes no sense.
#[must_use]
pub fn salvage(commit: &[u8]) -> Vec<SalvagedEntry> {
    let mut salvaged = Vec::new();
    let mut rest = commit.get(COMMIT_HEADER_BYTES..).unwrap_or_default();
    while let Some((head, body)) = split_entry(rest) {
        if !(OPENED..=FLUSHED).contains(&head.kind) || head.key.partition.0 < 0 {
            break;
        }
        let mut offsets = None;
        if head.kind == BATCH {
            let Ok(header) = BatchHeader::parse(body) else { break };
            offsets = Some((header.base_offset, header.end_offset()));
        }
        salvaged.push(SalvagedEntry { key: head.key, offsets });
        rest = &rest[ENTRY_HEADER_BYTES + body.len()..];
    }
    salvaged
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk()?;
        self.bytes = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Something that a [`Scanner`] came upon.
#[derive(Clone, Debug)]
pub enum Scanned {
    /// A commit whose bytes verify.
    Commit {
        /// Its header.
        header: CommitHeader,
        /// Its entries, for [`decode_entries`].
        payload: Bytes,
    },
    /// A commit whose header verifies and whose payload does not.
    Damaged {
        /// Its header.
        header: CommitHeader,
        /// What its entries say.
        entries: Vec<SalvagedEntry>,
    },
}

impl Scanned {
    /// The header, which verified in either case.
    #[must_use]
    pub fn header(&self) -> &CommitHeader {
        match self {
            Self::Commit { header, .. } | Self::Damaged { header, .. } => header,
        }
    }
}

/// Walks one WAL file and yields the commits of its present life, in file order.
///
/// Where no header verifies it looks on at the next block boundary, to the file's end, so that
/// commits behind a damaged one are seen. `read` fills the whole buffer from the position given.
/// Reads go in pieces of [`Scanner::WINDOW_BYTES`] or one commit, whichever is larger.
pub struct Scanner<R> {
    read: R,
    shard: ShardId,
    generation: WalFileSeq,
    file_bytes: u64,
    position: u64,
    window: Bytes,
    window_start: u64,
}

impl<R: FnMut(u64, &mut [u8]) -> io::Result<()>> Scanner<R> {
    /// How much is read at once.
    pub const WINDOW_BYTES: u64 = 1 << 20;

    /// Starts at the beginning of the file `generation` of `shard`, which has `file_bytes` bytes.
    pub fn new(shard: ShardId, generation: WalFileSeq, file_bytes: u64, read: R) -> Self {
        let window = Bytes::new();
        Self { read, shard, generation, file_bytes, position: 0, window, window_start: 0 }
    }

    /// The next commit, or `None` at the end of the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_commit(&mut self) -> io::Result<Option<Scanned>> {
        while self.position + COMMIT_HEADER_BYTES as u64 <= self.file_bytes {
            let head = self.bytes(COMMIT_HEADER_BYTES as u64)?;
            let Some(header) = CommitHeader::parse(&head).filter(|header| self.belongs(header))
            else {
                self.position += BLOCK_BYTES;
                continue;
            };
            let commit = self.bytes((COMMIT_HEADER_BYTES + header.payload_bytes) as u64)?;
            let payload = commit.slice(COMMIT_HEADER_BYTES..);
            self.position = header.end();
            return Ok(Some(if crc32c::crc32c(&payload) == header.payload_crc {
                Scanned::Commit { header, payload }
            } else {
                Scanned::Damaged { header, entries: salvage(&commit) }
            }));
        }
        Ok(None)
    }

    /// Whether a header is of this file's present life and its payload can be inside the file.
    fn belongs(&self, header: &CommitHeader) -> bool {
        header.shard == self.shard
            && header.generation == self.generation
            && header.position == self.position
            && header.payload_bytes as u64
                <= self.file_bytes - self.position - COMMIT_HEADER_BYTES as u64
    }

    /// `count` bytes from the position on; they are inside the file.
    fn bytes(&mut self, count: u64) -> io::Result<Bytes> {
        let window_end = self.window_start + self.window.len() as u64;
        if self.position < self.window_start || self.position + count > window_end {
            let wanted = count.max(Self::WINDOW_BYTES).min(self.file_bytes - self.position);
            let mut buffer = BytesMut::zeroed(wanted as usize);
            (self.read)(self.position, &mut buffer)?;
            self.window = buffer.freeze();
            self.window_start = self.position;
        }
        let start = (self.position - self.window_start) as usize;
        Ok(self.window.slice(start..start + count as usize))
    }
}

#[cfg(test)]
mod tests;
