//! Waiting within one thread: a signal, a one-shot slot and first-come permits.
//!
//! None of these is `Send`; none allocates wakers beyond one per waiter. Each waiter has its own
//! place, so that no event ever holds more than a handful of clones of one waker (32,768 clones of
//! one task's waker panic the executor).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A level that one task waits for: raised any number of times, lowered by the waiter.
#[derive(Debug, Default)]
pub struct Signal {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Makes the current or the next [`Signal::wait`] return.
    pub fn raise(&self) {
        self.raised.set(true);
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    /// Waits until raised, and lowers it. One task at a time: a second waiter replaces the first.
    pub async fn wait(&self) {
        poll_fn(|context| self.poll_raised(context)).await;
    }

    /// As [`Signal::wait`], for use beside other things within one `poll_fn`.
    pub fn poll_raised(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.raised.replace(false) {
            return Poll::Ready(());
        }
        *self.waiter.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

/// A latch: once open it stays open. Any number of tasks wait, each with its own waker.
#[derive(Debug, Default)]
pub struct Latch {
    open: Cell<bool>,
    waiters: RefCell<Vec<Waker>>,
}

impl Latch {
    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.open.set(true);
        for waiter in self.waiters.take() {
            waiter.wake();
        }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Waits until it or `other` is open.
    pub async fn wait_or(&self, other: &Self) {
        let (mut this, mut that) = (pin!(self.wait()), pin!(other.wait()));
        poll_fn(|context| match this.as_mut().poll(context) {
            Poll::Pending => that.as_mut().poll(context),
            ready => ready,
        })
        .await;
    }

    /// Waits until it is open.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.open.get() {
                return Poll::Ready(());
            }
            let mut waiters = self.waiters.borrow_mut();
            if !waiters.iter().any(|known| known.will_wake(context.waker())) {
                waiters.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// A value that arrives once. Shared by the one who fills it and the one who waits.
#[derive(Debug)]
pub struct Slot<T> {
    state: Rc<RefCell<SlotState<T>>>,
}

#[derive(Debug)]
enum SlotState<T> {
    Empty(Option<Waker>),
    Full(T),
    Taken,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { state: Rc::new(RefCell::new(SlotState::Empty(None))) }
    }
}

impl<T> Slot<T> {
    /// A slot that already holds its value.
    pub fn filled(value: T) -> Self {
        Self { state: Rc::new(RefCell::new(SlotState::Full(value))) }
    }

    /// Hands the value over and wakes the waiter.
    ///
    /// # Panics
    /// When the slot was filled before: a request has one answer.
    pub fn fill(&self, value: T) {
        let before = self.state.replace(SlotState::Full(value));
        let SlotState::Empty(waiter) = before else { panic!("a request was answered twice") };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Whether the value was there at some time.
    pub fn is_settled(&self) -> bool {
        !matches!(*self.state.borrow(), SlotState::Empty(_))
    }
}

impl<T> Future for Slot<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.state.borrow_mut();
        if let SlotState::Empty(waiter) = &mut *state {
            *waiter = Some(context.waker().clone());
            return Poll::Pending;
        }
        match std::mem::replace(&mut *state, SlotState::Taken) {
            SlotState::Full(value) => Poll::Ready(value),
            SlotState::Empty(_) | SlotState::Taken => panic!("a slot is emptied once"),
        }
    }
}

/// A number of permits, given out first come, first served.
///
/// A permit is a count and no guard: whoever knows that it is free again calls
/// [`Permits::release`].
#[derive(Debug)]
pub struct Permits {
    free: Cell<usize>,
    waiters: RefCell<VecDeque<Rc<Ticket>>>,
}

#[derive(Debug, Default)]
struct Ticket {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Permits {
    /// `count` free permits.
    pub fn new(count: usize) -> Self {
        Self { free: Cell::new(count), waiters: RefCell::default() }
    }

    /// Takes a permit if one is free and nobody waits.
    pub fn try_acquire(&self) -> bool {
        let free = self.free.get();
        if free == 0 {
            return false;
        }
        // Released permits go to waiters directly, so a free one means that nobody waits.
        debug_assert!(self.waiters.borrow().is_empty());
        self.free.set(free - 1);
        true
    }

    /// Waits for a permit, behind those who wait already.
    pub async fn acquire(&self) {
        if self.try_acquire() {
            return;
        }
        let ticket = Rc::new(Ticket::default());
        self.waiters.borrow_mut().push_back(Rc::clone(&ticket));
        let place = Place { permits: self, ticket };
        poll_fn(|context| {
            if place.ticket.granted.get() {
                return Poll::Ready(());
            }
            *place.ticket.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        // The permit is the caller's now: leave without handing it back.
        place.ticket.granted.set(false);
    }

    /// Returns a permit, to the first in line if there is one.
    pub fn release(&self) {
        let next = self.waiters.borrow_mut().pop_front();
        match next {
            Some(ticket) => {
                ticket.granted.set(true);
                if let Some(waker) = ticket.waker.take() {
                    waker.wake();
                }
            }
            None => self.free.set(self.free.get() + 1),
        }
    }

    /// Permits that nobody holds.
    pub fn free(&self) -> usize {
        self.free.get()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiters.borrow().len()
    }
}

/// A place in the line. Leaving it early passes a granted permit on.
struct Place<'a> {
    permits: &'a Permits,
    ticket: Rc<Ticket>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.ticket.granted.get() {
            self.permits.release();
            return;
        }
        self.permits.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.ticket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn permits_are_served_in_order_of_arrival() {
        let permits = Permits::new(1);
        assert!(permits.try_acquire());
        let mut first = pin!(permits.acquire());
        let mut second = pin!(permits.acquire());
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
        permits.release();
        assert!(!permits.try_acquire(), "a newcomer does not overtake");
        assert!(poll_once(second.as_mut()).is_pending());
        assert!(poll_once(first.as_mut()).is_ready());
        permits.release();
        assert!(poll_once(second.as_mut()).is_ready());
        permits.release();
        assert_eq!(permits.free(), 1);
    }

    #[test]
    fn permit_granted_to_a_dropped_waiter_goes_to_the_next() {
        let permits = Permits::new(1);
        assert!(permits.try_acquire());
        let mut first = Box::pin(permits.acquire());
        let mut second = pin!(permits.acquire());
        let mut third = Box::pin(permits.acquire());
        assert!(poll_once(first.as_mut()).is_pending());
        assert!(poll_once(second.as_mut()).is_pending());
        assert!(poll_once(third.as_mut()).is_pending());
        drop(third);
        assert_eq!(permits.waiting(), 2);
        permits.release();
        drop(first);
        assert!(poll_once(second.as_mut()).is_ready());
        permits.release();
        assert_eq!((permits.free(), permits.waiting()), (1, 0));
    }

    #[test]
    fn signal_raised_before_the_wait_is_not_lost_and_lowers() {
        let signal = Signal::default();
        signal.raise();
        signal.raise();
        assert!(poll_once(pin!(signal.wait())).is_ready());
        assert!(poll_once(pin!(signal.wait())).is_pending());
    }

    #[test]
    fn slot_gives_its_value_once() {
        let slot = Slot::default();
        let mut waiting = slot.clone();
        assert!(poll_once(Pin::new(&mut waiting)).is_pending());
        slot.fill(7);
        assert_eq!(poll_once(Pin::new(&mut waiting)), Poll::Ready(7));
        assert!(slot.is_settled());
    }
}
