//! Keys and flags that make a node one of several.

use super::*;

const PEERS: &str = "\
    node_id = 2\nreplication_factor = 3\nmin_insync_replicas = 2\nrack = \"east\"\n\
    [[peers]]\nid = 1\nkafka = \"a:9092\"\nwal = \"a:9291\"\nraft = \"a:5001\"\n\
    [[peers]]\nid = 2\nkafka = \"b:9093\"\nwal = \"b:9292\"\nraft = \"b:5002\"\n\
    [[peers]]\nid = 3\nkafka = \"c:9094\"\nwal = \"c:9293\"\nraft = \"[::3]:5003\"\n";

fn control_of(peers: &Peers) -> Vec<(i32, &str)> {
    peers.control.iter().map(|(node, address)| (node.get(), address.as_str())).collect()
}

#[test]
fn a_file_names_all_nodes_and_what_they_are_to_each_other() {
    let config = resolve(&[], PEERS).unwrap();
    assert_eq!(config.node_id, NodeId(2));
    assert_eq!(config.bind.to_string(), "127.0.0.1:9093");
    assert_eq!(config.advertised.to_string(), "b:9093");
    assert_eq!(config.rack.as_deref(), Some("east"));
    assert_eq!(config.broker.explicit("broker.rack"), Some("east"));
    assert_eq!(config.broker.settings().default_replication_factor, 3);
    assert_eq!(config.broker.cluster_values()["min.insync.replicas"], "2");
    let peers = config.peers.unwrap();
    assert_eq!(control_of(&peers), [(1, "a:5001"), (3, "[::3]:5003")]);
    assert_eq!(peers.control_bind.to_string(), "127.0.0.1:5002");
    assert_eq!(peers.replication_bind.to_string(), "127.0.0.1:9292");
    assert_eq!(peers.control_advertised.to_string(), "b:5002");
    assert_eq!(peers.replication_advertised.to_string(), "b:9292");
    assert!(peers.founds);
    let joins = format!("bootstrap = false\n{PEERS}");
    assert!(!resolve(&[], &joins).unwrap().peers.unwrap().founds);
}

#[test]
fn bind_and_advertise_come_before_the_nodes_own_entry() {
    let tables = "[bind]\nkafka = \"0.0.0.0:1000\"\nwal = \"127.0.0.2:2000\"\nraft = \"[::]:3000\"\n\
                  [advertise]\nkafka = \"k\"\nwal = \"w:2001\"\nraft = \"r\"\n";
    let (keys, peers) = PEERS.split_at(PEERS.find("[[peers]]").unwrap());
    let config = resolve(&["--node-id=1"], &format!("{keys}{tables}{peers}")).unwrap();
    assert_eq!(config.bind.to_string(), "0.0.0.0:1000");
    assert_eq!(config.advertised.to_string(), "k:1000");
    let peers = config.peers.unwrap();
    assert_eq!(peers.control_bind.to_string(), "[::]:3000");
    assert_eq!(peers.control_advertised.to_string(), "r:3000");
    assert_eq!(peers.replication_bind.to_string(), "127.0.0.2:2000");
    assert_eq!(peers.replication_advertised.to_string(), "w:2001");
}

#[test]
fn flags_alone_name_the_other_nodes() {
    let flags = [
        "--kafka-port=9095",
        "--advertised-addr=here",
        "raft-cluster",
        "--raft-addr=0.0.0.0:9192",
        "--peers=2@b:9193,3@[::3]:9194",
        "--bootstrap",
        "--replication-factor=3",
        "--min-insync-replicas=2",
        "--rack=west",
    ];
    let config = resolve(&flags, "").unwrap();
    assert_eq!(config.broker.settings().default_replication_factor, 3);
    assert_eq!(config.broker.min_insync_replicas(), 2);
    assert_eq!(config.rack.as_deref(), Some("west"));
    let peers = config.peers.unwrap();
    assert_eq!(control_of(&peers), [(2, "b:9193"), (3, "[::3]:9194")]);
    assert_eq!(peers.control_bind.to_string(), "0.0.0.0:9192");
    assert_eq!(peers.control_advertised.to_string(), "here:9192");
    assert_eq!(peers.replication_bind.to_string(), "127.0.0.1:9294", "199 above the clients'");
    assert_eq!(peers.replication_advertised.to_string(), "here:9294");
    assert!(peers.founds);

    let flags = [&flags[..5], &["--wal-addr=127.0.0.3:7000"]].concat();
    let peers = resolve(&flags, "").unwrap().peers.unwrap();
    assert_eq!(peers.replication_bind.to_string(), "127.0.0.3:7000");
    assert_eq!(peers.replication_advertised.to_string(), "here:7000");
    assert!(!peers.founds);
}

#[test]
fn peers_that_contradict_themselves_are_refused_by_name() {
    let changed = |from: &str, to: &str| {
        assert!(PEERS.contains(from), "{from}");
        PEERS.replacen(from, to, 1)
    };
    for (file, parts) in [
        (changed("node_id = 2", "node_id = 4"), ["node_id=4", "[[peers]]"]),
        (changed("id = 3", "id = 1"), ["[[peers]] id=1", "two nodes"]),
        (changed("id = 3", "id = -3"), ["[[peers]] id=-3", "0 or more"]),
        (changed("a:9291", "a:9092"), ["[[peers]] wal=a:9092", "twice"]),
        (changed("a:5001", "b:5002"), ["[[peers]] raft=b:5002", "twice"]),
        (changed("a:5001", "a"), ["[[peers]] raft=a", "a port"]),
        (changed("a:5001", "0.0.0.0:1"), ["[[peers]] raft=0.0.0.0:1", "host"]),
        (changed("factor = 3", "factor = 4"), ["replication_factor=4", "there are 3"]),
        (changed("replicas = 2", "replicas = 4"), ["min_insync_replicas=4", "which is 3"]),
        (changed("factor = 3", "factor = 0"), ["default.replication.factor=0", "from 1"]),
        (changed("raft = \"a:5001\"", "rft = \"a:5001\""), ["unknown key", "peers.rft"]),
        (changed("raft = \"a:5001\"\n", ""), ["peers.raft", "is missing"]),
        (changed("id = 1\n", "id = \"1\"\n"), ["peers.id", "whole number"]),
        (changed("rack = \"east\"", "rack = \"\""), ["--rack", "a name is due"]),
        (
            format!("{PEERS}[kafka]\nmin.insync.replicas = 2\n"),
            ["min_insync_replicas=2", "leave one of them out"],
        ),
        (format!("{PEERS}[bind]\nwal = \"127.0.0.1:5002\"\n"), ["[bind] raft", "[bind] wal"]),
        (format!("{PEERS}[bind]\nraft = \"localhost:1\"\n"), ["[bind] raft", "IP address"]),
        (format!("{PEERS}[advertise]\nwal = \"::\"\n"), ["[advertise] wal", "connect"]),
        ("peers = []\n".to_owned(), ["peers", "[[peers]] table"]),
    ] {
        let line = refusal(&[], &file);
        assert!(parts.iter().all(|part| line.contains(part)) && !line.contains('\n'), "{line}");
    }
}

#[test]
fn flags_that_contradict_themselves_are_refused_by_name() {
    let cluster = |peers: &str, more: &[&str]| {
        let peers = format!("--peers={peers}");
        let flags = ["raft-cluster", "--raft-addr=127.0.0.1:5001", &peers];
        refusal(&[&flags[..], more].concat(), "")
    };
    for (peers, more, parts) in [
        ("1@b:1", &[][..], ["--peers=1@b:1", "the node itself"]),
        ("2@b:1,2@c:1", &[], ["--peers=2@c:1", "this id"]),
        ("2@b:1,3@b:1", &[], ["--peers=3@b:1", "this address"]),
        ("b:1", &[], ["--peers=b:1", "ID@HOST:PORT"]),
        ("x@b:1", &[], ["--peers=x@b:1", "node id"]),
        ("-2@b:1", &[], ["--peers=-2@b:1", "node id"]),
        ("2@b", &[], ["--peers=2@b", "port"]),
        ("2@b:1", &["--kafka-port=65400"], ["--kafka-port=65400", "--wal-addr"]),
        ("2@b:1", &["--wal-addr=127.0.0.1:5001"], ["[bind] raft", "same address"]),
        ("2@b:1", &["--wal-addr=127.0.0.1:0"], ["[bind] wal", "port 0"]),
        ("2@b:1", &["--replication-factor=3"], ["replication_factor=3", "there are 2"]),
        ("2@b:1", &["--min-insync-replicas=2"], ["min_insync_replicas=2", "which is 1"]),
    ] {
        let line = cluster(peers, more);
        assert!(parts.iter().all(|part| line.contains(part)) && !line.contains('\n'), "{line}");
    }
    let flags = ["raft-cluster", "--raft-addr=127.0.0.1:1", "--peers=2@b:1"];
    assert!(refusal(&flags, PEERS).contains("names the peers already"));
}

#[test]
fn keys_of_a_cluster_are_refused_in_a_node_that_is_alone() {
    for (file, key) in [
        ("replication_factor = 1\n", "replication_factor"),
        ("min_insync_replicas = 1\n", "min_insync_replicas"),
        ("bootstrap = true\n", "bootstrap"),
        ("[bind]\nraft = \"x\"\n", "bind.raft"),
        ("[advertise]\nwal = \"x\"\n", "advertise.wal"),
    ] {
        let line = refusal(&[], file);
        assert!(line.contains(&format!("{key} is for clusters")), "{line}");
    }
    assert!(refusal(&[], "[kafka]\ndefault.replication.factor = 2\n").contains("there are 1"));
    assert_eq!(resolve(&["--rack=east"], "").unwrap().rack.as_deref(), Some("east"));
}
