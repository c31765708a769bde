//! The reader against segment files written here byte by byte.

use std::cell::Cell;
use std::fs;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;

use glommio::{LocalExecutorBuilder, Placement};
use rustix::fs::Advice;

use super::*;
use crate::format::record_batch::{ProducedBatch, StoredBatch};
use crate::format::sample_batch::SampleBatch;
use crate::format::segment_index::OffsetEntry;
use crate::io::runtime::TaskQueues;
use crate::model::{LeaderEpoch, TimestampMs};

/// A partition on the disk: what its log is, and where.
struct Log {
    directory: tempfile::TempDir,
    view: LogView,
    /// Every batch with its base offset.
    batches: Vec<StoredBatch>,
}

fn batch(base: i64, value_bytes: usize) -> StoredBatch {
    let value = vec![b'v'; value_bytes];
    let sample = SampleBatch {
        records: 2,
        value: &value,
        timestamp: TimestampMs(1000 + base),
        ..Default::default()
    };
    let produced = ProducedBatch::check(sample.encode()).unwrap();
    StoredBatch::place(produced, Offset(base), LeaderEpoch(4))
}

/// Segments of the given batch sizes, two offsets a batch, with an index of every fourth batch.
fn write_log(segments: &[&[usize]]) -> Log {
    let directory = tempfile::tempdir().unwrap();
    let mut log = Log { directory, view: LogView::default(), batches: Vec::new() };
    let mut offset = 0;
    let mut metas = Vec::new();
    for sizes in segments {
        let base = offset;
        let (mut bytes, mut index) = (Vec::new(), Vec::new());
        for (number, size) in sizes.iter().enumerate() {
            let batch = batch(offset, *size);
            if number % 4 == 3 {
                let relative_offset = (offset + 1 - base) as u32;
                index
                    .extend(OffsetEntry { relative_offset, position: bytes.len() as u32 }.encode());
            }
            bytes.extend_from_slice(&batch.to_log());
            log.batches.push(batch);
            offset += 2;
        }
        let path = |extension: &str| log.directory.path().join(format!("{base:020}.{extension}"));
        fs::write(path("log"), &bytes).unwrap();
        fs::write(path("index"), &index).unwrap();
        metas.push(SegmentMeta {
            base_offset: Offset(base),
            end_offset: Offset(offset),
            bytes: bytes.len() as u64,
            max_timestamp: TimestampMs(1000 + offset - 2),
            created: TimestampMs(0),
        });
    }
    log.view.active = metas.pop();
    log.view.sealed = metas.into();
    log
}

impl Log {
    fn path(&self, base: i64, extension: &str) -> PathBuf {
        self.directory.path().join(format!("{base:020}.{extension}"))
    }

    /// Runs `test` on an executor with a reader of this log.
    fn run<T: Send + 'static>(
        &self,
        test: impl AsyncFnOnce(&LogReader, Source<'_>) -> T + Send + 'static,
    ) -> T {
        let directory = self.directory.path().to_owned();
        let view = self.view.clone();
        LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(1 << 16)
            .spawn(move || async move {
                let limits = ReaderLimits { open_files_max: 2, index_cache_bytes: 1 << 16 };
                let reader = LogReader::new(limits, TaskQueues::create().cold_reads);
                let source = Source {
                    key: ReplicaKey::default(),
                    directory: &directory,
                    view: &view,
                    is_current: &|| true,
                    whom: ReadFor::Clients(&|| 10),
                };
                test(&reader, source).await
            })
            .unwrap()
            .join()
            .unwrap()
    }

    /// Leaves its segments to the disk alone. False on a filesystem that is a page cache and nothing else.
    fn drop_pages(&self) -> bool {
        self.view.iter().all(|segment| {
            let file = fs::File::open(self.path(segment.base_offset.0, "log")).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            rustix::fs::fstatfs(&file).unwrap().f_type != libc::TMPFS_MAGIC
        })
    }

    /// What a read of `range` has to return.
    fn expected(&self, range: Range) -> Vec<u8> {
        let mut out = Vec::new();
        let mut segment_end = None;
        for batch in &self.batches {
            if batch.end_offset() <= range.offset {
                continue;
            }
            let end = *segment_end.get_or_insert_with(|| {
                let in_it = |meta: &&SegmentMeta| meta.end_offset > batch.header.base_offset;
                self.view.iter().find(in_it).unwrap().end_offset
            });
            let fits = out.is_empty() || out.len() + batch.total_bytes() <= range.max_bytes;
            if batch.end_offset() > range.end.min(end) || !fits {
                break;
            }
            out.extend_from_slice(&batch.to_log());
        }
        out
    }
}

fn range(offset: i64, end: i64, max_bytes: usize) -> Range {
    Range { offset: Offset(offset), end: Offset(end), max_bytes }
}

#[test]
fn every_read_is_whole_batches_from_the_offset_to_the_bounds() {
    let sizes: Vec<usize> = (0..60).map(|number| number * 997 % 5000).collect();
    let log = write_log(&[&sizes, &sizes[..20], &[30_000, 10, 20_000, 10]]);
    let end = log.batches.last().unwrap().end_offset().0;
    let mut ranges = Vec::new();
    for offset in 0..end {
        for max_bytes in [0, 100, 7_000, 1 << 20] {
            ranges.push(range(offset, end, max_bytes));
            ranges.push(range(offset, (offset + 9).min(end), max_bytes));
        }
    }
    let expected: Vec<_> = ranges.iter().map(|range| log.expected(*range)).collect();
    let read = log.run(async move |reader, source| {
        let mut read = Vec::new();
        for range in ranges {
            read.push(reader.read(source, range).await.unwrap());
        }
        assert!(reader.files.open_count() <= 2);
        read
    });
    assert!(expected.iter().any(|bytes| !bytes.is_empty()));
    for (expected, read) in expected.iter().zip(read) {
        assert!(*expected == read, "{} bytes where {} were due", read.len(), expected.len());
    }
}

#[test]
fn sequential_reader_needs_no_index_after_its_first_read() {
    let sizes = vec![3000; 40];
    let log = write_log(&[&sizes]);
    let index = log.path(0, "index");
    let all: Vec<u8> = log.batches.iter().skip(10).flat_map(|batch| batch.to_log()).collect();
    let read = log.run(async move |reader, source| {
        let mut read = Vec::new();
        let mut offset = 20;
        while offset < 80 {
            let bytes = reader.read(source, range(offset, 80, 8000)).await.unwrap();
            let (_, last) = Batches::new(&bytes).last().unwrap().unwrap();
            offset = last.end_offset().0;
            read.extend_from_slice(&bytes);
            // From here on an index would mislead.
            fs::write(&index, OffsetEntry { relative_offset: 1, position: 17 }.encode()).unwrap();
            reader.indexes.borrow_mut().retain(|_| false);
        }
        read
    });
    assert!(read == all);
}

#[test]
fn what_only_the_disk_has_is_read_block_by_block() {
    let log = write_log(&[&[100, 300_000, 5, 700_000, 131_072, 20]]);
    let is_on_disk = log.drop_pages();
    let ranges = [range(3, 12, 1 << 20), range(0, 12, 2 << 20), range(8, 12, 16)];
    let expected = ranges.map(|range| log.expected(range));
    let (read, counts) = log.run(async move |reader, source| {
        let mut read = Vec::new();
        for range in ranges {
            read.push(reader.read(source, range).await.unwrap());
        }
        (read, reader.counts())
    });
    assert!(read.iter().zip(&expected).all(|(read, expected)| read == expected));
    assert!(counts.cold > 0 || !is_on_disk, "{counts:?}");
    assert!(counts.hot > 0, "{counts:?}");
}

#[test]
fn consumers_rest_between_reads_of_the_disk_and_the_node_does_not_wait_for_them() {
    let log = write_log(&[&[900_000; 4], &[900_000; 4]]);
    let is_on_disk = log.drop_pages();
    let (order, rests) = log.run(async move |reader, source| {
        let (order, rests) = (RefCell::new(Vec::new()), Cell::new(0));
        let rest_percent = || {
            rests.set(rests.get() + 1);
            100_000
        };
        let read = async |who, whom, wanted| {
            let source = Source { whom, ..source };
            assert!(!reader.read(source, wanted).await.unwrap().is_empty());
            order.borrow_mut().push(who);
        };
        let mut consumer =
            pin!(read("consumer", ReadFor::Clients(&rest_percent), range(0, 8, 4 << 20)));
        let mut node = pin!(read("node", ReadFor::Node, range(8, 16, 4 << 20)));
        poll_fn(|context| {
            let done = order.borrow().clone();
            let mut is_pending = false;
            if !done.contains(&"consumer") {
                is_pending |= consumer.as_mut().poll(context).is_pending();
            }
            if !done.contains(&"node") {
                is_pending |= node.as_mut().poll(context).is_pending();
            }
            if is_pending { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        (order.take(), rests.get())
    });
    if is_on_disk {
        assert_eq!(order, ["node", "consumer"]);
        assert!(rests > 1, "{rests}");
    }
}

#[test]
fn bytes_beyond_the_view_are_not_looked_at() {
    let mut log = write_log(&[&[100; 10]]);
    let short = log.batches[..6].iter().map(StoredBatch::total_bytes).sum::<usize>() as u64;
    let active = log.view.active.as_mut().unwrap();
    active.bytes = short;
    active.end_offset = Offset(12);
    let mut content = fs::read(log.path(0, "log")).unwrap();
    content[short as usize..].fill(0xff);
    fs::write(log.path(0, "log"), content).unwrap();
    let read = log.run(async |reader, source| {
        reader.read(source, range(0, 12, 1 << 20)).await.unwrap().len() as u64
    });
    assert_eq!(read, short);
}

#[test]
fn damage_is_an_error_that_says_where() {
    let log = write_log(&[&[100; 10]]);
    let third = log.batches[..2].iter().map(StoredBatch::total_bytes).sum::<usize>();
    let mut content = fs::read(log.path(0, "log")).unwrap();
    // The magic byte of the third batch.
    content[third + 16] = 9;
    fs::write(log.path(0, "log"), content).unwrap();
    let error = log.run(async |reader, source| {
        reader.read(source, range(4, 20, 1 << 20)).await.unwrap_err().to_string()
    });
    assert!(error.contains(&format!("damaged at byte {third}")), "{error}");
}

#[test]
fn log_that_is_shorter_than_its_view_is_damaged() {
    let log = write_log(&[&[100; 10]]);
    let file = fs::OpenOptions::new().write(true).open(log.path(0, "log")).unwrap();
    file.set_len(300).unwrap();
    let error = log.run(async |reader, source| reader.read(source, range(0, 20, 1 << 20)).await);
    assert!(matches!(error, Err(ReadError::Damaged { .. })), "{error:?}");
}

#[test]
fn missing_index_only_costs_time() {
    let log = write_log(&[&[3000; 40]]);
    fs::remove_file(log.path(0, "index")).unwrap();
    let expected = log.expected(range(70, 80, 1 << 20));
    let read =
        log.run(async |reader, source| reader.read(source, range(70, 80, 1 << 20)).await.unwrap());
    assert!(!read.is_empty() && read == expected);
}

#[test]
fn segment_that_vanished_or_belongs_to_a_later_partition_is_gone() {
    let log = write_log(&[&[100; 4], &[100; 4]]);
    let results = log.run({
        let first = log.path(0, "log");
        async move |reader, source| {
            let later = Source { is_current: &|| false, ..source };
            let foreign = reader.read(later, range(0, 16, 100)).await;
            let kept = reader.read(source, range(0, 16, 100)).await;
            fs::remove_file(first).unwrap();
            let open = reader.read(source, range(0, 16, 100)).await;
            reader.forget(source.key);
            let closed = reader.read(source, range(0, 16, 100)).await;
            let beyond = reader.read(source, range(16, 17, 100)).await;
            [foreign, kept, open, closed, beyond].map(|result| result.map(|bytes| bytes.len()))
        }
    });
    assert!(matches!(
        results,
        [Err(ReadError::Gone), Ok(1..), Ok(1..), Err(ReadError::Gone), Err(ReadError::Gone)]
    ));
}
