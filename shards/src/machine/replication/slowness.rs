//! Which peers are slow: those that take several times as long to acknowledge as the fastest other one, for a while.
//!
//! Who was slow has to be fast again, not just faster, and for as long: else a slow disk would come and go.
//!
//! A node is as slow as the slowest of its shards that are written to. One of its shards that has nothing to
//! acknowledge says nothing of it, and taken for a fast peer it would make all that have something to do look slow.

use std::collections::BTreeMap;

use super::PeerLimits;
use super::link::Link;
use crate::model::{MonotonicMicros, NodeId};

/// Judges all links that are up.
pub(super) fn judge(now: MonotonicMicros, links: &mut [Link], limits: &PeerLimits) {
    if limits.slow_ms_min == 0 {
        return;
    }
    let mut latencies: BTreeMap<NodeId, u64> = BTreeMap::new();
    for link in links.iter_mut().filter(|link| link.is_up()) {
        let latency = latencies.entry(link.node_id).or_default();
        *latency = link.current_latency(now).max(*latency);
    }
    for link in links.iter_mut().filter(|link| link.is_up()) {
        let others = latencies.iter().filter(|(node_id, _)| **node_id != link.node_id);
        let Some(fastest) = others.map(|(_, latency)| *latency).min() else {
            (link.is_slow, link.turning_since) = (false, None);
            continue;
        };
        let limit = (fastest * limits.slow_factor).max(limits.slow_ms_min * 1000);
        let latency = latencies[&link.node_id];
        let seems_slow = if link.is_slow { latency * 2 > limit } else { latency > limit };
        if seems_slow == link.is_slow {
            link.turning_since = None;
        } else if now.since(*link.turning_since.get_or_insert(now)) >= limits.slow_after_ms * 1000 {
            (link.is_slow, link.turning_since) = (seems_slow, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::replication::ConnectionId;
    use crate::model::{BrokerEpoch, ShardId};

    /// Links to shards of nodes, each of which has these latencies in milliseconds at every look for ten seconds;
    /// whether they are slow then.
    fn judged(links: &mut [Link], latencies_ms: &[u64], begin_ms: u64) -> Vec<bool> {
        for look in 0..100 {
            for (link, latency) in links.iter_mut().zip(latencies_ms) {
                // Nothing is in flight, so the next look halves it.
                link.latency_micros = latency * 2000;
            }
            judge(MonotonicMicros((begin_ms + look * 100) * 1000), links, &PeerLimits::default());
        }
        links.iter().map(|link| link.is_slow).collect()
    }

    fn up(node: i32, shard: u16) -> Link {
        let connection = ConnectionId(u64::from(shard) + 10 * u64::try_from(node).unwrap());
        let mut link = Link::new(MonotonicMicros(0), connection, NodeId(node), ShardId(shard));
        link.welcomed(BrokerEpoch(1), 1 << 20);
        link
    }

    #[test]
    fn slow_is_who_takes_several_times_as_long_as_the_fastest_other() {
        let mut links = [up(2, 0), up(3, 0)];
        assert_eq!(judged(&mut links, &[50, 15], 0), [false, false]);
        assert_eq!(judged(&mut links, &[50, 5], 10_000), [true, false]);
        // Faster is not fast.
        assert_eq!(judged(&mut links, &[30, 10], 20_000), [true, false]);
        assert_eq!(judged(&mut links, &[20, 10], 30_000), [false, false]);
    }

    #[test]
    fn a_shard_that_nothing_is_written_to_makes_no_other_peer_slow() {
        let mut links = [up(2, 0), up(3, 0), up(3, 1)];
        assert_eq!(judged(&mut links, &[50, 2, 0], 0), [true, false, false]);
        assert_eq!(judged(&mut links, &[15, 15, 0], 10_000), [false, false, false]);
        assert_eq!(judged(&mut links, &[30, 15, 0], 20_000), [false, false, false]);
    }

    #[test]
    fn a_node_is_as_slow_as_the_slowest_of_its_shards() {
        let mut links = [up(2, 0), up(2, 1), up(3, 0)];
        assert_eq!(judged(&mut links, &[50, 1, 2], 0), [true, true, false]);
    }

    #[test]
    fn who_cannot_be_compared_is_not_slow() {
        let mut links = [up(2, 0)];
        assert_eq!(judged(&mut links, &[500], 0), [false]);
    }
}
