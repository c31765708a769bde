//! The bounds of a shard, and what they are when no profile says otherwise.

/// Bounds of a shard. Source: the tuning profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardLimits {
    /// Size of a WAL file, a multiple of the block size.
    pub wal_file_bytes: u64,
    /// WAL files there may be at once, at least 2. Beyond, produces are parked.
    pub wal_files_max: usize,
    /// Largest commit; a single larger batch goes alone.
    pub commit_bytes_max: u64,
    /// Commits that may be written at once.
    pub commits_in_flight_max: usize,
    /// Bytes in the WAL since the last cut that start a flush round.
    pub round_bytes: u64,
    /// Age of the oldest commit since the last cut that starts a flush round.
    pub round_age_ms: u64,
    /// From so many bytes on, what a partition has gathered for a commit goes straight to its segments.
    pub run_bytes_min: u64,
    /// Bytes straight to segments since the last cut that start a flush round.
    pub round_run_bytes: u64,
    /// Memory for batches that are in segments already.
    pub tail_cache_bytes: usize,
    /// How long recent batches stay in memory when none follows them.
    pub tail_cache_idle_ms: u64,
    /// Produces that may wait for room in the WAL; more are answered as timed out.
    pub parked_produces_max: usize,
    /// Fetches that may wait for records; more are answered at once.
    pub fetch_waits_max: usize,
    /// How long after the last commit an idle shard writes a seal.
    pub seal_after_ms: u64,
    /// How often retention and the expiry of producers look around.
    pub retention_interval_ms: u64,
    /// How often compaction looks around while there is something that it may be waiting for.
    pub compaction_interval_ms: u64,
}

impl Default for ShardLimits {
    fn default() -> Self {
        Self {
            wal_file_bytes: 32 << 20,
            wal_files_max: 6,
            commit_bytes_max: 4 << 20,
            commits_in_flight_max: 2,
            round_bytes: 32 << 20,
            round_age_ms: 5000,
            run_bytes_min: 2 << 20,
            round_run_bytes: 128 << 20,
            tail_cache_bytes: 256 << 20,
            tail_cache_idle_ms: 30_000,
            parked_produces_max: 65_536,
            fetch_waits_max: 65_536,
            seal_after_ms: 20,
            retention_interval_ms: 5 * 60 * 1000,
            compaction_interval_ms: 15_000,
        }
    }
}
