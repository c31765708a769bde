//! What nodes propose: topics, moves, in-sync sets, members.

use super::*;

impl Run {
    /// A node proposes something, by what it knows.
    pub(super) fn work(&mut self) {
        let node = self.any_node();
        if self.nodes[&node].member.is_none() {
            return;
        }
        let image = self.nodes[&node].image.clone();
        let topics: Vec<TopicId> = image.topics().map(|topic| topic.id).collect();
        let command = match self.chance.below(20) {
            0..2 if self.next_topic < 40 => self.new_topic(&image),
            2 if !topics.is_empty() => self.reassignment(&image),
            3 if self.chance.percent(20) => image.broker(node).map(|broker| {
                let broker_epoch = broker.epoch;
                MetadataCommand::DrainBroker(BrokerIncarnation { node_id: node, broker_epoch })
            }),
            4 => self.new_member(&image),
            5 => self.leaving_member(&image),
            6..10 => None,
            _ => self.in_sync_change(node, &image),
        };
        // Beside whatever it is, something that can be told apart.
        let marker = format!("{MARKER}{}", self.next_marker);
        self.next_marker += 1;
        let entry = ConfigEntry { name: marker.clone(), value: "1".to_owned() };
        let marked = SetClusterConfig { set: vec![entry], remove: Vec::new() };
        let answers = self.answers.0.clone();
        self.with(node, |member, now, _| {
            if let Some(command) = command {
                member.propose(now, command.encode(), ReplyOnce::new(Box::new(|_| {})));
            }
            let reply = move |result| drop(answers.send((marker, result)));
            let marked = MetadataCommand::SetClusterConfig(marked).encode();
            member.propose(now, marked, ReplyOnce::new(Box::new(reply)));
        });
    }

    fn new_topic(&mut self, image: &MetadataImage) -> Option<MetadataCommand> {
        let id = self.next_topic;
        self.next_topic += 1;
        let partitions = image.assign(0, 2, 3).ok()?;
        let (name, configs) = (format!("t{id}"), Vec::new());
        let topic = CreateTopic { name, topic_id: TopicId([id; 16]), partitions, configs };
        Some(MetadataCommand::CreateTopic(topic))
    }

    /// A node that may come, and does.
    fn new_member(&mut self, image: &MetadataImage) -> Option<MetadataCommand> {
        let founders = self.members.nodes().count();
        let is_told = |node: NodeId| {
            image.broker(node).is_some() || image.joining().any(|it| it.node_id == node)
        };
        let (node, state) = self
            .nodes
            .iter()
            .skip(founders)
            .find(|(node, it)| it.stage != Stage::Gone && !is_told(**node))?;
        let (node_id, stage) = (*node, state.stage);
        if stage == Stage::Aside {
            // Whether it is let in before it knocks or after must not matter.
            self.nodes.get_mut(&node_id).expect("nodes stay").stage = Stage::Member;
            self.start(node_id);
        }
        let control = BrokerEndpoint { host: "localhost".to_owned(), port: 5000 };
        let join = JoinNode { node_id, control, directory_id: [node_id.get() as u8; 16] };
        Some(MetadataCommand::JoinNode(join))
    }

    /// A node that is to go, as soon as it holds nothing.
    fn leaving_member(&mut self, image: &MetadataImage) -> Option<MetadataCommand> {
        let staying = image.broker_ids().len() - image.leaving().count();
        if self.evacuated.is_none() && staying > 3 {
            self.evacuated = Some(self.any_node());
        }
        let node_id = self.evacuated?;
        if image.broker(node_id).is_none() || image.is_leaving(node_id) || staying <= 3 {
            self.evacuated = None;
            return None;
        }
        self.told_to_leave.insert(node_id);
        Some(MetadataCommand::LeaveNode(NodeNamed { node_id }))
    }

    fn reassignment(&mut self, image: &MetadataImage) -> Option<MetadataCommand> {
        let at = self.chance.below(image.topic_count() as u64) as usize;
        let (key, _) = image.topics().nth(at)?.replicas().next()?;
        let stays = |node: &NodeId| !image.is_leaving(*node) && self.evacuated != Some(*node);
        let (mut nodes, mut key) = (image.broker_ids(), key);
        nodes.retain(stays);
        if let Some(node) = self.evacuated {
            let held = image.topics().flat_map(|topic| topic.replicas());
            let held = held.filter(|(_, partition)| partition.replicas.contains(&node));
            let held: Vec<_> = held.map(|(key, _)| key).collect();
            key = held.get(at % held.len().max(1)).copied().unwrap_or(key);
        }
        if nodes.is_empty() {
            return None;
        }
        let rotated = self.chance.below(nodes.len() as u64) as usize;
        nodes.rotate_left(rotated);
        nodes.truncate(3);
        let target = self.chance.percent(80).then_some(Assignment { replicas: nodes });
        Some(MetadataCommand::ReassignPartition(ReassignPartition { key, target }))
    }

    /// A partition leader sees a follower fall back or catch up.
    fn in_sync_change(&mut self, node: NodeId, image: &MetadataImage) -> Option<MetadataCommand> {
        let led: Vec<_> = image
            .topics()
            .flat_map(|topic| topic.replicas())
            .filter(|(_, partition)| partition.leader == Some(node))
            .collect();
        let at = self.chance.below(led.len().max(1) as u64) as usize;
        let (key, partition) = *led.get(at)?;
        let mut isr = partition.isr.clone();
        let shrink = !self.healing && self.chance.percent(40);
        match partition.replicas.iter().find(|it| isr.contains(it) == shrink && **it != node) {
            Some(gone) if shrink => isr.retain(|member| member != gone),
            Some(caught_up) => isr.push(*caught_up),
            None => return None,
        }
        let member = |node: &NodeId| {
            let broker_epoch = image.broker(*node)?.epoch;
            Some(IsrMember { node_id: *node, broker_epoch })
        };
        Some(MetadataCommand::ChangePartition(ChangePartition {
            key,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            leader: Some(node),
            isr: isr.iter().map(member).collect::<Option<_>>()?,
            replicas: partition.replicas.clone(),
        }))
    }
}
