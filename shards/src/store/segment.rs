//! The arithmetic of one segment: where its log and its indexes stand, when an index entry is due,
//! when to roll. No IO.

use crate::format::record_batch::BatchHeader;
use crate::format::segment_index::{
    INDEX_INTERVAL_BYTES, OFFSET_ENTRY_BYTES, OffsetEntry, TIME_ENTRY_BYTES, TimeEntry,
};
use crate::machine::effect::SegmentMeta;
use crate::machine::input::PartitionConfig;
use crate::model::{Offset, TimestampMs};

/// Bound of an offset index. Source: Kafka's default of `segment.index.bytes`.
const INDEX_BYTES_MAX: u64 = 10 << 20;

/// Positions and relative offsets are 31 bits wide for Kafka.
pub const WIDTH_MAX: u64 = i32::MAX as u64;

/// A segment as it stands behind its last batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Names the files.
    pub base_offset: Offset,
    /// The next batch's base offset.
    pub end_offset: Offset,
    /// Bytes of the log.
    pub bytes: u64,
    /// Bytes of the offset index.
    pub index_bytes: u64,
    /// Bytes of the time index.
    pub time_index_bytes: u64,
    /// When the first batch was appended.
    pub created: TimestampMs,
    /// Largest timestamp of a record so far.
    max_timestamp: TimestampMs,
    /// Last offset, relative, of the first batch that has it.
    max_timestamp_at: u32,
    /// Timestamp of the last time index entry.
    indexed_timestamp: TimestampMs,
    /// Log bytes since the batch of the last index entry, that batch included.
    since_entry: u64,
}

/// Index entries that fall due with a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DueEntries {
    /// For the offset index.
    pub offset: Option<OffsetEntry>,
    /// For the time index.
    pub time: Option<TimeEntry>,
}

impl Segment {
    /// An empty segment that begins at `base_offset`.
    #[must_use]
    pub const fn new(base_offset: Offset, created: TimestampMs) -> Self {
        Self {
            base_offset,
            end_offset: base_offset,
            bytes: 0,
            index_bytes: 0,
            time_index_bytes: 0,
            created,
            max_timestamp: TimestampMs::NONE,
            max_timestamp_at: 0,
            indexed_timestamp: TimestampMs::NONE,
            since_entry: 0,
        }
    }

    /// The segment as it stood when `entry` was about to be added for the batch at its position:
    /// a place from which it can be read again. `index_bytes` and `time_index_bytes` include the
    /// entries added then; `time` is the last of the time index.
    #[must_use]
    pub fn resume(
        base_offset: Offset,
        batch: &BatchHeader,
        entry: OffsetEntry,
        time: Option<TimeEntry>,
        index_bytes: u64,
        time_index_bytes: u64,
    ) -> Self {
        let max_timestamp = time.map_or(TimestampMs::NONE, |time| time.timestamp);
        Self {
            end_offset: batch.end_offset(),
            bytes: u64::from(entry.position) + batch.total_bytes as u64,
            index_bytes,
            time_index_bytes,
            max_timestamp,
            max_timestamp_at: time.map_or(0, |time| time.relative_offset),
            indexed_timestamp: max_timestamp,
            since_entry: batch.total_bytes as u64,
            ..Self::new(base_offset, TimestampMs::NONE)
        }
    }

    /// What lies below `offset` is nobody's, or was taken.
    ///
    /// # Panics
    /// When it was taken already and more.
    pub fn skip_to(&mut self, offset: Offset) {
        assert!(offset >= self.end_offset, "{offset} is behind {}", self.end_offset);
        self.end_offset = offset;
    }

    /// Takes the next batch; says which index entries it brings.
    ///
    /// # Panics
    /// When the batch does not continue the segment or does not fit it.
    pub fn push(&mut self, batch: &BatchHeader, now: TimestampMs) -> DueEntries {
        assert_eq!(batch.base_offset, self.end_offset, "batches are contiguous");
        assert!(self.fits(batch), "a batch at {} does not fit", batch.base_offset);
        if self.bytes == 0 {
            self.created = now;
        }
        let relative_offset = self.relative(batch.last_offset());
        if batch.newest_record() > self.max_timestamp {
            self.max_timestamp = batch.newest_record();
            self.max_timestamp_at = relative_offset;
        }
        let mut due = DueEntries::default();
        if self.since_entry > INDEX_INTERVAL_BYTES {
            let position = self.bytes as u32;
            due.offset = Some(OffsetEntry { relative_offset, position });
            self.index_bytes += OFFSET_ENTRY_BYTES as u64;
            due.time = self.time_entry();
            self.since_entry = 0;
        }
        self.bytes += batch.total_bytes as u64;
        self.since_entry += batch.total_bytes as u64;
        self.end_offset = batch.end_offset();
        due
    }

    /// The last time index entry, due when the segment is closed; counts it as written.
    pub fn seal(&mut self) -> Option<TimeEntry> {
        self.time_entry()
    }

    /// Both indexes have been emptied. They go on with what comes next; the first time entry then speaks for everything before it.
    pub fn forget_entries(&mut self) {
        self.index_bytes = 0;
        self.time_index_bytes = 0;
        self.indexed_timestamp = TimestampMs::NONE;
        self.since_entry = self.bytes;
    }

    fn time_entry(&mut self) -> Option<TimeEntry> {
        if self.max_timestamp <= self.indexed_timestamp {
            return None;
        }
        self.indexed_timestamp = self.max_timestamp;
        self.time_index_bytes += TIME_ENTRY_BYTES as u64;
        let relative_offset = self.max_timestamp_at;
        Some(TimeEntry { timestamp: self.max_timestamp, relative_offset })
    }

    fn relative(&self, offset: Offset) -> u32 {
        u32::try_from(offset.since(self.base_offset)).expect("checked by `fits`")
    }

    /// Whether a batch's offsets and place can be named by the indexes.
    fn fits(&self, batch: &BatchHeader) -> bool {
        let relative = batch.last_offset().since(self.base_offset);
        u64::try_from(relative).is_ok_and(|relative| relative <= WIDTH_MAX)
            && self.bytes + batch.total_bytes as u64 <= WIDTH_MAX
    }

    /// Whether the next batch belongs to a new segment.
    #[must_use]
    pub fn should_roll(
        &self,
        batch: &BatchHeader,
        config: &PartitionConfig,
        now: TimestampMs,
    ) -> bool {
        self.bytes > 0
            && (self.bytes + batch.total_bytes as u64 > config.segment_bytes
                || now.0.saturating_sub(self.created.0) >= config.segment_ms
                || self.index_bytes + OFFSET_ENTRY_BYTES as u64 > INDEX_BYTES_MAX
                || !self.fits(batch))
    }

    /// As others see it.
    #[must_use]
    pub const fn meta(&self) -> SegmentMeta {
        SegmentMeta {
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            bytes: self.bytes,
            max_timestamp: self.max_timestamp,
            created: self.created,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::sample_batch::SampleBatch;

    const NOW: TimestampMs = TimestampMs(1_000_000);

    fn header(base_offset: i64, bytes: usize, timestamp: i64) -> BatchHeader {
        let timestamp = TimestampMs(timestamp);
        let batch = SampleBatch { records: 2, timestamp, ..SampleBatch::default() };
        BatchHeader { total_bytes: bytes, ..batch.at(base_offset, 0).header }
    }

    #[test]
    fn an_entry_is_due_with_the_batch_after_more_than_an_interval() {
        let mut segment = Segment::new(Offset(100), NOW);
        assert_eq!(segment.push(&header(100, 4096, 5), NOW), DueEntries::default());
        assert_eq!(segment.push(&header(102, 100, 5), NOW), DueEntries::default());
        let due = segment.push(&header(104, 200, 4), NOW);
        assert_eq!(due.offset, Some(OffsetEntry { relative_offset: 5, position: 4196 }));
        let time = TimeEntry { timestamp: TimestampMs(5), relative_offset: 1 };
        assert_eq!(due.time, Some(time));
        segment.push(&header(106, 4000, 5), NOW);
        let due = segment.push(&header(108, 100, 5), NOW);
        assert_eq!(due.offset, Some(OffsetEntry { relative_offset: 9, position: 8396 }));
        assert_eq!(due.time, None, "no larger timestamp came");
        assert_eq!((segment.index_bytes, segment.time_index_bytes), (16, 12));
    }

    #[test]
    fn times_are_those_of_records_that_are_there() {
        let mut segment = Segment::new(Offset(0), NOW);
        segment.push(&header(0, 100, 7), NOW);
        segment.push(&BatchHeader { record_count: 0, ..header(2, 100, 9) }, NOW);
        let time = TimeEntry { timestamp: TimestampMs(7), relative_offset: 1 };
        assert_eq!(segment.seal(), Some(time));
        assert_eq!(segment.meta().max_timestamp, TimestampMs(7));
    }

    #[test]
    fn sealing_indexes_the_largest_timestamp_once() {
        let mut segment = Segment::new(Offset(0), NOW);
        segment.push(&header(0, 100, 7), NOW);
        segment.push(&header(2, 100, 9), NOW);
        let time = TimeEntry { timestamp: TimestampMs(9), relative_offset: 3 };
        assert_eq!(segment.seal(), Some(time));
        assert_eq!(segment.seal(), None);
        let mut timeless = Segment::new(Offset(0), NOW);
        timeless.push(&header(0, 100, -1), NOW);
        assert_eq!(timeless.seal(), None);
    }

    #[test]
    fn rolls_by_size_age_index_and_width_but_never_when_empty() {
        let config = PartitionConfig { segment_bytes: 1000, segment_ms: 50, ..Default::default() };
        let empty = Segment::new(Offset(0), TimestampMs(0));
        assert!(!empty.should_roll(&header(0, 5000, 1), &config, NOW));
        let mut segment = empty;
        segment.push(&header(0, 900, 1), NOW);
        assert!(!segment.should_roll(&header(2, 100, 1), &config, NOW));
        assert!(segment.should_roll(&header(2, 101, 1), &config, NOW));
        let later = TimestampMs(NOW.0 + 50);
        assert!(segment.should_roll(&header(2, 1, 1), &config, later));
        let far = i64::from(i32::MAX);
        assert!(segment.should_roll(&header(far, 100, 1), &config, NOW));
        assert!(!segment.should_roll(&header(far - 1, 100, 1), &config, NOW));
        let full = Segment { index_bytes: INDEX_BYTES_MAX, ..segment };
        assert!(full.should_roll(&header(2, 100, 1), &config, NOW));
        let wide = Segment { bytes: WIDTH_MAX - 50, ..segment };
        let config = PartitionConfig { segment_bytes: u64::MAX, ..config };
        assert!(wide.should_roll(&header(2, 100, 1), &config, NOW));
    }

    #[test]
    fn resuming_at_an_entry_gives_the_state_behind_its_batch() {
        let mut segment = Segment::new(Offset(0), NOW);
        segment.push(&header(0, 5000, 7), NOW);
        let batch = header(2, 100, 9);
        let due = segment.push(&batch, NOW);
        let entry = due.offset.unwrap();
        let resumed = Segment::resume(Offset(0), &batch, entry, due.time, 8, 12);
        assert_eq!(Segment { created: NOW, ..resumed }, segment);
    }
}
