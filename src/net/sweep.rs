//! Which connections the housekeeping closes: pure, `now` is an argument.
//!
//! Connections only count; a sweep compares the counts with those of the sweep before. So durations
//! are exact to one housekeeping interval, and neither a timer nor a clock belongs to a connection.
//!
//! Closed are: idle ones, peers that take no byte of a waiting response, peers that begin a request
//! and do not go on, half-closed ones that never end. And when others wait for memory, a peer that
//! sends its request slower than [`CONTENDED_BYTES_PER_SECOND`], because it holds what they wait for.
//! A request that handlers take long for is none of this module's business.

use std::time::Instant;

use super::close::CloseReason;
use super::config::NetConfig;
use super::connection::{Connection, ReadPhase};

/// Slowest sender of a request that is tolerated while others wait for memory.
const CONTENDED_BYTES_PER_SECOND: u64 = 16 << 10;

/// A connection as a sweep finds it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Observation {
    pub(super) phase: ReadPhase,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) frames: u64,
    pub(super) frame_begun_at: u64,
    pub(super) write_blocked: bool,
    pub(super) unanswered: usize,
}

/// What earlier sweeps saw of a connection.
#[derive(Debug)]
pub(super) struct SweepState {
    seen: Observation,
    read_at: Instant,
    written_at: Instant,
    frame_at: Instant,
    busy_at: Instant,
    ended_at: Option<Instant>,
}

impl Observation {
    pub(super) fn of(connection: &Connection) -> Self {
        let activity = &connection.activity;
        Self {
            phase: activity.phase.get(),
            bytes_in: activity.bytes_in.get(),
            bytes_out: activity.bytes_out.get(),
            frames: activity.frames.get(),
            frame_begun_at: activity.frame_begun_at.get(),
            write_blocked: activity.write_blocked.get(),
            unanswered: connection.queue.unanswered(),
        }
    }

    fn is_idle(&self) -> bool {
        self.phase == ReadPhase::BetweenFrames && self.unanswered == 0
    }

    /// Whether nothing is being read, so that the kernel has to be asked whether the peer is gone.
    pub(super) fn is_blind(&self) -> bool {
        !matches!(self.phase, ReadPhase::BetweenFrames | ReadPhase::Receiving)
    }
}

impl SweepState {
    pub(super) fn new(now: Instant) -> Self {
        let seen = Observation::default();
        Self { seen, read_at: now, written_at: now, frame_at: now, busy_at: now, ended_at: None }
    }

    /// The reason to close the connection now, if there is one.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        found: Observation,
        memory_is_contended: bool,
        config: &NetConfig,
    ) -> Option<CloseReason> {
        self.note(now, found);
        let since = |then: Instant| now.saturating_duration_since(then);
        if found.write_blocked && since(self.written_at) >= config.write_stall_max {
            return Some(CloseReason::WriteStalled);
        }
        if self.ended_at.is_some_and(|ended_at| since(ended_at) >= config.drain_max) {
            return Some(CloseReason::DrainTimedOut);
        }
        if found.phase == ReadPhase::Receiving {
            let silent = since(self.read_at) >= config.read_stall_max;
            let received = found.bytes_in - found.frame_begun_at;
            let elapsed = since(self.frame_at);
            let in_the_way = memory_is_contended
                && elapsed >= config.read_stall_max
                && received < CONTENDED_BYTES_PER_SECOND * elapsed.as_secs();
            return (silent || in_the_way).then_some(CloseReason::ReadStalled);
        }
        let idle = found.is_idle() && since(self.busy_at.max(self.read_at)) >= config.idle_max;
        idle.then_some(CloseReason::Idle)
    }

    fn note(&mut self, now: Instant, found: Observation) {
        let new_frame = found.frames != self.seen.frames;
        if found.bytes_in != self.seen.bytes_in || new_frame {
            self.read_at = now;
        }
        if new_frame {
            self.frame_at = now;
        }
        if found.bytes_out != self.seen.bytes_out || !self.seen.write_blocked {
            self.written_at = now;
        }
        if !found.is_idle() {
            self.busy_at = now;
        }
        if found.phase == ReadPhase::Ended {
            self.ended_at.get_or_insert(now);
        }
        self.seen = found;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sweeps every ten seconds what `at(second)` describes; the second of the verdict.
    fn closed_after(
        contended: bool,
        at: impl Fn(u64) -> Observation,
    ) -> Option<(u64, CloseReason)> {
        let (config, start) = (NetConfig::default(), Instant::now());
        let mut state = SweepState::new(start);
        (0..3600).step_by(10).find_map(|second| {
            let now = start + Duration::from_secs(second);
            state.judge(now, at(second), contended, &config).map(|reason| (second, reason))
        })
    }

    #[test]
    fn a_silent_connection_is_closed_after_the_idle_time() {
        let verdict = closed_after(false, |_| Observation::default());
        assert!(matches!(verdict, Some((600, CloseReason::Idle))), "{verdict:?}");
    }

    #[test]
    fn a_connection_that_sends_now_and_then_or_waits_for_an_answer_is_kept() {
        let sends = |second| Observation { bytes_in: second / 500, ..Observation::default() };
        assert!(closed_after(false, sends).is_none());
        let waits = |_| Observation { unanswered: 1, ..Observation::default() };
        assert!(closed_after(false, waits).is_none());
    }

    #[test]
    fn a_peer_that_takes_no_bytes_is_closed_and_one_that_takes_few_is_kept() {
        let stuck = Observation { write_blocked: true, unanswered: 1, ..Observation::default() };
        let verdict = closed_after(false, |_| stuck);
        assert!(matches!(verdict, Some((60, CloseReason::WriteStalled))), "{verdict:?}");
        let slow = |second| Observation { bytes_out: second / 50, ..stuck };
        assert!(closed_after(false, slow).is_none());
    }

    #[test]
    fn a_block_that_began_after_the_last_sweep_is_not_taken_for_an_old_one() {
        let at = |second| Observation {
            write_blocked: second >= 100,
            unanswered: 1,
            ..Observation::default()
        };
        let verdict = closed_after(false, at);
        assert!(matches!(verdict, Some((160, CloseReason::WriteStalled))), "{verdict:?}");
    }

    #[test]
    fn a_begun_request_must_go_on_and_a_slow_one_only_when_others_wait_for_memory() {
        let receiving =
            Observation { phase: ReadPhase::Receiving, frames: 1, ..Observation::default() };
        let verdict = closed_after(false, |_| receiving);
        assert!(matches!(verdict, Some((30, CloseReason::ReadStalled))), "{verdict:?}");
        let drips = |second| Observation { bytes_in: second, ..receiving };
        assert!(closed_after(false, drips).is_none());
        let verdict = closed_after(true, drips);
        assert!(matches!(verdict, Some((30, CloseReason::ReadStalled))), "{verdict:?}");
        let flows = |second| Observation { bytes_in: second * 20_000, ..receiving };
        assert!(closed_after(true, flows).is_none());
    }

    #[test]
    fn a_wait_for_memory_does_not_count_as_silence_of_the_peer() {
        let at = |second| match second {
            0..500 => {
                Observation { phase: ReadPhase::AwaitingMemory, bytes_in: 4, ..Default::default() }
            }
            _ => Observation {
                phase: ReadPhase::Receiving,
                frames: 1,
                bytes_in: 4,
                ..Default::default()
            },
        };
        let verdict = closed_after(false, at);
        assert!(matches!(verdict, Some((530, CloseReason::ReadStalled))), "{verdict:?}");
    }

    #[test]
    fn a_half_closed_connection_ends_in_bounded_time() {
        let ended =
            Observation { phase: ReadPhase::Ended, unanswered: 1, ..Observation::default() };
        let verdict = closed_after(false, |_| ended);
        assert!(matches!(verdict, Some((60, CloseReason::DrainTimedOut))), "{verdict:?}");
    }
}
