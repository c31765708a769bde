//! A queue's front, taken only when it is ready.

use std::collections::VecDeque;

/// Takes the front of `queue` if it is `ready`.
pub fn pop_front_if<T>(queue: &mut VecDeque<T>, ready: impl FnOnce(&T) -> bool) -> Option<T> {
    if ready(queue.front()?) { queue.pop_front() } else { None }
}
