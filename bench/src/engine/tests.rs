use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::*;

/// Answers what `answer` makes of each frame; ends with its connections.
fn server<F>(connections: usize, answer: F) -> SocketAddr
where
    F: Fn(u64, &[u8]) -> Vec<u8> + Send + Clone + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            let answer = answer.clone();
            thread::spawn(move || serve(stream, answer));
        }
    });
    address
}

fn serve(mut stream: TcpStream, answer: impl Fn(u64, &[u8]) -> Vec<u8>) {
    let mut prefix = [0; 4];
    let mut number = 0;
    while stream.read_exact(&mut prefix).is_ok() {
        let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
        if stream.read_exact(&mut frame).is_err() {
            return;
        }
        let reply = answer(number, &frame);
        number += 1;
        if !reply.is_empty() && stream.write_all(&reply).is_err() {
            return;
        }
    }
}

fn framed(payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(payload);
    out
}

/// Frames of a correlation id and some bytes; the answer must be the same.
#[derive(Debug)]
struct Echo {
    body: Vec<u8>,
    shared: bool,
    answered: bool,
    left: u64,
    under_way: Vec<usize>,
    most_under_way: usize,
}

impl Echo {
    fn new(bytes: usize, connections: usize) -> Self {
        let body = (0..bytes).map(|byte| (byte % 251) as u8).collect();
        Self {
            body,
            shared: false,
            answered: true,
            left: u64::MAX,
            under_way: vec![0; connections],
            most_under_way: 0,
        }
    }
}

impl Traffic for Echo {
    fn next_request(
        &mut self,
        connection: usize,
        correlation_id: i32,
        _due_ns: u64,
        outbox: &mut Outbox,
    ) -> Option<Request> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        outbox.copy(&(self.body.len() as u32 + 4).to_be_bytes());
        outbox.copy(&[0; 4]).copy_from_slice(&correlation_id.to_be_bytes());
        if self.shared {
            outbox.share(Bytes::copy_from_slice(&self.body));
        } else {
            outbox.copy(&self.body);
        }
        if self.answered {
            self.under_way[connection] += 1;
            self.most_under_way = self.most_under_way.max(self.under_way[connection]);
        }
        let moves = Tally::request(1, self.body.len() as u64);
        Some(Request { tag: 7, answered: self.answered, moves })
    }

    fn judge(
        &mut self,
        connection: usize,
        request: &Request,
        frame: Frame<'_>,
        _now_ns: u64,
    ) -> Result<Tally, Fault> {
        self.under_way[connection] -= 1;
        assert_eq!(request.tag, 7);
        match &frame.as_slice()[4..] {
            body if body == self.body => Ok(request.moves),
            b"refused" => Err(Fault::Refused("it said no".to_owned())),
            body => Err(Fault::Wrong(format!("{} bytes that were not sent", body.len()))),
        }
    }
}

fn load(address: SocketAddr, connections: usize, traffic: Echo) -> Load<Echo> {
    Load {
        name: "test".to_owned(),
        addresses: vec![address; connections],
        traffic,
        in_flight: 3,
        pace: Pace::Closed,
        frame_bytes_max: 8 << 20,
    }
}

fn short() -> Schedule {
    let ramp = Duration::from_millis(10);
    let drain = Duration::from_secs(10);
    Schedule::begin(ramp, Duration::from_millis(100), drain, StopFlag::default())
}

fn run(load: Load<Echo>, schedule: &Schedule) -> Result<Outcome<Echo>, EngineError> {
    load.connect().unwrap().spawn(schedule).unwrap().join()
}

#[test]
fn closed_loop_keeps_within_its_bound_and_everything_is_answered() {
    for (bytes, shared) in [(10, false), (10, true), (200_000, false), (3_000_000, true)] {
        let address = server(2, |_, frame| framed(frame));
        let echo = Echo { shared, ..Echo::new(bytes, 2) };
        let outcome = run(load(address, 2, echo), &short()).unwrap();
        assert!(outcome.done.requests > 0 && outcome.measured.requests <= outcome.done.requests);
        assert_eq!(outcome.done.bytes, outcome.done.requests * bytes as u64);
        assert_eq!(outcome.traffic.most_under_way, 3, "{bytes} bytes");
        assert_eq!(outcome.traffic.under_way, [0, 0], "drained");
        assert_eq!((outcome.unanswered, outcome.refused), (0, 0));
    }
}

#[test]
fn traffic_that_ends_ends_the_run() {
    let address = server(1, |_, frame| framed(frame));
    let echo = Echo { left: 50, ..Echo::new(10, 1) };
    let hours = Duration::from_secs(10_000);
    let schedule = Schedule::begin(Duration::ZERO, hours, hours, StopFlag::default());
    let outcome = run(load(address, 1, echo), &schedule).unwrap();
    assert_eq!(outcome.done.requests, 50);
    assert_eq!(outcome.latency.len(), 50);
    assert!(outcome.window < hours, "the window ends with the load");
}

#[test]
fn unanswered_requests_count_when_the_socket_has_them() {
    let address = server(1, |_, _| Vec::new());
    let echo = Echo { answered: false, left: 500, ..Echo::new(100_000, 1) };
    let outcome = run(load(address, 1, echo), &short()).unwrap();
    assert_eq!(outcome.done.bytes, outcome.done.requests * 100_000);
    assert!(outcome.done.requests > 3, "{:?}", outcome.done);
    assert_eq!(outcome.unanswered, 0);
}

#[test]
fn a_stall_counts_for_every_request_that_was_due_in_it() {
    let stall = Duration::from_millis(200);
    let address = server(1, move |number, frame| {
        if number == 20 {
            thread::sleep(stall);
        }
        framed(frame)
    });
    let drain = Duration::from_secs(10);
    let length = Duration::from_millis(500);
    let schedule = Schedule::begin(Duration::ZERO, length, drain, StopFlag::default());
    let paced = Load { pace: Pace::Rate(1000.0), ..load(address, 1, Echo::new(10, 1)) };
    let outcome = run(paced, &schedule).unwrap();
    assert_eq!(outcome.latency.len(), 500, "each request that was due, and once");
    // Two hundred were due within the stall; the one due in its middle waited for half of it.
    let held_up = outcome.latency.count_between(stall.as_nanos() as u64 / 2, u64::MAX);
    assert!(held_up >= 95, "{held_up} requests waited for 100 ms and more");
    assert!(outcome.latency.max() >= stall.as_nanos() as u64);
}

#[test]
fn a_client_that_has_nothing_to_do_sleeps() {
    for pace in [Pace::Closed, Pace::Rate(100.0)] {
        // Answers so slowly that the client waits, for the answer or for the next request to be due.
        let address = server(4, |_, frame| {
            thread::sleep(Duration::from_millis(20));
            framed(frame)
        });
        let idle = Load { pace, in_flight: 1, ..load(address, 4, Echo::new(10, 4)) };
        let outcome = run(idle, &short()).unwrap();
        assert!(outcome.done.requests > 0);
        let (busy, window) = (outcome.cost.cpu, outcome.window);
        assert!(busy < window / 2, "{pace:?}: {busy:?} of {window:?} with next to nothing to do");
    }
}

#[test]
fn requests_that_are_never_answered_are_counted_and_so_is_their_wait() {
    let address = server(1, |number, frame| if number < 5 { framed(frame) } else { Vec::new() });
    let drain = Duration::from_millis(50);
    let schedule =
        Schedule::begin(Duration::ZERO, Duration::from_millis(100), drain, StopFlag::default());
    let outcome = run(load(address, 1, Echo::new(10, 1)), &schedule).unwrap();
    assert_eq!(outcome.done.requests, 5);
    assert_eq!(outcome.unanswered, 3, "as many as may be under way");
    assert_eq!(outcome.latency.len(), 8);
    assert!(outcome.latency.max() >= 100_000_000, "they waited for the window and the drain");

    let address = server(1, |number, frame| if number < 5 { framed(frame) } else { Vec::new() });
    let schedule =
        Schedule::begin(Duration::ZERO, Duration::from_millis(100), drain, StopFlag::default());
    let paced = Load { pace: Pace::Rate(1000.0), ..load(address, 1, Echo::new(10, 1)) };
    let outcome = run(paced, &schedule).unwrap();
    assert_eq!((outcome.done.requests, outcome.unanswered), (5, 95), "also those not even sent");
    assert_eq!(outcome.latency.len(), 100);
}

#[test]
fn wrong_answers_end_the_run_and_refusals_do_not_count() {
    let other_body = server(1, |_, frame| framed(&[&frame[..4], b"else"].concat()));
    let error = run(load(other_body, 1, Echo::new(10, 1)), &short()).unwrap_err();
    assert!(error.to_string().contains("4 bytes that were not sent"), "{error}");

    let other_id = server(1, |_, frame| framed(&[&[9; 4], &frame[4..]].concat()));
    let error = run(load(other_id, 1, Echo::new(10, 1)), &short()).unwrap_err();
    assert!(error.to_string().contains("correlation id"), "{error}");

    let twice = server(1, |_, frame| [framed(frame), framed(frame)].concat());
    let once = Load { in_flight: 1, ..load(twice, 1, Echo::new(10, 1)) };
    let error = run(once, &short()).unwrap_err();
    assert!(matches!(error, EngineError::Wrong { .. }), "{error}");

    let too_long = server(1, |_, _| (1u32 << 30).to_be_bytes().to_vec());
    let error = run(load(too_long, 1, Echo::new(10, 1)), &short()).unwrap_err();
    assert!(error.to_string().contains("a frame of 1073741824 bytes"), "{error}");

    let refusing = server(1, |_, frame| framed(&[&frame[..4], b"refused"].concat()));
    let outcome = run(load(refusing, 1, Echo::new(10, 1)), &short()).unwrap();
    assert_eq!(outcome.done, Tally::default());
    assert!(outcome.refused > 0 && outcome.latency.is_empty());
    assert_eq!(outcome.first_refusal.as_deref(), Some("it said no"));
}

#[test]
fn a_closed_connection_is_an_error_and_a_stop_is_none() {
    let closing = server(1, |_, _| panic!("this thread, and so its connection, ends here"));
    let error = run(load(closing, 1, Echo::new(10, 1)), &short()).unwrap_err();
    assert!(matches!(error, EngineError::Broken { connection: 0, .. }), "{error}");

    let address = server(1, |_, frame| framed(frame));
    let hours = Duration::from_secs(10_000);
    let stop = StopFlag::default();
    let schedule = Schedule::begin(Duration::ZERO, hours, hours, stop.clone());
    let running = load(address, 1, Echo::new(10, 1)).connect().unwrap().spawn(&schedule).unwrap();
    while running.live().records() == 0 {
        thread::yield_now();
    }
    stop.raise();
    assert!(running.join().unwrap().done.requests > 0);
}
