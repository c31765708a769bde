//! Requests that can wait.

use super::*;

/// So many are sent at once that the rounds stay open however late each is read.
const BEATS: usize = 40;

/// A shard with a client in the rounds.
fn busy() -> (TestShard, SocketAddr, Client) {
    let (shard, address) = server(NetConfig::default());
    let mut client = Client::connect(address);
    join(&shard, &mut client, 1);
    (shard, address, client)
}

/// Sends what can wait until that many are in the rounds.
fn join(shard: &TestShard, client: &mut Client, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while in_rounds(shard) < count {
        assert!(Instant::now() < deadline, "nobody joins the rounds");
        beat(client);
    }
}

fn beat(client: &mut Client) {
    let texts: Vec<String> = (0..BEATS).map(|count| format!("Beat {count}")).collect();
    let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(text)).collect();
    client.0.write_all(&bytes).unwrap();
    texts.iter().for_each(|text| assert_eq!(client.receive(), *text));
}

fn in_rounds(shard: &TestShard) -> usize {
    shard.run(|host| host.connections.in_rounds())
}

#[test]
fn who_sends_what_can_wait_is_in_the_rounds_until_another_request() {
    let (shard, address, mut client) = busy();
    let mut other = Client::connect(address);
    // Several at once, one in pieces, and then another kind.
    let texts = ["Beat a", "Beat b", "Beat c", "Echo d"];
    let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(text)).collect();
    let (first, rest) = bytes.split_at(7);
    client.0.write_all(first).unwrap();
    other.send("Echo other");
    assert_eq!(other.receive(), "Echo other");
    client.0.write_all(rest).unwrap();
    texts.iter().for_each(|text| assert_eq!(client.receive(), *text));
    assert_eq!(in_rounds(&shard), 0);
    client.send("Echo e");
    assert_eq!(client.receive(), "Echo e");
    join(&shard, &mut client, 1);
}

#[test]
fn a_long_request_is_read_whole_in_the_rounds() {
    let (shard, _, mut client) = busy();
    let text = padded("Beat", 200_000);
    client.send(&text);
    assert_eq!(client.receive(), text);
    join(&shard, &mut client, 1);
}

#[test]
fn rounds_that_are_not_worth_it_any_more_are_left() {
    let (shard, _, mut client) = busy();
    let deadline = Instant::now() + PATIENCE;
    while in_rounds(&shard) > 0 {
        assert!(Instant::now() < deadline, "rounds that nobody needs");
        std::thread::yield_now();
    }
    client.send("Beat again");
    assert_eq!(client.receive(), "Beat again");
}

#[test]
fn who_leaves_while_in_the_rounds_is_noticed() {
    let (shard, address, mut client) = busy();
    let mut other = Client::connect(address);
    while in_rounds(&shard) < 2 {
        beat(&mut client);
        beat(&mut other);
    }
    drop(client);
    shard.until_closed("end_of_stream");
    other.reset();
    shard.until("it is gone", |stats| stats.connections == 0);
    assert_eq!(in_rounds(&shard), 0);
}

#[test]
fn a_stop_does_not_wait_for_who_is_in_the_rounds() {
    let (shard, _, mut client) = busy();
    shard.stop(PATIENCE);
    client.expect_end();
}
