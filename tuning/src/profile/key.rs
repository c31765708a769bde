//! The keys of a profile: names, what each takes, and where its value goes.

use std::time::Duration;

use toml::Value;

use super::{ControlCore, Cores, MemoryFit, Profile, ShardCount};
use crate::plan::SHARDS_MAX;
use crate::{cpulist, size};

/// A key of a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// `cores`
    Cores,
    /// `pin`
    Pin,
    /// `shards`
    Shards,
    /// `control_core`
    ControlCore,
    /// `spin_before_park_us`
    SpinBeforeParkUs,
    /// `wal_file_bytes`
    WalFileBytes,
    /// `wal_files_max`
    WalFilesMax,
    /// `commit_bytes_max`
    CommitBytesMax,
    /// `commits_in_flight_max`
    CommitsInFlightMax,
    /// `commit_linger_us`
    CommitLingerUs,
    /// `large_run_bytes`
    LargeRunBytes,
    /// `flush_round_bytes`
    FlushRoundBytes,
    /// `flush_round_age_ms`
    FlushRoundAgeMs,
    /// `tail_cache_bytes`
    TailCacheBytes,
    /// `index_cache_bytes`
    IndexCacheBytes,
    /// `request_memory_bytes`
    RequestMemoryBytes,
    /// `response_memory_bytes`
    ResponseMemoryBytes,
    /// `memory_fit`
    MemoryFit,
    /// `socket_send_bytes`
    SocketSendBytes,
    /// `socket_receive_bytes`
    SocketReceiveBytes,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Key {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 20] = [
        Self::Cores,
        Self::Pin,
        Self::Shards,
        Self::ControlCore,
        Self::SpinBeforeParkUs,
        Self::WalFileBytes,
        Self::WalFilesMax,
        Self::CommitBytesMax,
        Self::CommitsInFlightMax,
        Self::CommitLingerUs,
        Self::LargeRunBytes,
        Self::FlushRoundBytes,
        Self::FlushRoundAgeMs,
        Self::TailCacheBytes,
        Self::IndexCacheBytes,
        Self::RequestMemoryBytes,
        Self::ResponseMemoryBytes,
        Self::MemoryFit,
        Self::SocketSendBytes,
        Self::SocketReceiveBytes,
    ];

    /// The key of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.name() == name)
    }

    /// Its name in a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cores => "cores",
            Self::Pin => "pin",
            Self::Shards => "shards",
            Self::ControlCore => "control_core",
            Self::SpinBeforeParkUs => "spin_before_park_us",
            Self::WalFileBytes => "wal_file_bytes",
            Self::WalFilesMax => "wal_files_max",
            Self::CommitBytesMax => "commit_bytes_max",
            Self::CommitsInFlightMax => "commits_in_flight_max",
            Self::CommitLingerUs => "commit_linger_us",
            Self::LargeRunBytes => "large_run_bytes",
            Self::FlushRoundBytes => "flush_round_bytes",
            Self::FlushRoundAgeMs => "flush_round_age_ms",
            Self::TailCacheBytes => "tail_cache_bytes",
            Self::IndexCacheBytes => "index_cache_bytes",
            Self::RequestMemoryBytes => "request_memory_bytes",
            Self::ResponseMemoryBytes => "response_memory_bytes",
            Self::MemoryFit => "memory_fit",
            Self::SocketSendBytes => "socket_send_bytes",
            Self::SocketReceiveBytes => "socket_receive_bytes",
        }
    }

    /// What it takes, in words; the bounds are those that [`Self::set`] checks.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Cores => "\"all\" or CPUs as in \"0-3,6\"",
            Self::Pin => "true or false",
            Self::Shards => "\"per-core\" or a number from 1 to 256",
            Self::ControlCore => "\"any\", \"auto\" or CPUs as in \"0\" or \"0-1\"",
            Self::SpinBeforeParkUs => "a number of microseconds up to 10000",
            Self::WalFileBytes => "a size from 4 MiB to 16 GiB",
            Self::WalFilesMax => "a number from 2 to 1024",
            Self::CommitBytesMax => "a size from 64 KiB to 256 MiB",
            Self::CommitsInFlightMax => "a number from 1 to 16",
            Self::CommitLingerUs => "a number of microseconds up to 1000000",
            Self::LargeRunBytes => "a size from 1 KiB to 1024 GiB",
            Self::FlushRoundBytes => "a size from 1 MiB to 1024 GiB",
            Self::FlushRoundAgeMs => "a number of milliseconds from 10 to 3600000",
            Self::TailCacheBytes => "a size up to 1024 GiB",
            Self::IndexCacheBytes => "a size from 64 KiB to 64 GiB",
            Self::RequestMemoryBytes | Self::ResponseMemoryBytes => "a size from 1 MiB to 1024 GiB",
            Self::MemoryFit => "\"shrink\" or \"refuse\"",
            Self::SocketSendBytes | Self::SocketReceiveBytes => "0 or a size from 4 KiB to 1 GiB",
        }
    }

    /// Gives the profile a value; `None` when the key does not take it.
    pub(super) fn set(self, profile: &mut Profile, value: &Value) -> Option<()> {
        let limits = &mut profile.limits;
        let memory = &mut profile.memory;
        match self {
            Self::Cores => {
                profile.cores = match value.as_str()? {
                    "all" => Cores::All,
                    list => Cores::List(cpulist::parse(list)?),
                }
            }
            Self::Pin => profile.pin = value.as_bool()?,
            Self::Shards => {
                profile.shards = match value {
                    Value::String(text) if text == "per-core" => ShardCount::PerCore,
                    _ => {
                        let count = number(value, 1, u64::from(SHARDS_MAX))?;
                        ShardCount::Count(u16::try_from(count).ok()?)
                    }
                }
            }
            Self::ControlCore => {
                profile.control_core = match value.as_str()? {
                    "any" => ControlCore::Any,
                    "auto" => ControlCore::Auto,
                    list => ControlCore::List(cpulist::parse(list)?),
                }
            }
            Self::SpinBeforeParkUs => {
                profile.spin_before_park = Duration::from_micros(number(value, 0, 10_000)?);
            }
            Self::WalFileBytes => limits.wal_file_bytes = bytes(value, 4 * MIB, 16 * GIB)?,
            Self::WalFilesMax => limits.wal_files_max = number(value, 2, 1024)? as usize,
            Self::CommitBytesMax => {
                limits.commit_bytes_max = bytes(value, 64 * KIB, 256 * MIB)?;
            }
            Self::CommitsInFlightMax => {
                limits.commits_in_flight_max = number(value, 1, 16)? as usize;
            }
            Self::CommitLingerUs => {
                profile.commit_linger = Duration::from_micros(number(value, 0, 1_000_000)?);
            }
            Self::LargeRunBytes => limits.run_bytes_min = bytes(value, KIB, 1024 * GIB)?,
            Self::FlushRoundBytes => limits.round_bytes = bytes(value, MIB, 1024 * GIB)?,
            Self::FlushRoundAgeMs => limits.round_age_ms = number(value, 10, 3_600_000)?,
            Self::TailCacheBytes => {
                limits.tail_cache_bytes = bytes(value, 0, 1024 * GIB)? as usize;
            }
            Self::IndexCacheBytes => {
                memory.index_cache_bytes = bytes(value, 64 * KIB, 64 * GIB)? as usize;
            }
            Self::RequestMemoryBytes => {
                memory.request_bytes = bytes(value, MIB, 1024 * GIB)? as usize;
            }
            Self::ResponseMemoryBytes => {
                memory.response_bytes = bytes(value, MIB, 1024 * GIB)? as usize;
            }
            Self::MemoryFit => {
                profile.memory_fit = match value.as_str()? {
                    "shrink" => MemoryFit::Shrink,
                    "refuse" => MemoryFit::Refuse,
                    _ => return None,
                }
            }
            Self::SocketSendBytes => profile.socket_send_bytes = buffer(value)?,
            Self::SocketReceiveBytes => profile.socket_receive_bytes = buffer(value)?,
        }
        Some(())
    }

    /// The profile's value, as a file would have it.
    #[must_use]
    pub fn show(self, profile: &Profile) -> String {
        let (limits, memory) = (&profile.limits, &profile.memory);
        let quoted = |text: &str| format!("\"{text}\"");
        let sized = |bytes: u64| match size::format(bytes) {
            text if text.contains(' ') => quoted(&text),
            text => text,
        };
        match self {
            Self::Cores => match &profile.cores {
                Cores::All => quoted("all"),
                Cores::List(cpus) => quoted(&cpulist::format(cpus)),
            },
            Self::Pin => profile.pin.to_string(),
            Self::Shards => match profile.shards {
                ShardCount::PerCore => quoted("per-core"),
                ShardCount::Count(count) => count.to_string(),
            },
            Self::ControlCore => match &profile.control_core {
                ControlCore::Any => quoted("any"),
                ControlCore::Auto => quoted("auto"),
                ControlCore::List(cpus) => quoted(&cpulist::format(cpus)),
            },
            Self::SpinBeforeParkUs => profile.spin_before_park.as_micros().to_string(),
            Self::WalFileBytes => sized(limits.wal_file_bytes),
            Self::WalFilesMax => limits.wal_files_max.to_string(),
            Self::CommitBytesMax => sized(limits.commit_bytes_max),
            Self::CommitsInFlightMax => limits.commits_in_flight_max.to_string(),
            Self::CommitLingerUs => profile.commit_linger.as_micros().to_string(),
            Self::LargeRunBytes => sized(limits.run_bytes_min),
            Self::FlushRoundBytes => sized(limits.round_bytes),
            Self::FlushRoundAgeMs => limits.round_age_ms.to_string(),
            Self::TailCacheBytes => sized(limits.tail_cache_bytes as u64),
            Self::IndexCacheBytes => sized(memory.index_cache_bytes as u64),
            Self::RequestMemoryBytes => sized(memory.request_bytes as u64),
            Self::ResponseMemoryBytes => sized(memory.response_bytes as u64),
            Self::MemoryFit => match profile.memory_fit {
                MemoryFit::Shrink => quoted("shrink"),
                MemoryFit::Refuse => quoted("refuse"),
            },
            Self::SocketSendBytes => sized(profile.socket_send_bytes.unwrap_or(0) as u64),
            Self::SocketReceiveBytes => sized(profile.socket_receive_bytes.unwrap_or(0) as u64),
        }
    }
}

fn number(value: &Value, min: u64, max: u64) -> Option<u64> {
    within(u64::try_from(value.as_integer()?).ok()?, min, max)
}

fn bytes(value: &Value, min: u64, max: u64) -> Option<u64> {
    let bytes = match value {
        Value::String(text) => size::parse(text)?,
        other => u64::try_from(other.as_integer()?).ok()?,
    };
    within(bytes, min, max)
}

fn within(number: u64, min: u64, max: u64) -> Option<u64> {
    (min..=max).contains(&number).then_some(number)
}

/// Size of a socket's buffer, or none for 0.
fn buffer(value: &Value) -> Option<Option<usize>> {
    match bytes(value, 0, GIB)? {
        0 => Some(None),
        bytes => Some(Some(within(bytes, 4 * KIB, GIB)? as usize)),
    }
}
