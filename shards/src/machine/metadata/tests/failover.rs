//! Nodes that fall silent, come back, drain, and lose their disks.

use super::*;

fn incarnation(image: &MetadataImage, node: i32) -> BrokerIncarnation {
    let node_id = NodeId(node);
    BrokerIncarnation { node_id, broker_epoch: image.broker(node_id).unwrap().epoch }
}

impl Cluster {
    /// Three nodes and a topic whose partition 0 lies on 1, 2, 3.
    fn replicated(min_insync_replicas: usize) -> Self {
        let mut cluster = Self::with_brokers(3);
        let partitions = assign(0, 3, 3, &cluster.image.broker_ids()).unwrap();
        cluster.apply(create("t", 1, partitions)).outcome.unwrap();
        cluster.configure("min.insync.replicas", &min_insync_replicas.to_string());
        cluster
    }

    fn configure(&mut self, name: &str, value: &str) {
        self.apply(MetadataCommand::SetTopicConfig(SetTopicConfig {
            topic_id: topic_id(1),
            replace: false,
            set: vec![ConfigEntry { name: name.into(), value: value.into() }],
            remove: vec![],
        }))
        .outcome
        .unwrap();
    }

    fn fence(&mut self, node: i32) -> Applied {
        self.apply(MetadataCommand::FenceBroker(incarnation(&self.image, node)))
    }

    fn unfence(&mut self, node: i32) -> Applied {
        self.apply(MetadataCommand::UnfenceBroker(incarnation(&self.image, node)))
    }

    fn drain(&mut self, node: i32) -> Applied {
        self.apply(MetadataCommand::DrainBroker(incarnation(&self.image, node)))
    }

    /// A new process of `node`, fenced as in a cluster.
    fn restart(&mut self, node: i32, process: u8, directory: u8) {
        let MetadataCommand::RegisterBroker(mut command) = register(node, process) else {
            unreachable!()
        };
        command.fenced = true;
        command.directory_id = [directory; 16];
        self.apply(MetadataCommand::RegisterBroker(command)).outcome.unwrap();
    }

    /// The leader of partition 0 has seen `isr` in sync.
    fn in_sync(&mut self, isr: &[i32]) -> Result<ApplyOutcome, Rejection> {
        let leader = self.first().leader.map(NodeId::get);
        let command = change(&self.image, leader, isr);
        self.apply(MetadataCommand::ChangePartition(command)).outcome
    }

    fn first(&self) -> &Partition {
        self.image.partition(key(1, 0)).unwrap()
    }

    /// Leader, in-sync set and eligible replicas of partition 0.
    fn state(&self) -> (Option<i32>, Vec<i32>, Vec<i32>) {
        let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.get()).collect();
        let partition = self.first();
        (partition.leader.map(NodeId::get), ids(&partition.isr), ids(&partition.elr))
    }
}

#[test]
fn a_fenced_leader_is_followed_by_the_next_in_sync_replica_under_a_new_epoch() {
    let mut cluster = Cluster::replicated(1);
    let applied = cluster.fence(1);
    assert_eq!(applied.changes.len(), 4, "the node and each of its partitions");
    assert_eq!(cluster.state(), (Some(2), vec![2, 3], vec![]));
    assert_eq!(cluster.first().leader_epoch, LeaderEpoch(1));
    // It followed in this one: the in-sync set shrinks and the leader stays.
    let third = cluster.image.partition(key(1, 2)).unwrap();
    assert_eq!((third.leader, third.leader_epoch), (Some(NodeId(3)), LeaderEpoch(0)));
    assert!(cluster.fence(1).changes.is_empty(), "fenced twice is fenced once");
}

#[test]
fn only_the_named_incarnation_is_fenced() {
    let mut cluster = Cluster::replicated(1);
    let old = incarnation(&cluster.image, 1);
    cluster.restart(1, 50, 1);
    for command in [
        MetadataCommand::FenceBroker(old),
        MetadataCommand::UnfenceBroker(old),
        MetadataCommand::DrainBroker(old),
    ] {
        let refused = cluster.apply(command).outcome;
        assert!(matches!(refused, Err(Rejection::StaleBrokerEpoch { .. })));
    }
}

#[test]
fn the_last_members_stay_eligible_and_the_first_that_returns_leads() {
    let mut cluster = Cluster::replicated(2);
    cluster.fence(1);
    assert_eq!(cluster.state(), (Some(2), vec![2, 3], vec![]));
    cluster.fence(2);
    assert_eq!(cluster.state(), (Some(3), vec![3], vec![2]), "below the minimum: 2 has it all");
    cluster.fence(3);
    assert_eq!(cluster.state(), (None, vec![], vec![2, 3]));
    cluster.unfence(1);
    assert_eq!(
        cluster.state(),
        (None, vec![], vec![2, 3]),
        "1 may have missed acknowledged records"
    );
    let before = cluster.first().leader_epoch;
    cluster.unfence(2);
    assert_eq!(cluster.state(), (Some(2), vec![2], vec![3]));
    assert!(cluster.first().leader_epoch > before);
    cluster.in_sync(&[2, 1]).unwrap();
    assert_eq!(cluster.state(), (Some(2), vec![2, 1], vec![]), "acknowledging again, without 3");
}

#[test]
fn where_records_count_before_they_are_flushed_who_kept_its_process_leads() {
    let mut cluster = Cluster::replicated(2);
    cluster.configure("flush.messages", "1000");
    for node in [1, 2, 3] {
        cluster.fence(node);
    }
    assert_eq!(cluster.state(), (None, vec![], vec![2, 3]));
    cluster.restart(2, 50, 2);
    cluster.unfence(2);
    assert_eq!(cluster.state(), (None, vec![], vec![3]), "2 may have lost what 3 still has");
    cluster.restart(3, 51, 3);
    cluster.unfence(3);
    assert_eq!(
        cluster.state(),
        (Some(3), vec![3], vec![]),
        "all have restarted: the last one leads"
    );
}

#[test]
fn a_restarted_node_leads_nothing_before_it_is_unfenced_and_then_under_a_new_epoch() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create("t", 1, 1);
    cluster.restart(1, 50, 1);
    assert_eq!(cluster.state(), (None, vec![], vec![1]));
    let between = cluster.first().leader_epoch;
    cluster.unfence(1);
    assert_eq!(cluster.state(), (Some(1), vec![1], vec![]));
    assert!(cluster.first().leader_epoch > between);
}

#[test]
fn a_restarted_node_leaves_the_in_sync_set_until_its_new_incarnation_has_caught_up() {
    let mut cluster = Cluster::replicated(1);
    cluster.restart(2, 50, 2);
    assert_eq!(cluster.state(), (Some(1), vec![1, 3], vec![]));
    let refused = cluster.in_sync(&[1, 2, 3]);
    assert!(matches!(refused, Err(Rejection::IneligibleReplica { .. })), "it is still fenced");
    cluster.unfence(2);
    cluster.in_sync(&[1, 2, 3]).unwrap();
    assert_eq!(cluster.state(), (Some(1), vec![1, 2, 3], vec![]));
}

#[test]
fn a_node_with_another_directory_is_eligible_nowhere() {
    let mut cluster = Cluster::replicated(2);
    for node in [1, 2, 3] {
        cluster.fence(node);
    }
    assert_eq!(cluster.state(), (None, vec![], vec![2, 3]));
    cluster.restart(2, 50, 99);
    cluster.unfence(2);
    assert_eq!(cluster.state(), (None, vec![], vec![3]));
    cluster.restart(3, 50, 3);
    cluster.unfence(3);
    assert_eq!(cluster.state(), (Some(3), vec![3], vec![]));
}

#[test]
fn an_ineligible_replica_leads_only_where_somebody_asks() {
    let mut cluster = Cluster::replicated(1);
    cluster.in_sync(&[1]).unwrap();
    cluster.fence(1);
    assert_eq!(cluster.state(), (None, vec![], vec![1]));
    let led = LedPartition { key: key(1, 0), leader_epoch: cluster.first().leader_epoch };
    let stale = LedPartition { leader_epoch: LeaderEpoch(0), ..led };
    for (election, led, found) in [
        (Election::Preferred, led, 0),
        (Election::Unclean, stale, 0),
        (Election::Unclean, led, 1),
        (Election::Unclean, led, 0),
    ] {
        let command = ElectLeaders { election, partitions: vec![led] };
        let outcome = cluster.apply(MetadataCommand::ElectLeaders(command)).outcome;
        let elected = vec![key(1, 0); found];
        assert_eq!(outcome, Ok(ApplyOutcome::LeadersElected { elected }));
    }
    assert_eq!(cluster.state(), (Some(2), vec![2], vec![]), "what 1 had is given up");
}

#[test]
fn an_ineligible_replica_leads_where_the_topic_or_the_cluster_allows_it() {
    for of_topic in [true, false] {
        let mut cluster = Cluster::replicated(1);
        cluster.in_sync(&[1]).unwrap();
        cluster.fence(1);
        assert_eq!(cluster.state(), (None, vec![], vec![1]));
        let (name, value) = ("unclean.leader.election.enable", "true");
        if of_topic {
            cluster.configure(name, value);
        } else {
            let entry = ConfigEntry { name: name.into(), value: value.into() };
            let command = SetClusterConfig { set: vec![entry], remove: vec![] };
            cluster.apply(MetadataCommand::SetClusterConfig(command)).outcome.unwrap();
        }
        assert_eq!(cluster.state(), (Some(2), vec![2], vec![]), "at once");
        cluster.fence(2);
        assert_eq!(cluster.state(), (Some(3), vec![3], vec![]), "and from now on");
    }
}

#[test]
fn nobody_stays_eligible_when_fewer_members_can_acknowledge_from_now_on() {
    let mut cluster = Cluster::replicated(3);
    cluster.in_sync(&[1]).unwrap();
    assert_eq!(cluster.state(), (Some(1), vec![1], vec![2, 3]));
    cluster.configure("min.insync.replicas", "2");
    assert_eq!(cluster.state(), (Some(1), vec![1], vec![2, 3]), "one is still too few");
    cluster.configure("min.insync.replicas", " 1 ");
    assert_eq!(cluster.state(), (Some(1), vec![1], vec![]), "it may go on without them");
}

#[test]
fn the_clusters_settings_hold_where_the_topic_says_nothing() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create("t", 1, 1);
    let entry = ConfigEntry { name: "min.insync.replicas".into(), value: "2".into() };
    let command = SetClusterConfig { set: vec![entry], remove: vec![] };
    let command = MetadataCommand::SetClusterConfig(command);
    let applied = cluster.apply(command.clone());
    assert_eq!(applied.changes, [MetadataChange::ClusterConfigChanged]);
    assert!(cluster.apply(command).changes.is_empty());
    cluster.fence(2);
    assert_eq!(cluster.state(), (Some(1), vec![1], vec![2]));
}

#[test]
fn a_draining_node_gives_up_what_others_can_lead() {
    let mut cluster = Cluster::replicated(1);
    cluster.in_sync(&[1, 3]).unwrap();
    cluster.drain(1);
    assert_eq!(cluster.state(), (Some(3), vec![3], vec![]));
    cluster.drain(3);
    assert_eq!(cluster.state(), (Some(3), vec![3], vec![]), "nobody else has the records");
    let refused = cluster.in_sync(&[3, 1]);
    assert!(matches!(refused, Err(Rejection::IneligibleReplica { .. })), "it is about to stop");
    cluster.in_sync(&[3, 2]).unwrap();
    cluster.fence(3);
    assert_eq!(cluster.state(), (Some(2), vec![2], vec![]));
}

#[test]
fn the_preferred_replica_leads_again_when_it_is_in_sync() {
    let mut cluster = Cluster::replicated(1);
    cluster.fence(1);
    cluster.unfence(1);
    let elect = |image: &MetadataImage| {
        let leader_epoch = image.partition(key(1, 0)).unwrap().leader_epoch;
        let partitions = vec![LedPartition { key: key(1, 0), leader_epoch }];
        MetadataCommand::ElectLeaders(ElectLeaders { election: Election::Preferred, partitions })
    };
    cluster.apply(elect(&cluster.image));
    assert_eq!(cluster.state().0, Some(2), "it is not in sync yet");
    cluster.in_sync(&[2, 3, 1]).unwrap();
    cluster.apply(elect(&cluster.image));
    assert_eq!(cluster.state(), (Some(1), vec![2, 3, 1], vec![]));
    assert!(cluster.apply(elect(&cluster.image)).changes.is_empty());
}

#[test]
fn new_partitions_are_led_and_kept_by_those_who_are_there() {
    let mut cluster = Cluster::with_brokers(3);
    cluster.fence(1);
    assert_eq!(cluster.image.assign(0, 1, 2).unwrap()[0].replicas, [NodeId(2), NodeId(3)]);
    let partitions = cluster.image.assign(0, 1, 3).unwrap();
    assert_eq!(partitions[0].replicas, [NodeId(1), NodeId(2), NodeId(3)], "two are too few");
    cluster.apply(create("t", 1, partitions)).outcome.unwrap();
    assert_eq!(cluster.state(), (Some(2), vec![2, 3], vec![]));
    let absent = vec![Assignment { replicas: vec![NodeId(1)] }];
    let refused = cluster.apply(create("u", 2, absent)).outcome;
    assert!(matches!(refused, Err(Rejection::Assignment { .. })));
}

#[test]
fn a_node_leaves_the_list_only_when_it_is_gone_and_holds_nothing() {
    let mut cluster = Cluster::replicated(1);
    let unregister = MetadataCommand::UnregisterBroker(UnregisterBroker { node_id: NodeId(3) });
    let in_use = Err(Rejection::BrokerInUse(NodeId(3)));
    assert_eq!(cluster.apply(unregister.clone()).outcome, in_use);
    cluster.fence(3);
    assert_eq!(cluster.apply(unregister.clone()).outcome, in_use);
    cluster.apply(delete(1)).outcome.unwrap();
    let applied = cluster.apply(unregister.clone());
    assert_eq!(applied.changes, [MetadataChange::BrokerUnregistered { node_id: NodeId(3) }]);
    let unknown = Err(Rejection::UnknownBroker(NodeId(3)));
    assert_eq!(cluster.apply(unregister).outcome, unknown);
}

#[test]
fn a_cluster_gets_one_identity() {
    let mut cluster = Cluster::default();
    let mut found =
        |id| cluster.apply(MetadataCommand::FoundCluster(FoundCluster { cluster_id: [id; 16] }));
    assert_eq!(found(1).outcome, Ok(ApplyOutcome::ClusterFounded));
    assert_eq!(found(1).outcome, Ok(ApplyOutcome::ClusterFounded));
    assert_eq!(found(2).outcome, Err(Rejection::ClusterFounded));
    assert_eq!(cluster.image.cluster_id(), Some([1; 16]));
}
