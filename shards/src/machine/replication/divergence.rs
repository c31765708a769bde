//! Where a follower's log parts from its leader's. Source: KIP-101, KIP-279.
//!
//! Every leader epoch was written by one leader, so what two logs hold of the same epoch is the same as far
//! as the shorter one goes. The logs agree up to the end of the largest epoch that both have; from there
//! on the follower's is void.

use crate::format::peer_frame::History;
use crate::model::{LeaderEpoch, Offset};

/// Where a follower's log goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GoesOn {
    /// It is cut there, or ends there.
    At(Offset),
    /// Nothing of it can be kept, and it begins anew there.
    Anew(Offset),
}

/// A leader's log.
#[derive(Clone, Copy, Debug)]
pub struct LeaderLog<'a> {
    /// Epochs and where each begins, oldest first.
    pub epochs: &'a [(LeaderEpoch, Offset)],
    /// First offset there is.
    pub log_start_offset: Offset,
    /// The next record's offset.
    pub log_end_offset: Offset,
}

/// Compares the histories.
pub fn goes_on(leader: LeaderLog<'_>, follower: &History) -> GoesOn {
    let end_in = |epochs: &[(LeaderEpoch, Offset)], place: usize, log_end: Offset| {
        epochs.get(place + 1).map_or(log_end, |(_, next)| *next)
    };
    let common = follower.epochs.iter().enumerate().rev().find_map(|(place, (epoch, _))| {
        let found = leader.epochs.binary_search_by_key(epoch, |(epoch, _)| *epoch).ok()?;
        let theirs = end_in(&follower.epochs, place, follower.log_end_offset);
        Some(theirs.min(end_in(leader.epochs, found, leader.log_end_offset)))
    });
    let oldest_told = follower.epochs.first().map(|(_, start)| *start);
    let end = match (common, oldest_told) {
        (Some(end), _) => end,
        // What lies before what was told cannot be judged yet: that is told next time.
        (None, Some(start)) => start.min(leader.log_end_offset),
        (None, None) => follower.log_end_offset.min(leader.log_end_offset),
    };
    // What lies below a log start is gone for good, here or there.
    if end < leader.log_start_offset || end < follower.log_start_offset {
        return GoesOn::Anew(leader.log_start_offset);
    }
    GoesOn::At(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::peer_frame::StreamId;

    fn epochs(starts: &[(i32, i64)]) -> Vec<(LeaderEpoch, Offset)> {
        starts.iter().map(|(epoch, start)| (LeaderEpoch(*epoch), Offset(*start))).collect()
    }

    fn parts(leader: (&[(i32, i64)], i64, i64), follower: (&[(i32, i64)], i64, i64)) -> GoesOn {
        let own = epochs(leader.0);
        let log = LeaderLog {
            epochs: &own,
            log_start_offset: Offset(leader.1),
            log_end_offset: Offset(leader.2),
        };
        goes_on(
            log,
            &History {
                stream: StreamId(1),
                log_start_offset: Offset(follower.1),
                log_end_offset: Offset(follower.2),
                epochs: epochs(follower.0),
            },
        )
    }

    fn at(offset: i64) -> GoesOn {
        GoesOn::At(Offset(offset))
    }

    #[test]
    fn a_follower_that_is_behind_keeps_everything() {
        assert_eq!(parts((&[(1, 0), (3, 10)], 0, 20), (&[(1, 0)], 0, 7)), at(7));
        assert_eq!(parts((&[(1, 0), (3, 10)], 0, 20), (&[(1, 0), (3, 10)], 0, 15)), at(15));
        assert_eq!(parts((&[(1, 0)], 0, 20), (&[], 0, 0)), at(0));
    }

    #[test]
    fn the_tail_of_a_deposed_leader_is_void() {
        // Epoch 1 ended at 10 here and went on to 14 there.
        assert_eq!(parts((&[(1, 0), (3, 10)], 0, 20), (&[(1, 0)], 0, 14)), at(10));
        // Epoch 2 is known there only.
        assert_eq!(parts((&[(1, 0), (3, 10)], 0, 20), (&[(1, 0), (2, 8)], 0, 14)), at(8));
        // In the same epoch the follower has more than a leader that lost its tail.
        assert_eq!(parts((&[(1, 0)], 0, 12), (&[(1, 0)], 0, 14)), at(12));
    }

    /// Fast leader changes: comparing the last epoch alone would keep too much.
    #[test]
    fn the_largest_common_epoch_decides_not_the_latest() {
        let leader: &[(i32, i64)] = &[(1, 0), (2, 10), (5, 20)];
        let follower: &[(i32, i64)] = &[(1, 0), (2, 10), (3, 15), (4, 30)];
        assert_eq!(parts((leader, 0, 40), (follower, 0, 50)), at(15));
    }

    #[test]
    fn a_follower_behind_the_leaders_beginning_begins_anew() {
        let anew = GoesOn::Anew(Offset(30));
        assert_eq!(parts((&[(2, 30)], 30, 40), (&[(1, 0)], 0, 20)), anew);
        assert_eq!(parts((&[(2, 30)], 30, 40), (&[], 0, 0)), anew);
        assert_eq!(parts((&[], 30, 30), (&[(1, 0)], 0, 20)), anew);
    }

    #[test]
    fn a_follower_that_begins_behind_the_leaders_end_begins_anew() {
        let anew = GoesOn::Anew(Offset(0));
        assert_eq!(parts((&[(1, 0), (3, 10)], 0, 14), (&[(2, 15)], 15, 30)), anew);
        assert_eq!(parts((&[(1, 0)], 0, 5), (&[], 9, 9)), anew);
    }

    #[test]
    fn a_follower_keeps_a_later_beginning() {
        assert_eq!(parts((&[(1, 0), (3, 10)], 0, 20), (&[(2, 15)], 15, 30)), at(15));
        assert_eq!(parts((&[(1, 0)], 0, 20), (&[(1, 7)], 7, 9)), at(9));
    }

    #[test]
    fn a_history_that_was_cut_short_is_told_in_steps() {
        let leader: &[(i32, i64)] = &[(1, 0), (9, 30)];
        assert_eq!(parts((leader, 0, 40), (&[(4, 12), (5, 14)], 0, 20)), at(12));
    }
}
