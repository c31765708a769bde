use super::*;
use crate::format::metadata_command::{CreateTopic, RegisterBroker};
use crate::model::{LeaderEpoch, PartitionIndex, TopicId};

const SESSION_MS: u64 = 1000;

/// A controller, the log that it proposes to, and what nodes tell it.
struct Cluster {
    image: MetadataImage,
    controller: Controller,
    now: MonotonicMicros,
}

fn settings() -> ControllerSettings {
    ControllerSettings {
        session_ms: SESSION_MS,
        retry_ms: 300,
        balance_interval_ms: 5000,
        cluster_configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
        cluster_id: [7; 16],
    }
}

fn key(partition: i32) -> ReplicaKey {
    ReplicaKey { topic_id: TopicId([1; 16]), partition: PartitionIndex(partition) }
}

fn registration(node: i32, process: u8) -> RegisterBroker {
    RegisterBroker {
        node_id: NodeId(node),
        incarnation: [process; 16],
        shards: 1,
        host: "localhost".to_owned(),
        port: 9092,
        directory_id: [node as u8; 16],
        rack: None,
        fenced: true,
        replication: None,
        control: None,
    }
}

impl Cluster {
    /// Three registered nodes that nobody has heard of since.
    fn new() -> Self {
        let (image, now) = (MetadataImage::default(), MonotonicMicros(5_000_000));
        let controller = Controller::new(settings(), &image, None, now);
        let mut cluster = Self { image, controller, now };
        for node in 1..=3 {
            cluster.register(node, node as u8);
        }
        cluster
    }

    /// Three nodes that serve, and a topic of three partitions on all of them.
    fn serving() -> Self {
        let mut cluster = Self::new();
        cluster.beat(&[1, 2, 3]);
        cluster.step();
        let partitions = cluster.image.assign(0, 3, 3).unwrap();
        let name = "t".to_owned();
        let topic = CreateTopic { name, topic_id: TopicId([1; 16]), partitions, configs: vec![] };
        cluster.apply(&MetadataCommand::CreateTopic(topic));
        cluster
    }

    fn register(&mut self, node: i32, process: u8) {
        self.apply(&MetadataCommand::RegisterBroker(registration(node, process)));
    }

    fn apply(&mut self, command: &MetadataCommand) {
        self.image.apply(self.image.applied() + 1, command).outcome.unwrap();
        self.image.check_invariants();
    }

    fn epoch(&self, node: i32) -> BrokerEpoch {
        self.image.broker(NodeId(node)).unwrap().epoch
    }

    fn beat(&mut self, nodes: &[i32]) {
        for node in nodes {
            let heartbeat = BrokerHeartbeat {
                node_id: NodeId(*node),
                broker_epoch: self.epoch(*node),
                applied: self.image.applied(),
                ready: true,
            };
            self.controller.heartbeat(self.now, &self.image, heartbeat);
        }
    }

    /// What the controller proposes, which takes effect at once.
    fn step(&mut self) -> Vec<MetadataCommand> {
        let commands = self.controller.tick(self.now, &self.image);
        for command in &commands {
            self.apply(command);
        }
        commands
    }

    /// Lets time pass while `nodes` are heard of.
    fn pass(&mut self, millis: u64, nodes: &[i32]) -> Vec<MetadataCommand> {
        let mut commands = Vec::new();
        for _ in 0..millis / 100 {
            self.now = self.now.plus_millis(100);
            self.beat(nodes);
            commands.extend(self.step());
        }
        commands
    }

    fn fenced(&self) -> Vec<i32> {
        let fenced = self.image.brokers().filter(|(_, broker)| broker.fenced);
        fenced.map(|(node, _)| node.get()).collect()
    }
}

#[test]
fn the_first_controller_names_the_cluster_and_says_its_settings_once() {
    let mut cluster = Cluster::new();
    let commands = cluster.step();
    assert!(matches!(commands[0], MetadataCommand::FoundCluster(_)));
    assert!(matches!(commands[1], MetadataCommand::SetClusterConfig(_)));
    assert_eq!(cluster.image.cluster_id(), Some([7; 16]));
    assert_eq!(cluster.image.cluster_configs(), &settings().cluster_configs);
    assert_eq!(cluster.pass(2000, &[]), [], "three nodes are fenced and silent: all is said");
}

#[test]
fn a_node_is_unfenced_when_it_has_caught_up_and_can_serve() {
    let mut cluster = Cluster::new();
    cluster.step();
    let beat = |cluster: &mut Cluster, applied, ready| {
        let (node_id, broker_epoch) = (NodeId(2), cluster.epoch(2));
        let heartbeat = BrokerHeartbeat { node_id, broker_epoch, applied, ready };
        cluster.controller.heartbeat(cluster.now, &cluster.image, heartbeat);
        cluster.step();
        cluster.fenced().contains(&2)
    };
    let registered = cluster.epoch(2).get() as u64;
    assert!(beat(&mut cluster, registered, false), "it cannot serve yet");
    assert!(beat(&mut cluster, registered - 1, true), "it does not know its own registration");
    assert!(!beat(&mut cluster, registered, true));
}

#[test]
fn a_silent_node_is_fenced_after_its_session_and_its_partitions_are_led_by_others() {
    let mut cluster = Cluster::serving();
    assert_eq!(cluster.image.partition(key(0)).unwrap().leader, Some(NodeId(1)));
    assert!(cluster.pass(SESSION_MS - 100, &[2, 3]).is_empty());
    let commands = cluster.pass(200, &[2, 3]);
    assert_eq!(commands.len(), 1);
    assert_eq!(cluster.fenced(), [1]);
    let partition = cluster.image.partition(key(0)).unwrap();
    assert_eq!((partition.leader, partition.leader_epoch), (Some(NodeId(2)), LeaderEpoch(1)));
    cluster.pass(200, &[1, 2, 3]);
    assert!(cluster.fenced().is_empty(), "it was only slow");
}

#[test]
fn a_heartbeat_of_an_earlier_process_keeps_nobody_alive() {
    let mut cluster = Cluster::serving();
    let stale = BrokerHeartbeat {
        node_id: NodeId(1),
        broker_epoch: cluster.epoch(1),
        applied: u64::MAX,
        ready: true,
    };
    cluster.register(1, 99);
    for _ in 0..20 {
        cluster.controller.heartbeat(cluster.now, &cluster.image, stale);
        cluster.pass(100, &[2, 3]);
    }
    assert_eq!(cluster.fenced(), [1]);
}

#[test]
fn a_command_without_effect_is_proposed_again_and_not_sooner() {
    let mut cluster = Cluster::serving();
    let mut proposed = Vec::new();
    for millis in (0..2000).step_by(100) {
        cluster.now = cluster.now.plus_millis(100);
        cluster.beat(&[1, 3]);
        // The log takes nothing.
        if !cluster.controller.tick(cluster.now, &cluster.image).is_empty() {
            proposed.push(millis + 100);
        }
    }
    assert_eq!(proposed, [1000, 1300, 1600, 1900]);
}

#[test]
fn a_new_controller_gives_everybody_a_session_but_the_one_whom_it_knows_to_be_silent() {
    let mut cluster = Cluster::serving();
    let silent = MonotonicMicros(cluster.now.get() - 800_000);
    let followed = Some((NodeId(1), silent));
    cluster.controller = Controller::new(settings(), &cluster.image, followed, cluster.now);
    cluster.pass(100, &[]);
    assert!(cluster.fenced().is_empty());
    cluster.pass(200, &[]);
    assert_eq!(cluster.fenced(), [1]);
    cluster.pass(600, &[]);
    assert_eq!(cluster.fenced(), [1]);
    cluster.pass(200, &[]);
    assert_eq!(cluster.fenced(), [1, 2, 3]);
}

#[test]
fn a_controller_that_was_stopped_itself_takes_nobody_for_silent() {
    let mut cluster = Cluster::serving();
    cluster.now = cluster.now.plus_millis(10 * SESSION_MS);
    assert!(cluster.step().is_empty());
    cluster.pass(300, &[1, 2, 3]);
    assert!(cluster.fenced().is_empty());
    cluster.pass(SESSION_MS, &[]);
    assert_eq!(cluster.fenced(), [1, 2, 3], "now they are");
}

#[test]
fn a_node_that_stops_is_not_unfenced_for_what_it_said_before() {
    let mut cluster = Cluster::serving();
    cluster.pass(100, &[1, 2, 3]);
    let leaving = BrokerIncarnation { node_id: NodeId(2), broker_epoch: cluster.epoch(2) };
    cluster.apply(&MetadataCommand::DrainBroker(leaving));
    cluster.apply(&MetadataCommand::FenceBroker(leaving));
    cluster.pass(SESSION_MS / 2, &[1, 3]);
    assert_eq!(cluster.fenced(), [2]);
}

#[test]
fn preferred_replicas_get_their_partitions_back() {
    let mut cluster = Cluster::serving();
    cluster.pass(SESSION_MS + 100, &[2, 3]);
    cluster.pass(200, &[1, 2, 3]);
    let leader = |cluster: &Cluster| cluster.image.partition(key(0)).unwrap().leader;
    cluster.pass(12_000, &[1, 2, 3]);
    assert_eq!(leader(&cluster), Some(NodeId(2)), "1 is not in sync");
    let partition = cluster.image.partition(key(0)).unwrap().clone();
    let member = |node| crate::format::metadata_command::IsrMember {
        node_id: NodeId(node),
        broker_epoch: cluster.epoch(node),
    };
    let grown = crate::format::metadata_command::ChangePartition {
        key: key(0),
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        leader: partition.leader,
        isr: vec![member(2), member(3), member(1)],
        replicas: partition.replicas.clone(),
    };
    cluster.apply(&MetadataCommand::ChangePartition(grown));
    cluster.pass(6000, &[1, 2, 3]);
    assert_eq!(leader(&cluster), Some(NodeId(1)));
    assert_eq!(cluster.pass(6000, &[1, 2, 3]), [], "once");
}
