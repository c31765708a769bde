//! What clients send.

use bytes::Bytes;
use chronik_protocol::messages::RequestHeader;
use chronik_protocol::{AnyRequest, ApiKey, EncodeBuf, Message, Reader, RequestFrame};
use chronik_shards::format::batch_builder::BatchBuilder;
use chronik_shards::format::compacted_batch::{Compacted, CompactionRules, RecordCounts, compact};
use chronik_shards::format::compression::Codec;
use chronik_shards::format::record::{self, Records};
use chronik_shards::format::record_batch::{Batches, ProducedBatch, StoredBatch};
use chronik_shards::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::driver::{Target, outcome};

/// What a batch may expand to in these tests.
const EXPANDED_BYTES_MAX: usize = 1 << 20;

/// What the check of records lets them expand to: far more than it may hold.
const CHECKED_BYTES_MAX: usize = 1 << 30;

const CRC_FROM: usize = 21;

#[test]
fn requests() {
    let target = Target {
        name: "request",
        corpus: "request",
        seeds: request_seeds(),
        repair: |_| {},
        run: run_request,
        held_bytes: 4096,
        // Measured by the codec's own tests: the worst request holds 50 for one. Encoding it again
        // and comparing holds it once more.
        held_per_byte: 160,
    };
    target.fuzz();
}

fn request_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for api in ApiKey::ALL.iter().copied() {
        for version in api.valid_versions().iter() {
            let header = RequestHeader {
                request_api_key: api.key(),
                request_api_version: version,
                correlation_id: 7,
                client_id: Some("fuzz".into()),
                ..RequestHeader::default()
            };
            let mut w = EncodeBuf::new();
            header.encode(&mut w, api.request_header_version(version)).unwrap();
            AnyRequest::default_of(api).encode(&mut w, version).unwrap();
            let mut bytes = w.into_bytes().to_vec();
            seeds.push(bytes.clone());
            // Room for elements, so that a count that is changed has something to count.
            bytes.extend([0; 64]);
            seeds.push(bytes);
        }
    }
    seeds
}

fn run_request(input: &Bytes) -> u64 {
    let frame = match RequestFrame::parse(input.clone()) {
        Ok(frame) => frame,
        Err(error) => return outcome((error.kind, "header")),
    };
    let (api, version) = (frame.api, frame.version());
    match frame.decode_any() {
        Err(error) => outcome((api, version, error)),
        Ok(request) => {
            let mut w = EncodeBuf::new();
            request.encode(&mut w, version).expect("what decodes also encodes");
            let mut again = Reader::new(w.into_bytes());
            let decoded = AnyRequest::decode(&mut again, api, version).expect("and decodes again");
            again.expect_end().expect("to its end");
            // NaN is the one value that is not equal to itself.
            if api != ApiKey::AlterClientQuotas {
                assert_eq!(decoded, request, "the same message");
            }
            outcome((api, version, input.len()))
        }
    }
}

#[test]
fn record_batches() {
    let target = Target {
        name: "record_batch",
        corpus: "record_batch",
        seeds: batch_seeds(),
        repair: |input| repair_batch(input),
        run: run_batch,
        // Decompression works in blocks of its own, the largest of which are four megabytes (LZ4).
        held_bytes: 12 * EXPANDED_BYTES_MAX,
        held_per_byte: 64,
    };
    target.fuzz();
}

/// What every produced batch goes through: memory must not follow what it expands to.
#[test]
fn records_checked_before_they_are_stored() {
    let target = Target {
        name: "record_check",
        corpus: "record_batch",
        seeds: batch_seeds(),
        repair: |input| repair_batch(input),
        run: |input| match ProducedBatch::check(input.clone()) {
            Ok(batch) => match batch.check_records(CHECKED_BYTES_MAX) {
                Ok(latest) => outcome(latest),
                Err(error) => outcome(format!("{error}")),
            },
            Err(error) => outcome(std::mem::discriminant(&error)),
        },
        // A block of LZ4 and its window, the vector's old half while it grows, and what gzip keeps.
        held_bytes: 10 << 20,
        // A snappy block expands up to 22 times.
        held_per_byte: 64,
    };
    target.fuzz();
}

/// What compaction makes of any batch that a log may hold.
#[test]
fn records_compacted() {
    let target = Target {
        name: "compacted_batch",
        corpus: "record_batch",
        seeds: batch_seeds(),
        repair: |input| repair_batch(input),
        run: run_compaction,
        // What it expands to, the records that stay, and those compressed again.
        held_bytes: 4 * COMPACTED_BYTES_MAX,
        held_per_byte: 64,
    };
    target.fuzz();
}

/// Bound of what a batch expands to there.
const COMPACTED_BYTES_MAX: usize = 8 << 20;

fn run_compaction(input: &Bytes) -> u64 {
    let Ok(batch) = StoredBatch::from_log(input.clone()) else { return 0 };
    let rules = CompactionRules {
        now: TimestampMs(1000),
        delete_retention_ms: 10,
        keeps_emptied: true,
        expanded_bytes_max: COMPACTED_BYTES_MAX,
    };
    let mut counts = RecordCounts::default();
    let mut turn = false;
    let compacted = compact(&batch, rules, &mut counts, |_, _| {
        turn = !turn;
        turn
    });
    match compacted {
        Ok(Compacted::Rewritten(after)) => {
            let again = StoredBatch::from_log(after.to_log()).expect("it is sealed");
            assert_eq!(again.header.base_offset, batch.header.base_offset);
            assert_eq!(again.header.last_offset(), batch.header.last_offset());
            outcome((counts.read, counts.kept))
        }
        Ok(Compacted::Unchanged) => 1,
        Ok(Compacted::Dropped) => panic!("its place was to be kept"),
        Err(error) => outcome(error.to_string()),
    }
}

#[test]
fn records_searched_by_time() {
    let target = Target {
        name: "record_search",
        corpus: "record_batch",
        seeds: batch_seeds(),
        repair: |input| repair_batch(input),
        run: run_search,
        // A look-up has a limit of its own; a buffer that doubles holds its old half while it moves.
        held_bytes: 3 * record::SEARCHED_BYTES_MAX,
        held_per_byte: 64,
    };
    target.fuzz();
}

fn batch_seeds() -> Vec<Vec<u8>> {
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let mut seeds = Vec::new();
    for codec in codecs {
        let mut builder = BatchBuilder::new(codec);
        for n in 0..5i64 {
            let value = vec![b'v'; 10 * n as usize];
            let headers: &[(&str, Option<&[u8]>)] = &[("key", Some(b"value")), ("none", None)];
            builder.push(TimestampMs(1000 + n), Some(b"key"), Some(&value), headers);
        }
        seeds.push(builder.build().bytes.to_vec());
        let builder = builder.idempotent(ProducerId(7), ProducerEpoch(1), 40);
        seeds.push(builder.build().bytes.to_vec());
    }
    let pair = seeds.concat();
    seeds.push(pair);
    seeds
}

fn repair_batch(input: &mut [u8]) {
    if input.len() > CRC_FROM {
        let length = input.len() as i32 - 12;
        input[8..12].copy_from_slice(&length.to_be_bytes());
        input[16] = 2;
        let crc = crc32c::crc32c(&input[CRC_FROM..]);
        input[17..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

fn run_batch(input: &Bytes) -> u64 {
    let mut walked = 0;
    for found in Batches::new(input) {
        let Ok((at, header)) = found else { break };
        assert_eq!(at, walked, "batches lie next to each other");
        walked += header.total_bytes;
        assert!(walked <= input.len(), "a batch beyond the bytes");
    }
    let from_log = match StoredBatch::from_log(input.clone()) {
        Ok(stored) => {
            assert_eq!(stored.to_log(), stored.bytes, "a log's bytes are the batch's");
            0
        }
        Err(error) => outcome(std::mem::discriminant(&error)),
    };
    let produced = match ProducedBatch::check(input.clone()) {
        Ok(batch) => run_produced(batch),
        Err(error) => outcome(std::mem::discriminant(&error)),
    };
    outcome((from_log, produced))
}

fn run_search(input: &Bytes) -> u64 {
    let Ok(stored) = StoredBatch::from_log(input.clone()) else { return 0 };
    let found = record::find_timestamp(&stored, stored.header.max_timestamp);
    let latest = record::max_timestamp_record(&stored);
    let inside = |found: &Option<(Offset, TimestampMs)>| {
        let offset = found.map_or(stored.header.base_offset, |(offset, _)| offset);
        assert!(offset >= stored.header.base_offset && offset < stored.end_offset(), "{offset}");
    };
    let kind = |result: Result<_, _>| match result {
        Ok(found) => {
            inside(&found);
            "found".to_owned()
        }
        Err(error) => format!("{error}"),
    };
    outcome((kind(found), kind(latest)))
}

fn run_produced(batch: ProducedBatch) -> u64 {
    assert!(batch.header.record_count > 0);
    assert_eq!(batch.header.total_bytes, batch.bytes.len());
    let checked = batch.check_records(EXPANDED_BYTES_MAX);
    if let Ok(payload) = batch.decompressed(EXPANDED_BYTES_MAX) {
        assert!(payload.len() <= EXPANDED_BYTES_MAX, "beyond the limit");
        for record in Records::new(&batch.header, &payload).flatten() {
            assert_eq!(record.headers.iter().count(), record.headers.len());
        }
    }
    if let (Ok(latest), Ok(payload)) = (&checked, batch.decompressed(EXPANDED_BYTES_MAX)) {
        let times: Vec<_> = Records::new(&batch.header, &payload)
            .map(|record| batch.header.timestamp_of(&record.expect("checked")))
            .collect();
        assert_eq!(times.len(), batch.header.record_count as usize, "as many as were counted");
        assert_eq!(times.iter().max(), Some(latest));
    }
    // Only what was checked is brought to another codec.
    let codecs = if checked.is_ok() { &[Codec::None, Codec::Zstd][..] } else { &[] };
    for codec in codecs {
        if let Ok(other) = record::recompress(batch.clone(), *codec, EXPANDED_BYTES_MAX) {
            let other =
                ProducedBatch::check(other.bytes).expect("a recompressed batch is well formed");
            assert_eq!(other.check_records(EXPANDED_BYTES_MAX), checked, "the same records");
        }
    }
    let stamped = batch.clone().with_log_append_time(TimestampMs(5));
    StoredBatch::from_log(stamped.bytes).expect("a stamped batch is a log's");
    let placed = StoredBatch::place(batch, Offset(1000), LeaderEpoch(3));
    StoredBatch::from_log(placed.to_log()).expect("a placed batch is a log's");
    match checked {
        Ok(_) => 1,
        Err(error) => outcome(format!("{error}")),
    }
}
