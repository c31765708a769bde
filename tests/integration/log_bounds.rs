//! Retention: old segments go, and nothing else does.

use chronik_protocol::ErrorCode;

use crate::support::batch::{Batch, Record, now_ms};
use crate::support::requests::{
    create_topic_with, expect_error, fetch, high_watermark, log_start, produce, read, set_config,
};
use crate::support::server::Options;
use crate::support::{unique, wait_for, wait_within};
use std::time::Duration;

const KIB: usize = 1024;

/// The default period of the check is minutes: with it these tests would wait for that long.
fn checking_often() -> Options {
    Options::default().kafka("log.retention.check.interval.ms", "100")
}

#[test]
fn retention_by_size_removes_old_segments_and_keeps_the_rest() {
    let mut server = checking_often().start();
    let topic = unique("by-size");
    let mut client = server.client();
    let config = [("segment.bytes", "65536"), ("retention.bytes", "262144")];
    create_topic_with(&mut client, &topic, 1, &config);
    for _ in 0..100 {
        produce(&mut client, &topic, 0, &Batch::of_size(10 * KIB));
    }
    let start = wait_within(Duration::from_secs(60), "old segments to go", || {
        let start = log_start(&mut client, &topic, 0);
        // 100 × 10 KiB, of which 256 KiB and up to two segments may stay.
        (start >= 55).then_some(start)
    });
    assert!(start <= 76, "at least retention.bytes stay: {start}");
    let data = fetch(&mut client, &topic, 0, 0);
    expect_error(data.error_code, ErrorCode::OffsetOutOfRange, "an offset that is gone");
    let kept = read(&mut client, &topic, 0, start);
    assert_eq!(kept.first().map(|(offset, _)| *offset), Some(start));
    assert_eq!(kept.len() as i64, 100 - start);
    assert_eq!(high_watermark(&mut client, &topic, 0), 100);

    server.kill9();
    server.restart();
    let mut client = server.client();
    assert!(log_start(&mut client, &topic, 0) >= start, "what is gone stays gone");
    assert_eq!(high_watermark(&mut client, &topic, 0), 100);
}

#[test]
fn retention_by_time_removes_old_segments_and_keeps_young_ones() {
    let server = checking_often().start();
    let mut client = server.client();
    let topic = unique("by-time");
    let config = [("segment.bytes", "16384"), ("retention.ms", "3600000")];
    create_topic_with(&mut client, &topic, 1, &config);
    let value = vec![7; 10 * KIB];
    let old = now_ms() - 7_200_000;
    for _ in 0..10 {
        produce(&mut client, &topic, 0, &Batch::of_records(vec![Record::of(&value).at(old)]));
    }
    for _ in 0..10 {
        produce(&mut client, &topic, 0, &Batch::of([&value]));
    }
    let start = wait_for("old segments to go", || {
        let start = log_start(&mut client, &topic, 0);
        (start >= 9).then_some(start)
    });
    assert!(start <= 10, "nothing young is gone: {start}");
    assert_eq!(read(&mut client, &topic, 0, start).len() as i64, 20 - start);
}

#[test]
fn an_idle_log_loses_its_last_segment_too_when_it_is_old() {
    let server = checking_often().start();
    let mut client = server.client();
    let topic = unique("idle");
    create_topic_with(&mut client, &topic, 1, &[("retention.ms", "3600000")]);
    let old = now_ms() - 7_200_000;
    produce(&mut client, &topic, 0, &Batch::of_records(vec![Record::of("x").at(old)]));
    wait_for("the only segment to go", || (log_start(&mut client, &topic, 0) == 1).then_some(()));
    assert_eq!(high_watermark(&mut client, &topic, 0), 1, "the end stays where it is");
    assert_eq!(produce(&mut client, &topic, 0, &Batch::of(["y"])), 1, "offsets go on");
}

#[test]
fn retention_that_is_lowered_later_counts_too() {
    let server = checking_often().start();
    let mut client = server.client();
    let topic = unique("lowered");
    create_topic_with(&mut client, &topic, 1, &[("segment.bytes", "65536")]);
    for _ in 0..60 {
        produce(&mut client, &topic, 0, &Batch::of_size(10 * KIB));
    }
    assert_eq!(log_start(&mut client, &topic, 0), 0, "without a bound everything stays");
    let code = set_config(&mut client, &topic, "retention.bytes", Some("131072"));
    assert_eq!(code, ErrorCode::None);
    wait_for("old segments to go", || (log_start(&mut client, &topic, 0) >= 30).then_some(()));
}
