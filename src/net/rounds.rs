//! Requests that can wait are read in rounds.
//!
//! A request that comes alone costs the shard a turn of the runtime, many times what the request itself does. Members of
//! groups send such requests for as long as they live, and nobody waits for the answers: heartbeats. Where there are
//! so many that it matters, a connection whose last requests could all wait is not read when something arrives, but
//! with the others of its kind every [`ROUND`]: one turn then serves all of them. A request of another kind is as
//! late as that once, and makes its connection a usual one again.
//!
//! Invariants
//! - A connection in the rounds has no read pending with the runtime that it began there; the kernel tells the round of
//!   everything that arrives, of the end of the stream and of errors.
//! - A socket told of (an edge) is told of again when more arrives, and not before. So it counts as readable until a
//!   read has found less than there was room for.
//! - No connection stays when the rounds are closed: each is woken, and reads by way of the runtime.
//! - The task of the rounds runs while a connection is in them, and no longer.
//!
//! Deliberately absent: rounds where little comes. There a round would cost more than the turns that it saves, so they
//! are opened when [`REQUESTS_PER_SECOND_MIN`] such requests come, and closed when less than half of that does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use chronik_shards::io::socket::receive_now;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

/// How long a request waits at most: next to nothing of the seconds between heartbeats.
const ROUND: Duration = Duration::from_millis(20);
/// What must come for rounds to be worth it: a multiple of the rounds in a second.
const REQUESTS_PER_SECOND_MIN: u64 = 200;
/// How often what came is looked at.
const JUDGED_AFTER: Duration = Duration::from_secs(1);
/// Requests in a row that could wait before a connection is taken for one whose requests can.
pub(super) const REQUESTS_IN_A_ROW: u32 = 2;
/// Sockets that are told of at once.
const EVENTS_MAX: usize = 64;

/// The rounds of a shard.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    is_open: Cell<bool>,
    /// Requests that could wait, since they were judged.
    requests: Cell<u64>,
    judged: Cell<Option<Instant>>,
    /// Made when the first connection joins; `None` if the system has none to give.
    epoll: RefCell<Option<Rc<OwnedFd>>>,
    places: RefCell<BTreeMap<u64, Rc<Place>>>,
    next: Cell<u64>,
    is_running: Cell<bool>,
}

#[derive(Debug, Default)]
struct Place {
    is_readable: Cell<bool>,
    /// The runtime knows the rest: the stream has ended, or the rounds are closed.
    is_over: Cell<bool>,
    reader: RefCell<Option<Waker>>,
}

/// A connection in the rounds; it leaves them on drop. Drop it before the socket is closed.
#[derive(Debug)]
pub(super) struct Seat {
    rounds: Rc<Rounds>,
    epoll: Rc<OwnedFd>,
    fd: RawFd,
    key: u64,
    place: Rc<Place>,
}

impl Rounds {
    /// A request came that could wait.
    pub(super) fn count_one(&self, now: Instant) {
        self.requests.set(self.requests.get() + 1);
        self.judge(now);
    }

    /// Opens or closes the rounds by what came, once every [`JUDGED_AFTER`].
    fn judge(&self, now: Instant) {
        let Some(since) = self.judged.get() else { return self.judged.set(Some(now)) };
        let passed = now.saturating_duration_since(since);
        if passed < JUDGED_AFTER {
            return;
        }
        let requests = u128::from(self.requests.take()) * 1_000_000;
        let enough = u128::from(REQUESTS_PER_SECOND_MIN) * passed.as_micros();
        self.judged.set(Some(now));
        // Who waits for an answer before the next request sends fewer in rounds: they are not closed for that.
        let is_open = requests >= if self.is_open.get() { enough / 2 } else { enough };
        self.is_open.set(is_open);
        if !is_open {
            self.places.borrow().values().for_each(|place| place.end());
        }
    }

    /// Takes a connection in, while the rounds are open.
    pub(super) fn join(self: &Rc<Self>, fd: RawFd) -> Option<Seat> {
        if !self.is_open.get() {
            return None;
        }
        let epoll = self.epoll()?;
        let key = self.next.get();
        self.next.set(key + 1);
        // SAFETY: the caller's socket is open, and stays so while the seat is there.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&*epoll, socket, EventData::new_u64(key), flags)
            .inspect_err(|error| tracing::debug!(%error, "a socket cannot be in the rounds"))
            .ok()?;
        // What came before is told of as well; a read at once is sooner.
        let place = Rc::new(Place { is_readable: Cell::new(true), ..Place::default() });
        self.places.borrow_mut().insert(key, Rc::clone(&place));
        if !self.is_running.replace(true) {
            glommio::spawn_local(Rc::clone(self).run(Rc::clone(&epoll))).detach();
        }
        Some(Seat { rounds: Rc::clone(self), epoll, fd, key, place })
    }

    fn epoll(&self) -> Option<Rc<OwnedFd>> {
        let mut known = self.epoll.borrow_mut();
        if known.is_none() {
            let made = epoll::create(epoll::CreateFlags::CLOEXEC)
                .inspect_err(|error| tracing::debug!(%error, "no rounds"));
            *known = made.ok().map(Rc::new);
        }
        known.clone()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.borrow().len()
    }

    async fn run(self: Rc<Self>, epoll: Rc<OwnedFd>) {
        while !self.places.borrow().is_empty() {
            glommio::timer::sleep(ROUND).await;
            self.round(&epoll);
            self.judge(Instant::now());
        }
        self.is_running.set(false);
    }

    /// Lets everybody read who has something.
    fn round(&self, epoll: &OwnedFd) {
        let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [nothing; EVENTS_MAX];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            let count = match epoll::wait(epoll, &mut events, Some(&at_once)) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot ask for sockets: they are read one by one");
                    self.places.borrow().values().for_each(|place| place.end());
                    return;
                }
            };
            let places = self.places.borrow();
            for event in &events[..count] {
                let (flags, data) = (event.flags, event.data);
                let Some(place) = places.get(&data.u64()) else { continue };
                if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
                    place.end();
                } else {
                    place.is_readable.set(true);
                    place.wake();
                }
            }
            if count < EVENTS_MAX {
                return;
            }
        }
    }
}

impl Place {
    fn end(&self) {
        self.is_over.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(reader) = &*self.reader.borrow() {
            reader.wake_by_ref();
        }
    }
}

impl Seat {
    /// Reads what a round has told of. `None`: the runtime is to be asked from now on.
    pub(super) fn poll_receive(
        &self,
        context: &Context<'_>,
        space: &mut [u8],
    ) -> Option<Poll<io::Result<usize>>> {
        let place = &self.place;
        if place.is_readable.get() {
            let received = receive_now(self.fd, &mut [], space);
            let bytes = received.as_ref().ok().copied().flatten().unwrap_or(0);
            place.is_readable.set(bytes == space.len());
            match received {
                Ok(Some(bytes)) => return Some(Poll::Ready(Ok(bytes))),
                Ok(None) => {}
                Err(error) => return Some(Poll::Ready(Err(error))),
            }
        }
        if place.is_over.get() {
            return None;
        }
        let mut reader = place.reader.borrow_mut();
        if !reader.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *reader = Some(context.waker().clone());
        }
        Some(Poll::Pending)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.rounds.places.borrow_mut().remove(&self.key);
        // SAFETY: it was open when it joined, and is closed after this.
        let socket = unsafe { BorrowedFd::borrow_raw(self.fd) };
        if let Err(error) = epoll::delete(&*self.epoll, socket) {
            tracing::debug!(%error, "a socket has left the rounds before");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the rounds are open after so many requests in each of these seconds.
    fn opened(rounds: &Rounds, begin: Instant, seconds: &[u64]) -> Vec<bool> {
        let tell = |(second, requests): (u64, &u64)| {
            let at = begin + Duration::from_secs(second);
            (0..*requests).for_each(|_| rounds.count_one(at));
            rounds.judge(at + JUDGED_AFTER);
            rounds.is_open.get()
        };
        (0..).zip(seconds).map(tell).collect()
    }

    #[test]
    fn rounds_are_open_while_enough_comes() {
        let (rounds, begin) = (Rounds::default(), Instant::now());
        let enough = REQUESTS_PER_SECOND_MIN;
        let seconds = [0, 5, enough - 1, enough, enough / 2, enough / 2 - 1, enough - 1, enough];
        let expected = [false, false, false, true, true, false, false, true];
        assert_eq!(opened(&rounds, begin, &seconds), expected);
        // A long time of which nobody asked.
        let later = begin + Duration::from_secs(600);
        assert_eq!(opened(&rounds, later, &[0, 5]), [false, false]);
    }
}
