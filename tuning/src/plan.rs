//! What a node makes of a profile on its host: shard → core → WAL, and every bound resolved.
//!
//! A pure function. What it promises is there: a CPU that may not be used, memory that is not there, a
//! buffer that the kernel would quietly cut, each is refused with the reason and what to do. What
//! works, but not well, is said in the plan's notes.

mod cores;
mod show;
#[cfg(test)]
mod tests;

use crate::cpulist;
use crate::host::{Host, Memory};
use crate::limits::{self, LimitError, OpenFiles};
use crate::profile::{MemoryFit, Profile};
use crate::size;

/// Most shards of one node. Every shard has a queue to every other.
pub const SHARDS_MAX: u16 = 256;

/// Of the memory there is, what shards may plan with: three quarters. The rest is for batches that are
/// not in segments yet, for the page cache and for the system.
const MEMORY_PARTS: (u64, u64) = (3, 4);

/// Memory of a shard below which a plan is not shrunk.
const SHARD_BYTES_MIN: u64 = 16 << 20;

/// A node's plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The profile, its sizes cut to what the host has.
    pub profile: Profile,
    /// The CPU of each shard, by number; `None` for one that the kernel moves.
    pub shards: Vec<Option<usize>>,
    /// CPUs among which it moves those; `None` for all that the process may use.
    pub shard_cpus: Option<Vec<usize>>,
    /// CPUs of everything else; `None` for all that the process may use.
    pub control_cpus: Option<Vec<usize>>,
    /// Bytes that each ring of a shard registers.
    pub ring_buffer_bytes: usize,
    /// How the files that may be open are shared out.
    pub open_files: OpenFiles,
    /// What there is.
    pub memory: Memory,
    /// What works, but not well.
    pub notes: Vec<Note>,
}

/// Something that works, but not well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// What it is about.
    pub topic: &'static str,
    /// What was found.
    pub fact: String,
    /// What to do.
    pub remedy: String,
}

/// A profile that this host does not have. One line that says what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// A CPU of a list is not this process's.
    #[error(
        "{key} names CPU {cpu}, which is not in this process's affinity mask ({usable}): name others, or \
         widen the mask with taskset or the container's cpuset"
    )]
    NotInMask {
        /// The profile's key.
        key: &'static str,
        /// The CPU.
        cpu: usize,
        /// What is.
        usable: String,
    },
    /// Nothing is left for the shards.
    #[error(
        "control_core takes every CPU that this process may use ({usable}): leave one to a shard"
    )]
    NoCoreLeft {
        /// All there are.
        usable: String,
    },
    /// Pinned shards need a CPU each.
    #[error(
        "--shards={shards}: {cores} CPUs are there to pin them to ({list}); ask for fewer, name more in \
         cores, or add --no-pin to share them"
    )]
    TooFewCores {
        /// Shards wanted.
        shards: usize,
        /// Cores there are.
        cores: usize,
        /// Which.
        list: String,
    },
    /// No such number of shards.
    #[error("--shards={0}: 1 to {SHARDS_MAX} are possible")]
    ShardCount(usize),
    /// The memory is not there.
    #[error(
        "{shards} shards plan with {needed} of memory and may have {available} (3/4 of what {owner} \
         has): lower tail_cache_bytes, request_memory_bytes or response_memory_bytes, ask for fewer \
         --shards, or set memory_fit = \"shrink\"",
        needed = size::rounded(*needed), available = size::rounded(*available)
    )]
    Memory {
        /// How many shards.
        shards: usize,
        /// What they need.
        needed: u64,
        /// What they may have.
        available: u64,
        /// Who bounds it.
        owner: &'static str,
    },
    /// Even shrunk the shards do not fit.
    #[error(
        "{shards} shards need {needed} of memory at least and may have {available} (3/4 of what \
         {owner} has): ask for fewer --shards",
        needed = size::rounded(*needed), available = size::rounded(*available)
    )]
    MemoryMin {
        /// How many shards.
        shards: usize,
        /// What they need.
        needed: u64,
        /// What they may have.
        available: u64,
        /// Who bounds it.
        owner: &'static str,
    },
    /// The kernel would cut a socket's buffer.
    #[error(
        "{key} is {wanted}, and the kernel would cut it to {max}: lower it, or run \
         `sysctl -w {sysctl}={wanted}`"
    )]
    SocketBuffer {
        /// The profile's key.
        key: &'static str,
        /// Its value.
        wanted: u64,
        /// What the kernel allows.
        max: u64,
        /// Where it allows more.
        sysctl: &'static str,
    },
    /// A limit of the process.
    #[error(transparent)]
    Limit(#[from] LimitError),
}

impl Plan {
    /// Resolves a profile on a host.
    ///
    /// # Errors
    /// [`PlanError`]: the first thing that the host does not have.
    pub fn resolve(profile: &Profile, host: &Host) -> Result<Self, PlanError> {
        let seats = cores::seat(profile, host)?;
        let shards = seats.shards.len();
        check_socket_buffers(profile, host)?;
        let mut profile = profile.clone();
        let mut notes = Vec::new();
        note_quota(&seats.shards, host, &mut notes);
        fit_memory(&mut profile, shards, host.memory, &mut notes)?;
        let open_files = OpenFiles::share(host.open_files, shards)?;
        Ok(Self {
            ring_buffer_bytes: limits::ring_buffer_bytes(host.memlock_bytes, shards)?,
            open_files,
            profile,
            shards: seats.shards,
            shard_cpus: seats.shard_cpus,
            control_cpus: seats.control_cpus,
            memory: host.memory,
            notes,
        })
    }

    /// Number of shards.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("a plan has at most SHARDS_MAX shards")
    }

    /// Bytes that the WALs of all shards may take on the disk.
    #[must_use]
    pub fn wal_bytes_max(&self) -> u64 {
        let limits = &self.profile.limits;
        let per_shard = limits.wal_file_bytes.saturating_mul(limits.wal_files_max as u64);
        per_shard.saturating_mul(self.shards.len() as u64)
    }

    /// Memory that all shards plan with.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        memory_per_shard(&self.profile).saturating_mul(self.shards.len() as u64)
    }
}

fn memory_per_shard(profile: &Profile) -> u64 {
    let memory = &profile.memory;
    [
        profile.limits.tail_cache_bytes,
        memory.index_cache_bytes,
        memory.request_bytes,
        memory.response_bytes,
    ]
    .into_iter()
    .fold(0, |sum, bytes| sum.saturating_add(bytes as u64))
}

fn fit_memory(
    profile: &mut Profile,
    shards: usize,
    memory: Memory,
    notes: &mut Vec<Note>,
) -> Result<(), PlanError> {
    let per_shard = memory_per_shard(profile);
    let needed = per_shard.saturating_mul(shards as u64);
    let (part, of) = MEMORY_PARTS;
    let available = memory.bytes() / of * part;
    let owner = memory.owner();
    if needed <= available {
        return Ok(());
    }
    if profile.memory_fit == MemoryFit::Refuse {
        return Err(PlanError::Memory { shards, needed, available, owner });
    }
    let share = available / shards as u64;
    if share < SHARD_BYTES_MIN {
        let needed = SHARD_BYTES_MIN * shards as u64;
        return Err(PlanError::MemoryMin { shards, needed, available, owner });
    }
    let shrink = |bytes: &mut usize| {
        let shrunk = *bytes as u128 * u128::from(share) / u128::from(per_shard);
        *bytes = usize::try_from(shrunk).expect("less than it was");
    };
    shrink(&mut profile.limits.tail_cache_bytes);
    shrink(&mut profile.memory.index_cache_bytes);
    shrink(&mut profile.memory.request_bytes);
    shrink(&mut profile.memory.response_bytes);
    notes.push(Note {
        topic: "memory",
        fact: format!(
            "{owner} has {}, so that caches and budgets are {} a shard instead of {}",
            size::rounded(memory.bytes()),
            size::rounded(share),
            size::rounded(per_shard)
        ),
        remedy: "give it more, or ask for fewer --shards".to_owned(),
    });
    Ok(())
}

fn note_quota(shards: &[Option<usize>], host: &Host, notes: &mut Vec<Note>) {
    let Some(millis) = host.cpu_quota_millis else { return };
    if (shards.len() as u64) * 1000 > millis {
        notes.push(Note {
            topic: "cpus",
            fact: format!(
                "the control group allows {}.{:03} CPUs to {} shards, and stops all of them for a while \
                 when that is used up",
                millis / 1000,
                millis % 1000,
                shards.len()
            ),
            remedy: format!(
                "raise cpu.max (--cpus={}), or ask for --shards={}",
                shards.len(),
                (millis / 1000).max(1)
            ),
        });
    }
}

fn check_socket_buffers(profile: &Profile, host: &Host) -> Result<(), PlanError> {
    let buffers = [
        (
            "socket_send_bytes",
            profile.socket_send_bytes,
            host.socket_send_bytes_max,
            "net.core.wmem_max",
        ),
        (
            "socket_receive_bytes",
            profile.socket_receive_bytes,
            host.socket_receive_bytes_max,
            "net.core.rmem_max",
        ),
    ];
    for (key, wanted, max, sysctl) in buffers {
        let wanted = wanted.map_or(0, |bytes| bytes as u64);
        if let Some(max) = max.filter(|max| wanted > *max) {
            return Err(PlanError::SocketBuffer { key, wanted, max, sysctl });
        }
    }
    Ok(())
}

/// CPUs in words.
fn cpus(list: &[usize]) -> String {
    let noun = if list.len() == 1 { "CPU" } else { "CPUs" };
    format!("{noun} {}", cpulist::format(list))
}
