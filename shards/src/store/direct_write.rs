//! Large writes past the page cache.
//!
//! A write through the page cache costs a copy into memory that was just taken from somebody else, and
//! later the search for pages to free; nobody is going to read most of it from there, since consumers that
//! keep up are served from the tail cache. So the blocks that a large write covers wholly are gathered in a
//! buffer that is used again and again, and go to the device from there. What is left at either end, less
//! than a block each, is written as ever; it lies in other pages, so that the two ways do not meet.
//!
//! Invariants: every byte is written once; the order within a file is from front to back, so that an
//! error leaves a prefix; what is promised about durability is what a write promises, nothing.
//!
//! Where a file system does not take such writes, all goes the ordinary way.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::time::Instant;

use super::pace::{HURRIED_STEP_BYTES, Pace};

/// Unit and alignment of such writes: no device asks for more, and a page is as large.
const BLOCK_BYTES: usize = 4096;

/// Below this the wait for the device costs more than the copy.
const DIRECT_BYTES_MIN: u64 = 128 << 10;

/// The most that goes to the device at once.
const STAGE_BYTES: usize = HURRIED_STEP_BYTES;

/// The part of a write of `bytes` at `position` that may go past the page cache, as positions in the file.
pub fn direct_range(position: u64, bytes: u64) -> Option<Range<u64>> {
    let block = BLOCK_BYTES as u64;
    let range = position.next_multiple_of(block)..(position + bytes) / block * block;
    (range.start < range.end && range.end - range.start >= DIRECT_BYTES_MIN).then_some(range)
}

/// Writes `range` of the file past the page cache: the bytes of `slices` behind the first `skipped`. `false`, with
/// nothing written that matters, where the file system does not do such writes.
///
/// # Errors
/// As writing does; a part of the range may have been written.
pub fn write(
    file: &File,
    range: Range<u64>,
    slices: &[IoSlice<'_>],
    skipped: usize,
    pace: Option<&Pace>,
) -> io::Result<bool> {
    let Some(_direct) = Direct::begin(file) else { return Ok(false) };
    thread_local! {
        static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
    }
    STAGE.with_borrow_mut(|stage| {
        let stage = stage.get_or_insert_with(Stage::new);
        let mut source = Source { slices, offset: skipped };
        let mut position = range.start;
        while position < range.end {
            let begun = Instant::now();
            let step = pace.map_or(STAGE_BYTES, Pace::step_bytes);
            let bytes = (range.end - position).min(step as u64) as usize;
            let piece = &mut stage.bytes_mut()[..bytes];
            source.fill(piece);
            match file.write_all_at(piece, position) {
                Ok(()) => position += bytes as u64,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
                Err(error) => return Err(error),
            }
            if let Some(pace) = pace {
                pace.rest_after(begun);
            }
        }
        Ok(true)
    })
}

/// The bytes of slices, front to back.
struct Source<'a> {
    slices: &'a [IoSlice<'a>],
    /// Bytes to leave out at the front.
    offset: usize,
}

impl Source<'_> {
    fn fill(&mut self, mut out: &mut [u8]) {
        while let Some(slice) = self.slices.first()
            && !out.is_empty()
        {
            let rest = slice.get(self.offset..).unwrap_or_default();
            let taken = rest.len().min(out.len());
            out[..taken].copy_from_slice(&rest[..taken]);
            out = &mut out[taken..];
            if taken < rest.len() {
                self.offset += taken;
            } else {
                self.offset = self.offset.saturating_sub(slice.len());
                self.slices = &self.slices[1..];
            }
        }
        assert!(out.is_empty(), "a range lies within what is written");
    }
}

/// The time in which a file's writes go past the page cache. It has no other user meanwhile.
struct Direct<'a> {
    file: &'a File,
    flags: libc::c_int,
}

impl<'a> Direct<'a> {
    /// `None` where the file system has no such writes.
    fn begin(file: &'a File) -> Option<Self> {
        // SAFETY: no memory is passed; the descriptor is open for as long as `file` is borrowed.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
        let this = Self { file, flags };
        (flags >= 0 && this.set(flags | libc::O_DIRECT)).then_some(this)
    }

    fn set(&self, flags: libc::c_int) -> bool {
        // SAFETY: as above.
        unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETFL, flags) == 0 }
    }
}

impl Drop for Direct<'_> {
    fn drop(&mut self) {
        let has_ended = self.flags < 0 || self.set(self.flags);
        assert!(has_ended, "a flag that could be set can be taken back");
    }
}

/// Memory that a device can read from.
struct Stage {
    memory: NonNull<u8>,
}

const STAGE_LAYOUT: Layout = match Layout::from_size_align(STAGE_BYTES, BLOCK_BYTES) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two, and no overflow"),
};

impl Stage {
    fn new() -> Self {
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(STAGE_LAYOUT) };
        Self { memory: NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(STAGE_LAYOUT)) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the allocation has that many bytes, all of them set, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), STAGE_BYTES) }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and given back once.
        unsafe { dealloc(self.memory.as_ptr(), STAGE_LAYOUT) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::{Disk, OpenMode, StdDisk, read_file};

    #[test]
    fn only_whole_blocks_of_large_writes_go_past_the_page_cache() {
        assert_eq!(direct_range(0, DIRECT_BYTES_MIN - 1), None);
        assert_eq!(direct_range(0, DIRECT_BYTES_MIN), Some(0..DIRECT_BYTES_MIN));
        assert_eq!(direct_range(1, DIRECT_BYTES_MIN), None);
        let range = direct_range(5000, DIRECT_BYTES_MIN + 10_000);
        assert_eq!(range, Some(8192..DIRECT_BYTES_MIN + 12_288));
        assert_eq!(direct_range(10, 100), None);
    }

    #[test]
    fn writes_of_any_size_and_place_read_back_as_one_stream() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = StdDisk::default().open(&path, OpenMode::Write).unwrap();
        let mut expected = Vec::new();
        let sizes = [1, 4095, 300_000, 128 << 10, 7, 3 << 20, 4096, 200_001, 1 << 20];
        for (number, size) in sizes.into_iter().enumerate() {
            let content: Vec<u8> = (0..size).map(|at| (at * 7 + number) as u8).collect();
            // Cut into pieces of odd sizes, an empty one among them.
            let mut pieces: Vec<IoSlice<'_>> =
                content.chunks(61 + number * 9973).map(IoSlice::new).collect();
            pieces.insert(pieces.len() / 2, IoSlice::new(&[]));
            StdDisk::default().write_at(&file, expected.len() as u64, &pieces).unwrap();
            expected.extend_from_slice(&content);
            assert!(
                read_file(&StdDisk::default(), &path).unwrap() == expected,
                "after write {number}"
            );
        }
    }
}
