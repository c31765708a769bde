//! Who may connect when: clients that lost their connection wait here until the server is checked.

use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Where clients find the server, and whether they may.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    address: SocketAddr,
    is_open: bool,
    parked: usize,
    ending: bool,
    failed: bool,
}

impl Gate {
    pub fn new(address: SocketAddr) -> Self {
        let state = State { address, is_open: true, parked: 0, ending: false, failed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Where to connect, as soon as one may; `None` when a client failed and everybody goes home.
    pub fn pass(&self) -> Option<SocketAddr> {
        let mut state = self.lock();
        state.parked += 1;
        self.changed.notify_all();
        while !state.is_open && !state.failed {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        state.parked -= 1;
        (!state.failed).then_some(state.address)
    }

    /// From now on whoever loses its connection stays outside.
    pub fn close(&self) {
        self.lock().is_open = false;
    }

    /// Waits until this many clients are outside; all that they learnt is then in the ledger.
    pub fn await_parked(&self, clients: usize, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while state.parked < clients {
            assert!(!state.failed, "a client failed");
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} of {clients} lost their connection", state.parked);
            state = self.changed.wait_timeout(state, left).expect("no client panics inside").0;
        }
    }

    pub fn open(&self, address: SocketAddr) {
        let mut state = self.lock();
        state.address = address;
        state.is_open = true;
        self.changed.notify_all();
    }

    /// Clients finish what they began, and begin nothing any more.
    pub fn end(&self) {
        self.lock().ending = true;
    }

    pub fn is_ending(&self) -> bool {
        self.lock().ending
    }

    pub fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// A guard that sends everybody home when its thread panics.
    pub fn watch(&self) -> Watch<'_> {
        Watch(self)
    }
}

/// See [`Gate::watch`].
#[derive(Debug)]
pub struct Watch<'a>(&'a Gate);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut state = self.0.lock();
            state.failed = true;
            state.ending = true;
            self.0.changed.notify_all();
        }
    }
}
