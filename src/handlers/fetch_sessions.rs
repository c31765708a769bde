//! Incremental fetch sessions: what a client asked for before need not be said again. Source: KIP-227.
//!
//! A session lives on the shard of the connection that made it. A client that comes back on another
//! shard is told that its session is unknown and sends a full request, exactly as after an eviction.
//!
//! Invariants: at most `slots` sessions with at most [`PARTITIONS_MAX`] partitions together; a session's epoch
//! only grows (and wraps to 1); a partition
//! that had something to say moves behind those that had not, so that `max_bytes` starves none.
//!
//! Deliberately absent: time-outs. A session is dropped when its slot is wanted and it has been idle.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use chronik_protocol::{KafkaString, Uuid};
use chronik_shards::model::MonotonicMicros;

/// Request epoch that closes a session, or asks for none.
const FINAL_EPOCH: i32 = -1;
/// Request epoch that opens a session.
const INITIAL_EPOCH: i32 = 0;
/// A session younger than this is not evicted for another.
const EVICTABLE_AFTER_MICROS: u64 = 120 * 1_000_000;

/// Partitions of all sessions of a shard. A client with more is served without a session: it says every time
/// what it wants.
const PARTITIONS_MAX: usize = 200_000;

/// How a request names a topic: by id from version 13 on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TopicRef {
    /// Up to version 12.
    Name(KafkaString),
    /// From version 13.
    Id(Uuid),
}

impl TopicRef {
    /// The same reference in memory of its own: a session outlives the frame it was read from.
    fn detach(&self) -> Self {
        match self {
            Self::Name(name) => Self::Name(name.detach()),
            Self::Id(id) => Self::Id(*id),
        }
    }
}

/// What a client wants of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The topic.
    pub topic: TopicRef,
    /// The partition's index.
    pub partition: i32,
    /// First offset wanted.
    pub offset: i64,
    /// The leader epoch the client knows, −1 for none.
    pub current_leader_epoch: i32,
    /// Epoch of the client's last record, −1 for none.
    pub last_fetched_epoch: i32,
    /// At most this much of it.
    pub max_bytes: i32,
}

/// What was last said of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// Kafka's error code.
    pub error_code: i16,
    /// First offset not readable.
    pub high_watermark: i64,
    /// First offset there is.
    pub log_start_offset: i64,
}

/// Why a session cannot go on. The client answers with a full request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionError {
    /// Evicted, closed, or made on another shard.
    #[error("no such fetch session")]
    NotFound,
    /// A request was lost or repeated.
    #[error("the session is at another epoch")]
    InvalidEpoch,
    /// The session was opened with names and continued with ids, or the other way round.
    #[error("the session names topics another way")]
    TopicIdMismatch,
}

/// A fetch that may begin.
#[derive(Debug)]
pub struct Begun {
    /// What to answer as session id; 0 without a session.
    pub session_id: i32,
    /// Whether partitions without news are left out of the answer.
    pub incremental: bool,
    /// Everything to fetch, in order.
    pub wanted: Vec<Wanted>,
}

#[derive(Debug)]
struct Cached {
    wanted: Wanted,
    said: Option<Said>,
}

#[derive(Debug)]
struct Session {
    epoch: i32,
    last_used: MonotonicMicros,
    uses_ids: bool,
    /// By turn: the lowest is served first.
    partitions: BTreeMap<u64, Cached>,
    turns: HashMap<(TopicRef, i32), u64>,
    next_turn: u64,
}

impl Session {
    fn new(now: MonotonicMicros, uses_ids: bool) -> Self {
        Self {
            epoch: 1,
            last_used: now,
            uses_ids,
            partitions: BTreeMap::new(),
            turns: HashMap::new(),
            next_turn: 0,
        }
    }

    fn want(&mut self, wanted: &Wanted) {
        if let Some(turn) = self.turns.get(&(wanted.topic.clone(), wanted.partition)) {
            let cached = self.partitions.get_mut(turn).expect("a turn has its partition");
            let topic = cached.wanted.topic.clone();
            cached.wanted = Wanted { topic, ..wanted.clone() };
            return;
        }
        let topic = wanted.topic.detach();
        let wanted = Wanted { topic: topic.clone(), ..wanted.clone() };
        self.turns.insert((topic, wanted.partition), self.next_turn);
        self.partitions.insert(self.next_turn, Cached { wanted, said: None });
        self.next_turn += 1;
    }

    fn forget(&mut self, topic: &TopicRef, partition: i32) {
        if let Some(turn) = self.turns.remove(&(topic.clone(), partition)) {
            self.partitions.remove(&turn);
        }
    }

    fn move_behind(&mut self, topic: &TopicRef, partition: i32) {
        let turn = self.turns.get_mut(&(topic.clone(), partition)).expect("checked by the caller");
        let cached = self.partitions.remove(turn).expect("a turn has its partition");
        *turn = self.next_turn;
        self.partitions.insert(self.next_turn, cached);
        self.next_turn += 1;
    }

    fn all_wanted(&self) -> Vec<Wanted> {
        self.partitions.values().map(|cached| cached.wanted.clone()).collect()
    }
}

/// The sessions of one shard.
#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    /// Ids of this shard are congruent to its number modulo the number of shards.
    next_id: u32,
    id_step: u32,
    sessions: HashMap<i32, Session>,
    partitions_max: usize,
}

impl FetchSessions {
    /// No sessions yet, at most `slots` (0: none at all). `seed` keeps ids of an earlier process from matching.
    #[must_use]
    pub fn new(shard: u16, shards: u16, slots: usize, seed: u32) -> Self {
        let id_step = u32::from(shards.max(1));
        let next_id = (seed >> 2) / id_step * id_step + u32::from(shard);
        let (sessions, partitions_max) = (HashMap::new(), PARTITIONS_MAX);
        Self { slots, next_id, id_step, sessions, partitions_max }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Applies a request's session fields and says what to fetch.
    pub fn begin(
        &mut self,
        now: MonotonicMicros,
        session_id: i32,
        epoch: i32,
        uses_ids: bool,
        wanted: Vec<Wanted>,
        forgotten: &[(TopicRef, i32)],
    ) -> Result<Begun, SessionError> {
        if epoch == FINAL_EPOCH || epoch == INITIAL_EPOCH {
            self.sessions.remove(&session_id);
            let session_id = match epoch {
                INITIAL_EPOCH => self.open(now, uses_ids, &wanted),
                _ => 0,
            };
            return Ok(Begun { session_id, incremental: false, wanted });
        }
        let session = self.sessions.get_mut(&session_id).ok_or(SessionError::NotFound)?;
        if session.epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if session.uses_ids != uses_ids {
            return Err(SessionError::TopicIdMismatch);
        }
        session.epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
        session.last_used = now;
        for (topic, partition) in forgotten {
            session.forget(topic, *partition);
        }
        let before = session.partitions.len();
        for partition in &wanted {
            session.want(partition);
        }
        let (has_grown, wanted) = (session.partitions.len() > before, session.all_wanted());
        if has_grown && self.partition_count() > self.partitions_max {
            // The client says anew what it wants, and gets no session for it.
            self.sessions.remove(&session_id);
            return Err(SessionError::NotFound);
        }
        Ok(Begun { session_id, incremental: true, wanted })
    }

    /// Notes what is about to be said of a partition, and whether it must be said: always in a full
    /// answer, otherwise when it carries records or differs from last time.
    pub fn say(&mut self, begun: &Begun, wanted: &Wanted, said: Said, has_records: bool) -> bool {
        let Some(session) = self.sessions.get_mut(&begun.session_id) else { return true };
        let key = (wanted.topic.clone(), wanted.partition);
        let Some(turn) = session.turns.get(&key) else { return true };
        let cached = session.partitions.get_mut(turn).expect("a turn has its partition");
        let changed = cached.said != Some(said) || said.error_code != 0;
        // An error is repeated until it is gone, so it is not remembered as said.
        cached.said = (said.error_code == 0).then_some(said);
        if has_records {
            session.move_behind(&wanted.topic, wanted.partition);
        }
        !begun.incremental || changed || has_records
    }

    fn partition_count(&self) -> usize {
        self.sessions.values().map(|session| session.partitions.len()).sum()
    }

    fn open(&mut self, now: MonotonicMicros, uses_ids: bool, wanted: &[Wanted]) -> i32 {
        if self.sessions.len() >= self.slots && !self.evict(now) {
            return 0;
        }
        if self.partition_count() + wanted.len() > self.partitions_max {
            return 0;
        }
        let id = self.fresh_id();
        let mut session = Session::new(now, uses_ids);
        for partition in wanted {
            session.want(partition);
        }
        self.sessions.insert(id, session);
        id
    }

    /// Frees the slot of the session idle for longest, if that is long enough.
    fn evict(&mut self, now: MonotonicMicros) -> bool {
        let oldest = self.sessions.iter().min_by_key(|(id, session)| (session.last_used, **id));
        let Some((id, session)) = oldest else { return false };
        if now.since(session.last_used) < EVICTABLE_AFTER_MICROS {
            return false;
        }
        let id = *id;
        self.sessions.remove(&id);
        true
    }

    fn fresh_id(&mut self) -> i32 {
        loop {
            self.next_id = self.next_id.wrapping_add(self.id_step);
            let id = (self.next_id & i32::MAX as u32) as i32;
            if id != 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }
}

/// A reference by name out of bytes known to be UTF-8; for callers that have a `&str`.
impl From<&str> for TopicRef {
    fn from(name: &str) -> Self {
        let bytes = Bytes::copy_from_slice(name.as_bytes());
        Self::Name(KafkaString::from_utf8(bytes).expect("a str is UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: MonotonicMicros = MonotonicMicros(1_000);
    const QUIET: Said = Said { error_code: 0, high_watermark: 5, log_start_offset: 0 };

    fn want(partition: i32, offset: i64) -> Wanted {
        Wanted {
            topic: TopicRef::from("t"),
            partition,
            offset,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            max_bytes: 100,
        }
    }

    fn sessions(slots: usize) -> FetchSessions {
        FetchSessions::new(1, 4, slots, 77)
    }

    fn open(sessions: &mut FetchSessions, wanted: Vec<Wanted>) -> Begun {
        sessions.begin(NOW, 0, 0, false, wanted, &[]).unwrap()
    }

    fn go_on(sessions: &mut FetchSessions, id: i32, epoch: i32, wanted: Vec<Wanted>) -> Begun {
        sessions.begin(NOW, id, epoch, false, wanted, &[]).unwrap()
    }

    #[test]
    fn session_remembers_what_was_asked_and_takes_changes() {
        let mut sessions = sessions(10);
        let first = open(&mut sessions, vec![want(0, 0), want(1, 0)]);
        assert!(first.session_id > 0 && !first.incremental);
        let second = go_on(&mut sessions, first.session_id, 1, vec![want(1, 9)]);
        assert!(second.incremental);
        assert_eq!(second.wanted, [want(0, 0), want(1, 9)]);
    }

    #[test]
    fn forgotten_partitions_are_not_fetched() {
        let mut sessions = sessions(10);
        let id = open(&mut sessions, vec![want(0, 0), want(1, 0)]).session_id;
        let forgotten = [(TopicRef::from("t"), 0)];
        let begun = sessions.begin(NOW, id, 1, false, vec![], &forgotten).unwrap();
        assert_eq!(begun.wanted, [want(1, 0)]);
    }

    #[test]
    fn only_news_is_said_in_an_incremental_answer() {
        let mut sessions = sessions(10);
        let full = open(&mut sessions, vec![want(0, 5)]);
        assert!(sessions.say(&full, &want(0, 5), QUIET, false), "a full answer says everything");
        let next = go_on(&mut sessions, full.session_id, 1, vec![]);
        assert!(!sessions.say(&next, &want(0, 5), QUIET, false));
        let moved = Said { high_watermark: 6, ..QUIET };
        assert!(sessions.say(&next, &want(0, 5), moved, false));
        assert!(sessions.say(&next, &want(0, 5), moved, true), "records are always said");
    }

    #[test]
    fn error_is_said_until_it_is_gone_and_then_its_end_is_said() {
        let mut sessions = sessions(10);
        let full = open(&mut sessions, vec![want(0, 5)]);
        assert!(sessions.say(&full, &want(0, 5), QUIET, false));
        let next = go_on(&mut sessions, full.session_id, 1, vec![]);
        let error = Said { error_code: 6, ..QUIET };
        assert!(sessions.say(&next, &want(0, 5), error, false));
        assert!(sessions.say(&next, &want(0, 5), error, false));
        assert!(sessions.say(&next, &want(0, 5), QUIET, false));
        assert!(!sessions.say(&next, &want(0, 5), QUIET, false));
    }

    #[test]
    fn partition_with_records_goes_behind_the_others() {
        let mut sessions = sessions(10);
        let full = open(&mut sessions, vec![want(0, 0), want(1, 0)]);
        sessions.say(&full, &want(0, 0), QUIET, true);
        let next = go_on(&mut sessions, full.session_id, 1, vec![]);
        assert_eq!(next.wanted, [want(1, 0), want(0, 0)]);
    }

    #[test]
    fn wrong_epoch_unknown_id_and_changed_naming_are_refused() {
        let mut sessions = sessions(10);
        let id = open(&mut sessions, vec![want(0, 0)]).session_id;
        let refused = |sessions: &mut FetchSessions, id, epoch, ids| {
            sessions.begin(NOW, id, epoch, ids, vec![], &[]).unwrap_err()
        };
        assert_eq!(refused(&mut sessions, id, 2, false), SessionError::InvalidEpoch);
        assert_eq!(refused(&mut sessions, id + 1, 1, false), SessionError::NotFound);
        assert_eq!(refused(&mut sessions, id, 1, true), SessionError::TopicIdMismatch);
    }

    #[test]
    fn final_epoch_closes_and_initial_epoch_replaces() {
        let mut sessions = sessions(10);
        let id = open(&mut sessions, vec![want(0, 0)]).session_id;
        let replaced = sessions.begin(NOW, id, 0, false, vec![want(0, 0)], &[]).unwrap();
        assert_ne!(replaced.session_id, id);
        assert_eq!(sessions.len(), 1);
        let closed =
            sessions.begin(NOW, replaced.session_id, -1, false, vec![want(0, 0)], &[]).unwrap();
        assert_eq!((closed.session_id, sessions.len()), (0, 0));
    }

    #[test]
    fn full_cache_serves_without_a_session_until_one_is_idle_long_enough() {
        let mut sessions = sessions(1);
        let first = open(&mut sessions, vec![want(0, 0)]).session_id;
        assert_eq!(open(&mut sessions, vec![want(1, 0)]).session_id, 0);
        let later = MonotonicMicros(NOW.0 + EVICTABLE_AFTER_MICROS);
        let begun = sessions.begin(later, 0, 0, false, vec![want(1, 0)], &[]).unwrap();
        assert!(begun.session_id > 0);
        let gone = sessions.begin(later, first, 1, false, vec![], &[]).unwrap_err();
        assert_eq!(gone, SessionError::NotFound);
    }

    #[test]
    fn sessions_remember_so_many_partitions_together_and_no_more() {
        let mut sessions = FetchSessions { partitions_max: 5, ..sessions(10) };
        let first = open(&mut sessions, vec![want(0, 0), want(1, 0), want(2, 0)]).session_id;
        assert_eq!(open(&mut sessions, (0..3).map(|n| want(n, 0)).collect()).session_id, 0);
        // What is known already counts once.
        go_on(&mut sessions, first, 1, vec![want(0, 9), want(3, 0), want(4, 0)]);
        let grown = sessions.begin(NOW, first, 2, false, vec![want(5, 0)], &[]).unwrap_err();
        assert_eq!((grown, sessions.len()), (SessionError::NotFound, 0));
        assert!(open(&mut sessions, vec![want(0, 0)]).session_id > 0);
    }

    #[test]
    fn ids_of_two_shards_never_meet() {
        let mut one = FetchSessions::new(0, 2, 100, 9);
        let mut other = FetchSessions::new(1, 2, 100, 9);
        let ids = |sessions: &mut FetchSessions| -> Vec<i32> {
            (0..50).map(|n| open(sessions, vec![want(n, 0)]).session_id).collect()
        };
        let (one, other) = (ids(&mut one), ids(&mut other));
        assert!(one.iter().all(|id| !other.contains(id)));
    }
}
