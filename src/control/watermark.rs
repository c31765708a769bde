//! How far the log was acknowledged, beside the log.
//!
//! A log whose last records do not verify was either torn by a crash, then nobody was told of them, or
//! damaged, then somebody was. The engine drops them either way. This file knows the difference: it is
//! synced after the log and before any answer. Two slots are written in turn, so that a torn write
//! leaves the other.
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 4 | magic "CHAK" |
//! | 4 | 8 | index of the last committed entry |
//! | 12 | 4 | CRC-32C over bytes 0..12 |
//!
//! The second slot is the same at offset 512. All numbers are little-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: [u8; 4] = *b"CHAK";
const SLOT_BYTES: usize = 16;
const SLOT_DISTANCE: u64 = 512;

/// The open file.
#[derive(Debug)]
pub(super) struct Watermark {
    file: File,
    committed: u64,
    next_slot: u64,
}

impl Watermark {
    /// Opens the file in `directory`. `None`: there is no file, or nothing valid in it.
    pub(super) fn open(directory: &Path) -> io::Result<Option<Self>> {
        let file = match File::options().read(true).write(true).open(path(directory)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut newest = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            match file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE) {
                Ok(()) => newest = newest.max(decode(bytes).map(|committed| (committed, slot))),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        Ok(newest.map(|(committed, slot)| Self { file, committed, next_slot: 1 - slot }))
    }

    /// Makes a new file that says `committed`.
    pub(super) fn create(directory: &Path, committed: u64) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let file = File::create(path(directory))?;
        for slot in 0..2 {
            file.write_all_at(&encode(committed), slot * SLOT_DISTANCE)?;
        }
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        Ok(Self { file, committed, next_slot: 0 })
    }

    /// Index of the last entry that somebody may have been told of.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// Makes `committed` durable; it never falls.
    pub(super) fn raise(&mut self, committed: u64) -> io::Result<()> {
        if committed <= self.committed {
            return Ok(());
        }
        self.file.write_all_at(&encode(committed), self.next_slot * SLOT_DISTANCE)?;
        self.file.sync_data()?;
        self.committed = committed;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

fn path(directory: &Path) -> std::path::PathBuf {
    directory.join("committed")
}

fn encode(committed: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..4].copy_from_slice(&MAGIC);
    slot[4..12].copy_from_slice(&committed.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..12]);
    slot[12..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: [u8; SLOT_BYTES]) -> Option<u64> {
    let (_, committed) = (slot[..4] == MAGIC).then(|| slot.split_at(4))?;
    let committed = u64::from_le_bytes(committed[..8].try_into().ok()?);
    (slot == encode(committed)).then_some(committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_never_change() {
        assert_eq!(
            encode(0x0102_0304_0506_0708),
            *b"CHAK\x08\x07\x06\x05\x04\x03\x02\x01\x4a\xf6\x53\xef"
        );
    }

    #[test]
    fn the_last_raise_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Watermark::open(directory.path()).unwrap().is_none());
        let mut watermark = Watermark::create(directory.path(), 3).unwrap();
        for committed in [5, 4, 9, 10, 10] {
            watermark.raise(committed).unwrap();
            let found = Watermark::open(directory.path()).unwrap().unwrap();
            assert_eq!(found.committed(), watermark.committed());
        }
        assert_eq!(watermark.committed(), 10);
    }

    #[test]
    fn a_torn_write_leaves_the_value_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut watermark = Watermark::create(directory.path(), 3).unwrap();
        for committed in 4..8 {
            watermark.raise(committed).unwrap();
            let whole = std::fs::read(path(directory.path())).unwrap();
            let torn = (1 - watermark.next_slot) * SLOT_DISTANCE;
            let mut bytes = whole.clone();
            bytes[torn as usize + 12] ^= 1;
            std::fs::write(path(directory.path()), bytes).unwrap();
            let found = Watermark::open(directory.path()).unwrap().unwrap();
            assert_eq!(found.committed(), committed - 1);
            std::fs::write(path(directory.path()), whole).unwrap();
        }
    }
}
