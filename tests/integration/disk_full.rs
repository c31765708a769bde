//! A disk without space: produces are refused, reads go on, and space that comes back is used.
//!
//! The data lies on a file system of its own in memory, which takes the right to mount one. Without it
//! the test fails: a check that could not run has failed.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use chronik_protocol::ErrorCode;

use crate::support::batch::Batch;
use crate::support::requests::{
    batches, create_topic, error, fetch, high_watermark, produce_bytes, read_batches,
};
use crate::support::server::{Options, Server};
use crate::support::{unique, wait_within};
use std::time::Duration;

/// Room for some WAL files and a little data.
const DISK_BYTES: usize = 768 << 20;

/// What is left when the ballast is in place.
const LEFT_BYTES: u64 = 4 << 20;

/// A small file system; unmounted with the value.
struct Disk {
    directory: PathBuf,
    _parent: tempfile::TempDir,
}

impl Disk {
    fn mount() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("disk");
        fs::create_dir(&directory).unwrap();
        let target = CString::new(directory.as_os_str().as_bytes()).unwrap();
        let options = CString::new(format!("size={DISK_BYTES}")).unwrap();
        // SAFETY: all pointers are to strings that outlive the call.
        let mounted = unsafe {
            libc::mount(
                c"chronik-test".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        let reason = std::io::Error::last_os_error();
        assert_eq!(mounted, 0, "mounting a small file system takes root (CAP_SYS_ADMIN): {reason}");
        Self { directory, _parent: parent }
    }

    fn free_bytes(&self) -> u64 {
        let path = CString::new(self.directory.as_os_str().as_bytes()).unwrap();
        // SAFETY: a zeroed statvfs is a valid one to be written over.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers outlive the call.
        assert_eq!(unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) }, 0);
        stat.f_bavail * stat.f_frsize
    }

    /// Takes all space but a little.
    fn fill(&self, left: u64) -> PathBuf {
        let path = self.directory.join("ballast");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        let block = vec![1; 64 << 10];
        while self.free_bytes() > left + block.len() as u64 {
            if file.write_all(&block).is_err() {
                break;
            }
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.directory);
    }
}

fn unmount(directory: &Path) {
    let target = CString::new(directory.as_os_str().as_bytes()).expect("a path");
    // SAFETY: the string outlives the call. Detached, so that a server that still ends does not matter.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
}

#[test]
fn produces_are_refused_without_space_and_reads_go_on_until_space_is_back() {
    // Dropped in reverse order: the server goes before its disk.
    let disk = Disk::mount();
    let data = disk.directory.join("data");
    let mut server = Server::start_with(Options::default().data_dir(&data));
    let topic = unique("full");
    let mut client = server.client();
    create_topic(&mut client, &topic, 1);
    let batch = Batch::of_size(900_000).encode();
    let first = produce_bytes(&mut client, &topic, 0, -1, batch.clone());
    assert_eq!(error(first.error_code), ErrorCode::None);

    let ballast = disk.fill(LEFT_BYTES);
    let mut acknowledged = 1;
    wait_within(Duration::from_secs(120), "produces to be refused", || {
        let response = produce_bytes(&mut client, &topic, 0, -1, batch.clone());
        match error(response.error_code) {
            ErrorCode::None => {
                assert_eq!(response.base_offset, acknowledged);
                acknowledged += 1;
                // Far more than the disk holds: then it is not full at all.
                assert!(acknowledged < 2 * (DISK_BYTES / 900_000) as i64, "the disk is never full");
                None
            }
            ErrorCode::KafkaStorageError => Some(()),
            // A produce that waits for space may time out before it is known that there is none.
            ErrorCode::RequestTimedOut => None,
            other => panic!("refused with {other:?}"),
        }
    });
    server.assert_alive();
    assert_eq!(high_watermark(&mut client, &topic, 0), acknowledged);
    let data = fetch(&mut client, &topic, 0, 0);
    assert!(batches(&data)[0].is_as_sent(&batch), "reads go on");

    fs::remove_file(&ballast).unwrap();
    let base = wait_within(Duration::from_secs(60), "produces to be accepted again", || {
        let response = produce_bytes(&mut client, &topic, 0, -1, batch.clone());
        match error(response.error_code) {
            ErrorCode::None => Some(response.base_offset),
            ErrorCode::KafkaStorageError | ErrorCode::RequestTimedOut => None,
            other => panic!("refused with {other:?}"),
        }
    });
    // A produce that timed out may have been stored, as always with time-outs.
    assert!(base >= acknowledged, "{base} < {acknowledged}");

    server.kill9();
    server.restart();
    let mut client = server.client();
    let stored = read_batches(&mut client, &topic, 0, 0);
    assert_eq!(stored.len() as i64, base + 1, "everything acknowledged is there");
    assert!(stored.iter().all(|stored| stored.is_as_sent(&batch)));
    server.stop();
}
