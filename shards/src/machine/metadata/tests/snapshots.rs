//! Bytes of snapshots.

use super::*;

/// What snapshots are made of in the tests of their bytes.
fn sample_image() -> MetadataImage {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create("orders", 1, 2);
    cluster.create("gone", 2, 1);
    cluster.apply(delete(2)).outcome.unwrap();
    cluster.apply(allocate(1, BrokerEpoch(1))).outcome.unwrap();
    cluster.image
}

/// [`sample_image`] with a fenced node and an identity.
fn founded_image() -> MetadataImage {
    let mut cluster = Cluster { image: sample_image() };
    let epoch = cluster.image.broker(NodeId(2)).unwrap().epoch;
    cluster.apply(fence(2, epoch)).outcome.unwrap();
    let founded = FoundCluster { cluster_id: [5; 16] };
    cluster.apply(MetadataCommand::FoundCluster(founded)).outcome.unwrap();
    cluster.image
}

/// [`founded_image`] with a node that says where its peers connect.
fn image_with_endpoints() -> MetadataImage {
    let mut image = founded_image();
    let broker = image.brokers.get_mut(&NodeId(2)).unwrap();
    broker.replication = Some(BrokerEndpoint { host: "here".to_owned(), port: 9291 });
    broker.control = Some(BrokerEndpoint { host: "10.0.0.2".to_owned(), port: 5002 });
    image
}

/// [`image_with_endpoints`] with a node that may come and one that is to go.
fn image_with_comers() -> MetadataImage {
    let mut cluster = Cluster { image: image_with_endpoints() };
    let control = BrokerEndpoint { host: "there".to_owned(), port: 5004 };
    let join = JoinNode { node_id: NodeId(4), control, directory_id: [6; 16] };
    cluster.apply(MetadataCommand::JoinNode(join)).outcome.unwrap();
    let leave = NodeNamed { node_id: NodeId(5) };
    cluster.apply(MetadataCommand::LeaveNode(leave)).outcome.unwrap();
    cluster.image
}

#[test]
fn bytes_of_a_snapshot_never_change() {
    let mut cluster = Cluster { image: image_with_comers() };
    cluster.apply(set_group_config("g", &[("a", "1")], &[])).outcome.unwrap();
    let image = cluster.image;
    let hex: String = image.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    assert_eq!(MetadataImage::decode(&image.encode()), Ok(image));
}

const GOLDEN: &str = "\
    43484d53010005003d0200009fcd4d2a6c6f63616c686f73746c6f63616c686f7374010000000100\
    00000000000001010101010101010101010101010101020089000000d0ffffff8423010101010101\
    01010101010101010101000000000000000000000000000000000000000000000000000000000000\
    0000000200000002000000000000000202020202020202020202020202020202008900000080ffff\
    ff84230202020202020202020202020202020200000000000000000001000168657265ffffffff4b\
    240131302e302e302e328a1301000000020000000100000002000000010000000100000001010000\
    000000000001000000dbffffff02000000dbffffff01000000d7ffffff00000000cfffffff000000\
    00c7ffffff0000000001010000000100000001000000b2ffffff02000000b2ffffff01000000aeff\
    ffff00000000a6ffffff000000009effffff00000000726574656e74696f6e2e6d738c000000f4ff\
    ffff35ffffffffffffff010101010101010101010101010101016f7264657273ffff62ffffff0200\
    0000d0ffffff0100000002020202020202020202020202020202040000007468657265ffffff8c13\
    060606060606060606060606060606060500000061ffffffffffffff31ffffffffffffff67ffffff\
    ffffffffe8ffffff010000000b00000000000000e80300000000000026feffff020000006effffff\
    010000008effffff01000000010505050505050505050505050505050585ffffff000000007dffff\
    ff0000000075ffffff010000008bffffff0100000097ffffff01000000";

fn set_group_config(group_id: &str, set: &[(&str, &str)], remove: &[&str]) -> MetadataCommand {
    let entry = |(name, value): &(&str, &str)| ConfigEntry {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    MetadataCommand::SetGroupConfig(SetGroupConfig {
        group_id: group_id.to_owned(),
        set: set.iter().map(entry).collect(),
        remove: remove.iter().map(|name| (*name).to_owned()).collect(),
    })
}

#[test]
fn a_group_without_settings_of_its_own_is_not_remembered() {
    let mut cluster = Cluster { image: sample_image() };
    let applied = cluster.apply(set_group_config("g", &[("a", "1"), ("b", "2")], &[]));
    assert_eq!(applied.changes, [MetadataChange::GroupConfigChanged]);
    let applied = cluster.apply(set_group_config("g", &[("b", "2")], &["c"]));
    assert_eq!(applied.changes, [], "nothing has changed");
    assert_eq!(cluster.image.group_configs()["g"].len(), 2);
    cluster.apply(set_group_config("g", &[], &["a", "b"])).outcome.unwrap();
    assert!(cluster.image.group_configs().is_empty());
    let applied = cluster.apply(set_group_config("g", &[], &["a"]));
    assert_eq!(applied.changes, []);
}

#[test]
fn groups_with_settings_of_their_own_are_bounded() {
    let mut cluster = Cluster { image: sample_image() };
    for number in 0..GROUP_CONFIGS_MAX {
        cluster.apply(set_group_config(&format!("{number}"), &[("a", "1")], &[])).outcome.unwrap();
    }
    let refused = cluster.apply(set_group_config("more", &[("a", "1")], &[])).outcome;
    assert_eq!(refused, Err(Rejection::GroupConfigsFull));
    assert!(cluster.apply(set_group_config("7", &[("a", "2")], &[])).outcome.is_ok());
}
