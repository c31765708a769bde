//! How long a connection may go on before it lets its shard look at the rest of the world.
//!
//! The executor takes in completions, timers and messages of other threads between turns, and a turn lasts
//! while any task is ready. A client that is faster than its shard would keep its connection ready for ever, and
//! the WAL's completions waiting. So a connection that has processed its share waits for a timer of no
//! duration: that is heard of only after everything else was. The same holds within a request that is much work.

use std::time::Duration;

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
    pub(super) async fn after_request(&mut self, request_bytes: usize) {
        self.after(request_bytes.max(REQUEST_BYTES_MIN)).await;
    }

    /// Counts work that costs as much as receiving so many bytes, and waits if the share is used up.
    pub async fn after(&mut self, cost: usize) {
        if self.spend(cost) {
            glommio::timer::sleep(Duration::ZERO).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
