//! One partition: what its segments hold against what they must hold. Nothing is written here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::Damage;
use super::replay::Overlay;
use super::scan::{self, Listed, Scanned, Wanted};
use crate::format::cleaner_checkpoint::{self, CleanerCheckpoint, SWAP_FILE_NAME};
use crate::format::positions::PartitionCheckpoint;
use crate::format::record_batch::BatchHeader;
use crate::format::{epoch_checkpoint, producer_snapshot};
use crate::machine::effect::SegmentMeta;
use crate::machine::input::PartitionConfig;
use crate::model::{LeaderEpoch, Offset, ReplicaKey};
use crate::store::compaction::{complete, read_checkpoint};
use crate::store::disk::{Disk, read_file};
use crate::store::paths::{SegmentFile, segment_file};
use crate::store::producers::ProducerTable;

/// A partition that has to be looked at.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Identity.
    pub key: ReplicaKey,
    /// Names the directory.
    pub topic_name: String,
    /// When to roll.
    pub config: PartitionConfig,
    /// Whether the metadata names it.
    pub known: bool,
    /// Where its files are, or will be.
    pub dir: PathBuf,
    /// Whether the directory is there.
    pub found: bool,
    /// Where it stood.
    pub checkpoint: Option<PartitionCheckpoint>,
    /// Where it stood may have been in a checkpoint that cannot be read.
    pub lacks_checkpoint: bool,
    /// What the WAL says.
    pub overlay: Overlay,
}

impl Subject {
    /// The end of segments of which all is durable, by the checkpoint, and nothing is touched by the WAL.
    pub fn proven_end(&self) -> Option<Offset> {
        let overlay = &self.overlay;
        let is_untouched = overlay.batches.is_empty()
            && overlay.flushed.is_none()
            && overlay.cut.is_none()
            && !overlay.wiped;
        let checkpoint = self.checkpoint.as_ref().filter(|_| is_untouched && self.found);
        checkpoint.map(|checkpoint| checkpoint.flushed_end)
    }

    /// What segments hold below is durable by the checkpoint, as far as that is not of another partition or log.
    pub fn checkpointed_end(&self) -> Option<Offset> {
        let checkpoint = self.checkpoint.as_ref().filter(|_| !self.overlay.voids_checkpoint())?;
        let cut = self.overlay.lowest_cut.unwrap_or(checkpoint.flushed_end);
        Some(checkpoint.flushed_end.min(cut))
    }

    /// What segments hold below is durable by the checkpoint, or in the WAL.
    pub fn covered_end(&self) -> Offset {
        let flushed = self.checkpointed_end();
        flushed.max(self.overlay.flushed).max(self.overlay.end_offset()).unwrap_or_default()
    }
}

/// What was found, and what will become of it.
#[derive(Debug)]
pub struct Inspection {
    /// The partition.
    pub subject: Subject,
    /// Acknowledged records that are not there.
    pub damages: Vec<Damage>,
    /// The files of the directory.
    pub(super) names: Vec<String>,
    /// Segments below everything in doubt.
    pub(super) sealed: Vec<SegmentMeta>,
    /// Segments that were read.
    pub(super) scanned: Vec<(Listed, Scanned)>,
    /// Segments end here, at the border of a batch; what lies behind is void.
    pub(super) keep_end: Offset,
    /// No segment is worth keeping: the log begins anew at `keep_end`.
    pub(super) restart: bool,
    /// The batches of the WAL from this one on are appended.
    pub(super) append_from: usize,
    /// First offset there will be.
    pub(super) log_start: Offset,
    /// Up to the first batch that is in doubt.
    pub(super) history: History,
    /// How far the log is compacted, by its own word; a cut may have made less of it.
    pub(super) cleaner: CleanerCheckpoint,
}

/// Leader epochs and producers as of some offset.
#[derive(Clone, Debug)]
pub(super) struct History {
    from: Offset,
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    pub(super) producers: ProducerTable,
}

impl History {
    /// Takes the next batch.
    pub(super) fn observe(&mut self, header: &BatchHeader) {
        // A snapshot of the producers says nothing of the epochs before it.
        if self.epochs.last().is_none_or(|(epoch, _)| *epoch < header.leader_epoch) {
            self.epochs.push((header.leader_epoch, header.base_offset));
        }
        if header.base_offset >= self.from {
            self.producers.observe(header);
        }
    }

    /// Forgets what lies at `end` and behind.
    pub(super) fn cut(&mut self, end: Offset) {
        // Epochs may come from a file that is younger than everything else.
        self.epochs.retain(|(_, start)| *start < end);
        if end >= self.from {
            return;
        }
        let mut producers = self.producers.to_checkpoint();
        for producer in &mut producers {
            producer.batches.retain(|batch| batch.last_offset < end);
        }
        self.producers = ProducerTable::from_checkpoint(&producers);
        self.from = end;
    }
}

/// Looks at a partition. Changes nothing.
pub fn inspect<D: Disk>(disk: &D, mut subject: Subject) -> io::Result<Inspection> {
    let (mut names, mut listed) =
        if subject.found { list(disk, &subject.dir)? } else { Default::default() };
    let mut damage = None;
    if names.iter().any(|name| name == SWAP_FILE_NAME) {
        // The one thing that is done before all is known to be well: it was decided, and nothing else can be read before.
        damage = complete_swap(disk, &subject.dir)?;
        (names, listed) = list(disk, &subject.dir)?;
    }
    let mut cleaner = CleanerCheckpoint::default();
    if !subject.overlay.wiped && names.iter().any(|name| name == cleaner_checkpoint::FILE_NAME) {
        cleaner = read_checkpoint(disk, &subject.dir)?;
        // What was compacted was durable in segments before. The WAL may still have it, from before that.
        let known = cleaner.cut(subject.overlay.lowest_cut.unwrap_or(cleaner.holes_end));
        let is_there = listed.last().is_some_and(|last| last.base_offset >= known.holes_end);
        if is_there {
            subject.overlay.batches.retain(|batch| batch.end_offset() > known.holes_end);
        }
    }
    let checkpoint = subject.checkpoint.as_ref().filter(|_| !subject.overlay.voids_checkpoint());
    let checkpointed = subject.checkpointed_end();
    let flushed = checkpointed.max(subject.overlay.flushed);
    let own_start = checkpoint.map(|checkpoint| checkpoint.log_start_offset);
    let log_start = own_start.max(subject.overlay.log_start);
    // What lies below the log start may have been removed in part.
    // But not beyond the checkpoint: the producers of what follows are known from there only.
    let start = log_start.min(checkpointed).unwrap_or_default();
    let needless = listed.partition_point(|segment| segment.base_offset <= start);
    listed.drain(..needless.saturating_sub(1));
    // Of a run that nobody was told of yet, later segments may have become durable and the first one not.
    let begin = log_start.unwrap_or_default();
    let begins_late = listed.first().is_some_and(|first| first.base_offset > begin);
    let is_claimed = flushed.is_some_and(|flushed| flushed > begin);
    if log_start.is_some() && begins_late && !is_claimed && !subject.overlay.covers(begin) {
        listed.clear();
    }
    let mut history = history(disk, &subject, checkpoint, &listed)?;
    // The checkpoint may be older than a cut that the segments have followed already, with other records behind it.
    if let Some(cut) = subject.overlay.lowest_cut {
        history.cut(cut);
    }
    let mut found = Inspection {
        damages: Vec::new(),
        names,
        sealed: Vec::new(),
        scanned: Vec::new(),
        keep_end: Offset::ZERO,
        restart: subject.overlay.wiped || listed.is_empty(),
        append_from: 0,
        log_start: log_start.unwrap_or_default(),
        history,
        cleaner,
        subject,
    };
    if let Some(what) = damage {
        found.damage((found.log_start, flushed.unwrap_or(found.log_start)), what);
    }
    let mut end = flushed.unwrap_or_default().max(found.log_start);
    if found.restart {
        let lost = flushed.filter(|flushed| *flushed > found.log_start);
        if let Some(flushed) = lost.filter(|_| !found.subject.overlay.covers(found.log_start)) {
            found.damage((found.log_start, flushed), "no segment is there".to_owned());
            found.log_start = flushed;
        } else if found.subject.overlay.wiped || lost.is_some() {
            end = found.log_start;
        }
    } else {
        let stop = found.read_segments(disk, &listed, checkpointed)?;
        end = found.segments_end();
        if let Some(cut) = found.interrupted_cut(end) {
            end = cut;
        }
        found.judge_start(&listed, log_start);
        found.judge_end(end, flushed, stop);
    }
    found.match_wal(end, flushed);
    if found.keep_end < found.log_start && found.append_from == found.subject.overlay.batches.len()
    {
        found.restart_at(found.log_start);
    }
    Ok(found)
}

impl Inspection {
    fn damage(&mut self, offsets: (Offset, Offset), what: String) {
        let what = format!("{}: {what}", self.subject.dir.display());
        let key = Some(self.subject.key);
        self.damages.push(Damage { key, topic_name: None, offsets: Some(offsets), what });
    }

    fn restart_at(&mut self, offset: Offset) {
        self.restart = true;
        self.sealed.clear();
        self.scanned.clear();
        self.keep_end = offset;
    }

    /// Where the segments that verify end.
    fn segments_end(&self) -> Offset {
        let sealed = self.sealed.last().map(|sealed| sealed.end_offset);
        let scanned = self.scanned.last().map(|(_, scanned)| scanned.end_offset);
        sealed.max(scanned).unwrap_or_default()
    }

    /// Where the log is to be cut, if nothing but a batch without records lay between that and `end`: the crash came while
    /// another one was written that says so up to the cut.
    fn interrupted_cut(&self, end: Offset) -> Option<Offset> {
        let overlay = &self.subject.overlay;
        let is_torn = self.scanned.last().is_some_and(|(_, scanned)| scanned.ends_in_emptiness);
        let is_hole = |cut: Offset| is_torn || cut <= self.cleaner.holes_end;
        // What one batch cannot name was none.
        let is_near = |cut: Offset| i32::try_from(cut.since(end)).is_ok();
        let cut = overlay.cut.filter(|cut| *cut > end && !overlay.covers(end));
        cut.filter(|cut| is_hole(*cut) && is_near(*cut))
    }

    /// Takes the segments one after the other until one does not continue the last; says why.
    fn read_segments<D: Disk>(
        &mut self,
        disk: &D,
        listed: &[Listed],
        checkpointed: Option<Offset>,
    ) -> io::Result<Option<String>> {
        let overlay = &self.subject.overlay;
        let first = overlay.batches.first().map(|batch| batch.header.base_offset);
        let keep_from = first.into_iter().chain(overlay.cut).min().unwrap_or(Offset(i64::MAX));
        let last = listed.last().map_or(Offset::ZERO, |last| last.base_offset);
        // Of a partition that no checkpoint has spoken of, nothing but what the WAL says is durable.
        let trusted = if self.subject.lacks_checkpoint { last } else { Offset::ZERO };
        let doubtful = checkpointed.unwrap_or(trusted).min(keep_from);
        let doubtful = overlay.lowest_cut.map_or(doubtful, |cut| cut.min(doubtful));
        let holes_end = self.cleaner.holes_end;
        let wanted = Wanted { trust_below: checkpointed.unwrap_or_default(), keep_from, holes_end };
        let mut end: Option<Offset> = None;
        for (index, segment) in listed.iter().enumerate() {
            if let Some(end) = end.filter(|end| *end != segment.base_offset) {
                return Ok(Some(format!(
                    "segment {} follows where {end} was due",
                    segment.base_offset
                )));
            }
            let next = listed.get(index + 1).map(|next| next.base_offset);
            // A segment that ends just where the doubt begins may have been closed behind the last
            // sync: its last index entry is in doubt.
            if let Some(next) = next.filter(|next| *next < doubtful)
                && let Some(max_timestamp) =
                    scan::sealed_max_timestamp(disk, &self.subject.dir, segment, next)?
            {
                self.sealed.push(SegmentMeta {
                    base_offset: segment.base_offset,
                    end_offset: next,
                    bytes: segment.bytes,
                    max_timestamp,
                    created: max_timestamp,
                });
                end = Some(next);
                continue;
            }
            let history = &mut self.history;
            let observe = |header: &BatchHeader| {
                if header.end_offset() <= keep_from {
                    history.observe(header);
                }
            };
            let mut scanned = scan::scan(disk, &self.subject.dir, segment, wanted, observe)?;
            let stop = scanned.stop.clone();
            let next = next.filter(|next| *next > scanned.end_offset && *next <= holes_end);
            if let Some(next) = next.filter(|_| stop.is_none()) {
                scanned.end_offset = next;
            }
            end = Some(scanned.end_offset);
            let position = scanned.end_position;
            self.scanned.push((*segment, scanned));
            if let Some(stop) = stop {
                let base = segment.base_offset;
                return Ok(Some(format!("segment {base} at byte {position}: {stop}")));
            }
        }
        Ok(None)
    }

    fn judge_start(&mut self, listed: &[Listed], log_start: Option<Offset>) {
        let first = listed.first().map_or(Offset::ZERO, |first| first.base_offset);
        match log_start {
            Some(start) if first > start && !self.subject.overlay.covers(start) => {
                self.damage((start, first), "segments are missing".to_owned());
                self.log_start = first;
            }
            Some(_) => {}
            // Nothing was ever checkpointed: the WAL may have what lies before the segments that
            // became durable.
            None => {
                let batches = &self.subject.overlay.batches;
                let logged = batches.first().map(|batch| batch.header.base_offset);
                self.log_start = logged.map_or(first, |logged| logged.min(first));
            }
        }
    }

    /// What the WAL does not have was synced: if segments do not have it either, it is lost.
    fn judge_end(&mut self, end: Offset, flushed: Option<Offset>, stop: Option<String>) {
        if self.subject.overlay.covers(end) {
            return;
        }
        match flushed {
            Some(flushed) if end < flushed && flushed > self.log_start => {
                let what = stop.unwrap_or_else(|| "the log ends too early".to_owned());
                self.damage((end, flushed), what);
            }
            Some(_) => {}
            // Nobody was told of what lies here.
            None if !self.subject.lacks_checkpoint => {}
            None => {
                if let Some(stop) = stop {
                    let what = format!("{}: {stop}", self.subject.dir.display());
                    let key = Some(self.subject.key);
                    self.damages.push(Damage { key, topic_name: None, offsets: None, what });
                }
            }
        }
    }

    /// Compares what segments hold from the WAL's first batch on with the WAL. Below `flushed` they are durable.
    fn match_wal(&mut self, end: Offset, flushed: Option<Offset>) {
        self.keep_end = end;
        let overlay = &self.subject.overlay;
        let kept: Vec<BatchHeader> =
            self.scanned.iter().flat_map(|(_, scanned)| scanned.kept.iter().copied()).collect();
        let across = |offset: Offset| {
            let reaches = |header: &&BatchHeader| header.end_offset() > offset;
            kept.iter().find(reaches).filter(|header| header.base_offset < offset)
        };
        let Some(first) = overlay.batches.first().map(|batch| batch.header.base_offset) else {
            if let Some(cut) = overlay.cut.filter(|cut| *cut < end) {
                let records = across(cut).filter(|header| !header.is_empty_across(cut));
                self.keep_end = records.map_or(cut, |header| header.base_offset);
            }
            return;
        };
        let wal_end = overlay.end_offset().unwrap_or(first);
        if first > end {
            if first <= self.log_start || overlay.wiped {
                self.restart_at(first);
            } else {
                self.append_from = overlay.batches.len();
                self.damage((end, wal_end), format!("the WAL goes on at {first} only"));
            }
            return;
        }
        let begins = self.sealed.first().map(|sealed| sealed.base_offset);
        let begins = begins.or(self.scanned.first().map(|(listed, _)| listed.base_offset));
        if begins.is_none_or(|begins| first < begins) {
            // Earlier segments never became durable; the WAL has it all, but for a run of which nobody was told
            // yet.
            let is_claimed = flushed.is_some_and(|flushed| flushed > wal_end);
            if !self.restart && is_claimed && overlay.cut.is_none() {
                self.damage((wal_end, end), "segments begin too late".to_owned());
            }
            self.restart_at(first);
            return;
        }
        let at = kept.partition_point(|header| header.base_offset < first);
        let found = kept.get(at).map_or(end, |header| header.base_offset);
        let aligned = match across(first) {
            Some(header) => header.is_empty_across(first),
            None => found == first || found > first && first <= self.cleaner.holes_end,
        };
        if !aligned {
            self.append_from = overlay.batches.len();
            self.damage((first, wal_end), "segments and WAL disagree on batches".to_owned());
            return;
        }
        let pairs = kept[at..].iter().zip(&overlay.batches);
        let same = pairs.take_while(|(found, batch)| **found == batch.header).count();
        self.append_from = same;
        if let Some(batch) = overlay.batches.get(same) {
            self.keep_end = batch.header.base_offset;
        } else if overlay.cut.is_some() {
            self.keep_end = wal_end;
        }
    }
}

/// Completes an exchange of segments that was decided. Returns what is wrong with what says so.
fn complete_swap<D: Disk>(disk: &D, dir: &Path) -> io::Result<Option<String>> {
    let content = read_file(disk, &dir.join(SWAP_FILE_NAME))?;
    match str::from_utf8(&content).ok().and_then(cleaner_checkpoint::decode_swap) {
        Some(swap) => complete(disk, dir, swap).map(|()| None),
        None => Ok(Some(format!(
            "{SWAP_FILE_NAME} cannot be read: nobody knows which segments it exchanges"
        ))),
    }
}

/// The names of the files, and the segments among them.
fn list<D: Disk>(disk: &D, dir: &Path) -> io::Result<(Vec<String>, Vec<Listed>)> {
    let mut files = BTreeMap::new();
    let mut names = Vec::new();
    for entry in disk.list(dir)? {
        if let Some(name) = SegmentFile::parse(&entry.name) {
            files.insert(name, entry.bytes);
        }
        if !entry.is_dir {
            names.push(entry.name);
        }
    }
    let listed = |((kind, base), bytes): (&(SegmentFile, Offset), &u64)| {
        (*kind == SegmentFile::Log).then(|| Listed {
            base_offset: *base,
            bytes: *bytes,
            index_bytes: files.get(&(SegmentFile::Index, *base)).copied(),
            time_index_bytes: files.get(&(SegmentFile::TimeIndex, *base)).copied(),
        })
    };
    Ok((names, files.iter().filter_map(listed).collect()))
}

/// Epochs and producers to begin with: the checkpoint's, else Kafka's files.
fn history<D: Disk>(
    disk: &D,
    subject: &Subject,
    checkpoint: Option<&PartitionCheckpoint>,
    listed: &[Listed],
) -> io::Result<History> {
    if let Some(checkpoint) = checkpoint {
        return Ok(History {
            from: checkpoint.flushed_end,
            epochs: checkpoint.epochs.clone(),
            producers: ProducerTable::from_checkpoint(&checkpoint.producers),
        });
    }
    let mut history =
        History { from: Offset::ZERO, epochs: Vec::new(), producers: ProducerTable::default() };
    // Without a directory of its own there may be one of the same name, of another topic.
    if subject.overlay.voids_checkpoint() || !subject.found {
        return Ok(history);
    }
    if let Ok(content) = read_file(disk, &subject.dir.join(epoch_checkpoint::FILE_NAME)) {
        let text = str::from_utf8(&content).ok();
        history.epochs = text.and_then(epoch_checkpoint::decode).unwrap_or_default();
    }
    // The newest one taken when a segment began: what is behind it is going to be read. Not beyond
    // the WAL's first batch: such a segment may be an earlier recovery's, that left no epochs yet.
    let first = subject.overlay.batches.first().map(|batch| batch.header.base_offset);
    let bases = listed.iter().rev().map(|listed| listed.base_offset);
    for base in bases.filter(|base| first.is_none_or(|first| *base <= first)) {
        let path = segment_file(&subject.dir, SegmentFile::Snapshot, base);
        if let Ok(content) = read_file(disk, &path)
            && let Ok(producers) = producer_snapshot::decode(&content)
        {
            history.producers = ProducerTable::from_checkpoint(&producers);
            history.from = base;
            break;
        }
    }
    Ok(history)
}
