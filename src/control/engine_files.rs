//! A check of raft-engine's files that the engine does not make itself.
//!
//! Every file begins with a magic of 53 bytes, a version and, from version 2 on, an alignment, both
//! eight bytes, big-endian. No checksum covers them, and the engine allocates as much as the alignment
//! says: one damaged bit there ends the process with an allocation of terabytes. So the alignment is
//! looked at before the engine is opened. Records are checked by the engine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC_BYTES: usize = 53;
const HEADER_BYTES: usize = MAGIC_BYTES + 8 + 8;

/// More than any device wants.
const ALIGNMENT_MAX: u64 = 64 << 10;

/// The first file in `directory` whose header the engine must not see, if any.
///
/// A header that is cut short or begins with something else is left to the engine, which refuses the
/// file or drops it as a torn one.
pub(super) fn find_unsafe_header(directory: &Path) -> io::Result<Option<PathBuf>> {
    let files = match fs::read_dir(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for file in files {
        let path = file?.path();
        let is_log = |extension: &std::ffi::OsStr| extension == "raftlog" || extension == "rewrite";
        if !path.extension().is_some_and(is_log) {
            continue;
        }
        let mut header = [0; HEADER_BYTES];
        match File::open(&path)?.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            other => other?,
        }
        let number = |at: usize| {
            let bytes = header[at..at + 8].try_into().expect("eight bytes");
            u64::from_be_bytes(bytes)
        };
        // In version 1 a record follows where version 2 has the alignment.
        if number(MAGIC_BYTES) != 1 && number(MAGIC_BYTES + 8) > ALIGNMENT_MAX {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
