//! The disk below a data directory: its filesystem, its space, and how long it takes to keep a commit.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Finding;
use crate::size::rounded;

/// Sizes of the writes that are measured: a lone record, a small group, a large one.
const WRITE_BYTES: [usize; 3] = [4 << 10, 16 << 10, 256 << 10];

/// How long and how often one size is written at most.
const WINDOW: Duration = Duration::from_millis(700);
const WRITES_MAX: usize = 2000;

/// Size of the file that is written to, as a WAL file is: zero-filled, and written in order.
const FILE_BYTES: usize = 8 << 20;

/// What a disk address must be a multiple of.
const ALIGNMENT: usize = 4096;

/// From here on, producers notice each commit.
const SLOW_MEDIAN: Duration = Duration::from_millis(2);
const SLOW_P99: Duration = Duration::from_millis(20);

/// How long writes of one size took until they were durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncLatency {
    /// Bytes of each write.
    pub write_bytes: usize,
    /// How many there were.
    pub writes: usize,
    /// Half were faster.
    pub p50: Duration,
    /// One in a hundred was slower.
    pub p99: Duration,
    /// Whether they went around the page cache.
    pub is_direct: bool,
}

pub(super) fn look(data_dir: &Path, wal_bytes: u64) -> Vec<Finding> {
    let directory = match existing(data_dir) {
        Ok(directory) => directory,
        Err(error) => {
            let fact = format!("{}: {error}", data_dir.display());
            return vec![Finding::fail("data directory", fact, "name another with --data-dir")];
        }
    };
    let mut findings = vec![space(&directory, wal_bytes)];
    match measure_sync(&directory) {
        Ok(measured) => {
            findings.push(filesystem(&directory, measured[0].is_direct));
            findings.extend(measured.iter().map(latency));
        }
        Err(error) => findings.push(Finding::fail(
            "filesystem",
            format!("{}: {error}", directory.display()),
            "make the directory writable for this user, or name another with --data-dir",
        )),
    }
    findings
}

/// The directory, or the nearest above it that is there.
fn existing(data_dir: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(data_dir)?;
    for part in path.ancestors() {
        match fs::metadata(part) {
            Ok(found) if found.is_dir() => return Ok(part.to_owned()),
            Ok(_) => return Err(io::Error::from(io::ErrorKind::NotADirectory)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn space(directory: &Path, wal_bytes: u64) -> Finding {
    const TOPIC: &str = "disk space";
    let free = match rustix::fs::statvfs(directory) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            let fact = format!("{}: {error}", directory.display());
            return Finding::warn(TOPIC, fact, "look at it with `df`");
        }
    };
    judge_space(free, wal_bytes)
}

fn judge_space(free: u64, wal_bytes: u64) -> Finding {
    const TOPIC: &str = "disk space";
    let fact = format!("{} free, the WALs take up to {}", rounded(free), rounded(wal_bytes));
    let remedy = "free some, name another --data-dir, or lower wal_files_max or wal_file_bytes";
    if free < wal_bytes {
        Finding::fail(TOPIC, fact, remedy)
    } else if free / 2 < wal_bytes {
        Finding::warn(TOPIC, format!("{fact}: little is left for segments"), remedy)
    } else {
        Finding::ok(TOPIC, fact)
    }
}

fn filesystem(directory: &Path, is_direct: bool) -> Finding {
    const TOPIC: &str = "filesystem";
    let kind = filesystem_kind(directory);
    let place = directory.display();
    if is_direct {
        Finding::ok(TOPIC, format!("{kind} at {place}, writes go around the page cache"))
    } else {
        Finding::warn(
            TOPIC,
            format!("{kind} at {place} has no O_DIRECT: each commit goes through the page cache"),
            "put --data-dir on ext4 or xfs",
        )
    }
}

/// The filesystem's name, by the longest mount point above the directory.
fn filesystem_kind(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (fields.next(), fields.next()) else { continue };
        // A later mount hides an earlier one.
        if directory.starts_with(point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind));
        }
    }
    best.map_or_else(|| "a filesystem".to_owned(), |(_, kind)| kind.to_owned())
}

fn latency(measured: &SyncLatency) -> Finding {
    const TOPIC: &str = "disk sync";
    let micros = |time: Duration| time.as_micros();
    let fact = format!(
        "{} durable: p50 {} µs, p99 {} µs ({} writes)",
        rounded(measured.write_bytes as u64),
        micros(measured.p50),
        micros(measured.p99),
        measured.writes
    );
    if measured.p50 > SLOW_MEDIAN || measured.p99 > SLOW_P99 {
        let remedy = "every acknowledgement waits for this: use a disk with power-loss protection, or \
                      keep other writers off it";
        return Finding::warn(TOPIC, fact, remedy);
    }
    Finding::ok(TOPIC, fact)
}

/// Measures how long writes take until they are durable, as a WAL does them: to a zero-filled file, in
/// order, around the page cache where the filesystem can. The file has no name and leaves nothing behind.
///
/// # Errors
/// When the directory cannot be written to.
pub fn measure_sync(directory: &Path) -> io::Result<[SyncLatency; 3]> {
    let path = directory.join(format!(".chronik-tune-{}", std::process::id()));
    let (file, is_direct) = open(&path)?;
    fs::remove_file(&path)?;
    let memory = vec![0u8; FILE_BYTES.min(1 << 20) + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let zeroes = &memory[start..start + FILE_BYTES.min(1 << 20)];
    for position in (0..FILE_BYTES).step_by(zeroes.len()) {
        file.write_all_at(zeroes, position as u64)?;
    }
    let mut measured = Vec::with_capacity(WRITE_BYTES.len());
    for write_bytes in WRITE_BYTES {
        measured.push(measure(&file, &zeroes[..write_bytes], is_direct)?);
    }
    Ok(measured.try_into().expect("one for each size"))
}

fn measure(file: &File, bytes: &[u8], is_direct: bool) -> io::Result<SyncLatency> {
    let mut taken = Vec::with_capacity(WRITES_MAX);
    let begun = Instant::now();
    while taken.len() < WRITES_MAX && (taken.is_empty() || begun.elapsed() < WINDOW) {
        let position = taken.len() * bytes.len() % FILE_BYTES;
        let before = Instant::now();
        file.write_all_at(bytes, position as u64)?;
        taken.push(before.elapsed());
    }
    taken.sort_unstable();
    let at = |share: usize| taken[(taken.len() - 1) * share / 100];
    let (p50, p99) = (at(50), at(99));
    Ok(SyncLatency { write_bytes: bytes.len(), writes: taken.len(), p50, p99, is_direct })
}

/// Opens a new file for durable writes, around the page cache where the filesystem can.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let with = |flags: i32| {
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path)
    };
    match with(libc::O_DSYNC | libc::O_DIRECT) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Ok((with(libc::O_DSYNC)?, false))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_disk_is_measured_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let measured = measure_sync(directory.path()).unwrap();
        assert_eq!(measured.map(|found| found.write_bytes), WRITE_BYTES);
        for found in measured {
            assert!(found.writes > 0 && found.p50 > Duration::ZERO && found.p50 <= found.p99);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_to_be_made_is_judged_by_the_one_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("not/yet");
        assert_eq!(existing(&deep).unwrap(), directory.path());
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let findings = look(&file.join("data"), 0);
        assert_eq!((findings.len(), findings[0].verdict), (1, Verdict::Fail));
        assert!(findings[0].fact.contains(file.to_str().unwrap()));
    }

    #[test]
    fn space_has_to_hold_the_wals_and_should_hold_more() {
        assert_eq!(judge_space(99, 100).verdict, Verdict::Fail);
        assert_eq!(judge_space(150, 100).verdict, Verdict::Warn);
        assert_eq!(judge_space(200, 100).verdict, Verdict::Ok);
    }

    #[test]
    fn a_slow_disk_is_a_warning() {
        let micros = Duration::from_micros;
        let found = |p50, p99| SyncLatency {
            write_bytes: 4096,
            writes: 10,
            p50: micros(p50),
            p99: micros(p99),
            is_direct: true,
        };
        assert_eq!(latency(&found(100, 900)).verdict, Verdict::Ok);
        assert_eq!(latency(&found(3000, 4000)).verdict, Verdict::Warn);
        assert_eq!(latency(&found(100, 30_000)).verdict, Verdict::Warn);
    }
}
