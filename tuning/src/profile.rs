//! A tuning profile: what an operator asks for, by name or in a file.
//!
//! The built-in ones are the files under `tuning/profiles`, where every key is explained. A file of the
//! operator's own, and the `[profile]` table of a node's configuration, say only what differs from
//! their base. A key that does not exist and a value that cannot be are refused by name.

mod key;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chronik_shards::format::wal::BLOCK_BYTES;
use chronik_shards::machine::limits::ShardLimits;
use toml::{Table, Value};

pub use key::Key;

/// The profile of a node that was told none.
pub const DEFAULT_PROFILE: &str = "development";

/// Name and text of the built-in profiles.
pub const BUILT_IN: [(&str, &str); 4] = [
    ("development", include_str!("../profiles/development.toml")),
    ("latency", include_str!("../profiles/latency.toml")),
    ("throughput", include_str!("../profiles/throughput.toml")),
    ("shared-host", include_str!("../profiles/shared-host.toml")),
];

/// The key of a profile's file that names the built-in one it starts from.
const BASE: &str = "base";

/// What an operator asks for. Complete and consistent in itself; whether a host has it, the plan tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    /// Its name or file, and what changed it.
    pub name: String,
    /// CPUs of the shards.
    pub cores: Cores,
    /// Whether each shard stays on a CPU of its own.
    pub pin: bool,
    /// How many shards.
    pub shards: ShardCount,
    /// CPUs of everything else.
    pub control_core: ControlCore,
    /// How long a shard looks for work before it sleeps.
    pub spin_before_park: Duration,
    /// How long a commit that could go out waits for more.
    pub commit_linger: Duration,
    /// Bounds of a shard's machine.
    pub limits: ShardLimits,
    /// Memory of each shard, beside its machine's.
    pub memory: ShardMemory,
    /// What to do when the host has less memory.
    pub memory_fit: MemoryFit,
    /// `SO_SNDBUF`; `None` leaves it to the kernel.
    pub socket_send_bytes: Option<usize>,
    /// `SO_RCVBUF`; `None` leaves it to the kernel.
    pub socket_receive_bytes: Option<usize>,
}

/// CPUs of the shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cores {
    /// Every CPU that the process may use, but those of the control core.
    All,
    /// These, ascending.
    List(Vec<usize>),
}

/// How many shards a node runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShardCount {
    /// One on each core.
    PerCore,
    /// So many.
    Count(u16),
}

/// CPUs of the threads that are no shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ControlCore {
    /// Wherever the kernel puts them.
    Any,
    /// A CPU of their own where there are enough.
    Auto,
    /// These, ascending, and no shard on them.
    List(Vec<usize>),
}

/// What to do when the host has less memory than a profile asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryFit {
    /// Ask for less.
    Shrink,
    /// Do not start.
    Refuse,
}

/// Memory of a shard that is bounded outside of its machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardMemory {
    /// Segment indexes.
    pub index_cache_bytes: usize,
    /// Requests held at once.
    pub request_bytes: usize,
    /// Responses held at once.
    pub response_bytes: usize,
}

/// A profile that is refused. One line that names the key.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Neither built in nor a path.
    #[error(
        "there is no profile {0}: {names}, or the path of a file",
        names = BUILT_IN.map(|(name, _)| name).join(", ")
    )]
    Unknown(String),
    /// The file cannot be read.
    #[error("profile {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{origin}: line {line}: {reason}")]
    Syntax {
        /// Where it stands.
        origin: String,
        /// The line.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A key does not exist.
    #[error("{origin}: unknown key {key}")]
    UnknownKey {
        /// Where it stands.
        origin: String,
        /// The key.
        key: String,
    },
    /// A value that the key does not take.
    #[error("{origin}: {key} takes {expected}")]
    Value {
        /// Where it stands.
        origin: String,
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
    },
    /// Values that do not go together.
    #[error("profile {profile}: {key} is {value}: {reason}")]
    Relation {
        /// The profile.
        profile: String,
        /// The key to change.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it contradicts.
        reason: String,
    },
}

impl Profile {
    /// Loads a profile by the name of a built-in one or the path of a file.
    ///
    /// # Errors
    /// [`ProfileError`] naming the first thing that is refused.
    pub fn load(name_or_path: &str) -> Result<Self, ProfileError> {
        if BUILT_IN.iter().any(|(name, _)| *name == name_or_path) {
            return Self::built_in(name_or_path);
        }
        // A name without slash and dot was meant as one of ours.
        if !name_or_path.contains(['/', '.']) {
            return Err(ProfileError::Unknown(name_or_path.to_owned()));
        }
        let path = Path::new(name_or_path);
        let text = std::fs::read_to_string(path)
            .map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
        Self::parse(name_or_path, &text)
    }

    /// One of the profiles in [`BUILT_IN`].
    ///
    /// # Errors
    /// [`ProfileError::Unknown`].
    pub fn built_in(name: &str) -> Result<Self, ProfileError> {
        let found = BUILT_IN.iter().find(|(built_in, _)| *built_in == name);
        let (_, text) = found.ok_or_else(|| ProfileError::Unknown(name.to_owned()))?;
        let mut profile = Self::blank(name);
        profile.set_all(&format!("profile {name}"), &parse_table(name, text)?)?;
        profile.check()?;
        Ok(profile)
    }

    /// Reads the text of a profile's file.
    fn parse(path: &str, text: &str) -> Result<Self, ProfileError> {
        let origin = format!("profile {path}");
        let mut table = parse_table(path, text)?;
        let base = match table.remove(BASE) {
            None => DEFAULT_PROFILE.to_owned(),
            Some(Value::String(name)) => name,
            Some(_) => {
                let expected = "the name of a built-in profile";
                return Err(ProfileError::Value { origin, key: BASE.to_owned(), expected });
            }
        };
        let mut profile = Self::built_in(&base)?;
        profile.name = format!("{path} on {base}");
        profile.set_all(&origin, &table)?;
        profile.check()?;
        Ok(profile)
    }

    /// Changes single values; `origin` says where they stand.
    ///
    /// # Errors
    /// [`ProfileError`] naming the first key that is refused.
    pub fn override_with(&mut self, origin: &str, table: &Table) -> Result<(), ProfileError> {
        self.set_all(origin, table)?;
        if !table.is_empty() {
            self.name = format!("{}, changed in {origin}", self.name);
        }
        self.check()
    }

    fn set_all(&mut self, origin: &str, table: &Table) -> Result<(), ProfileError> {
        for (name, value) in table {
            let key = Key::find(name).ok_or_else(|| ProfileError::UnknownKey {
                origin: origin.to_owned(),
                key: name.clone(),
            })?;
            key.set(self, value).ok_or_else(|| ProfileError::Value {
                origin: origin.to_owned(),
                key: name.clone(),
                expected: key.expected(),
            })?;
        }
        Ok(())
    }

    /// What a built-in profile's file fills in.
    fn blank(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            cores: Cores::All,
            pin: true,
            shards: ShardCount::PerCore,
            control_core: ControlCore::Any,
            spin_before_park: Duration::ZERO,
            commit_linger: Duration::ZERO,
            limits: ShardLimits::default(),
            memory: ShardMemory { index_cache_bytes: 0, request_bytes: 0, response_bytes: 0 },
            memory_fit: MemoryFit::Refuse,
            socket_send_bytes: None,
            socket_receive_bytes: None,
        }
    }

    /// Checks values against each other.
    fn check(&self) -> Result<(), ProfileError> {
        let refuse = |key: Key, reason: String| {
            let (profile, value) = (self.name.clone(), key.show(self));
            Err(ProfileError::Relation { profile, key: key.name(), value, reason })
        };
        let limits = &self.limits;
        if !limits.wal_file_bytes.is_multiple_of(BLOCK_BYTES) {
            return refuse(Key::WalFileBytes, format!("a multiple of {BLOCK_BYTES} is due"));
        }
        if limits.commit_bytes_max > limits.wal_file_bytes {
            let reason = "a commit has to fit into a WAL file, see wal_file_bytes".to_owned();
            return refuse(Key::CommitBytesMax, reason);
        }
        // The file that fills is never free: rounds have to begin before all others are full.
        let others = limits.wal_file_bytes.saturating_mul(limits.wal_files_max as u64 - 1);
        if limits.round_bytes > others {
            let reason = "a round has to begin before the WAL is full, see wal_file_bytes and \
                          wal_files_max"
                .to_owned();
            return refuse(Key::FlushRoundBytes, reason);
        }
        if let (Cores::List(cores), ControlCore::List(control)) = (&self.cores, &self.control_core)
            && let Some(shared) = control.iter().find(|cpu| cores.contains(cpu))
        {
            let reason =
                format!("CPU {shared} is one of the shards' cores too; \"any\" shares them");
            return refuse(Key::ControlCore, reason);
        }
        Ok(())
    }
}

/// Parses TOML; `path` is for the error.
fn parse_table(path: &str, text: &str) -> Result<Table, ProfileError> {
    text.parse().map_err(|error: toml::de::Error| ProfileError::Syntax {
        origin: format!("profile {path}"),
        line: error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1),
        reason: error.message().replace('\n', " "),
    })
}
