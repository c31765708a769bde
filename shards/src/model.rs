//! The words of the domain as types: offsets, epochs, identities and time.
//!
//! Nothing here does IO or knows a byte layout. Arithmetic is defined only where it means something:
//! an [`Offset`] plus a count is an `Offset`; two offsets cannot be added.

use std::fmt;
use std::str::FromStr;

/// Declares an integer newtype with its ordering, display and raw access.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $raw);

        impl $name {
            /// The raw number, for encoders and log lines.
            #[must_use]
            pub const fn get(self) -> $raw {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number! {
    /// Position of a record in a partition's log. Counts records, from 0.
    Offset(i64)
}
number! {
    /// Term of a partition's leader. Only grows. Source: KIP-101.
    LeaderEpoch(i32)
}
number! {
    /// A node of the cluster, as clients see it (Kafka: broker id).
    NodeId(i32)
}
number! {
    /// One incarnation of a node: grows with every registration. Source: KIP-631, KIP-903.
    BrokerEpoch(i64)
}
number! {
    /// A thread of a node and all it owns, from 0.
    ShardId(u16)
}
number! {
    /// Index of a partition within its topic, from 0.
    PartitionIndex(i32)
}
number! {
    /// Identity of an idempotent producer. Source: KIP-98.
    ProducerId(i64)
}
number! {
    /// Incarnation of an idempotent producer. Source: KIP-98.
    ProducerEpoch(i16)
}
number! {
    /// Number of a WAL commit of one shard. Contiguous: a missing number is a hole. Starts at 1;
    /// 0 means "nothing yet".
    Lsn(u64)
}
number! {
    /// Generation of a WAL file: its name, and the stamp of every commit inside it. Starts at 1.
    WalFileSeq(u64)
}
number! {
    /// Wall-clock time in milliseconds since the Unix epoch, as Kafka counts it. −1: none.
    TimestampMs(i64)
}
number! {
    /// Monotonic time in microseconds since an arbitrary start.
    MonotonicMicros(u64)
}

impl Offset {
    /// The first offset of a partition.
    pub const ZERO: Self = Self(0);

    /// The offset `count` records later.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }

    /// How many records lie in `earlier..self`; negative when `earlier` is the later one.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

impl LeaderEpoch {
    /// What batches carry before a leader has stamped them.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// A batch without an idempotent producer.
    pub const NONE: Self = Self(-1);
}

impl TimestampMs {
    /// No timestamp.
    pub const NONE: Self = Self(-1);
}

impl Lsn {
    /// The commit after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl WalFileSeq {
    /// The file after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl MonotonicMicros {
    /// The moment `millis` later; saturates at the end of time.
    #[must_use]
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1000)))
    }

    /// Microseconds since `earlier`, 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The two clocks, read once by the caller of a machine and passed in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For deadlines and ages: never jumps.
    pub monotonic: MonotonicMicros,
    /// For record timestamps and retention: may jump.
    pub wall: TimestampMs,
}

/// Identity of a topic: survives renames of nothing, differs between two topics of one name.
/// Source: KIP-516. Displayed as Kafka does, in URL-safe base64 without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl TopicId {
    /// All zeroes: no topic.
    pub const ZERO: Self = Self([0; 16]);
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.chunks(3) {
            let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            for digit in 0..=chunk.len() {
                let index = (bits >> (18 - 6 * digit)) & 0x3f;
                write!(f, "{}", char::from(BASE64_URL[index as usize]))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// A topic id that is not 22 characters of URL-safe base64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a topic id is 22 characters of URL-safe base64, not {0:?}")]
pub struct TopicIdError(pub String);

impl FromStr for TopicId {
    type Err = TopicIdError;

    fn from_str(text: &str) -> Result<Self, TopicIdError> {
        let error = || TopicIdError(text.to_owned());
        if text.len() != 22 {
            return Err(error());
        }
        let mut bits = 0u128;
        for (place, digit) in text.bytes().enumerate() {
            let value = BASE64_URL.iter().position(|known| *known == digit).ok_or_else(error)?;
            // The last character carries two bits of the id and four that must be zero.
            if place == 21 {
                if value & 0xf != 0 {
                    return Err(error());
                }
                bits = bits << 2 | (value as u128) >> 4;
            } else {
                bits = bits << 6 | value as u128;
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

/// A partition's identity on every node that holds a replica of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ReplicaKey {
    /// The topic.
    pub topic_id: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl fmt::Display for ReplicaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

impl ReplicaKey {
    /// The shard that owns this replica on a node with `shards` shards.
    ///
    /// Consecutive partitions of a topic land on consecutive shards. A peer computes the same from
    /// the node's registered shard count, so this function is part of the wire contract.
    ///
    /// # Panics
    /// When `shards` is 0: a node without shards cannot own anything.
    #[must_use]
    pub fn shard(self, shards: u16) -> ShardId {
        assert!(shards > 0, "a node has at least one shard");
        let hash = fnv1a(&self.topic_id.0).wrapping_add(self.partition.0 as u64);
        ShardId((hash % u64::from(shards)) as u16)
    }
}

/// FNV-1a, 64 bits: stable across releases, platforms and processes.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// How long a producer waits for its records. Source: Kafka's `acks`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acks {
    /// Never answered.
    None,
    /// Answered when the leader's disk has it.
    Leader,
    /// Answered when every in-sync replica's disk has it.
    All,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_reads_back_what_it_shows() {
        let id = TopicId(*b"\x00\x01\x02\x03\xff\xfe\xfd\xfc0123abcd");
        assert_eq!(id.to_string(), "AAECA__-_fwwMTIzYWJjZA");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn topic_id_of_wrong_length_or_alphabet_is_refused() {
        for text in ["", "AAAA", "AAECA//+/fwwMTIzYWJjZA", "AAECA__-_fwwMTIzYWJjZB"] {
            assert_eq!(text.parse::<TopicId>(), Err(TopicIdError(text.to_owned())));
        }
    }

    #[test]
    fn consecutive_partitions_land_on_consecutive_shards() {
        let key = |partition| ReplicaKey {
            topic_id: TopicId([7; 16]),
            partition: PartitionIndex(partition),
        };
        let first = key(0).shard(4).0;
        for partition in 1..9 {
            let expected = (u32::from(first) + partition as u32) % 4;
            assert_eq!(u32::from(key(partition).shard(4).0), expected);
        }
    }
}
