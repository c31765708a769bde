//! When requests are due.

/// How a load decides that it is time for a request.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// As soon as a connection has room.
    Closed,
    /// So many requests a second over all connections of the load, evenly spaced.
    Rate(f64),
}

/// The requests of a load at a fixed rate, numbered from 0; number `k` belongs to connection `k % connections`.
#[derive(Clone, Copy, Debug)]
pub(super) struct DueTimes {
    start_ns: u64,
    interval_ns: f64,
}

impl DueTimes {
    pub(super) fn new(start_ns: u64, requests_per_second: f64) -> Self {
        assert!(requests_per_second > 0.0, "a rate is above 0");
        Self { start_ns, interval_ns: 1e9 / requests_per_second }
    }

    /// When a request should leave.
    pub(super) fn due_ns(&self, number: u64) -> u64 {
        self.start_ns + (number as f64 * self.interval_ns) as u64
    }

    /// How many requests should have left by `now_ns`.
    pub(super) fn due_by(&self, now_ns: u64) -> u64 {
        if now_ns < self.start_ns {
            return 0;
        }
        let mut count = ((now_ns - self.start_ns) as f64 / self.interval_ns) as u64;
        // Rounding may be off by one in either direction.
        while count > 0 && self.due_ns(count - 1) > now_ns {
            count -= 1;
        }
        while self.due_ns(count) <= now_ns {
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_even_distances_from_the_start() {
        let times = DueTimes::new(1_000, 1e6);
        assert_eq!(times.due_ns(0), 1_000);
        assert_eq!(times.due_ns(3), 4_000);
        assert_eq!(times.due_by(999), 0);
        assert_eq!(times.due_by(1_000), 1);
        assert_eq!(times.due_by(3_999), 3);
        assert_eq!(times.due_by(4_000), 4);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_neither_skips_nor_doubles() {
        let times = DueTimes::new(7, 300_007.0);
        for number in (0..2_000_000).step_by(997) {
            let due = times.due_ns(number);
            assert_eq!(times.due_by(due), number + 1, "at the time of number {number}");
            assert_eq!(times.due_by(due - 1), number, "just before number {number}");
        }
    }
}
