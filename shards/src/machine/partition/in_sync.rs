//! How far the replicas are, which of them count, and whether others should.
//!
//! A position is the offset after the last record that counts on a replica: durable, unless
//! `flush.messages` lets appended ones count. The high watermark is the lowest position of the
//! *maximal* in-sync set: the committed one and those that are proposed to join. Whether a proposal
//! was committed is learned late, and until then either set may be the one that the next leader is
//! chosen from. One that is proposed to leave counts until that is committed.
//!
//! Alone on its partition a leader's own position is all there is.

use crate::format::metadata_command::IsrMember;
use crate::format::peer_frame::StreamId;
use crate::machine::replica::ReplicaNode;
use crate::model::{BrokerEpoch, MonotonicMicros, NodeId, Offset};

/// A replica on another node, as its leader sees it.
#[derive(Clone, Debug)]
pub struct Follower {
    /// Where it is.
    pub node: ReplicaNode,
    /// Whether it is in the committed set.
    pub is_in_sync: bool,
    /// Whether a proposal that is under way adds it.
    pub is_joining: bool,
    /// What it acknowledged in this leader epoch; `None` before its log was compared with ours.
    pub position: Option<Offset>,
    /// The incarnation that did. Source: KIP-903.
    pub broker_epoch: Option<BrokerEpoch>,
    /// When it last had everything that there was then.
    pub caught_up_at: MonotonicMicros,
    /// The log's end at some moment, to see when it is reached.
    mark: Option<(Offset, MonotonicMicros)>,
    /// Whether its stream is ready, so that it can catch up.
    pub is_connected: bool,
    /// Where its stream is: the link's place, and its name there.
    pub stream: Option<(usize, StreamId)>,
    /// Whether its acknowledgements take much longer than those of its peers.
    pub is_slow: bool,
}

impl Follower {
    /// Its log was compared with the leader's, and is durable up to `position`.
    pub fn connected(
        &mut self,
        stream: (usize, StreamId),
        broker_epoch: BrokerEpoch,
        position: Offset,
        now: MonotonicMicros,
        log_end: Offset,
    ) {
        self.stream = Some(stream);
        self.is_connected = true;
        self.broker_epoch = Some(broker_epoch);
        self.mark = Some((log_end, now));
        self.position = Some(position);
        if position >= log_end {
            self.caught_up_at = now;
        }
    }

    /// Its stream is gone.
    pub fn disconnected(&mut self, now: MonotonicMicros, log_end: Offset) {
        if self.is_connected && self.position.is_some_and(|position| position >= log_end) {
            self.caught_up_at = now;
        }
        self.is_connected = false;
        self.stream = None;
        self.mark = None;
    }

    /// It has everything up to `position`.
    pub fn acknowledged(&mut self, position: Offset, now: MonotonicMicros, log_end: Offset) {
        if !self.is_connected || self.position.is_none_or(|before| position <= before) {
            return;
        }
        self.position = Some(position);
        if position >= log_end {
            self.caught_up_at = now;
            self.mark = None;
        } else if let Some((end, at)) = self.mark
            && position >= end
        {
            // It has everything that there was at that moment: under load its position is never the log's end.
            self.caught_up_at = self.caught_up_at.max(at);
            self.mark = None;
        }
        self.mark.get_or_insert((log_end, now));
    }

    /// Whether the high watermark waits for it.
    pub fn counts(&self) -> bool {
        self.is_in_sync || self.is_joining
    }
}

/// When a follower falls out of the in-sync set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IsrRules {
    /// `replica.lag.time.max.ms`.
    pub lag_time_max_ms: u64,
    /// `min.insync.replicas` of the topic: a slow follower stays while others are too few.
    pub min_insync_replicas: usize,
}

/// Positions of the replicas of one partition. Owner: its leader's shard.
#[derive(Clone, Debug)]
pub struct InSyncSet {
    own: Offset,
    followers: Vec<Follower>,
    /// The partition epoch that an undecided proposal was made in.
    proposed_in: Option<i32>,
    /// The log's end when this leader epoch began: whatever a client was told before lies below.
    epoch_start: Offset,
}

impl InSyncSet {
    /// The only replica, or one that does not lead.
    pub fn alone(own: Offset) -> Self {
        Self { own, followers: Vec::new(), proposed_in: None, epoch_start: own }
    }

    /// This replica's own position.
    pub fn own(&self) -> Offset {
        self.own
    }

    /// How many replicas are in the committed set, this one included.
    pub fn count(&self) -> usize {
        1 + self.followers.iter().filter(|follower| follower.is_in_sync).count()
    }

    /// How many replicas there are, this one included.
    pub fn replica_count(&self) -> usize {
        1 + self.followers.len()
    }

    /// What every member of the maximal set has; `None` while that is not known of one of them.
    pub fn lowest(&self) -> Option<Offset> {
        let counted = self.followers.iter().filter(|follower| follower.counts());
        counted.map(|follower| follower.position).try_fold(self.own, |lowest, position| {
            position.map(|position| lowest.min(position)) //
        })
    }

    /// The log's end when this leader epoch began.
    pub fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    /// The others.
    pub fn followers(&self) -> &[Follower] {
        &self.followers
    }

    /// The follower on `node`.
    pub fn follower_mut(&mut self, node: NodeId) -> Option<&mut Follower> {
        self.followers.iter_mut().find(|follower| follower.node.node_id == node)
    }

    /// This replica's own position moves, never back.
    pub fn advance_own(&mut self, position: Offset) {
        self.own = self.own.max(position);
    }

    /// This replica's log was cut.
    pub fn cut_own(&mut self, end: Offset) {
        self.own = self.own.min(end);
    }

    /// This replica's log begins anew at `start`.
    pub fn restart_own(&mut self, start: Offset) {
        self.own = start;
    }

    /// A new leader epoch begins, with the log's end at `log_end`: nothing is known of anyone.
    pub fn lead(&mut self, log_end: Offset) {
        self.followers.clear();
        self.proposed_in = None;
        self.epoch_start = log_end;
    }

    /// This replica leads no more.
    pub fn follow(&mut self) {
        self.followers.clear();
        self.proposed_in = None;
    }

    /// Takes the replicas and the in-sync set as committed in `partition_epoch`. A proposal of an older
    /// partition epoch is decided with that, one way or the other.
    pub fn commit(
        &mut self,
        now: MonotonicMicros,
        partition_epoch: i32,
        others: impl Iterator<Item = ReplicaNode>,
        isr: &[NodeId],
    ) {
        let is_decided = self.proposed_in.is_some_and(|proposed| proposed < partition_epoch);
        let mut before = std::mem::take(&mut self.followers);
        for node in others {
            let known = before.iter().position(|known| known.node.node_id == node.node_id);
            let mut follower = match known {
                Some(place) => before.swap_remove(place),
                None => Follower {
                    node,
                    is_in_sync: false,
                    is_joining: false,
                    position: None,
                    broker_epoch: None,
                    caught_up_at: now,
                    mark: None,
                    is_connected: false,
                    stream: None,
                    is_slow: false,
                },
            };
            follower.node = node;
            follower.is_in_sync = isr.contains(&node.node_id);
            follower.is_joining &= !is_decided;
            self.followers.push(follower);
        }
        if is_decided {
            self.proposed_in = None;
        }
    }

    /// The proposal made in `partition_epoch` will never be committed.
    pub fn refused(&mut self, partition_epoch: i32) {
        if self.proposed_in == Some(partition_epoch) {
            self.proposed_in = None;
            self.followers.iter_mut().for_each(|follower| follower.is_joining = false);
        }
    }

    /// Whether everything that former leaders may have told clients is known to be below the high watermark.
    pub fn knows_past(&self, high_watermark: Offset) -> bool {
        self.followers.is_empty() || high_watermark >= self.epoch_start
    }

    /// The set that should be committed next, if it is another one and none is proposed; from then on the
    /// maximal set includes who joins.
    pub fn propose(
        &mut self,
        now: MonotonicMicros,
        rules: IsrRules,
        partition_epoch: i32,
        high_watermark: Offset,
        log_end: Offset,
        own: IsrMember,
    ) -> Option<Vec<IsrMember>> {
        if self.proposed_in.is_some() || self.followers.is_empty() {
            return None;
        }
        let mut members = vec![own];
        let mut slow = Vec::new();
        let mut changes = false;
        let mut joining = Vec::new();
        for follower in &mut self.followers {
            let reached = follower.position.unwrap_or_default();
            if follower.is_connected && follower.position.is_some_and(|at| at >= log_end) {
                follower.caught_up_at = now;
            }
            let lags = now.since(follower.caught_up_at) > rules.lag_time_max_ms * 1000;
            let lost = follower.position.is_some() && reached < high_watermark;
            let broker_epoch = follower.broker_epoch.unwrap_or(follower.node.broker_epoch);
            let member = IsrMember { node_id: follower.node.node_id, broker_epoch };
            if follower.is_in_sync {
                if lags || lost {
                    changes = true;
                } else if follower.is_slow {
                    slow.push(member);
                } else {
                    members.push(member);
                }
                continue;
            }
            let has_all = reached >= high_watermark && reached >= self.epoch_start;
            let is_known = follower.is_connected && follower.position.is_some();
            if is_known && has_all && !lags && !follower.is_slow && follower.broker_epoch.is_some()
            {
                changes = true;
                joining.push(member.node_id);
                members.push(member);
            }
        }
        // A slow one is better than too few.
        while members.len() < rules.min_insync_replicas
            && let Some(member) = slow.pop()
        {
            members.push(member);
        }
        if !changes && slow.is_empty() {
            return None;
        }
        for follower in &mut self.followers {
            follower.is_joining = joining.contains(&follower.node.node_id);
        }
        self.proposed_in = Some(partition_epoch);
        Some(members)
    }

    /// Panics where an invariant does not hold.
    pub fn check_invariants(&self) {
        for follower in &self.followers {
            let has_proposal = !follower.is_joining || self.proposed_in.is_some();
            assert!(has_proposal, "{:?} joins without a proposal", follower.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ShardId;

    const RULES: IsrRules = IsrRules { lag_time_max_ms: 100, min_insync_replicas: 2 };
    const OWN: IsrMember = IsrMember { node_id: NodeId(1), broker_epoch: BrokerEpoch(11) };

    fn node(id: i32) -> ReplicaNode {
        let broker_epoch = BrokerEpoch(10 + i64::from(id));
        ReplicaNode { node_id: NodeId(id), broker_epoch, shard: ShardId(0) }
    }

    fn at(micros: u64) -> MonotonicMicros {
        MonotonicMicros(micros)
    }

    /// Node 1 leads nodes 2 and 3, with the log's end at 10 when its epoch began.
    fn set(isr: &[i32]) -> InSyncSet {
        let mut set = InSyncSet::alone(Offset(10));
        set.lead(Offset(10));
        let isr: Vec<_> = isr.iter().map(|id| NodeId(*id)).collect();
        set.commit(at(0), 1, [node(2), node(3)].into_iter(), &isr);
        set
    }

    fn reach(set: &mut InSyncSet, id: i32, position: i64) {
        let follower = set.follower_mut(NodeId(id)).expect("a follower");
        follower.position = Some(Offset(position));
        follower.broker_epoch = Some(follower.node.broker_epoch);
        follower.is_connected = true;
    }

    fn ids(members: Option<Vec<IsrMember>>) -> Option<Vec<i32>> {
        members.map(|members| members.iter().map(|member| member.node_id.0).collect())
    }

    fn propose(set: &mut InSyncSet, micros: u64, high_watermark: i64) -> Option<Vec<i32>> {
        let (hw, end) = (Offset(high_watermark), set.own());
        ids(set.propose(at(micros), RULES, 1, hw, end, OWN))
    }

    #[test]
    fn a_lone_leader_is_all_that_counts() {
        let mut set = InSyncSet::alone(Offset(4));
        set.advance_own(Offset(7));
        assert_eq!((set.lowest(), set.count()), (Some(Offset(7)), 1));
        assert_eq!(propose(&mut set, 9_000_000, 7), None);
    }

    #[test]
    fn watermark_waits_until_every_member_is_known() {
        let mut set = set(&[1, 2, 3]);
        assert_eq!(set.lowest(), None);
        reach(&mut set, 2, 8);
        assert_eq!(set.lowest(), None);
        reach(&mut set, 3, 9);
        assert_eq!(set.lowest(), Some(Offset(8)));
    }

    #[test]
    fn watermark_does_not_wait_for_who_is_not_in_sync() {
        let mut set = set(&[1, 2]);
        reach(&mut set, 2, 10);
        assert_eq!((set.lowest(), set.count()), (Some(Offset(10)), 2));
    }

    #[test]
    fn watermark_waits_for_replica_joining_isr() {
        let mut set = set(&[1, 2]);
        reach(&mut set, 2, 10);
        reach(&mut set, 3, 10);
        assert_eq!(propose(&mut set, 5, 10), Some(vec![1, 2, 3]));
        set.advance_own(Offset(20));
        reach(&mut set, 2, 20);
        assert_eq!(set.lowest(), Some(Offset(10)), "the proposal may be committed already");
        assert_eq!(set.count(), 2, "but it need not be");
        set.refused(0);
        assert_eq!(set.lowest(), Some(Offset(10)), "another proposal was refused");
        set.refused(1);
        assert_eq!(set.lowest(), Some(Offset(20)));
    }

    #[test]
    fn watermark_waits_for_replica_leaving_isr_until_that_is_committed() {
        let mut set = set(&[1, 2, 3]);
        reach(&mut set, 2, 10);
        reach(&mut set, 3, 5);
        set.follower_mut(NodeId(2)).expect("it").caught_up_at = at(200_000);
        assert_eq!(propose(&mut set, 200_000, 5), Some(vec![1, 2]));
        assert_eq!(set.lowest(), Some(Offset(5)));
        set.commit(at(200_000), 2, [node(2), node(3)].into_iter(), &[NodeId(1), NodeId(2)]);
        assert_eq!(set.lowest(), Some(Offset(10)));
    }

    #[test]
    fn a_proposal_is_decided_by_a_newer_partition_epoch_only() {
        let mut set = set(&[1, 2]);
        reach(&mut set, 2, 10);
        reach(&mut set, 3, 10);
        assert!(propose(&mut set, 5, 10).is_some());
        set.commit(at(6), 1, [node(2), node(3)].into_iter(), &[NodeId(1), NodeId(2)]);
        set.advance_own(Offset(20));
        reach(&mut set, 2, 20);
        assert_eq!(set.lowest(), Some(Offset(10)), "the same epoch again decides nothing");
        set.commit(at(6), 2, [node(2), node(3)].into_iter(), &[NodeId(1), NodeId(2)]);
        assert_eq!(set.lowest(), Some(Offset(20)));
    }

    #[test]
    fn who_lags_leaves_and_who_has_everything_does_not() {
        let mut set = set(&[1, 2, 3]);
        reach(&mut set, 2, 10);
        reach(&mut set, 3, 9);
        assert_eq!(propose(&mut set, 100_000, 9), None);
        assert_eq!(propose(&mut set, 100_001, 9), Some(vec![1, 2]));
    }

    #[test]
    fn who_is_cut_off_leaves_even_when_nothing_is_written() {
        let mut set = set(&[1, 2, 3]);
        reach(&mut set, 2, 10);
        reach(&mut set, 3, 10);
        assert_eq!(propose(&mut set, 100_000, 10), None);
        set.follower_mut(NodeId(3)).expect("it").is_connected = false;
        assert_eq!(propose(&mut set, 200_000, 10), None);
        assert_eq!(propose(&mut set, 200_001, 10), Some(vec![1, 2]));
    }

    #[test]
    fn a_slow_one_leaves_while_enough_others_stay() {
        let mut first = set(&[1, 2, 3]);
        reach(&mut first, 2, 10);
        reach(&mut first, 3, 10);
        first.follower_mut(NodeId(3)).expect("it").is_slow = true;
        assert_eq!(propose(&mut first, 5, 10), Some(vec![1, 2]));
        let mut second = set(&[1, 3]);
        reach(&mut second, 3, 10);
        second.follower_mut(NodeId(3)).expect("it").is_slow = true;
        assert_eq!(propose(&mut second, 5, 10), None, "two are required");
    }

    #[test]
    fn joining_takes_the_watermark_and_the_epochs_beginning() {
        let mut set = set(&[1, 2]);
        set.advance_own(Offset(30));
        reach(&mut set, 2, 30);
        for (position, high_watermark) in [(9, 5), (15, 16)] {
            reach(&mut set, 3, position);
            assert_eq!(propose(&mut set, 5, high_watermark), None, "{position}");
        }
        reach(&mut set, 3, 16);
        assert_eq!(propose(&mut set, 5, 16), Some(vec![1, 2, 3]));
    }

    #[test]
    fn who_lost_what_was_readable_leaves_at_once() {
        let mut set = set(&[1, 2, 3]);
        reach(&mut set, 2, 10);
        reach(&mut set, 3, 3);
        assert_eq!(propose(&mut set, 5, 8), Some(vec![1, 2]));
    }

    #[test]
    fn a_member_is_named_in_the_incarnation_that_acknowledged() {
        let mut set = set(&[1, 2]);
        reach(&mut set, 2, 10);
        reach(&mut set, 3, 10);
        set.follower_mut(NodeId(3)).expect("it").broker_epoch = Some(BrokerEpoch(99));
        let members = set.propose(at(5), RULES, 1, Offset(10), Offset(10), OWN).expect("one joins");
        assert_eq!(members[2].broker_epoch, BrokerEpoch(99));
        assert_eq!(members[0], OWN);
    }

    #[test]
    fn a_new_epoch_forgets_everyone() {
        let mut set = set(&[1, 2]);
        reach(&mut set, 2, 10);
        set.lead(Offset(10));
        set.commit(at(9), 2, [node(2)].into_iter(), &[NodeId(1), NodeId(2)]);
        assert_eq!(set.lowest(), None);
    }
}
