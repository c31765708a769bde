//! How other threads speak to a shard: a bell, and bounded queues behind it.
//!
//! A shard has one [`Bell`] for everything that comes from outside its thread: mesh queues and
//! inboxes ring the same one, and one task answers it. A shard that is busy is not disturbed; one
//! that waits is woken once, however many messages arrive; one with nothing to hear sleeps.
//!
//! The bell is a byte in a socket that the shard has a read pending on, and not a waker called from
//! the other thread. The runtime hands such wakers over with an eventfd of its own, whose completion
//! may come in after the waker was taken: between polling its rings and running its tasks the
//! executor then believes that it was preempted, runs nothing, and goes to sleep with tasks that are
//! ready. A completion that some task waits for never does that.

use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use futures_io::AsyncRead;

use super::process::stop_process;

/// The shard looks into its queues, or will before it waits.
const AWAKE: u8 = 0;
/// The shard reads from its socket.
const WAITING: u8 = 1;
/// There is something in the queues.
const RUNG: u8 = 2;

/// Wakes one task of one shard from any thread.
#[derive(Debug)]
pub struct Bell {
    state: AtomicU8,
    clapper: UnixStream,
}

/// The shard's end of its bell, before its thread has started.
#[derive(Debug)]
pub struct Ears {
    bell: Arc<Bell>,
    socket: UnixStream,
}

/// The shard's end of its bell, on its thread.
#[derive(Debug)]
pub struct Listener {
    bell: Arc<Bell>,
    socket: glommio::net::UnixStream,
}

impl Bell {
    /// A bell that nobody has rung.
    pub fn new() -> io::Result<(Arc<Self>, Ears)> {
        let (clapper, socket) = UnixStream::pair()?;
        clapper.set_nonblocking(true)?;
        socket.set_nonblocking(true)?;
        let bell = Arc::new(Self { state: AtomicU8::new(AWAKE), clapper });
        Ok((Arc::clone(&bell), Ears { bell, socket }))
    }

    /// Wakes the shard if it waits. Call it after the message is in its queue.
    pub fn ring(&self) {
        if self.state.swap(RUNG, Ordering::AcqRel) == WAITING {
            self.nudge();
        }
    }

    /// Makes the shard's thread turn once, whatever it does.
    pub fn nudge(&self) {
        // Full: the shard has plenty to read. Closed: the shard has ended.
        let _ = (&self.clapper).write(&[1]);
    }
}

impl Ears {
    /// Listens, on the shard's thread.
    pub fn listen(self) -> Listener {
        // SAFETY: the descriptor is owned by this value, which gives it up here.
        let socket = unsafe { glommio::net::UnixStream::from_raw_fd(self.socket.into_raw_fd()) };
        Listener { bell: self.bell, socket }
    }

    /// Whether the shard would be woken now: for tests without an executor.
    pub fn take_ring(&self) -> bool {
        (&self.socket).read(&mut [0; 1]).is_ok()
    }
}

impl Listener {
    /// Waits for the next ring. Look into the queues after it returns, not before: what is pushed
    /// from now on rings again.
    pub async fn heard(&mut self) {
        let state = &self.bell.state;
        loop {
            let before =
                state.compare_exchange(AWAKE, WAITING, Ordering::AcqRel, Ordering::Acquire);
            if before == Err(RUNG) {
                // Nobody but the shard leaves this state.
                state.swap(AWAKE, Ordering::AcqRel);
                return;
            }
            let mut bytes = [0; 64];
            let read = std::future::poll_fn(|context| {
                Pin::new(&mut self.socket).poll_read(context, &mut bytes)
            });
            match read.await {
                Ok(1..) => {}
                Ok(0) => stop_process(format_args!("a shard's bell was closed")),
                Err(error) => stop_process(format_args!("a shard's bell failed: {error}")),
            }
        }
    }
}

/// The shard's end of a bounded queue from other threads.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: Receiver<T>,
}

/// The other threads' end of an [`Inbox`].
#[derive(Debug)]
pub struct InboxSender<T> {
    queue: Sender<T>,
    bell: Arc<Bell>,
}

impl<T> Clone for InboxSender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: Arc::clone(&self.bell) }
    }
}

/// The shard is gone; the message comes back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard has ended")]
pub struct ShardEnded<T>(pub T);

/// Why a message was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum NotSent<T> {
    /// No room.
    Full(T),
    /// The shard is gone.
    Ended(T),
}

impl<T> Inbox<T> {
    /// A queue of `capacity` messages that rings `bell`.
    pub fn new(capacity: usize, bell: Arc<Bell>) -> (InboxSender<T>, Self) {
        let (sender, receiver) = bounded(capacity);
        (InboxSender { queue: sender, bell }, Self { queue: receiver })
    }

    /// The oldest message. Lets in a sender that waits for room.
    pub fn try_take(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl<T> InboxSender<T> {
    /// Puts a message in, waiting for room. Never on a shard's thread.
    pub fn send(&self, message: T) -> Result<(), ShardEnded<T>> {
        self.queue.send(message).map_err(|error| ShardEnded(error.into_inner()))?;
        self.bell.ring();
        Ok(())
    }

    /// Puts a message in if there is room.
    pub fn try_send(&self, message: T) -> Result<(), NotSent<T>> {
        self.queue.try_send(message).map_err(|error| match error {
            TrySendError::Full(message) => NotSent::Full(message),
            TrySendError::Disconnected(message) => NotSent::Ended(message),
        })?;
        self.bell.ring();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    #[test]
    fn busy_shard_is_not_disturbed_and_a_waiting_one_is_woken_once() {
        let (bell, ears) = Bell::new().unwrap();
        let (sender, inbox) = Inbox::new(8, Arc::clone(&bell));
        for message in 0..3 {
            sender.try_send(message).unwrap();
        }
        assert!(!ears.take_ring(), "a shard that is awake looks by itself");
        bell.state.store(WAITING, Ordering::Release);
        for message in 3..6 {
            sender.try_send(message).unwrap();
        }
        assert!(ears.take_ring());
        assert!(!ears.take_ring(), "one wake-up");
        assert_eq!(std::iter::from_fn(|| inbox.try_take()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn every_message_is_heard_whenever_it_comes() {
        const MESSAGES: u64 = 50_000;
        let (bell, ears) = Bell::new().unwrap();
        let (sender, inbox) = Inbox::new(16, Arc::clone(&bell));
        let shard = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(1 << 16)
            .spawn(move || async move {
                let mut listener = ears.listen();
                let mut next = 0;
                while next < MESSAGES {
                    listener.heard().await;
                    while let Some(message) = inbox.try_take() {
                        assert_eq!(message, next);
                        next += 1;
                    }
                }
                next
            })
            .unwrap();
        for message in 0..MESSAGES {
            sender.send(message).unwrap();
            if message % 7 == 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(shard.join().unwrap(), MESSAGES);
    }

    #[test]
    fn full_inbox_gives_the_message_back_and_an_ended_shard_too() {
        let (sender, inbox) = Inbox::new(1, Bell::new().unwrap().0);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Err(NotSent::Full(2)));
        drop(inbox);
        assert_eq!(sender.try_send(3), Err(NotSent::Ended(3)));
        assert_eq!(sender.send(4), Err(ShardEnded(4)));
    }
}
