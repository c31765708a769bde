//! Who is not let in, and what it is told.

use super::*;

#[test]
fn a_directory_that_a_node_joined_with_is_known_before_anybody_is_listened_to() {
    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    let joined = cluster.config(3).identity.directory_id;
    for node in 1..=3 {
        cluster.running.remove(&NodeId(node)).unwrap().thread.kill();
    }
    // A start alone, without a majority that could tell it anything.
    let starting = begin(cluster.config(1)).unwrap();
    let address = ("127.0.0.1", cluster.ports[0]);
    wait_until("it listens", || std::net::TcpStream::connect(address).is_ok());
    let introduced_with = |directory_id: [u8; 16]| {
        use std::io::{Read, Write};

        use chronik_shards::format::metadata_frame::{open, seal};

        use crate::control::acquaintance::Acquaintance;
        use crate::control::peer_message::{MAGIC, VERSION, kind};

        let members = Members::founding((1..=3).map(NodeId));
        let named = cluster.config(3).identity.cluster_id_bytes();
        let third = Acquaintance::new(NodeId(3), directory_id, [1; 16], members, named);
        let hello = third.introduce(NodeId(1)).encode();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(&seal(MAGIC, kind::HELLO, VERSION, &hello)).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        open(MAGIC, &answer).unwrap().kind == kind::WELCOME
    };
    assert!(!introduced_with([66; 16]));
    assert!(introduced_with(joined));
    starting.stop();
}

#[test]
fn a_node_without_its_directory_or_of_another_cluster_does_not_come_in() {
    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    cluster.stop(3);
    let kept = std::mem::replace(&mut cluster.data[2], tempfile::tempdir().unwrap());
    assert!(!comes_up(cluster.config(3)), "an empty directory is not the one that it joined with");

    let stranger = tempfile::tempdir().unwrap();
    let mut config = cluster.config(3);
    config.directory = stranger.path().join("raft");
    config.identity.directory_id =
        NodeIdentity::establish(kept.path(), NodeId(3), Founding::WithPeers).unwrap().directory_id;
    config.identity.cluster_id = Some(TopicId([1; 16]).to_string());
    assert!(!comes_up(config), "it is of another cluster");

    cluster.data[2] = kept;
    cluster.start_all(&[3]);
    cluster.wait_until_all_serve();
    cluster.stop_all();
}

#[test]
fn strangers_are_told_why_they_are_refused_and_disturb_nobody() {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use chronik_shards::format::metadata_frame::{open, seal};

    use crate::control::acquaintance::Acquaintance;
    use crate::control::peer_message::{MAGIC, VERSION, kind};

    let mut cluster = Cluster::with_all_running(3);
    cluster.wait_until_all_serve();
    let say = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", cluster.ports[0])).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may close before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    let members = Members::founding((1..=4).map(NodeId));
    let cluster_id = cluster.config(1).identity.cluster_id_bytes();
    let introduced = |cluster_id| {
        let stranger = Acquaintance::new(NodeId(4), [4; 16], [4; 16], members.clone(), cluster_id);
        let hello = stranger.introduce(NodeId(1)).encode();
        let answer = say(&seal(MAGIC, kind::HELLO, VERSION, &hello));
        let frame = open(MAGIC, &answer).unwrap();
        (frame.kind, frame.body.to_vec())
    };
    let (kind_of_refusal, reason) = introduced(None);
    assert_eq!(
        (kind_of_refusal, &reason[..]),
        (kind::REFUSAL, &b"node 4 is not one of the peers"[..])
    );
    let (kind_of_refusal, applied) = introduced(cluster_id);
    assert_eq!((kind_of_refusal, applied.len()), (kind::GONE, 8), "it would know since when");

    let huge = {
        let mut frame = seal(MAGIC, kind::HELLO, VERSION, b"");
        frame[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        frame
    };
    let too_soon = seal(MAGIC, kind::RAFT, VERSION, b"\xff\xff\xff\xff");
    for garbage in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 64], huge, too_soon] {
        assert!(say(&garbage).is_empty(), "garbage gets no answer");
    }
    let command = cluster.replicated(1, "t", 1);
    cluster.handle(1).propose_and_wait(&command).unwrap();
    cluster.stop_all();
}

#[test]
fn a_directory_of_other_peers_is_refused_at_the_start() {
    let cluster = Cluster::of(2);
    let starting = begin(cluster.config(1)).unwrap();
    starting.stop();
    let mut alone = cluster.config(1);
    alone.cluster = None;
    let refused = begin(alone).unwrap().wait(PATIENCE).err();
    assert!(
        matches!(refused, Some(ControlStartError::Log(LogError::OtherMembers { .. }))),
        "{refused:?}"
    );
    let identity = NodeIdentity::establish(cluster.data[0].path(), NodeId(1), Founding::Alone);
    assert!(matches!(identity, Err(IdentityError::WithPeers(_))));
}
