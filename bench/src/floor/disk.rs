//! The disk by itself: durable writes around the page cache to a zero-filled file, one after the other or several at
//! once, from one core as a shard does them.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use chronik_shards::io::runtime::{self, ExecutorPlan, ShardCpus};
use chronik_shards::model::ShardId;
use chronik_tuning::plan::Plan;
use glommio::io::DmaFile;
use hdrhistogram::Histogram;

use super::FloorError;
use super::group::open_zeroes;
use crate::engine::latency_histogram;

const FILE_BYTES: u64 = 64 << 20;

/// What one loop writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteLoop {
    /// Bytes of each write.
    pub write_bytes: usize,
    /// Writes that are under way at once.
    pub in_flight: usize,
}

/// What one loop did.
#[derive(Debug)]
pub struct Writes {
    /// How many writes ended within the time.
    pub count: u64,
    /// How long it went.
    pub time: Duration,
    /// Nanoseconds of each.
    pub latency: Histogram<u64>,
}

/// Writes for `time`, from the first core of the plan, to a file in `directory` that has no name.
///
/// # Errors
/// [`FloorError::Io`]: the disk's, or the executor's.
pub fn write_for(
    directory: &Path,
    plan: &Plan,
    what: WriteLoop,
    time: Duration,
) -> Result<Writes, FloorError> {
    let executor = ExecutorPlan {
        cpus: plan.shards[0].map_or(ShardCpus::Inherited, ShardCpus::Pinned),
        spin_before_park: plan.profile.spin_before_park,
        ring_buffer_bytes: plan.ring_buffer_bytes,
    };
    let directory = directory.to_owned();
    let thread = runtime::start(ShardId(0), executor, move || run(directory, what, time))?;
    let written = thread.join().map_err(|error| io::Error::other(error.to_string()))?;
    Ok(written?)
}

async fn run(directory: PathBuf, what: WriteLoop, time: Duration) -> io::Result<Writes> {
    let file = Rc::new(open_zeroes(&directory, FILE_BYTES).await?);
    let latency = Rc::new(RefCell::new(latency_histogram()));
    let position = Rc::new(Cell::new(0));
    let begun = Instant::now();
    let writers: Vec<_> = (0..what.in_flight)
        .map(|_| {
            let (file, latency) = (Rc::clone(&file), Rc::clone(&latency));
            let position = Rc::clone(&position);
            glommio::spawn_local(async move {
                while begun.elapsed() < time {
                    write(&file, what.write_bytes, &position, &latency).await?;
                }
                io::Result::Ok(())
            })
        })
        .collect();
    for writer in writers {
        writer.await?;
    }
    let elapsed = begun.elapsed();
    let latency = latency.borrow().clone();
    Ok(Writes { count: latency.len(), time: elapsed, latency })
}

async fn write(
    file: &DmaFile,
    bytes: usize,
    position: &Cell<u64>,
    latency: &RefCell<Histogram<u64>>,
) -> io::Result<()> {
    let at = position.get();
    let next = at + bytes as u64;
    position.set(if next + bytes as u64 > FILE_BYTES { 0 } else { next });
    let mut buffer = file.alloc_dma_buffer(bytes);
    buffer.as_bytes_mut().fill(1);
    let begun = Instant::now();
    let written = file.write_at(buffer, at).await.map_err(io::Error::from)?;
    if written != bytes {
        return Err(io::Error::other(format!("{written} of {bytes} bytes were written")));
    }
    latency.borrow_mut().saturating_record(begun.elapsed().as_nanos() as u64);
    Ok(())
}
