use proptest::prelude::*;

use super::*;
use crate::format::metadata_frame::FRAME_HEADER_BYTES;

fn one_of_each() -> Vec<MetadataCommand> {
    let topic_id = TopicId(*b"0123456789abcdef");
    let assignment = Assignment { replicas: vec![NodeId(1), NodeId(2)] };
    let incarnation = BrokerIncarnation { node_id: NodeId(1), broker_epoch: BrokerEpoch(9) };
    vec![
        MetadataCommand::RegisterBroker(RegisterBroker {
            node_id: NodeId(1),
            incarnation: [7; 16],
            shards: 2,
            host: "localhost".to_owned(),
            port: 9092,
            directory_id: [9; 16],
            rack: Some("east".to_owned()),
            fenced: true,
            replication: Some(BrokerEndpoint { host: "here".to_owned(), port: 9291 }),
            control: Some(BrokerEndpoint { host: "10.0.0.1".to_owned(), port: 5001 }),
        }),
        MetadataCommand::CreateTopic(CreateTopic {
            name: "orders".to_owned(),
            topic_id,
            partitions: vec![assignment.clone(), Assignment { replicas: vec![NodeId(2)] }],
            configs: vec![ConfigEntry { name: "retention.ms".into(), value: "-1".into() }],
        }),
        MetadataCommand::DeleteTopic(DeleteTopic { topic_id }),
        MetadataCommand::CreatePartitions(CreatePartitions {
            topic_id,
            existing: 2,
            partitions: vec![assignment],
        }),
        MetadataCommand::ChangePartition(ChangePartition {
            key: ReplicaKey { topic_id, partition: PartitionIndex(3) },
            leader_epoch: LeaderEpoch(4),
            partition_epoch: 5,
            leader: Some(NodeId(1)),
            isr: vec![IsrMember { node_id: NodeId(1), broker_epoch: BrokerEpoch(9) }],
            replicas: vec![NodeId(1)],
        }),
        MetadataCommand::SetTopicConfig(SetTopicConfig {
            topic_id,
            replace: false,
            set: vec![],
            remove: vec!["retention.ms".into()],
        }),
        MetadataCommand::AllocateProducerIds(AllocateProducerIds {
            node_id: NodeId(1),
            broker_epoch: BrokerEpoch(9),
        }),
        MetadataCommand::FenceBroker(incarnation),
        MetadataCommand::UnfenceBroker(incarnation),
        MetadataCommand::DrainBroker(incarnation),
        MetadataCommand::UnregisterBroker(UnregisterBroker { node_id: NodeId(1) }),
        MetadataCommand::ElectLeaders(ElectLeaders {
            election: Election::Unclean,
            partitions: vec![LedPartition {
                key: ReplicaKey { topic_id, partition: PartitionIndex(3) },
                leader_epoch: LeaderEpoch(4),
            }],
        }),
        MetadataCommand::ReassignPartition(ReassignPartition {
            key: ReplicaKey { topic_id, partition: PartitionIndex(3) },
            target: Some(Assignment { replicas: vec![NodeId(2), NodeId(3)] }),
        }),
        MetadataCommand::SetClusterConfig(SetClusterConfig {
            set: vec![ConfigEntry { name: "min.insync.replicas".into(), value: "2".into() }],
            remove: vec!["x".into()],
        }),
        MetadataCommand::FoundCluster(FoundCluster { cluster_id: [5; 16] }),
        MetadataCommand::JoinNode(JoinNode {
            node_id: NodeId(4),
            control: BrokerEndpoint { host: "there".to_owned(), port: 5004 },
            directory_id: [6; 16],
        }),
        MetadataCommand::LeaveNode(NodeNamed { node_id: NodeId(4) }),
        MetadataCommand::NodeLeft(NodeNamed { node_id: NodeId(4) }),
        MetadataCommand::SetGroupConfig(SetGroupConfig {
            group_id: "g".to_owned(),
            set: vec![ConfigEntry { name: "a".into(), value: "1".into() }],
            remove: vec!["b".into()],
        }),
    ]
}

#[test]
fn every_command_reads_back_as_written() {
    for command in one_of_each() {
        assert_eq!(MetadataCommand::decode(&command.encode()), Ok(command));
    }
}

#[test]
fn bytes_of_a_command_never_change() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bytes: Vec<String> = one_of_each().iter().map(|one| hex(&one.encode())).collect();
    assert_eq!(bytes, GOLDEN);
}

const GOLDEN: [&str; 19] = [
    "43484d430100030059000000a953d3356c6f63616c686f7374010000000707070707070707070707\
     0707070707020089000000e1ffffff8423090909090909090909090909090909090165617374ffff\
     ffff010168657265ffffffff4b240131302e302e302e318913",
    "43484d430200010060000000c25082b6010000000200000002000000f4ffffff02000000f4ffffff\
     01000000726574656e74696f6e2e6d738c000000f4ffffff2d31ffffffffffff6f7264657273ffff\
     30313233343536373839616263646566bcffffff02000000d0ffffff01000000",
    "43484d430300010010000000b4b99dbb30313233343536373839616263646566",
    "43484d43040001002c000000398e32f50100000002000000f8ffffff020000003031323334353637\
     383961626364656602000000e4ffffff01000000",
    "43484d43050001004100000095d4332a010000000900000000000000010000003031323334353637\
     38396162636465660300000004000000050000000101000000cfffffff01000000d3ffffff010000\
     00",
    "43484d430600010035000000a0e89817726574656e74696f6e2e6d738c000000f4ffffff30313233\
     34353637383961626364656600dbffffff00000000dfffffff01000000",
    "43484d43070001000c00000090f47dc0010000000900000000000000",
    "43484d43080001000c000000baf945fb010000000900000000000000",
    "43484d43090001000c000000070e06cc010000000900000000000000",
    "43484d430a0001000c000000c016c295010000000900000000000000",
    "43484d430b00010004000000fda22bfc01000000",
    "43484d430c00010021000000288e0c59303132333435363738396162636465660300000004000000\
     01e7ffffff01000000",
    "43484d430d0001002500000030443a9e020000000300000030313233343536373839616263646566\
     0300000001e3ffffff02000000",
    "43484d430e0001003b00000051154ff06d696e2e696e73796e632e7265706c6963617393000000ed\
     ffffff32ffffffffffffff78ffffffffffffffe8ffffff01000000f0ffffff01000000",
    "43484d430f00010010000000d79da78105050505050505050505050505050505",
    "43484d43100001001e0000006406c853040000007468657265ffffff8c1306060606060606060606060606060606",
    "43484d431100010004000000b49ee4af04000000",
    "43484d431200010004000000e4e276fc04000000",
    "43484d431300010030000000baf6b34561ffffffffffffff31ffffffffffffff62ffffffffffffff\
     67ffffffffffffffe0ffffff01000000e8ffffff01000000",
];

#[test]
fn a_changed_bit_is_refused_wherever_it_is() {
    for command in one_of_each() {
        let bytes = command.encode();
        for bit in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(MetadataCommand::decode(&broken).is_err(), "bit {bit} of {command:?}");
        }
    }
}

#[test]
fn a_frame_cut_short_or_followed_by_more_is_refused() {
    for command in one_of_each() {
        let mut bytes = command.encode();
        for end in 0..bytes.len() {
            assert!(MetadataCommand::decode(&bytes[..end]).is_err());
        }
        bytes.push(0);
        assert!(matches!(MetadataCommand::decode(&bytes), Err(MetadataFormatError::Length { .. })));
    }
}

#[test]
fn kinds_and_versions_of_other_releases_are_named() {
    let body = to_body(&DeleteTopic { topic_id: TopicId::ZERO });
    for (kind, version) in [(20, 1), (3, 2), (0, 1), (1, 4), (1, 0), (8, 2)] {
        assert_eq!(
            MetadataCommand::decode(&seal(COMMAND_MAGIC, kind, version, &body)),
            Err(MetadataFormatError::Unknown { kind, version })
        );
    }
}

proptest! {
    /// The checksum is made right, so that the body decoder is what must hold.
    #[test]
    fn arbitrary_bodies_never_panic(kind in 0u16..21, body in prop::collection::vec(any::<u8>(), 0..300)) {
        for version in [1, 2, 3] {
            let _ = MetadataCommand::decode(&seal(COMMAND_MAGIC, kind, version, &body));
        }
    }

    #[test]
    fn damaged_bodies_never_panic(which in 0usize..18, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let frame = one_of_each()[which].encode();
        let mut body = frame[FRAME_HEADER_BYTES..].to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let kind = u16::from_le_bytes([frame[4], frame[5]]);
        let version = u16::from_le_bytes([frame[6], frame[7]]);
        let _ = MetadataCommand::decode(&seal(COMMAND_MAGIC, kind, version, &body));
    }
}
