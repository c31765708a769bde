//! The unanswered requests of one connection, oldest first.
//!
//! Invariants
//! - Responses come out in the order their requests went in.
//! - Only the oldest is polled: one waker a connection, whatever is in flight.
//! - A request counts as unanswered until its response is *written*; its memory is reserved as long. One without a
//!   response counts until its turn has come and it is settled.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll};

use super::budget::Reservation;
use super::dispatch::{PendingResponse, Response};

/// Unanswered requests of one connection.
#[derive(Default)]
pub(super) struct ResponseQueue {
    slots: RefCell<VecDeque<Slot>>,
    /// Responses taken out and not yet written.
    in_writing: Cell<usize>,
}

struct Slot {
    state: SlotState,
    request: Reservation,
}

enum SlotState {
    Ready(Response),
    Pending(PendingResponse),
}

/// A response whose turn it is, if the request has one, with the guard of its request.
pub(super) struct Answer {
    pub(super) response: Option<Response>,
    pub(super) request: Reservation,
}

impl ResponseQueue {
    pub(super) fn push_ready(&self, response: Response, request: Reservation) {
        self.slots.borrow_mut().push_back(Slot { state: SlotState::Ready(response), request });
    }

    pub(super) fn push_pending(&self, response: PendingResponse, request: Reservation) {
        self.slots.borrow_mut().push_back(Slot { state: SlotState::Pending(response), request });
    }

    /// Requests without a written response.
    pub(super) fn unanswered(&self) -> usize {
        self.slots.borrow().len() + self.in_writing.get()
    }

    /// The next response, if there is a request and it is ready. `Pending` wakes the task for the
    /// oldest request only; with no request at all, nothing does.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Answer, String>> {
        // Out of the queue while it is polled, so that no borrow is held across foreign code.
        let Some(slot) = self.slots.borrow_mut().pop_front() else { return Poll::Pending };
        let Slot { state, request } = slot;
        let response = match state {
            SlotState::Ready(response) => Some(response),
            SlotState::Pending(mut pending) => match pending.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => response,
                Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                Poll::Pending => {
                    let state = SlotState::Pending(pending);
                    self.slots.borrow_mut().push_front(Slot { state, request });
                    return Poll::Pending;
                }
            },
        };
        self.in_writing.set(self.in_writing.get() + 1);
        Poll::Ready(Ok(Answer { response, request }))
    }

    /// Notes that so many taken out before are on their way, or had none.
    pub(super) fn settled(&self, requests: usize) {
        self.in_writing.set(self.in_writing.get() - requests);
    }
}
