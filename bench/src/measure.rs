//! Running loads, watching the server meanwhile, and making a round of figures of what they did.

use std::time::Duration;

use crate::engine::{
    Connected, EngineError, Outcome, Running, Schedule, StopFlag, Tally, Traffic, latency_histogram,
};
use crate::error::BenchError;
use crate::process::Usage;
use crate::progress::Progress;
use crate::report::{ClientCost, Round, ServerCost};
use crate::target::Target;

/// How long answers are awaited after the window.
pub const DRAIN_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a load runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// Before it counts.
    pub ramp: Duration,
    /// While it counts.
    pub window: Duration,
}

impl Timing {
    /// Both.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.ramp + self.window
    }

    /// A schedule that begins now.
    #[must_use]
    pub fn schedule(&self, stop: &StopFlag) -> Schedule {
        Schedule::begin(self.ramp, self.window, DRAIN_MAX, stop.clone())
    }
}

/// What the server used at both ends of the window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched {
    from: Option<Usage>,
    to: Option<Usage>,
}

impl Watched {
    /// What it cost.
    #[must_use]
    pub fn cost(&self) -> Option<ServerCost> {
        let (from, to) = (self.from?, self.to?);
        Some(ServerCost { cpu: to.cpu.saturating_sub(from.cpu), resident_bytes: to.resident_bytes })
    }
}

/// Loads of one kind that run.
#[derive(Debug)]
pub struct RunningLoads<T>(Vec<Running<T>>);

impl<T: Traffic> RunningLoads<T> {
    /// Starts loads whose connections are open.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn start(loads: Vec<Connected<T>>, schedule: &Schedule) -> Result<Self, EngineError> {
        loads.into_iter().map(|load| load.spawn(schedule)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them has ended.
    #[must_use]
    pub fn any_finished(&self) -> bool {
        self.0.iter().any(Running::is_finished)
    }

    /// Whether all of them have ended.
    #[must_use]
    pub fn all_finished(&self) -> bool {
        self.0.iter().all(Running::is_finished)
    }

    /// Records that they have moved.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.0.iter().map(|running| running.live().records()).sum()
    }

    /// Waits for all; the first error, if there is one.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn join(self) -> Result<Vec<Outcome<T>>, EngineError> {
        // All are waited for, so that none goes on behind an error.
        let ended: Vec<_> = self.0.into_iter().map(Running::join).collect();
        ended.into_iter().collect()
    }
}

/// Looks at the server at both ends of the window, calls `at_edge` at each, and shows the progress, until the window is over or `ended` says so.
pub fn watch(
    target: &Target,
    schedule: &Schedule,
    progress: &mut Progress,
    records: impl Fn() -> u64,
    ended: impl Fn() -> bool,
    mut at_edge: impl FnMut(),
) -> Watched {
    let mut watched = Watched::default();
    let mut entered = false;
    loop {
        let now_ns = schedule.clock.now_ns();
        let (from_ns, to_ns) = (schedule.window.from_ns(), schedule.window.to_ns());
        if !entered && now_ns >= from_ns {
            entered = true;
            watched.from = target.usage();
            at_edge();
        }
        if now_ns >= to_ns || ended() {
            // An end before its time counts up to where it came.
            watched.to = target.usage();
            at_edge();
            return watched;
        }
        // Since the loads began, which may have been before anybody watched.
        progress.show(Duration::from_nanos(now_ns), records());
        let edge = if now_ns < from_ns { from_ns } else { to_ns };
        std::thread::sleep(Duration::from_nanos(edge - now_ns).min(LOOK_EVERY));
    }
}

/// Makes a round of what all threads of a load did.
#[must_use]
pub fn round<T>(
    outcomes: &[Outcome<T>],
    closed_loop_slots: Option<u64>,
    server: Option<ServerCost>,
) -> Round {
    let mut round = Round {
        measured: Tally::default(),
        done: Tally::default(),
        window: Duration::ZERO,
        latency: latency_histogram(),
        closed_loop_slots,
        server,
        client: ClientCost::default(),
        refused: 0,
        unanswered: 0,
        extra: Vec::new(),
    };
    for outcome in outcomes {
        round.measured.add(outcome.measured);
        round.done.add(outcome.done);
        round.window = round.window.max(outcome.window);
        round.latency.add(&outcome.latency).expect("all have the same bounds");
        round.refused += outcome.refused;
        round.unanswered += outcome.unanswered;
        let cost = outcome.cost;
        round.client.cpu += cost.cpu;
        let seconds = outcome.window.as_secs_f64().max(1e-9);
        let busy = cost.cpu.as_secs_f64() / seconds;
        if busy >= round.client.busiest {
            round.client.busiest = busy;
            round.client.busiest_or_waiting =
                cost.waiting.map(|waiting| busy + waiting.as_secs_f64() / seconds);
        }
    }
    round
}

/// What was refused, in the server's words.
#[must_use]
pub fn first_refusal<T>(outcomes: &[Outcome<T>]) -> Option<&str> {
    outcomes.iter().find_map(|outcome| outcome.first_refusal.as_deref())
}

/// An error if the run was told to stop.
///
/// # Errors
/// [`BenchError::Stopped`].
pub fn unless_stopped(stop: &StopFlag) -> Result<(), BenchError> {
    if stop.is_raised() { Err(BenchError::Stopped) } else { Ok(()) }
}
