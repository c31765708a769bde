//! Input that no client should send: what the sender sees, and that nobody else notices.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use chronik_protocol::messages::fetch_response::FetchResponse;
use chronik_protocol::messages::metadata_request::MetadataRequest;
use chronik_protocol::{ApiKey, ErrorCode};

use crate::support::batch::{Batch, seal};
use crate::support::client::{Client, frame};
use crate::support::requests::{
    FETCH_BY_NAME, FetchBounds, PRODUCE_BY_NAME, batches, create_topic, create_topic_with,
    expect_error, fetch, fetch_request, fetched, high_watermark, produce, produce_bytes,
    produce_request,
};
use crate::support::server::{Options, Server};
use crate::support::{unique, wait_for};

const MIB: u64 = 1 << 20;

/// A server, and a connection that must go on whatever another one does.
struct Bystander {
    server: Server,
    client: Client,
    topic: String,
    produced: i64,
}

impl Bystander {
    fn new(options: Options) -> Self {
        let server = Server::start_with(options);
        let mut client = server.client();
        let topic = unique("bystander");
        create_topic(&mut client, &topic, 1);
        let mut bystander = Self { server, client, topic, produced: 0 };
        bystander.assert_served();
        bystander
    }

    /// The same connection as always is served, and so is a new one.
    fn assert_served(&mut self) {
        self.server.assert_alive();
        let base = produce(&mut self.client, &self.topic, 0, &Batch::of(["x"]));
        assert_eq!(base, self.produced);
        self.produced += 1;
        let mut other = self.server.client();
        assert_eq!(high_watermark(&mut other, &self.topic, 0), self.produced);
    }

    /// Sends bytes on a connection of its own, which must be closed without an answer.
    fn expect_close(&mut self, bytes: &[u8], why: &str) {
        let mut client = self.server.client();
        client.send_raw(bytes);
        client.expect_close(why);
        self.assert_served();
    }

    /// Produces bytes that are refused with this error, on a connection that then goes on.
    fn expect_produce_error(&mut self, records: Vec<u8>, expected: ErrorCode, why: &str) {
        let mut client = self.server.client();
        let response = produce_bytes(&mut client, &self.topic, 0, -1, records);
        expect_error(response.error_code, expected, why);
        assert_eq!(response.base_offset, -1, "{why}");
        assert_eq!(high_watermark(&mut client, &self.topic, 0), self.produced, "{why}");
        self.assert_served();
    }
}

impl Default for Bystander {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

#[test]
fn other_message_formats_are_unsupported() {
    let mut bystander = Bystander::default();
    for magic in [0, 1, 3, 0x7f, 0xff] {
        let mut batch = Batch::of(["x"]).encode_vec();
        batch[16] = magic;
        seal(&mut batch);
        let why = format!("magic {magic}");
        bystander.expect_produce_error(batch, ErrorCode::UnsupportedForMessageFormat, &why);
    }
}

#[test]
fn wrong_crc_is_a_corrupt_message() {
    let mut bystander = Bystander::default();
    let batch = Batch::of(["some value"]).encode_vec();
    // The CRC itself, and one bit of each field that it covers.
    for at in [17, 21, 23, 27, 35, 43, 51, 57, 61, batch.len() - 1] {
        let mut damaged = batch.clone();
        damaged[at] ^= 1;
        let why = format!("a bit of byte {at}");
        bystander.expect_produce_error(damaged, ErrorCode::CorruptMessage, &why);
    }
}

#[test]
fn truncated_and_overlong_batches_are_corrupt() {
    let mut bystander = Bystander::default();
    let batch = Batch::of(["some value"]).encode_vec();
    let cut = batch[..batch.len() - 1].to_vec();
    bystander.expect_produce_error(cut, ErrorCode::CorruptMessage, "a byte is missing");
    let cut = batch[..40].to_vec();
    bystander.expect_produce_error(cut, ErrorCode::CorruptMessage, "half a header");
    let mut longer = batch.clone();
    longer.push(0);
    bystander.expect_produce_error(longer, ErrorCode::CorruptMessage, "a byte too many");
    for length in [-1, 0, 48, i32::MAX] {
        let mut wrong = batch.clone();
        wrong[8..12].copy_from_slice(&i32::to_be_bytes(length));
        let why = format!("a length of {length}");
        bystander.expect_produce_error(wrong, ErrorCode::CorruptMessage, &why);
    }
}

#[test]
fn counts_and_offset_deltas_that_disagree_are_invalid_records() {
    let mut bystander = Bystander::default();
    for (delta, count) in [(1, 3), (2, 2), (2, 0), (-1, 0), (2, -1), (i32::MAX, 3)] {
        let mut batch = Batch::of(["a", "b", "c"]).encode_vec();
        batch[23..27].copy_from_slice(&i32::to_be_bytes(delta));
        batch[57..61].copy_from_slice(&i32::to_be_bytes(count));
        seal(&mut batch);
        let why = format!("last offset delta {delta}, {count} records");
        bystander.expect_produce_error(batch, ErrorCode::InvalidRecord, &why);
    }
}

#[test]
fn more_records_than_the_bytes_hold_are_invalid_records() {
    let mut bystander = Bystander::default();
    let mut batch = Batch::of(["a", "b", "c"]).encode_vec();
    batch[23..27].copy_from_slice(&999_999i32.to_be_bytes());
    batch[57..61].copy_from_slice(&1_000_000i32.to_be_bytes());
    seal(&mut batch);
    bystander.expect_produce_error(
        batch,
        ErrorCode::InvalidRecord,
        "a million records in 30 bytes",
    );
}

#[test]
fn no_batch_and_two_batches_are_invalid_records() {
    let mut bystander = Bystander::default();
    bystander.expect_produce_error(Vec::new(), ErrorCode::InvalidRecord, "no batch");
    let mut two = Batch::of(["a"]).encode_vec();
    two.extend(Batch::of(["b"]).encode_vec());
    bystander.expect_produce_error(two, ErrorCode::InvalidRecord, "two batches");
}

#[test]
fn control_batches_and_codecs_that_do_not_exist_are_invalid_records() {
    let mut bystander = Bystander::default();
    for (attributes, why) in [(1 << 5, "a control batch"), (7, "codec 7"), (5, "codec 5")] {
        let mut batch = Batch::of(["a"]);
        batch.attributes = attributes;
        bystander.expect_produce_error(batch.encode_vec(), ErrorCode::InvalidRecord, why);
    }
}

#[test]
fn batches_above_max_message_bytes_are_too_large() {
    let mut bystander = Bystander::default();
    let large = Batch::of_size(1_100_000).encode_vec();
    bystander.expect_produce_error(large, ErrorCode::MessageTooLarge, "above 1048588 bytes");
    // The bound is the batch with its header: one that is exactly as large passes.
    let topic = unique("exact");
    let exact = Batch::of_size(5000).encode();
    let limit = exact.len().to_string();
    let mut client = bystander.server.client();
    create_topic_with(&mut client, &topic, 1, &[("max.message.bytes", &limit)]);
    let response = produce_bytes(&mut client, &topic, 0, -1, exact);
    expect_error(response.error_code, ErrorCode::None, "exactly max.message.bytes");
    let response = produce_bytes(&mut client, &topic, 0, -1, Batch::of_size(5001).encode());
    expect_error(response.error_code, ErrorCode::MessageTooLarge, "one more");
}

#[test]
fn frame_above_socket_request_max_bytes_is_closed_before_it_is_read() {
    let mut bystander =
        Bystander::new(Options::default().kafka("socket.request.max.bytes", 100_000));
    let before = bystander.server.resident_bytes();
    bystander.expect_close(&100_001i32.to_be_bytes(), "one byte too many");
    bystander.expect_close(&i32::MAX.to_be_bytes(), "2 GiB");
    let grown = bystander.server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "grew by {grown} bytes");
    // Exactly the bound is read.
    let mut client = bystander.server.client();
    let head = frame(ApiKey::Metadata, 0, 1, b"").len() - 4;
    let mut body = 0i32.to_be_bytes().to_vec();
    body.resize(100_000 - head, 0);
    client.send_raw(&frame(ApiKey::Metadata, 0, 1, &body));
    client.try_read_frame().unwrap().expect("an answer to a frame of exactly the bound");
    bystander.assert_served();
}

#[test]
fn negative_length_is_closed() {
    let mut bystander = Bystander::default();
    for length in [-1, i32::MIN] {
        bystander.expect_close(&length.to_be_bytes(), &format!("a length of {length}"));
    }
}

#[test]
fn frame_too_short_for_a_header_is_closed() {
    let mut bystander = Bystander::default();
    for length in 0..8i32 {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.resize(4 + length as usize, 0);
        bystander.expect_close(&bytes, &format!("a frame of {length} bytes"));
    }
}

/// Requests of a few bytes that announce two billion elements, or bytes.
fn bombs() -> Vec<(Vec<u8>, String)> {
    let mut bombs = Vec::new();
    for (api, version) in [
        (ApiKey::Produce, 3),
        (ApiKey::Fetch, 4),
        (ApiKey::ListOffsets, 1),
        (ApiKey::Metadata, 1),
        (ApiKey::CreateTopics, 2),
        (ApiKey::DeleteTopics, 1),
        (ApiKey::DescribeConfigs, 1),
        (ApiKey::OffsetForLeaderEpoch, 2),
    ] {
        // Wherever the first array is: up to 30 bytes of zeroes, then the count.
        for zeroes in 0..30 {
            let mut body = vec![0; zeroes];
            body.extend(i32::MAX.to_be_bytes());
            bombs
                .push((frame(api, version, 1, &body), format!("{api} {version}, {zeroes} zeroes")));
        }
    }
    for (api, version) in [(ApiKey::Produce, 9), (ApiKey::Fetch, 12), (ApiKey::Metadata, 9)] {
        for zeroes in 0..30 {
            let mut body = vec![0; zeroes];
            body.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
            bombs
                .push((frame(api, version, 1, &body), format!("{api} {version}, {zeroes} zeroes")));
        }
    }
    // Twelve bytes in all: a length, an API, a version, a correlation id; no client id, no count.
    bombs.push((vec![0, 0, 0, 8, 0, 3, 0, 0, 0, 0, 0, 1], "twelve bytes".to_owned()));
    // A header whose client id is announced with 32767 bytes.
    let long_id = [0, 0, 0, 10, 0, 3, 0, 0, 0, 0, 0, 1, 0x7f, 0xff];
    bombs.push((long_id.to_vec(), "a client id beyond the frame".to_owned()));
    bombs
}

#[test]
fn arrays_longer_than_the_bytes_left_are_closed_and_cost_no_memory() {
    let mut bystander = Bystander::default();
    let before = bystander.server.resident_bytes();
    for (bytes, why) in bombs() {
        let mut client = bystander.server.client();
        client.send_raw(&bytes);
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
        // Some of them happen to be requests: those are answered. All of them are done with.
        let mut rest = Vec::new();
        if let Err(error) = client.stream().read_to_end(&mut rest) {
            assert!(crate::support::client::is_closed(&error), "{why}: {error}");
        }
        let grown = bystander.server.resident_bytes().saturating_sub(before);
        assert!(grown < 64 * MIB, "{why}: grew by {grown} bytes");
    }
    bystander.assert_served();
}

#[test]
fn metadata_bomb_is_closed_without_an_answer() {
    let mut bystander = Bystander::default();
    let bomb = frame(ApiKey::Metadata, 1, 1, &i32::MAX.to_be_bytes());
    bystander.expect_close(&bomb, "two billion topics in four bytes");
    let bomb = frame(ApiKey::Metadata, 9, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f]);
    bystander.expect_close(&bomb, "four billion topics in five bytes");
}

#[test]
fn unknown_apis_are_closed() {
    let mut bystander = Bystander::default();
    for key in [-1i16, 4, 5, 6, 7, 999, i16::MAX, i16::MIN] {
        let mut bytes = vec![0, 0, 0, 10];
        bytes.extend(key.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 0, 1, 0xff, 0xff]);
        bystander.expect_close(&bytes, &format!("API {key}"));
    }
}

#[test]
fn truncated_body_is_closed() {
    let mut bystander = Bystander::default();
    let whole = frame(ApiKey::Metadata, 1, 1, &[0, 0, 0, 1, 0, 3, b'a', b'b', b'c']);
    for missing in 1..9 {
        // The length is right for what is there; the body is not.
        let mut bytes = whole[..whole.len() - missing].to_vec();
        let length = bytes.len() as i32 - 4;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bystander.expect_close(&bytes, &format!("a body without its last {missing} bytes"));
    }
}

#[test]
fn peer_that_leaves_inside_a_frame_is_forgotten() {
    let mut bystander = Bystander::default();
    let request = produce_request(&bystander.topic, 0, -1, Batch::of(["half"]).encode());
    let whole = {
        let chunks = chronik_protocol::encode_request(
            chronik_protocol::messages::RequestHeader::default(),
            PRODUCE_BY_NAME,
            &request,
        );
        chunks.unwrap().concat()
    };
    for kept in [1, 3, 4, 5, 20, whole.len() / 2, whole.len() - 1] {
        let mut client = bystander.server.client();
        client.send_raw(&whole[..kept]);
        // The server may have closed it already.
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
        client.expect_close(&format!("the peer left after {kept} bytes"));
        drop(client);
        // Nothing of the half request was carried out.
        bystander.assert_served();
    }
}

#[test]
fn bytes_after_the_end_of_a_request_are_not_looked_at() {
    // As Apache Kafka does it, and as clients in use rely on.
    let mut bystander = Bystander::default();
    let mut client = bystander.server.client();
    client.send_raw(&frame(ApiKey::Metadata, 1, 1, &[0, 0, 0, 0, 1, 2, 3]));
    let answer = client.try_read_frame().unwrap().expect("an answer");
    assert_eq!(answer[..4], 1i32.to_be_bytes(), "correlation id");
    bystander.assert_served();
}

#[test]
fn tls_hello_is_closed() {
    let mut bystander = Bystander::default();
    let mut hello = vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    hello.resize(517, 0x5a);
    bystander.expect_close(&hello, "a TLS hello");
}

#[test]
fn http_get_is_closed() {
    let mut bystander = Bystander::default();
    bystander.expect_close(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "an HTTP request");
    bystander.expect_close(b"POST /produce HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "another");
}

#[test]
fn random_bytes_are_closed_or_answered_and_harm_nobody() {
    let mut random = crate::support::random::Random::new(1);
    let mut bystander = Bystander::default();
    for _ in 0..200 {
        let mut client = bystander.server.client();
        let length = random.between(1, 200);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        if random.chance(2) {
            // A length that fits, and an API that exists.
            let body = length as i32;
            bytes.splice(0..0, body.to_be_bytes());
            if bytes.len() > 8 {
                bytes[4] = 0;
                bytes[5] = (random.next() % 76) as u8;
                bytes[6] = 0;
                bytes[7] = (random.next() % 14) as u8;
            }
        }
        client.send_raw(&bytes);
        // The server may have closed it already.
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
        // However much is answered, the connection ends: everything sent was read.
        let mut rest = Vec::new();
        match client.stream().read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert!(crate::support::client::is_closed(&error), "{error}: {bytes:?}"),
        }
    }
    bystander.assert_served();
}

#[test]
fn client_that_never_reads_keeps_the_servers_memory_bounded_and_others_served() {
    let mut bystander = Bystander::default();
    let topic = unique("unread");
    let mut client = bystander.server.client();
    create_topic(&mut client, &topic, 1);
    for _ in 0..64 {
        produce(&mut client, &topic, 0, &Batch::of_size(1_000_000));
    }
    // A restart: what is read comes from segments now, so each answer has memory of its own.
    bystander.server.stop();
    bystander.server.restart();
    bystander.client = bystander.server.client();
    bystander.assert_served();

    let before = bystander.server.resident_bytes();
    let bounds = FetchBounds { partition_max_bytes: 32 << 20, ..FetchBounds::default() };
    let mut silent: Vec<Client> = (0..8).map(|_| bystander.server.client()).collect();
    // 8 × 64 requests of 32 MiB each: 16 GiB, if it were all kept.
    for client in &mut silent {
        for offset in 0..64 {
            client.send(FETCH_BY_NAME, &fetch_request(&topic, 0, offset % 32, bounds));
        }
    }
    let mut largest = 0;
    for _ in 0..50 {
        bystander.assert_served();
        let small = FetchBounds { partition_max_bytes: 1, ..FetchBounds::default() };
        let mut reader = bystander.server.client();
        let data = fetched(reader.call(FETCH_BY_NAME, &fetch_request(&topic, 0, 5, small)));
        assert_eq!(batches(&data).len(), 1, "a reader that reads is served");
        largest = largest.max(bystander.server.resident_bytes().saturating_sub(before));
    }
    assert!(largest < 400 * MIB, "grew by {} MiB", largest / MIB);
    // Those who begin to read get everything they asked for.
    let mut late = silent.swap_remove(0);
    for _ in 0..64 {
        let data = fetched(late.receive::<FetchResponse>());
        expect_error(data.error_code, ErrorCode::None, "a late reader");
        assert!(!batches(&data).is_empty());
    }
    drop(silent);
    bystander.assert_served();
}

#[test]
fn client_that_sends_half_a_request_and_stays_keeps_nobody_from_being_served() {
    let mut bystander = Bystander::default();
    let request = frame(ApiKey::Metadata, 1, 1, &[0, 0, 0, 1, 0, 3, b'a', b'b', b'c']);
    let mut staying: Vec<Client> = (1..request.len()).map(|_| bystander.server.client()).collect();
    for (kept, client) in (1..).zip(&mut staying) {
        client.send_raw(&request[..kept]);
    }
    for _ in 0..20 {
        bystander.assert_served();
    }
    // Whoever goes on after all is served, too.
    for (kept, mut client) in (1..).zip(staying) {
        client.send_raw(&request[kept..]);
        client.try_read_frame().unwrap().expect("an answer");
    }
}

#[test]
fn clients_that_announce_large_requests_and_stay_keep_nobody_from_being_served() {
    let mut bystander = Bystander::default();
    let before = bystander.server.resident_bytes();
    let mut staying = Vec::new();
    for _ in 0..64 {
        let mut client = bystander.server.client();
        // 50 MB are announced, a few bytes come.
        let mut half = 50_000_000i32.to_be_bytes().to_vec();
        half.extend([0; 100]);
        client.send_raw(&half);
        staying.push(client);
    }
    for _ in 0..20 {
        bystander.assert_served();
    }
    let grown = bystander.server.resident_bytes().saturating_sub(before);
    assert!(grown < 256 * MIB, "3.2 GB were announced: grew by {} MiB", grown / MIB);
}

#[test]
fn producer_that_never_reads_answers_is_stopped_by_back_pressure() {
    let mut bystander = Bystander::default();
    let before = bystander.server.resident_bytes();
    let topic = unique("pressure");
    create_topic(&mut bystander.client, &topic, 1);
    let mut client = bystander.server.client();
    client.stream().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    // Each answer is far longer than its request: a metadata request of all topics.
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let mut sent = 0;
    for n in 0..200 {
        create_topic(&mut bystander.client, &unique(&format!("filler-{n}")), 1);
    }
    while sent < 200_000 && client.try_send(9, &request).is_ok() {
        sent += 1;
    }
    assert!(sent < 200_000, "the server took {sent} requests without an answer being read");
    bystander.assert_served();
    let grown = bystander.server.resident_bytes().saturating_sub(before);
    assert!(grown < 400 * MIB, "grew by {} MiB", grown / MIB);
}

#[test]
fn thousand_connections_that_come_and_go_leave_nothing_behind() {
    let mut bystander = Bystander::default();
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let pid = bystander.server.pid();
    let before = descriptors(pid);
    for _ in 0..10 {
        let clients: Vec<Client> = (0..100).map(|_| bystander.server.client()).collect();
        drop(clients);
    }
    wait_for("closed connections to be let go", || (descriptors(pid) <= before + 10).then_some(()));
    bystander.assert_served();
}

#[test]
fn what_was_refused_is_not_in_the_log() {
    let mut bystander = Bystander::default();
    let mut damaged = Batch::of(["never stored"]).encode_vec();
    damaged[30] ^= 1;
    bystander.expect_produce_error(damaged, ErrorCode::CorruptMessage, "a damaged batch");
    let data = fetch(&mut bystander.client, &bystander.topic, 0, 0);
    let bytes: Bytes = data.records.unwrap_or_default().into_bytes();
    assert!(!bytes.windows(12).any(|window| window == b"never stored"));
}
