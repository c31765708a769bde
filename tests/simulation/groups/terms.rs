//! What members of a group go by.

/// Times of a group's members, and what they do.
#[derive(Clone, Debug)]
pub struct Terms {
    pub group_id: String,
    /// How long a member may be silent.
    pub session_ms: i32,
    /// How long it may take to join a rebalance, or to give partitions up.
    pub rebalance_ms: i32,
    /// How long it waits for an answer.
    pub wait_us: u64,
    /// How long it waits for the end of a phase.
    pub wait_join_us: u64,
    /// Whether it commits where it is.
    pub commits: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            group_id: "g".to_owned(),
            session_ms: 6_000,
            rebalance_ms: 8_000,
            wait_us: 2_000_000,
            wait_join_us: 12_000_000,
            commits: true,
        }
    }
}
