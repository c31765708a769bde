//! How long a connection or a read may go on before it lets its shard look at the rest of the world.
//!
//! The executor takes in completions, timers and messages of other threads between turns, and a turn lasts
//! while any task is ready. A client that is faster than its shard would keep its connection ready for ever, and
//! the WAL's completions waiting. So a connection that has processed its share waits for a timer that is due at
//! once: that is heard of only after everything else was. The same holds within a request that is much work.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use glommio::timer::Timer;

/// What a connection may process in a turn.
const TURN_BYTES: usize = 1 << 20;
/// What a request counts at least: the smallest ones cost more than their bytes.
const REQUEST_BYTES_MIN: usize = 4096;

/// The share of one connection.
#[derive(Debug)]
pub struct Turn {
    left: usize,
}

impl Default for Turn {
    /// A whole share.
    fn default() -> Self {
        Self { left: TURN_BYTES }
    }
}

impl Turn {
    /// Counts work; true when the share is used up, and a new one begins.
    fn spend(&mut self, cost: usize) -> bool {
        if cost < self.left {
            self.left -= cost;
            return false;
        }
        self.left = TURN_BYTES;
        true
    }

    /// Counts a request and waits if the share is used up.
    pub async fn after_request(&mut self, request_bytes: usize) {
        self.after(request_bytes.max(REQUEST_BYTES_MIN)).await;
    }

    /// Counts work that costs as much as receiving so many bytes, and waits if the share is used up.
    pub async fn after(&mut self, cost: usize) {
        if self.spend(cost) {
            give_way().await;
        }
    }
}

/// Short enough to be over when the executor looks for the first time.
const AT_ONCE: Duration = Duration::from_micros(1);

/// Returns after everything that is ready has run and the executor has taken in what came meanwhile.
pub async fn give_way() {
    let mut timer: Option<Timer> = None;
    poll_fn(|context| {
        if let Some(timer) = &mut timer {
            return Pin::new(timer).poll(context).map(drop);
        }
        // A timer that is over when it is polled for the first time is ready without the executor having
        // seen it, and one of no duration always is.
        loop {
            let mut fresh = Timer::new(AT_ONCE);
            if Pin::new(&mut fresh).poll(context).is_pending() {
                timer = Some(fresh);
                return Poll::Pending;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;
    use std::os::fd::{FromRawFd, IntoRawFd};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use futures_io::AsyncRead;
    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    #[test]
    fn a_turn_that_is_given_away_lets_the_executor_hear_of_a_socket() {
        const TURNS_MAX: usize = 1000;
        let turns = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(1 << 16)
            .spawn(|| async {
                let (mut near, far) = UnixStream::pair().unwrap();
                far.set_nonblocking(true).unwrap();
                let heard = Rc::new(Cell::new(false));
                let (begun, hears) = (Rc::new(Cell::new(false)), Rc::clone(&heard));
                let begins = Rc::clone(&begun);
                glommio::spawn_local(async move {
                    // SAFETY: the descriptor is given up here and owned by the stream.
                    let mut far =
                        unsafe { glommio::net::UnixStream::from_raw_fd(far.into_raw_fd()) };
                    let mut byte = [0];
                    poll_fn(|context| {
                        begins.set(true);
                        Pin::new(&mut far).poll_read(context, &mut byte)
                    })
                    .await
                    .unwrap();
                    hears.set(true);
                })
                .detach();
                while !begun.get() {
                    glommio::executor().yield_now().await;
                }
                near.write_all(&[1]).unwrap();
                let mut turn = Turn::default();
                let mut turns = 0;
                while !heard.get() && turns < TURNS_MAX {
                    turn.after(TURN_BYTES).await;
                    turns += 1;
                }
                turns
            })
            .unwrap()
            .join()
            .unwrap();
        assert!(turns < TURNS_MAX, "nobody else was heard of in {turns} turns");
    }

    #[test]
    fn share_ends_by_bytes_or_by_requests_and_begins_anew() {
        let mut turn = Turn::default();
        let small = (1..).find(|_| turn.spend(REQUEST_BYTES_MIN)).unwrap();
        assert_eq!(small, TURN_BYTES / REQUEST_BYTES_MIN);
        assert!(turn.spend(TURN_BYTES), "a large request takes the whole share");
        assert!(!turn.spend(TURN_BYTES / 2));
        assert!(turn.spend(TURN_BYTES / 2));
    }
}
