//! The loop of one load.

use std::io;
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};

use super::connection::{Connection, Pending};
use super::frame_reader::{Frame, ReadEnd};
use super::pace::{DueTimes, Pace};
use super::schedule::{Live, Schedule};
use super::thread_cpu::ThreadCost;
use super::{EngineError, Fault, Load, Outcome, Tally, Traffic, latency_histogram};

/// Of the buffer that all connections read into.
const SCRATCH_BYTES: usize = 256 << 10;
/// Events that one call returns.
const EVENTS_MAX: usize = 256;
/// Longest sleep: the stop flag and an earlier end of the window are seen that late.
const SLEEP_MAX_NS: u64 = 20_000_000;

/// Runs a load to the end of its drain.
pub(super) fn run<T: Traffic>(
    load: Load<T>,
    streams: Vec<TcpStream>,
    schedule: &Schedule,
    live: &Live,
) -> Result<Outcome<T>, EngineError> {
    // Wake-ups when requests are due, not fifty microseconds later.
    let exact = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    exact.map_err(system("setting the timer slack"))?;
    let mut event_loop = EventLoop::new(load, streams, schedule)?;
    event_loop.run(schedule, live)?;
    Ok(event_loop.finish(schedule))
}

fn system<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> EngineError {
    move |error| EngineError::System { what, error: error.into() }
}

/// A connection's failure before it is known which one's it is.
enum Failure {
    Io(io::Error),
    Wrong(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct EventLoop<T> {
    traffic: T,
    connections: Vec<Connection>,
    in_flight: usize,
    due_times: Option<DueTimes>,
    /// At a fixed rate: requests below this number were considered.
    due: u64,
    frame_bytes_max: usize,
    epoll: OwnedFd,
    scratch: Vec<u8>,
    /// Connections that could send at once if it was their turn.
    ready: Vec<usize>,
    counters: Counters,
    cost_from: Option<ThreadCost>,
    cost: Option<ThreadCost>,
}

struct Counters {
    measured: Tally,
    done: Tally,
    latency: Histogram<u64>,
    refused: u64,
    first_refusal: Option<String>,
    /// Requests under way on all connections.
    pending: u64,
    from_ns: u64,
    to_ns: u64,
}

impl Counters {
    fn record(&mut self, pending: &Pending, moved: Tally, now_ns: u64) {
        self.done.add(moved);
        if (self.from_ns..self.to_ns).contains(&now_ns) {
            self.measured.add(moved);
        }
        self.record_latency(pending.due_ns, now_ns);
    }

    fn record_latency(&mut self, due_ns: u64, now_ns: u64) {
        if (self.from_ns..self.to_ns).contains(&due_ns) {
            self.latency.saturating_record(now_ns.saturating_sub(due_ns));
        }
    }
}

impl<T: Traffic> EventLoop<T> {
    fn new(
        load: Load<T>,
        streams: Vec<TcpStream>,
        schedule: &Schedule,
    ) -> Result<Self, EngineError> {
        let epoll =
            epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system("making an epoll"))?;
        let mut connections = Vec::with_capacity(streams.len());
        for (index, (stream, address)) in streams.into_iter().zip(load.addresses).enumerate() {
            // Edge-triggered both ways: no system call changes the interest while it runs.
            let flags = epoll::EventFlags::IN
                | epoll::EventFlags::OUT
                | epoll::EventFlags::RDHUP
                | epoll::EventFlags::ET;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(index as u64), flags)
                .map_err(system("watching a socket"))?;
            connections.push(Connection::new(stream, address, index));
        }
        let due_times = match load.pace {
            Pace::Closed => None,
            Pace::Rate(rate) => Some(DueTimes::new(schedule.start_ns, rate)),
        };
        Ok(Self {
            traffic: load.traffic,
            connections,
            in_flight: load.in_flight,
            due_times,
            due: 0,
            frame_bytes_max: load.frame_bytes_max,
            epoll,
            scratch: vec![0; SCRATCH_BYTES],
            ready: Vec::new(),
            counters: Counters {
                measured: Tally::default(),
                done: Tally::default(),
                latency: latency_histogram(),
                refused: 0,
                first_refusal: None,
                pending: 0,
                from_ns: schedule.window.from_ns(),
                to_ns: schedule.window.to_ns(),
            },
            cost_from: None,
            cost: None,
        })
    }

    fn run(&mut self, schedule: &Schedule, live: &Live) -> Result<(), EngineError> {
        let mut events = vec![
            epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0)
            };
            EVENTS_MAX
        ];
        if self.due_times.is_none() {
            self.ready.extend(0..self.connections.len());
        }
        loop {
            let now_ns = schedule.clock.now_ns();
            if schedule.stop.is_raised() {
                schedule.window.end_at(now_ns);
            }
            self.counters.to_ns = schedule.window.to_ns();
            self.watch_window(now_ns);
            let sending = now_ns < self.counters.to_ns;
            self.send_due(now_ns)?;
            if sending && self.due_times.is_none() {
                self.send_ready(schedule)?;
            }
            live.set_records(self.counters.done.records);
            let none_due = !sending && self.owed() == 0;
            if self.counters.pending == 0 && (none_due || self.is_exhausted()) {
                break;
            }
            let drain_end = self.counters.to_ns + schedule.drain_max.as_nanos() as u64;
            if now_ns >= drain_end || (schedule.stop.is_raised() && !sending) {
                break;
            }
            let timeout = self.timeout(schedule.clock.now_ns(), drain_end);
            let count = match epoll::wait(&self.epoll, &mut events[..], Some(&timeout)) {
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => 0,
                Err(error) => return Err(system("waiting for sockets")(error)),
            };
            for event in &events[..count] {
                // Copied out of a packed struct.
                let (flags, data) = (event.flags, event.data);
                let index = usize::try_from(data.u64()).expect("an index that was registered");
                self.on_event(index, flags, schedule)?;
            }
        }
        self.watch_window(schedule.clock.now_ns());
        Ok(())
    }

    /// Takes the thread's cost at both ends of the window.
    fn watch_window(&mut self, now_ns: u64) {
        if self.cost_from.is_none() && now_ns >= self.counters.from_ns {
            self.cost_from = Some(ThreadCost::now());
        }
        if self.cost.is_none()
            && now_ns >= self.counters.to_ns
            && let Some(from) = self.cost_from
        {
            self.cost = Some(ThreadCost::now().since(from));
        }
    }

    fn is_exhausted(&self) -> bool {
        self.connections.iter().all(|connection| connection.exhausted)
    }

    /// At a fixed rate: requests that were due and could not be sent yet. They are sent in the drain too:
    /// leaving them out would hide that the server was slower than the rate.
    fn owed(&self) -> u64 {
        self.connections.iter().map(|connection| self.owed_by(connection)).sum()
    }

    fn owed_by(&self, connection: &Connection) -> u64 {
        if connection.exhausted {
            return 0;
        }
        self.due.saturating_sub(connection.next_number).div_ceil(self.connections.len() as u64)
    }

    /// How long nothing needs to be done unless a socket says so.
    fn timeout(&self, now_ns: u64, drain_end: u64) -> Timespec {
        let mut until = now_ns + SLEEP_MAX_NS;
        if !self.ready.is_empty() {
            until = now_ns;
        }
        // Where all connections are full, only an answer makes room.
        let room_for = (self.connections.len() * self.in_flight) as u64;
        if let Some(times) = &self.due_times
            && now_ns < self.counters.to_ns
            && self.counters.pending < room_for
        {
            until = until.min(times.due_ns(self.due));
        }
        for edge in [self.counters.from_ns, self.counters.to_ns, drain_end] {
            if edge > now_ns {
                until = until.min(edge);
            }
        }
        let nanos = until.saturating_sub(now_ns);
        Timespec { tv_sec: 0, tv_nsec: i64::try_from(nanos).expect("at most the longest sleep") }
    }

    /// At a fixed rate: sends what became due since the last look.
    fn send_due(&mut self, now_ns: u64) -> Result<(), EngineError> {
        let Some(times) = self.due_times else { return Ok(()) };
        let count = self.connections.len() as u64;
        let due = times.due_by(now_ns.min(self.counters.to_ns.saturating_sub(1)));
        // After a long pause one look at each connection is enough: it sends all that it owes.
        let from = self.due.max(due.saturating_sub(count));
        for number in from..due {
            self.due = due;
            let index = usize::try_from(number % count).expect("an index");
            self.send_owed(index, times);
            self.flush(index, now_ns)?;
        }
        Ok(())
    }

    /// Appends what a connection owes at a fixed rate, as far as it has room.
    fn send_owed(&mut self, index: usize, times: DueTimes) {
        let step = self.connections.len() as u64;
        while self.connections[index].next_number < self.due {
            let due_ns = times.due_ns(self.connections[index].next_number);
            if !self.append(index, due_ns) {
                break;
            }
            self.connections[index].next_number += step;
        }
    }

    /// Closed loop: one turn of every connection that may send.
    fn send_ready(&mut self, schedule: &Schedule) -> Result<(), EngineError> {
        let mut turn = std::mem::take(&mut self.ready);
        for index in turn.drain(..) {
            let now_ns = schedule.clock.now_ns();
            self.refill(index, now_ns)?;
        }
        // Keeps the larger buffer; what became ready meanwhile has the next turn.
        turn.append(&mut self.ready);
        self.ready = turn;
        Ok(())
    }

    /// Closed loop: fills a connection up and writes.
    fn refill(&mut self, index: usize, now_ns: u64) -> Result<(), EngineError> {
        while self.append(index, now_ns) {}
        self.flush(index, now_ns)?;
        let connection = &self.connections[index];
        // Only requests without an answer end by writing; then there is room again already.
        if connection.writable && connection.pending.is_empty() && !connection.exhausted {
            self.ready.push(index);
        }
        Ok(())
    }

    /// Appends one request, if there is room and something to send.
    fn append(&mut self, index: usize, due_ns: u64) -> bool {
        let connection = &mut self.connections[index];
        if connection.pending.len() >= self.in_flight || connection.exhausted {
            return false;
        }
        let correlation_id = connection.correlation_id();
        let outbox = &mut connection.outbox;
        let Some(request) = self.traffic.next_request(index, correlation_id, due_ns, outbox) else {
            connection.exhausted = true;
            return false;
        };
        let end = outbox.appended();
        connection.pending.push_back(Pending { request, due_ns, correlation_id, end });
        self.counters.pending += 1;
        true
    }

    fn flush(&mut self, index: usize, now_ns: u64) -> Result<(), EngineError> {
        let connection = &mut self.connections[index];
        if !connection.writable || connection.outbox.is_empty() {
            return Ok(());
        }
        match connection.outbox.write_to(&mut connection.stream) {
            Ok(all) => connection.writable = all,
            Err(error) => return Err(self.broken(index, error)),
        }
        let written = connection.outbox.written();
        while let Some(front) = connection.pending.front()
            && !front.request.answered
            && front.end <= written
        {
            let pending = connection.pending.pop_front().expect("it was just looked at");
            self.counters.pending -= 1;
            self.counters.record(&pending, pending.request.moves, now_ns);
        }
        Ok(())
    }

    fn on_event(
        &mut self,
        index: usize,
        flags: epoll::EventFlags,
        schedule: &Schedule,
    ) -> Result<(), EngineError> {
        if flags.contains(epoll::EventFlags::OUT) {
            self.connections[index].writable = true;
        }
        let readable = epoll::EventFlags::IN
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::HUP
            | epoll::EventFlags::ERR;
        if flags.intersects(readable) {
            self.receive(index, schedule)?;
        }
        let now_ns = schedule.clock.now_ns();
        match self.due_times {
            Some(times) => {
                self.send_owed(index, times);
                self.flush(index, now_ns)
            }
            None if now_ns < self.counters.to_ns => self.refill(index, now_ns),
            // Nothing new, but what was begun is written to its end.
            None => self.flush(index, now_ns),
        }
    }

    fn receive(&mut self, index: usize, schedule: &Schedule) -> Result<(), EngineError> {
        let Connection { stream, reader, pending, .. } = &mut self.connections[index];
        let (traffic, counters) = (&mut self.traffic, &mut self.counters);
        // Answers of one read have arrived together: they share one look at the clock.
        let now_ns = schedule.clock.now_ns();
        let each = |frame: Frame<'_>| {
            let waiting = pending.pop_front().filter(|pending| pending.request.answered);
            let Some(waiting) = waiting else {
                return Err(Failure::Wrong("an answer that nothing waits for".to_owned()));
            };
            counters.pending -= 1;
            let id = frame.as_slice().first_chunk::<4>().map(|id| i32::from_be_bytes(*id));
            if id != Some(waiting.correlation_id) {
                let due = waiting.correlation_id;
                return Err(Failure::Wrong(format!("correlation id {id:?} where {due} is due")));
            }
            match traffic.judge(index, &waiting.request, frame, now_ns) {
                Ok(moved) => counters.record(&waiting, moved, now_ns),
                Err(Fault::Refused(words)) => {
                    counters.refused += 1;
                    counters.first_refusal.get_or_insert(words);
                }
                Err(Fault::Wrong(what)) => return Err(Failure::Wrong(what)),
            }
            Ok(())
        };
        match reader.read(stream, &mut self.scratch, self.frame_bytes_max, each) {
            Ok(ReadEnd::Drained) => Ok(()),
            Ok(ReadEnd::Closed) => {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it");
                Err(self.broken(index, error))
            }
            Err(Failure::Io(error)) => Err(self.broken(index, error)),
            Err(Failure::Wrong(what)) => {
                let address = self.connections[index].address;
                Err(EngineError::Wrong { connection: index, address, what })
            }
        }
    }

    fn broken(&self, index: usize, error: io::Error) -> EngineError {
        let address = self.connections[index].address;
        EngineError::Broken { connection: index, address, error }
    }

    fn finish(mut self, schedule: &Schedule) -> Outcome<T> {
        let now_ns = schedule.clock.now_ns();
        let mut unanswered = 0;
        for connection in &self.connections {
            for pending in &connection.pending {
                unanswered += 1;
                // At least this long: leaving them out would hide the slowest.
                self.counters.record_latency(pending.due_ns, now_ns);
            }
            let Some(times) = self.due_times else { continue };
            for turn in 0..self.owed_by(connection) {
                unanswered += 1;
                let number = connection.next_number + turn * self.connections.len() as u64;
                self.counters.record_latency(times.due_ns(number), now_ns);
            }
        }
        let ended_ns = self.counters.to_ns.min(now_ns);
        Outcome {
            measured: self.counters.measured,
            done: self.counters.done,
            latency: self.counters.latency,
            refused: self.counters.refused,
            first_refusal: self.counters.first_refusal,
            unanswered,
            window: Duration::from_nanos(ended_ns.saturating_sub(self.counters.from_ns)),
            cost: self.cost.unwrap_or_else(|| {
                let now = ThreadCost::now();
                self.cost_from.map_or(ThreadCost::default(), |from| now.since(from))
            }),
            traffic: self.traffic,
            connections: self.connections.into_iter().map(|connection| connection.stream).collect(),
        }
    }
}
