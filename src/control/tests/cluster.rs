//! Three control planes in one process, on sockets and disks.

mod strangers;

use std::net::TcpListener;
use std::time::Instant;

use chronik_shards::format::metadata_command::{BrokerIncarnation, FoundCluster};
use crossbeam::channel::Sender;

use super::*;

/// Longer than anything here takes, unless it never happens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster, some of whose nodes run.
struct Cluster {
    data: Vec<TempDir>,
    ports: Vec<u16>,
    compaction: CompactionPolicy,
    running: BTreeMap<NodeId, Running>,
}

struct Running {
    handle: ControlHandle,
    thread: ControlThread,
    cluster_id: String,
    broker_epoch: BrokerEpoch,
    /// The image as a shard has it.
    view: View,
}

/// An image that follows what the control thread says.
struct View {
    image: MetadataImage,
    updates: Receiver<MetadataUpdate>,
    /// Whether it was handed a whole image on the way.
    had_image: bool,
}

impl View {
    fn catch_up(&mut self) -> &MetadataImage {
        for update in self.updates.try_iter() {
            match update {
                MetadataUpdate::Command(one) => drop(self.image.apply(one.index, &one.command)),
                MetadataUpdate::Controller(_) => {}
                MetadataUpdate::Image(image) => {
                    self.had_image = true;
                    self.image = MetadataImage::clone(&image);
                }
            }
        }
        &self.image
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it did not come to pass that {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ports that are free now.
fn free_ports(count: usize) -> Vec<u16> {
    let bound: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    bound.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn endpoint(port: u16) -> BrokerEndpoint {
    BrokerEndpoint { host: "127.0.0.1".to_owned(), port }
}

impl Cluster {
    fn of(nodes: usize) -> Self {
        Self {
            data: (0..nodes).map(|_| tempfile::tempdir().unwrap()).collect(),
            ports: free_ports(nodes),
            compaction: CompactionPolicy::default(),
            running: BTreeMap::new(),
        }
    }

    fn with_all_running(nodes: usize) -> Self {
        let mut cluster = Self::of(nodes);
        cluster.start_all(&(1..=nodes as i32).collect::<Vec<_>>());
        cluster
    }

    fn config(&self, node: i32) -> ControlConfig {
        let data_dir = self.data[node as usize - 1].path().to_owned();
        let node_id = NodeId(node);
        let address = |node: i32| format!("127.0.0.1:{}", self.ports[node as usize - 1]);
        let others = (1..=self.ports.len() as i32).filter(|other| *other != node);
        ControlConfig {
            node_id,
            directory: data_dir.join("raft"),
            identity: NodeIdentity::establish(&data_dir, node_id, Founding::WithPeers).unwrap(),
            cluster: Some(ClusterConfig {
                listen: address(node).parse().unwrap(),
                control_advertised: endpoint(self.ports[node as usize - 1]),
                replication_advertised: endpoint(9291),
                peers: others.map(|other| (NodeId(other), address(other))).collect(),
                defaults: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
                founds: true,
                timing: ClusterTiming::default(),
                data_dir: data_dir.clone(),
            }),
            compaction: self.compaction,
            ..config(&data_dir)
        }
    }

    /// Starts nodes in this order; each is up before this returns.
    fn start_all(&mut self, nodes: &[i32]) {
        let starting: Vec<_> =
            nodes.iter().map(|node| (*node, begin(self.config(*node)).unwrap())).collect();
        for (node, starting) in starting {
            let Waited::Started(start) = starting.wait(PATIENCE).unwrap() else {
                panic!("node {node} is not registered in time");
            };
            self.started(node, *start);
        }
    }

    fn started(&mut self, node: i32, start: ControlStart) {
        let (queue, updates): (Sender<MetadataUpdate>, _) = unbounded();
        let sink = move |update| drop(queue.send(update));
        start.handle.subscribe(start.image.applied(), Box::new(sink)).unwrap();
        start.handle.ready().unwrap();
        let running = Running {
            handle: start.handle,
            thread: start.thread,
            cluster_id: start.cluster_id,
            broker_epoch: start.broker_epoch,
            view: View { image: start.image, updates, had_image: false },
        };
        self.running.insert(NodeId(node), running);
    }

    fn image(&mut self, node: i32) -> &MetadataImage {
        self.running.get_mut(&NodeId(node)).unwrap().view.catch_up()
    }

    fn handle(&self, node: i32) -> ControlHandle {
        self.running[&NodeId(node)].handle.clone()
    }

    /// Ends a node without a word to anybody: what it promised is on its disk.
    fn stop(&mut self, node: i32) {
        self.running.remove(&NodeId(node)).unwrap().thread.stop();
    }

    fn stop_all(mut self) {
        while let Some((_, running)) = self.running.pop_first() {
            running.thread.stop();
        }
    }

    fn wait_for_all(&mut self, what: &str, is_so: impl Fn(&MetadataImage) -> bool) {
        let nodes: Vec<i32> = self.running.keys().map(|node| node.get()).collect();
        wait_until(what, || nodes.iter().all(|node| is_so(self.image(*node))));
    }

    fn wait_until_all_serve(&mut self) {
        let nodes = self.running.len();
        self.wait_for_all("every node is unfenced", |image| {
            image.brokers().filter(|(_, broker)| !broker.fenced).count() == nodes
        });
    }

    fn replicated(&mut self, on: i32, name: &str, id: u8) -> MetadataCommand {
        MetadataCommand::CreateTopic(CreateTopic {
            name: name.to_owned(),
            topic_id: TopicId([id; 16]),
            partitions: self.image(on).assign(0, 3, 3).unwrap(),
            configs: Vec::new(),
        })
    }
}

#[test]
fn nodes_that_start_in_any_order_agree_on_one_cluster() {
    for order in [[1, 2, 3], [3, 1, 2]] {
        let mut cluster = Cluster::of(3);
        let mut starting = Vec::new();
        for node in order {
            starting.push((node, begin(cluster.config(node)).unwrap()));
            // The one before has looked for its peers in vain by now.
            std::thread::sleep(Duration::from_millis(120));
        }
        for (node, starting) in starting {
            let Waited::Started(start) = starting.wait(PATIENCE).unwrap() else { panic!() };
            cluster.started(node, *start);
        }
        cluster.wait_until_all_serve();
        let ids: Vec<&str> = cluster.running.values().map(|it| it.cluster_id.as_str()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        for node in order {
            let identity = cluster.config(node).identity;
            assert_eq!(identity.cluster_id.as_deref(), Some(ids[0]), "in the directory of {node}");
        }
        cluster.wait_for_all("the cluster has its settings", |image| {
            image.cluster_configs().get("min.insync.replicas").is_some_and(|value| value == "2")
        });
        cluster.stop_all();
    }
}

#[test]
fn a_change_proposed_on_any_node_is_on_every_node_and_answered_where_it_is_applied() {
    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    for node in 1..=3 {
        let name = format!("t{node}");
        let command = cluster.replicated(node, &name, node as u8);
        cluster.handle(node).propose_and_wait(&command).unwrap();
        assert!(cluster.image(node).topic_named(&name).is_some(), "applied before the answer");
        let again = cluster.handle(node % 3 + 1).propose_and_wait(&command).unwrap();
        assert!(matches!(again, ApplyOutcome::TopicCreated { .. }), "the same topic");
    }
    cluster.wait_for_all("all topics are everywhere", |image| image.topic_count() == 3);
    let leaders: std::collections::BTreeSet<_> =
        cluster.image(1).topic_named("t1").unwrap().partitions.iter().map(|it| it.leader).collect();
    assert_eq!(leaders.len(), 3, "every node leads one of the three partitions");
    cluster.stop_all();
}

#[test]
fn a_change_that_has_spread_is_on_the_shards_of_every_node_that_is_there() {
    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    let spread = |cluster: &mut Cluster, on: i32, patience: Duration| {
        let (answer, answered) = bounded(1);
        let index = cluster.image(on).applied();
        let reply = Box::new(move |result| answer.send(result).unwrap());
        cluster.handle(on).when_spread(index, patience, reply).unwrap();
        assert_eq!(answered.recv_timeout(PATIENCE).unwrap(), Ok(()));
    };
    for round in 0..30 {
        let (on, name) = (round % 3 + 1, format!("t{round}"));
        let command = create_on(NodeId(on), &name, round as u8 + 1);
        cluster.handle(on).propose_and_wait(&command).unwrap();
        spread(&mut cluster, on, PATIENCE);
        for node in 1..=3 {
            assert!(cluster.image(node).topic_named(&name).is_some(), "{name} on node {node}");
        }
    }
    // Who falls silent is waited for until it is fenced, or until patience is at its end.
    cluster.running.remove(&NodeId(3)).unwrap().thread.kill();
    spread(&mut cluster, 1, Duration::from_millis(1));
    spread(&mut cluster, 1, PATIENCE);
    assert!(cluster.image(1).broker(NodeId(3)).unwrap().fenced);
    cluster.stop_all();
}

#[test]
fn nodes_beyond_the_fifth_learn_and_take_changes_like_any_other() {
    let mut cluster = Cluster::with_all_running(6);
    cluster.wait_until_all_serve();
    let command = cluster.replicated(6, "t", 1);
    cluster.handle(6).propose_and_wait(&command).unwrap();
    // A majority of six would be four, and three of the five that vote are enough.
    for gone in [1, 2] {
        cluster.running.remove(&NodeId(gone)).unwrap().thread.kill();
    }
    cluster.running.remove(&NodeId(6)).unwrap().thread.kill();
    let command = create_on(NodeId(3), "u", 2);
    cluster.handle(3).propose_and_wait(&command).unwrap();
    cluster.start_all(&[6]);
    cluster.wait_for_all("the learner has learned", |image| image.topic_named("u").is_some());
    cluster.stop_all();
}

#[test]
fn when_any_node_is_gone_the_others_go_on_and_lead_its_partitions() {
    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    let command = cluster.replicated(1, "t", 1);
    cluster.handle(1).propose_and_wait(&command).unwrap();
    // One of the three is the controller.
    for gone in 1..=3 {
        cluster.wait_until_all_serve();
        cluster.running.remove(&NodeId(gone)).unwrap().thread.kill();
        let begun = Instant::now();
        let other = gone % 3 + 1;
        let command = cluster.replicated(other, &format!("after-{gone}"), 10 + gone as u8);
        cluster.handle(other).propose_and_wait(&command).unwrap();
        let changed = begun.elapsed();
        cluster.wait_for_all("others lead what it led", |image| {
            let topic = image.topic_named("t").unwrap();
            image.broker(NodeId(gone)).unwrap().fenced
                && topic.partitions.iter().all(|it| it.leader.is_some_and(|it| it.get() != gone))
        });
        println!("without {gone}: changed after {changed:?}, led after {:?}", begun.elapsed());
        cluster.start_all(&[gone]);
    }
    cluster.wait_until_all_serve();
    cluster.image(1).check_invariants();
    cluster.stop_all();
}

#[test]
fn a_controller_that_stops_hands_its_duties_over() {
    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    for node in 1..=2 {
        let broker_epoch = cluster.running[&NodeId(node)].broker_epoch;
        let draining = BrokerIncarnation { node_id: NodeId(node), broker_epoch };
        let drain = MetadataCommand::DrainBroker(draining);
        cluster.handle(node).propose_and_wait(&drain).unwrap();
        cluster.stop(node);
        let begun = Instant::now();
        let command = create_on(NodeId(3), &format!("after-{node}"), 20 + node as u8);
        cluster.handle(3).propose_and_wait(&command).unwrap();
        println!("after the stop of {node}: changed after {:?}", begun.elapsed());
        cluster.start_all(&[node]);
        cluster.wait_until_all_serve();
    }
    cluster.stop_all();
}

fn create_on(node: NodeId, name: &str, id: u8) -> MetadataCommand {
    MetadataCommand::CreateTopic(CreateTopic {
        name: name.to_owned(),
        topic_id: TopicId([id; 16]),
        partitions: assign(0, 1, 1, &[node]).unwrap(),
        configs: Vec::new(),
    })
}

#[test]
fn a_node_that_was_away_catches_up_by_the_log_or_by_a_snapshot() {
    for (kept_entries, by_snapshot) in [(1000, false), (2, true)] {
        let mut cluster = Cluster::of(3);
        cluster.compaction = CompactionPolicy { entries: 8, bytes: usize::MAX, kept_entries };
        cluster.start_all(&[1, 2, 3]);
        cluster.wait_until_all_serve();
        let left_at = cluster.image(3).applied();
        cluster.stop(3);
        for id in 1..=30 {
            let command = create_on(NodeId(1), &format!("t{id}"), id);
            cluster.handle(1).propose_and_wait(&command).unwrap();
        }
        let before = cluster.image(1).applied();
        for node in 1..=2 {
            let is_compacted = gets_an_image(&cluster.handle(node), left_at);
            assert_eq!(is_compacted, by_snapshot, "whoever leads has these entries or not");
        }
        cluster.start_all(&[3]);
        cluster.wait_until_all_serve();
        let image = cluster.image(3);
        assert!(image.applied() > before && image.topic_count() == 30, "{}", image.applied());
        // Again, from what it has on its disk now.
        cluster.stop(3);
        cluster.start_all(&[3]);
        assert_eq!(cluster.image(3).topic_count(), 30);
        cluster.stop_all();
    }
}

#[test]
fn a_restarted_node_is_a_new_incarnation_that_leads_under_new_epochs_only() {
    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    let topic = create_on(NodeId(2), "alone", 1);
    cluster.handle(2).propose_and_wait(&topic).unwrap();
    let key = ReplicaKey { topic_id: TopicId([1; 16]), partition: PartitionIndex(0) };
    let before = cluster.running[&NodeId(2)].broker_epoch;
    cluster.running.remove(&NodeId(2)).unwrap().thread.kill();
    // Before it is missed: the session of the one before still runs.
    cluster.start_all(&[2]);
    assert!(cluster.running[&NodeId(2)].broker_epoch > before);
    cluster.wait_until_all_serve();
    let partition = cluster.image(2).partition(key).unwrap();
    assert_eq!(partition.leader, Some(NodeId(2)));
    assert!(partition.leader_epoch > LeaderEpoch(0));
    cluster.stop_all();
}

/// Whether the node comes up within a while in which a peer would.
fn comes_up(config: ControlConfig) -> bool {
    match begin(config).unwrap().wait(Duration::from_millis(1500)).unwrap() {
        Waited::Started(start) => {
            start.thread.stop();
            true
        }
        Waited::NotYet(starting) => {
            starting.stop();
            false
        }
    }
}

#[test]
fn without_a_majority_changes_wait_and_are_made_once_it_is_back() {
    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    cluster.running.remove(&NodeId(1)).unwrap().thread.kill();
    cluster.running.remove(&NodeId(2)).unwrap().thread.kill();
    let (answer, answered) = bounded(1);
    let command = create_on(NodeId(3), "t", 1);
    let reply = move |result| answer.send(result).unwrap();
    cluster.handle(3).propose(&command, Box::new(reply)).unwrap();
    assert!(answered.recv_timeout(Duration::from_millis(800)).is_err(), "nobody can agree to it");
    cluster.start_all(&[1]);
    let result = answered.recv_timeout(PATIENCE).unwrap();
    assert_eq!(result, Ok(ApplyOutcome::TopicCreated { topic_id: TopicId([1; 16]) }));
    cluster.stop_all();
}

#[test]
fn many_changes_from_every_node_at_once_are_each_made_once() {
    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    let (answer, answers) = unbounded();
    for round in 0..40 {
        for node in 1..=3 {
            let broker_epoch = cluster.running[&NodeId(node)].broker_epoch;
            let command = AllocateProducerIds { node_id: NodeId(node), broker_epoch };
            let answer = answer.clone();
            let reply = move |result| answer.send(result).unwrap();
            cluster
                .handle(node)
                .propose(&MetadataCommand::AllocateProducerIds(command), Box::new(reply))
                .unwrap();
        }
        if round == 20 {
            // Whoever leads hands over while proposals are under way.
            let name = FoundCluster { cluster_id: [1; 16] };
            let refused = cluster.handle(2).propose_and_wait(&MetadataCommand::FoundCluster(name));
            assert_eq!(refused, Err(ControlError::Rejected(Rejection::ClusterFounded)));
        }
    }
    drop(answer);
    let mut blocks = std::collections::BTreeSet::new();
    for result in answers.iter() {
        let Ok(ApplyOutcome::ProducerIds { first, .. }) = result else { panic!("{result:?}") };
        assert!(blocks.insert(first), "block {first} is given out twice");
    }
    assert_eq!(blocks.len(), 120);
    // Nothing was made that nobody was told of.
    assert_eq!(blocks.last(), Some(&ProducerId(119 * 1000)));
    cluster.stop_all();
}
