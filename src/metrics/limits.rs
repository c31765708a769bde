//! How much the metrics tell of what there may be much of.

/// Bounds of what is told by name. What is beyond them is counted in `chronik_metrics_left_out`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricsLimits {
    /// Groups with their state and members.
    pub groups_max: usize,
    /// Partitions of groups with their committed offset and lag.
    pub group_partitions_max: usize,
    /// Partitions that this node leads, with their high watermark.
    pub partitions_max: usize,
}

impl Default for MetricsLimits {
    fn default() -> Self {
        Self { groups_max: 1000, group_partitions_max: 5000, partitions_max: 1000 }
    }
}
