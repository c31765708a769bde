//! A counted budget of bytes on one shard, with waiters in order of arrival.
//!
//! Invariants
//! - What is reserved is at most the capacity, except that a reservation larger than the whole
//!   capacity is admitted when nothing else is reserved, and except for [`Reservation::grow`].
//! - Waiters are served first come, first served; nobody overtakes, so a large one is not starved.
//! - A reservation ends when its guard is dropped, a place in the queue when its future is dropped.
//!
//! Deliberately absent: any use by two threads. Waiters own their task's waker, one each.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A shard's budget of bytes. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    capacity: usize,
    reserved: Cell<usize>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Debug)]
struct Waiter {
    bytes: usize,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Bytes taken from a [`Budget`]; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

/// Future of [`Budget::reserve`].
#[derive(Debug)]
pub struct Reserve {
    budget: Budget,
    bytes: usize,
    waiter: Option<Rc<Waiter>>,
}

impl Budget {
    /// A budget of `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let waiters = RefCell::new(VecDeque::new());
        Self { inner: Rc::new(Inner { capacity, reserved: Cell::new(0), waiters }) }
    }

    /// Waits until `bytes` are free and everyone who came earlier is served, then takes them.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Reserve {
        Reserve { budget: self.clone(), bytes, waiter: None }
    }

    /// Takes `bytes` if that needs no waiting.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        if !self.inner.waiters.borrow().is_empty() || !self.inner.admits(bytes) {
            return None;
        }
        Some(self.take(bytes))
    }

    /// Takes what is free, at most `bytes_max`, without waiting; possibly nothing.
    #[must_use]
    pub fn try_take_up_to(&self, bytes_max: usize) -> Reservation {
        let free = self.inner.capacity.saturating_sub(self.inner.reserved.get());
        self.take(bytes_max.min(free))
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.inner.reserved.get()
    }

    /// The capacity, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.inner.capacity
    }

    /// Number of those who wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.waiters.borrow().len()
    }

    fn take(&self, bytes: usize) -> Reservation {
        self.inner.reserved.set(self.inner.reserved.get() + bytes);
        Reservation { budget: self.clone(), bytes }
    }
}

impl Inner {
    fn admits(&self, bytes: usize) -> bool {
        let reserved = self.reserved.get();
        reserved == 0 || reserved.saturating_add(bytes) <= self.capacity
    }

    fn give_back(&self, bytes: usize) {
        let reserved = self.reserved.get();
        assert!(bytes <= reserved, "gave back {bytes} of {reserved} bytes");
        self.reserved.set(reserved - bytes);
        self.serve();
    }

    /// Grants from the front for as long as there is room.
    fn serve(&self) {
        loop {
            let next = {
                let mut waiters = self.waiters.borrow_mut();
                match waiters.front() {
                    Some(first) if self.admits(first.bytes) => waiters.pop_front(),
                    _ => None,
                }
            };
            let Some(waiter) = next else { return };
            self.reserved.set(self.reserved.get() + waiter.bytes);
            waiter.granted.set(true);
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Reservation {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back all but `bytes`; does nothing if it holds no more than that.
    pub fn shrink_to(&mut self, bytes: usize) {
        if bytes < self.bytes {
            let excess = self.bytes - bytes;
            self.bytes = bytes;
            self.budget.inner.give_back(excess);
        }
    }

    /// Takes `bytes` more even beyond the capacity. For what must go out anyway, such as the one
    /// batch a Fetch returns whatever its size: bounded by one such a connection.
    pub fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        let reserved = &self.budget.inner.reserved;
        reserved.set(reserved.get() + bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.inner.give_back(self.bytes);
        }
    }
}

impl Future for Reserve {
    type Output = Reservation;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reservation> {
        let this = &mut *self;
        let Some(waiter) = &this.waiter else {
            if let Some(reservation) = this.budget.try_reserve(this.bytes) {
                return Poll::Ready(reservation);
            }
            let waiter = Rc::new(Waiter {
                bytes: this.bytes,
                granted: Cell::new(false),
                waker: RefCell::new(Some(cx.waker().clone())),
            });
            this.budget.inner.waiters.borrow_mut().push_back(Rc::clone(&waiter));
            this.waiter = Some(waiter);
            return Poll::Pending;
        };
        if waiter.granted.get() {
            this.waiter = None;
            return Poll::Ready(Reservation { budget: this.budget.clone(), bytes: this.bytes });
        }
        waiter.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        Poll::Pending
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        if waiter.granted.get() {
            self.budget.inner.give_back(waiter.bytes);
            return;
        }
        self.budget.inner.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
        // It may have been the one that did not fit.
        self.budget.inner.serve();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn poll(future: Pin<&mut Reserve>) -> Poll<Reservation> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_dropped_reservation_serves_the_first_who_waits() {
        let budget = Budget::new(10);
        let held = budget.try_reserve(8).unwrap();
        let mut first = pin!(budget.reserve(6));
        let mut second = pin!(budget.reserve(2));
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending(), "two bytes are free, but nobody overtakes");
        drop(held);
        assert!(matches!(poll(first.as_mut()), Poll::Ready(r) if r.bytes() == 6));
        assert!(poll(second.as_mut()).is_ready());
        assert_eq!((budget.reserved(), budget.waiting()), (0, 0));
    }

    #[test]
    fn a_reservation_beyond_the_capacity_is_admitted_alone() {
        let budget = Budget::new(10);
        let small = budget.try_reserve(1).unwrap();
        let mut large = pin!(budget.reserve(100));
        assert!(poll(large.as_mut()).is_pending());
        drop(small);
        let Poll::Ready(large) = poll(large.as_mut()) else { panic!("not admitted alone") };
        assert!(budget.try_reserve(1).is_none());
        drop(large);
        assert!(budget.try_reserve(1).is_some());
    }

    #[test]
    fn whoever_stops_waiting_leaves_the_queue_and_lets_the_next_pass() {
        let budget = Budget::new(10);
        let _held = budget.try_reserve(8).unwrap();
        let mut small = pin!(budget.reserve(2));
        {
            let mut large = pin!(budget.reserve(9));
            assert!(poll(large.as_mut()).is_pending());
            assert!(poll(small.as_mut()).is_pending());
        }
        assert!(poll(small.as_mut()).is_ready());
    }

    #[test]
    fn a_grant_nobody_collects_is_given_back() {
        let budget = Budget::new(10);
        let held = budget.try_reserve(10).unwrap();
        {
            let mut waiting = pin!(budget.reserve(10));
            assert!(poll(waiting.as_mut()).is_pending());
            drop(held);
            assert_eq!(budget.reserved(), 10);
        }
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn taking_up_to_a_bound_never_waits_and_never_exceeds_the_capacity() {
        let budget = Budget::new(10);
        let mut first = budget.try_take_up_to(7);
        let second = budget.try_take_up_to(7);
        let third = budget.try_take_up_to(7);
        assert_eq!((first.bytes(), second.bytes(), third.bytes()), (7, 3, 0));
        first.shrink_to(2);
        assert_eq!(budget.reserved(), 5);
        first.grow(20);
        assert_eq!(budget.try_take_up_to(7).bytes(), 0);
        drop((first, second, third));
        assert_eq!(budget.reserved(), 0);
    }
}
