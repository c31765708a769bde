//! What goes into a link's next frame, and in which order.

use std::collections::VecDeque;

use super::{InFlight, Link, LinkState, READS_MAX, StreamState, cost};
use crate::format::peer_frame::{Append, HEADER_BYTES, PeerFrame, StreamId, StreamPosition};
use crate::format::record_batch::StoredBatch;
use crate::machine::partitions::{Partitions, Slot};
use crate::machine::replication::{LogRead, PeerLimits};
use crate::model::{MonotonicMicros, Offset};

impl Link {
    /// The next frame, or what has to be read for one.
    pub(in crate::machine) fn next_frame(
        &mut self,
        now: MonotonicMicros,
        limits: &PeerLimits,
        partitions: &Partitions,
        reads: &mut Vec<LogRead>,
    ) -> Option<PeerFrame> {
        self.is_signalled = false;
        if matches!(self.state, LinkState::Down { .. } | LinkState::Connecting) {
            return None;
        }
        if let Some(frame) = self.control.pop_front() {
            self.sent_at = now;
            return Some(frame);
        }
        if !self.is_up() {
            return None;
        }
        if self.in_flight.len() < limits.frames_in_flight_max {
            let batches = self.next_batches(limits, partitions, reads);
            let is_news_due = self.news_due(limits).is_some_and(|at| at <= now);
            if !batches.is_empty() || is_news_due {
                let positions = self.take_news(partitions);
                return Some(self.append(now, positions, batches));
            }
        }
        if self.heartbeat_at(limits) <= now {
            self.sent_at = now;
            return Some(PeerFrame::Heartbeat);
        }
        None
    }

    fn append(
        &mut self,
        now: MonotonicMicros,
        positions: Vec<StreamPosition>,
        batches: Vec<(StreamId, StoredBatch)>,
    ) -> PeerFrame {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let mut ends: Vec<(StreamId, Offset)> = Vec::new();
        for (stream, batch) in &batches {
            match ends.last_mut() {
                Some((last, end)) if last == stream => *end = batch.end_offset(),
                Some(_) | None => ends.push((*stream, batch.end_offset())),
            }
        }
        let append = Append { sequence, positions, batches };
        let bytes = append.frame_bytes() as u64;
        self.in_flight.push_back(InFlight { sequence, bytes, sent_at: now, ends });
        self.in_flight_bytes += bytes;
        self.sent_at = now;
        PeerFrame::Append(append)
    }

    /// What was read first, then live records, then what memory has for those behind.
    fn next_batches(
        &mut self,
        limits: &PeerLimits,
        partitions: &Partitions,
        reads: &mut Vec<LogRead>,
    ) -> Vec<(StreamId, StoredBatch)> {
        // A stream may be live by now, with what was read for it still waiting here.
        if let Some(first) = self.read.front() {
            if !self.has_room(limits, cost(first)) {
                return Vec::new();
            }
            return take_frame(&mut self.read, limits.frame_bytes_max);
        }
        let group = take_frame(&mut self.group, limits.frame_bytes_max);
        if !group.is_empty() {
            self.group_bytes -= group.iter().map(cost).sum::<u64>();
            return group;
        }
        for _ in 0..self.behind.len() {
            if !self.may_catch_up(limits) {
                break;
            }
            let Some(stream) = self.behind.pop_front() else { break };
            let batches = self.catch_up(stream, limits, partitions, reads);
            if !batches.is_empty() {
                return batches;
            }
        }
        Vec::new()
    }

    /// The next piece of a stream that is behind. At the log's end it is live.
    fn catch_up(
        &mut self,
        stream: StreamId,
        limits: &PeerLimits,
        partitions: &Partitions,
        reads: &mut Vec<LogRead>,
    ) -> Vec<(StreamId, StoredBatch)> {
        let Some(found) = self.streams.get_mut(&stream) else { return Vec::new() };
        let StreamState::Behind { next_offset, is_reading: false } = found.state else {
            return Vec::new();
        };
        let Some(partition) = partitions.get(found.slot) else { return Vec::new() };
        if next_offset >= partition.log_end_offset {
            found.state = StreamState::Live { next_offset };
            return Vec::new();
        }
        let bytes_max = limits.frame_bytes_max;
        let first_cached = partition.tail.first_offset().unwrap_or(partition.segments_end);
        if next_offset < first_cached {
            if self.reads_under_way >= READS_MAX {
                self.behind.push_back(stream);
                return Vec::new();
            }
            self.reads_under_way += 1;
            found.state = StreamState::Behind { next_offset, is_reading: true };
            let (connection, key, end) = (self.connection, found.key, first_cached);
            reads.push(LogRead { connection, stream, key, offset: next_offset, end, bytes_max });
            return Vec::new();
        }
        let first_bytes =
            partition.tail.from(next_offset).next().map_or(0, StoredBatch::total_bytes);
        let first = partition.tail.from(next_offset).next().map(|first| first.header.base_offset);
        if let Some(border) = first.filter(|border| *border < next_offset) {
            self.begin_at_border(stream, border);
            return Vec::new();
        }
        if !self.has_room(limits, first_bytes as u64) {
            self.behind.push_back(stream);
            return Vec::new();
        }
        let mut batches = Vec::new();
        let mut bytes = 0;
        let mut end = next_offset;
        for batch in partition.tail.from(next_offset) {
            if !batches.is_empty() && bytes + batch.total_bytes() > bytes_max {
                break;
            }
            bytes += batch.total_bytes();
            end = batch.end_offset();
            batches.push((stream, batch.clone()));
        }
        self.went_to(stream, end, partition.log_end_offset);
        batches
    }

    /// A stream that was behind is sent up to `end`.
    fn went_to(&mut self, stream: StreamId, end: Offset, log_end: Offset) {
        let Some(found) = self.streams.get_mut(&stream) else { return };
        if end >= log_end {
            found.state = StreamState::Live { next_offset: end };
        } else {
            found.state = StreamState::Behind { next_offset: end, is_reading: false };
            self.behind.push_back(stream);
        }
    }

    /// Segments were read. Nothing at all means that what was wanted is gone: the histories are to be compared anew.
    pub(in crate::machine) fn log_read(
        &mut self,
        stream: StreamId,
        batches: Vec<StoredBatch>,
        log_end: Offset,
    ) -> Result<(), Slot> {
        self.reads_under_way = self.reads_under_way.saturating_sub(1);
        let Some(found) = self.streams.get(&stream) else { return Ok(()) };
        let StreamState::Behind { next_offset, is_reading: true } = found.state else {
            return Ok(());
        };
        let border = batches.first().map(|first| first.header.base_offset);
        if let Some(border) = border.filter(|border| *border < next_offset) {
            self.begin_at_border(stream, border);
            return Ok(());
        }
        let continues =
            batches.first().is_some_and(|first| first.header.base_offset == next_offset);
        let Some(end) = batches.last().map(StoredBatch::end_offset).filter(|_| continues) else {
            return Err(found.slot);
        };
        self.read.extend(batches.into_iter().map(|batch| (stream, batch)));
        self.went_to(stream, end, log_end);
        Ok(())
    }

    fn take_news(&mut self, partitions: &Partitions) -> Vec<StreamPosition> {
        self.news_since = None;
        let mut positions = Vec::with_capacity(self.news.len());
        for stream in self.news.drain(..) {
            let Some(found) = self.streams.get_mut(&stream) else { continue };
            found.has_news = false;
            let Some(partition) = partitions.get(found.slot) else { continue };
            positions.push(StreamPosition {
                stream,
                high_watermark: partition.high_watermark,
                log_start_offset: partition.log_start_offset,
            });
        }
        positions
    }
}

/// As many batches as one frame takes, at least one.
fn take_frame(
    queue: &mut VecDeque<(StreamId, StoredBatch)>,
    frame_bytes_max: usize,
) -> Vec<(StreamId, StoredBatch)> {
    let mut bytes = HEADER_BYTES as u64;
    let mut count = 0;
    for entry in queue.iter() {
        bytes += cost(entry);
        if count > 0 && bytes > frame_bytes_max as u64 {
            break;
        }
        count += 1;
    }
    queue.drain(..count).collect()
}
