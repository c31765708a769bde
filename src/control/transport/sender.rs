//! The thread that sends to one peer.

use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chronik_shards::model::NodeId;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, after};
use crossbeam::select;

use super::frames::{FRAME_BYTES_MAX, Refused, greet};
use crate::control::acquaintance::Acquaintance;
use crate::control::handle::Request;
use crate::control::peer_message::{Delivery, PeerMessage};

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// How long a peer may take none of what is written.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// The first pause before another attempt; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often an idle connection is looked at.
const IDLE_LOOK: Duration = Duration::from_millis(200);

/// The way to one peer.
pub(super) struct Link {
    pub(super) peer: NodeId,
    /// Host and port.
    pub(super) address: String,
    pub(super) acquaintance: Arc<Acquaintance>,
    pub(super) outgoing: Receiver<PeerMessage>,
    /// The peer is there: no pause is needed.
    pub(super) knocked: Receiver<()>,
    /// Where raft is told what became of messages.
    pub(super) reports: Sender<Request>,
    pub(super) stopping: Arc<AtomicBool>,
}

/// Why a conversation has ended.
enum End {
    /// Nobody sends any more.
    Stopped,
    /// The connection is gone.
    Lost(io::Error),
}

/// How a pause between two attempts has ended.
enum Paused {
    Over,
    /// The peer has connected here.
    Knocked,
    /// Nobody sends any more.
    Stopped,
}

impl Link {
    pub(super) fn start(self) -> io::Result<()> {
        let name = format!("control to {}", self.peer);
        std::thread::Builder::new().name(name).spawn(move || self.run())?;
        Ok(())
    }

    fn run(self) {
        let mut pause = PAUSE_MIN;
        let mut complaint = String::new();
        while !self.stopping.load(Ordering::Acquire) {
            match self.connect() {
                Ok(stream) => {
                    tracing::info!(peer = %self.peer, "connected to a control plane");
                    (pause, complaint) = (PAUSE_MIN, String::new());
                    match self.converse(stream) {
                        End::Stopped => return,
                        End::Lost(error) => {
                            tracing::debug!(peer = %self.peer, %error, "a control plane is gone");
                        }
                    }
                }
                Err(refused) => {
                    if let Refused::Gone { applied } = refused {
                        let _ = self.reports.send(Request::Gone { applied });
                    }
                    // Each reason once: a peer that is not up yet is no news.
                    let reason = refused.to_string();
                    if reason != complaint && !matches!(refused, Refused::Io(_)) {
                        let (peer, address) = (self.peer, &self.address);
                        tracing::warn!(%peer, address, "no conversation with a control plane: {reason}");
                    }
                    complaint = reason;
                }
            }
            pause = match self.drop_queued(pause) {
                Paused::Over => (pause * 2).min(PAUSE_MAX),
                Paused::Knocked => PAUSE_MIN,
                Paused::Stopped => return,
            };
        }
    }

    fn connect(&self) -> Result<TcpStream, Refused> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the address has no host");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
                Ok(mut stream) => {
                    greet(&mut stream, &self.acquaintance, self.peer)?;
                    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// Sends what is queued until the connection or the queue ends.
    fn converse(&self, mut stream: TcpStream) -> End {
        loop {
            let message = match self.outgoing.recv_timeout(IDLE_LOOK) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return End::Stopped,
            };
            let Some(message) = message else {
                match is_closed(&stream) {
                    true => return End::Lost(io::ErrorKind::ConnectionReset.into()),
                    false => continue,
                }
            };
            let bytes = message.encode();
            if bytes.len() > FRAME_BYTES_MAX {
                tracing::error!(
                    peer = %self.peer,
                    "a message of {} bytes between control planes: {FRAME_BYTES_MAX} are allowed",
                    bytes.len()
                );
                self.report_lost(&message);
                continue;
            }
            // A peer that has closed would take one more message without a word.
            let sent = match is_closed(&stream) {
                true => Err(io::ErrorKind::ConnectionReset.into()),
                false => stream.write_all(&bytes),
            };
            match sent {
                Ok(()) if message.is_snapshot() => self.report(Delivery::SnapshotSent),
                Ok(()) => {}
                Err(error) => {
                    self.report_lost(&message);
                    return End::Lost(error);
                }
            }
        }
    }

    /// Drops what is queued for as long as `pause`, or until the peer is there.
    fn drop_queued(&self, pause: Duration) -> Paused {
        let over = after(pause);
        let mut told = false;
        loop {
            select! {
                recv(self.outgoing) -> message => match message {
                    // One report says it for all; a snapshot must not be waited for.
                    Ok(message) if !told || message.is_snapshot() => {
                        self.report_lost(&message);
                        told = true;
                    }
                    Ok(_) => {}
                    Err(_) => return Paused::Stopped,
                },
                recv(self.knocked) -> _ => return Paused::Knocked,
                recv(over) -> _ => return Paused::Over,
            }
        }
    }

    fn report_lost(&self, message: &PeerMessage) {
        self.report(match message.is_snapshot() {
            true => Delivery::SnapshotLost,
            false => Delivery::Lost,
        });
    }

    fn report(&self, report: Delivery) {
        // A control plane that has ended needs no telling.
        let _ = self.reports.send(Request::Delivery { to: self.peer, report });
    }
}

/// Whether the peer has closed: it never sends on this connection.
fn is_closed(stream: &TcpStream) -> bool {
    let mut byte = 0u8;
    // SAFETY: the pointer is to one byte that lives longer than the call, and the length is one.
    let got = unsafe {
        libc::recv(
            stream.as_raw_fd(),
            std::ptr::from_mut(&mut byte).cast(),
            1,
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    match got {
        0 => true,
        1.. => false,
        _ => !matches!(
            io::Error::last_os_error().kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
        ),
    }
}
