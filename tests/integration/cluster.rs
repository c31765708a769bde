//! Metadata of several nodes, as clients of any of them see it.
//!
//! The nodes run in this process. What is not here is records: each node keeps its own.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use chronik::cli::CommandLine;
use chronik::config::{Endpoint, NodeConfig, Peers};
use chronik::control::ClusterTiming;
use chronik::node::Node;
use chronik_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use chronik_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use chronik_protocol::messages::create_topics_response::CreatableTopicResult;
use chronik_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use chronik_protocol::messages::describe_cluster_response::DescribeClusterResponse;
use chronik_protocol::messages::describe_quorum_request::{
    DescribeQuorumRequest, PartitionData, TopicData,
};
use chronik_protocol::messages::describe_topic_partitions_request::{
    DescribeTopicPartitionsRequest, TopicRequest,
};
use chronik_protocol::messages::elect_leaders_request::{ElectLeadersRequest, TopicPartitions};
use chronik_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use chronik_protocol::messages::metadata_request::MetadataRequest;
use chronik_protocol::messages::unregister_broker_request::UnregisterBrokerRequest;
use chronik_protocol::{ErrorCode, KafkaString};
use chronik_shards::model::NodeId;
use chronik_tuning::host::Host;
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::requests::{describe_topic, init_producer, try_create_topic};
use crate::support::server::is_reference;
use crate::support::wait_for;

struct Cluster {
    data: TempDir,
    kafka: Vec<SocketAddr>,
    control: Vec<SocketAddr>,
    replication: Vec<SocketAddr>,
    timing: ClusterTiming,
    nodes: BTreeMap<usize, Node>,
}

fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let bound: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    bound.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

impl Cluster {
    /// Three nodes that serve.
    fn start() -> Self {
        Self::start_with(ClusterTiming::default())
    }

    fn start_with(timing: ClusterTiming) -> Self {
        let addresses = free_addresses(9);
        let mut cluster = Self {
            data: tempfile::tempdir().unwrap(),
            kafka: addresses[..3].to_vec(),
            control: addresses[3..6].to_vec(),
            replication: addresses[6..].to_vec(),
            timing,
            nodes: BTreeMap::new(),
        };
        cluster.start_nodes(&[0, 1, 2]);
        cluster
    }

    /// All at once: none comes up alone.
    fn start_nodes(&mut self, nodes: &[usize]) {
        let configs: Vec<_> = nodes.iter().map(|node| (*node, self.config(*node))).collect();
        let starting: Vec<_> = configs
            .into_iter()
            .map(|(node, config)| (node, std::thread::spawn(move || Node::start(&config).unwrap())))
            .collect();
        for (node, thread) in starting {
            self.nodes.insert(node, thread.join().unwrap());
        }
        let all = self.nodes.len();
        for node in self.nodes.keys() {
            let mut client = self.client(*node);
            wait_for("nodes that are unfenced", || {
                (brokers(&mut client).len() == all).then_some(())
            });
        }
    }

    fn config(&self, node: usize) -> NodeConfig {
        let data_dir = self.data.path().join(node.to_string());
        let others = (0..3).filter(|other| *other != node);
        let command = CommandLine {
            kafka_port: Some(self.kafka[node].port()),
            node_id: Some(node as i32),
            data_dir: Some(data_dir),
            shards: Some(1),
            no_pin: true,
            profile: Some("shared-host".to_owned()),
            ..CommandLine::default()
        };
        let mut config = NodeConfig::resolve(command, &Host::read().unwrap()).unwrap();
        let endpoint =
            |address: SocketAddr| Endpoint { host: address.ip().to_string(), port: address.port() };
        config.broker.set("default.replication.factor", "2").unwrap();
        config.rack = Some(format!("rack-{node}"));
        config.peers = Some(Peers {
            control_bind: self.control[node],
            replication_bind: self.replication[node],
            control_advertised: endpoint(self.control[node]),
            replication_advertised: endpoint(self.replication[node]),
            control: others
                .map(|other| (NodeId(other as i32), self.control[other].to_string()))
                .collect(),
            founds: true,
            timing: self.timing,
        });
        config
    }

    fn client(&self, node: usize) -> Client {
        Client::connect(self.kafka[node])
    }

    fn stop(mut self) {
        while let Some((_, node)) = self.nodes.pop_first() {
            node.stop();
        }
    }
}

fn brokers(client: &mut Client) -> Vec<(i32, Option<KafkaString>)> {
    let response =
        client.call(1, &DescribeClusterRequest { endpoint_type: 1, ..Default::default() });
    response.brokers.into_iter().map(|broker| (broker.broker_id, broker.rack)).collect()
}

fn create_replicated(client: &mut Client, name: &str) -> ErrorCode {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 3,
        replication_factor: 3,
        ..CreatableTopic::default()
    };
    let request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let response = client.call(5, &request);
    crate::support::requests::error(response.topics[0].error_code)
}

/// The leaders of a topic's partitions, once the node knows the topic.
fn leaders(client: &mut Client, name: &str) -> Vec<i32> {
    wait_for("the topic", || {
        let topic = describe_topic(client, name);
        let leaders: Vec<i32> = topic.partitions.iter().map(|it| it.leader_id).collect();
        (topic.error_code == 0 && leaders.len() == 3).then_some(leaders)
    })
}

#[test]
fn any_node_changes_the_metadata_of_all_and_survives_any_other() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let racks: Vec<_> = brokers(&mut cluster.client(0));
    assert_eq!(racks[2], (2, Some(KafkaString::from("rack-2"))));
    let mut producers = std::collections::BTreeSet::new();
    for node in 0..3 {
        let name = format!("by-{node}");
        let mut client = cluster.client(node);
        assert_eq!(create_replicated(&mut client, &name), ErrorCode::None);
        assert_eq!(try_create_topic(&mut client, &name, 1, &[]), ErrorCode::TopicAlreadyExists);
        assert!(producers.insert(init_producer(&mut client).0), "a producer id twice");
        for other in 0..3 {
            let mut led = leaders(&mut cluster.client(other), &name);
            led.sort_unstable();
            assert_eq!(led, [0, 1, 2], "as node {other} sees it");
        }
    }
    for gone in 0..3 {
        // Nobody has caught up with anything yet: only here are all three in sync.
        let name = format!("before-{gone}");
        assert_eq!(create_replicated(&mut cluster.client(gone), &name), ErrorCode::None);
        cluster.nodes.remove(&gone).unwrap().stop();
        let other = (gone + 1) % 3;
        let mut client = cluster.client(other);
        wait_for("others that lead", || {
            let led = leaders(&mut client, &name);
            led.iter().all(|leader| *leader >= 0 && *leader != gone as i32).then_some(())
        });
        wait_for("a node that is fenced", || (brokers(&mut client).len() == 2).then_some(()));
        assert_eq!(create_replicated(&mut client, &format!("without-{gone}")), ErrorCode::None);
        cluster.start_nodes(&[gone]);
        leaders(&mut cluster.client(gone), &format!("without-{gone}"));
    }
    assert!(Path::new(cluster.data.path()).join("0/node.toml").exists());
    cluster.stop();
}

fn cluster_of(client: &mut Client, with_fenced: bool) -> DescribeClusterResponse {
    let request = DescribeClusterRequest {
        endpoint_type: 1,
        include_fenced_brokers: with_fenced,
        ..DescribeClusterRequest::default()
    };
    client.call(2, &request)
}

fn create(client: &mut Client, topic: CreatableTopic) -> CreatableTopicResult {
    let request =
        CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    client.call(7, &request).topics.remove(0)
}

fn assigned(name: &str, partitions: &[&[i32]]) -> CreatableTopic {
    let assignment = |(index, nodes): (i32, &&[i32])| CreatableReplicaAssignment {
        partition_index: index,
        broker_ids: nodes.to_vec(),
        ..CreatableReplicaAssignment::default()
    };
    CreatableTopic {
        name: name.into(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: (0..).zip(partitions).map(assignment).collect(),
        ..CreatableTopic::default()
    }
}

fn counted(name: &str, partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor,
        ..CreatableTopic::default()
    }
}

#[test]
fn every_node_tells_the_same_of_nodes_leaders_and_replicas() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let mut client = cluster.client(0);
    // A topic that says nothing has as many replicas as the cluster is told to make.
    assert_eq!(create(&mut client, counted("by-default", 2, -1)).replication_factor, 2);
    let all_in_sync = CreatableTopicConfig {
        name: "min.insync.replicas".into(),
        value: Some("3".into()),
        ..CreatableTopicConfig::default()
    };
    let strict = CreatableTopic {
        configs: vec![all_in_sync],
        ..assigned("strict", &[&[1, 2, 0], &[2, 0, 1]])
    };
    assert_eq!(create(&mut client, strict).error_code, 0);
    cluster.nodes.remove(&1).unwrap().stop();
    for node in [0, 2] {
        let mut client = cluster.client(node);
        wait_for("a node that is fenced", || (brokers(&mut client).len() == 2).then_some(()));
        let told = cluster_of(&mut client, true);
        let fenced = |id: i32| (id, id == 1);
        let seen: Vec<_> = told.brokers.iter().map(|it| (it.broker_id, it.is_fenced)).collect();
        assert_eq!(seen, [0, 1, 2].map(fenced));
        assert!(cluster_of(&mut client, false).brokers.iter().all(|it| it.broker_id != 1));
        let controller = wait_for("a controller that both name", || {
            let [one, other] =
                [0, 2].map(|node| cluster_of(&mut cluster.client(node), true).controller_id);
            (one == other).then_some(one)
        });
        assert_ne!(controller, 1);
        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        let metadata = client.call(12, &request);
        assert_eq!(metadata.controller_id, controller);
        let topic = metadata.topics.iter().find(|it| it.name.as_deref() == Some("strict")).unwrap();
        assert_eq!(topic.partitions[0].leader_id, 2);
        assert_eq!(topic.partitions[0].replica_nodes, [1, 2, 0]);
        assert_eq!(topic.partitions[0].isr_nodes, [2, 0]);
        assert_eq!(topic.partitions[0].offline_replicas, [1]);
        let name = TopicRequest { name: "strict".into(), ..TopicRequest::default() };
        let request = DescribeTopicPartitionsRequest {
            topics: vec![name],
            response_partition_limit: 10,
            ..DescribeTopicPartitionsRequest::default()
        };
        let described = client.call(0, &request);
        let partition = &described.topics[0].partitions[1];
        assert_eq!(partition.eligible_leader_replicas.as_deref(), Some(&[1][..]));
        assert_eq!(
            (&partition.isr_nodes[..], &partition.offline_replicas[..]),
            (&[2, 0][..], &[1][..])
        );
    }
    cluster.stop();
}

#[test]
fn topics_that_the_nodes_cannot_hold_are_refused() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let mut client = cluster.client(1);
    let mut code = |topic| crate::support::requests::error(create(&mut client, topic).error_code);
    assert_eq!(code(counted("t", 1, 4)), ErrorCode::InvalidReplicationFactor);
    assert_eq!(code(assigned("t", &[&[0, 9]])), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(code(assigned("t", &[&[0, 0]])), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(code(assigned("t", &[&[0, 1], &[2]])), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(code(assigned("t", &[&[]])), ErrorCode::InvalidReplicaAssignment);
    cluster.nodes.remove(&2).unwrap().stop();
    let mut client = cluster.client(1);
    wait_for("a node that is fenced", || (brokers(&mut client).len() == 2).then_some(()));
    let mut code = |topic| crate::support::requests::error(create(&mut client, topic).error_code);
    assert_eq!(code(assigned("t", &[&[2]])), ErrorCode::InvalidReplicaAssignment);
    // Who is away for a moment gets its replicas when it is back.
    assert_eq!(code(counted("of-all", 3, 3)), ErrorCode::None);
    assert_eq!(code(counted("of-those-there", 6, 2)), ErrorCode::None);
    let partitions = describe_topic(&mut client, "of-those-there").partitions;
    assert!(partitions.iter().all(|it| !it.replica_nodes.contains(&2)), "{partitions:?}");
    cluster.stop();
}

fn code_of(code: i16) -> ErrorCode {
    crate::support::requests::error(code)
}

/// Moves partition 0; without nodes, stops the move.
fn reassign(
    client: &mut Client,
    topic: &str,
    nodes: Option<&[i32]>,
    keep_factor: bool,
) -> ErrorCode {
    let partition = ReassignablePartition {
        partition_index: 0,
        replicas: nodes.map(<[i32]>::to_vec),
        ..ReassignablePartition::default()
    };
    let topic = ReassignableTopic {
        name: topic.into(),
        partitions: vec![partition],
        ..ReassignableTopic::default()
    };
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![topic],
        allow_replication_factor_change: !keep_factor,
        ..AlterPartitionReassignmentsRequest::default()
    };
    let response = client.call(1, &request);
    assert_eq!(response.error_code, 0);
    code_of(response.responses[0].partitions[0].error_code)
}

/// What becomes of an election for partition 0 of a topic, or of all partitions that need one.
fn elect(
    client: &mut Client,
    election_type: i8,
    topic: Option<&str>,
) -> Vec<(String, i32, ErrorCode)> {
    let asked = |name: &str| {
        vec![TopicPartitions { topic: name.into(), partitions: vec![0], ..Default::default() }]
    };
    let topic_partitions = topic.map(asked);
    let request =
        ElectLeadersRequest { election_type, topic_partitions, ..ElectLeadersRequest::default() };
    let response = client.call(2, &request);
    assert_eq!(response.error_code, 0);
    let results = response.replica_election_results.iter();
    results
        .flat_map(|topic| {
            let name = topic.topic.to_string();
            topic
                .partition_result
                .iter()
                .map(move |it| (name.clone(), it.partition_id, code_of(it.error_code)))
        })
        .collect()
}

#[test]
fn partitions_move_and_elections_are_held_on_demand() {
    if is_reference() {
        return;
    }
    // Nobody gives partitions back to their preferred leaders but who asks for it.
    let balance_interval = std::time::Duration::from_secs(3600);
    let mut cluster =
        Cluster::start_with(ClusterTiming { balance_interval, ..ClusterTiming::default() });
    let mut client = cluster.client(0);
    assert_eq!(create(&mut client, assigned("t", &[&[1, 0]])).error_code, 0);
    assert_eq!(create(&mut client, assigned("alone", &[&[2]])).error_code, 0);
    let one = |code| vec![("t".to_owned(), 0, code)];
    assert_eq!(elect(&mut client, 0, Some("t")), one(ErrorCode::ElectionNotNeeded));
    assert_eq!(elect(&mut client, 1, Some("t")), one(ErrorCode::ElectionNotNeeded));
    assert_eq!(elect(&mut client, 0, None), []);
    let unknown = vec![("none".to_owned(), 0, ErrorCode::UnknownTopicOrPartition)];
    assert_eq!(elect(&mut client, 0, Some("none")), unknown);
    // Another order of the same nodes: at once, and another one is preferred.
    assert_eq!(reassign(&mut client, "t", Some(&[0, 1]), true), ErrorCode::None);
    assert_eq!(describe_topic(&mut client, "t").partitions[0].leader_id, 1);
    assert_eq!(elect(&mut client, 0, None), one(ErrorCode::None));
    assert_eq!(describe_topic(&mut client, "t").partitions[0].leader_id, 0);

    assert_eq!(reassign(&mut client, "t", None, false), ErrorCode::NoReassignmentInProgress);
    assert_eq!(
        reassign(&mut client, "none", Some(&[1]), false),
        ErrorCode::UnknownTopicOrPartition
    );
    for nodes in [&[][..], &[0, 0], &[9]] {
        let refused = reassign(&mut client, "t", Some(nodes), false);
        assert_eq!(refused, ErrorCode::InvalidReplicaAssignment, "{nodes:?}");
    }
    let refused = reassign(&mut client, "t", Some(&[0]), true);
    assert_eq!(refused, ErrorCode::InvalidReplicationFactor);

    // To a node that is away: the move waits for it.
    cluster.nodes.remove(&2).unwrap().stop();
    let mut client = cluster.client(1);
    wait_for("a node that is fenced", || (brokers(&mut client).len() == 2).then_some(()));
    assert_eq!(reassign(&mut client, "t", Some(&[0, 2]), true), ErrorCode::None);
    let moving = client.call(0, &ListPartitionReassignmentsRequest::default()).topics;
    assert_eq!((moving.len(), &*moving[0].name), (1, "t"));
    let partition = &moving[0].partitions[0];
    assert_eq!(partition.replicas, [0, 2, 1]);
    assert_eq!(
        (&partition.adding_replicas[..], &partition.removing_replicas[..]),
        (&[2][..], &[1][..])
    );
    assert_eq!(reassign(&mut client, "t", None, false), ErrorCode::None);
    assert!(client.call(0, &ListPartitionReassignmentsRequest::default()).topics.is_empty());
    assert_eq!(describe_topic(&mut client, "t").partitions[0].replica_nodes, [0, 1]);

    let away = |code| vec![("alone".to_owned(), 0, code)];
    assert_eq!(elect(&mut client, 0, None), away(ErrorCode::PreferredLeaderNotAvailable));
    assert_eq!(elect(&mut client, 1, None), away(ErrorCode::EligibleLeadersNotAvailable));
    let mut unregister = |broker_id| {
        let request = UnregisterBrokerRequest { broker_id, ..UnregisterBrokerRequest::default() };
        code_of(client.call(0, &request).error_code)
    };
    assert_eq!(unregister(9), ErrorCode::BrokerIdNotRegistered);
    assert_eq!(unregister(1), ErrorCode::InvalidRequest, "it runs");
    assert_eq!(unregister(2), ErrorCode::InvalidRequest, "it holds a replica");
    cluster.stop();
}

#[test]
fn every_node_knows_how_the_quorum_stands() {
    if is_reference() {
        return;
    }
    let mut cluster = Cluster::start();
    let ask = |client: &mut Client, name: &str| {
        let log = TopicData {
            topic_name: name.into(),
            partitions: vec![PartitionData::default()],
            ..TopicData::default()
        };
        client.call(2, &DescribeQuorumRequest { topics: vec![log], ..Default::default() })
    };
    for node in 0..3 {
        let response = ask(&mut cluster.client(node), "__cluster_metadata");
        assert_eq!(response.error_code, 0);
        let log = &response.topics[0].partitions[0];
        let voters: Vec<i32> = log.current_voters.iter().map(|it| it.replica_id).collect();
        assert_eq!(voters, [0, 1, 2]);
        assert!(voters.contains(&log.leader_id) && log.leader_epoch > 0);
        assert!(log.observers.is_empty());
        for voter in &log.current_voters {
            assert!(voter.log_end_offset > 1 && voter.last_fetch_timestamp > 0, "{voter:?}");
            assert_ne!(voter.replica_directory_id, chronik_protocol::Uuid::ZERO);
        }
        let ports: Vec<u16> = response.nodes.iter().map(|it| it.listeners[0].port).collect();
        let listening: Vec<u16> = cluster.control.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, listening);
        let other = ask(&mut cluster.client(node), "another");
        let code = code_of(other.topics[0].partitions[0].error_code);
        assert_eq!(code, ErrorCode::UnknownTopicOrPartition);
    }
    // Two of three still know, and who is away falls behind.
    cluster.nodes.remove(&0).unwrap().stop();
    let mut client = cluster.client(2);
    let name = "after";
    wait_for("a controller", || {
        (create_replicated(&mut client, name) != ErrorCode::RequestTimedOut).then_some(())
    });
    wait_for("a voter that falls behind", || {
        let response = ask(&mut client, "__cluster_metadata");
        let voters = &response.topics.first()?.partitions[0].current_voters;
        (voters[0].log_end_offset < voters[1].log_end_offset).then_some(())
    });
    cluster.stop();
}
