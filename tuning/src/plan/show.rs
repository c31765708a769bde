//! A plan in words: for the log of every start, and for `chronik-server --plan`.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use chronik_shards::model::ShardId;
use chronik_shards::store::paths;

use super::{Plan, cpus};
use crate::size::rounded;

/// A plan over a data directory, to be printed.
#[derive(Clone, Copy, Debug)]
pub struct PlanDisplay<'a> {
    plan: &'a Plan,
    data_dir: &'a Path,
}

impl Plan {
    /// The plan in words, with the files of this data directory.
    #[must_use]
    pub fn display<'a>(&'a self, data_dir: &'a Path) -> PlanDisplay<'a> {
        PlanDisplay { plan: self, data_dir }
    }
}

impl Display for PlanDisplay<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Plan { profile, .. } = self.plan;
        let limits = &profile.limits;
        writeln!(f, "profile {}", profile.name)?;
        let files = format!("{} files of {}", limits.wal_files_max, rounded(limits.wal_file_bytes));
        for (shard, cpu) in (0u16..).zip(&self.plan.shards) {
            let wal = paths::wal_dir(self.data_dir, ShardId(shard));
            let place = match (cpu, &self.plan.shard_cpus) {
                (Some(cpu), _) => format!("CPU {cpu}"),
                (None, Some(list)) => format!("any of {}", cpus(list)),
                (None, None) => "any CPU".to_owned(),
            };
            writeln!(f, "shard {shard} → {place} → {} (at most {files})", wal.display())?;
        }
        let control = self.plan.control_cpus.as_ref();
        let place = control.map_or_else(|| "any CPU".to_owned(), |list| cpus(list));
        writeln!(f, "control and storage threads → {place}")?;
        self.commits(f)?;
        self.memory(f)?;
        let files = &self.plan.open_files;
        writeln!(
            f,
            "open files: {} connections; a shard reads {} segments and writes {}",
            files.connections_max, files.read_per_shard, files.written_per_shard
        )?;
        let buffer = |bytes: Option<usize>| {
            bytes.map_or_else(|| "left to the kernel".to_owned(), |bytes| rounded(bytes as u64))
        };
        writeln!(
            f,
            "socket buffers: send {}, receive {}",
            buffer(profile.socket_send_bytes),
            buffer(profile.socket_receive_bytes)
        )?;
        let mut notes = self.plan.notes.iter();
        notes.try_for_each(|note| writeln!(f, "note: {}: {}", note.fact, note.remedy))
    }
}

impl PlanDisplay<'_> {
    fn commits(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let profile = &self.plan.profile;
        let limits = &profile.limits;
        let wait = |time: std::time::Duration, none: &str| match time.as_micros() {
            0 => none.to_owned(),
            micros => format!("{micros} µs"),
        };
        writeln!(
            f,
            "commits: {} in flight, at most {} each, linger {}; spin before park {}",
            limits.commits_in_flight_max,
            rounded(limits.commit_bytes_max),
            wait(profile.commit_linger, "none"),
            wait(profile.spin_before_park, "none")
        )?;
        writeln!(
            f,
            "rounds to segments: after {} or {} ms; runs of {} go there at once",
            rounded(limits.round_bytes),
            limits.round_age_ms,
            rounded(limits.run_bytes_min)
        )
    }

    fn memory(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let profile = &self.plan.profile;
        let memory = &profile.memory;
        writeln!(
            f,
            "memory: {} of {} that {} has; a shard: tail cache {}, indexes {}, requests {}, responses {}, \
             rings {}",
            rounded(self.plan.memory_bytes()),
            rounded(self.plan.memory.bytes()),
            self.plan.memory.owner(),
            rounded(profile.limits.tail_cache_bytes as u64),
            rounded(memory.index_cache_bytes as u64),
            rounded(memory.request_bytes as u64),
            rounded(memory.response_bytes as u64),
            rounded(crate::limits::RINGS_PER_SHARD * self.plan.ring_buffer_bytes as u64)
        )
    }
}
