//! SIGINT and SIGTERM as messages.
//!
//! A handler may do next to nothing, so it writes the signal's number into a pipe; a thread reads the
//! pipe and puts what it reads into a channel.

use std::io::{self, PipeReader, Read};
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::BootError;

/// A wish that the server stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopSignal {
    /// SIGINT: from a terminal.
    Interrupt,
    /// SIGTERM: from a supervisor.
    Terminate,
}

/// The pipe's end that handlers write to; −1 before there is one. Never closed.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// Signals that wait in the channel. More say nothing new and are dropped.
const SIGNALS_MAX: usize = 8;

/// Takes over SIGINT and SIGTERM; each arrives in the channel. To be called once.
///
/// # Errors
/// [`BootError::System`] when the operating system refuses, or on a second call.
pub fn stop_signals() -> Result<Receiver<StopSignal>, BootError> {
    let failed = |source| BootError::System { what: "taking over signals", source };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let descriptor = writer.into_raw_fd();
    // A full pipe must not hold up whoever the signal interrupted.
    // SAFETY: changes a flag of a descriptor that was just made.
    if unsafe { libc::fcntl(descriptor, libc::F_SETFL, libc::O_NONBLOCK) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    if PIPE.compare_exchange(-1, descriptor, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        return Err(failed(io::Error::other("they are taken already")));
    }
    let (queue, signals) = bounded(SIGNALS_MAX);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || forward(reader, &queue))
        .map_err(failed)?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        install(signal).map_err(failed)?;
    }
    Ok(signals)
}

fn forward(mut pipe: PipeReader, queue: &Sender<StopSignal>) {
    let mut byte = [0];
    while pipe.read_exact(&mut byte).is_ok() {
        let signal = match i32::from(byte[0]) {
            libc::SIGINT => StopSignal::Interrupt,
            _ => StopSignal::Terminate,
        };
        let _ = queue.try_send(signal);
    }
}

fn install(signal: i32) -> io::Result<()> {
    // SAFETY: a zeroed sigaction is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as extern "C" fn(i32) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the struct outlives the call, and the handler does only what a handler may.
    if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn handle(signal: i32) {
    let byte = signal as u8;
    // SAFETY: errno belongs to whoever was interrupted, and write() may change it.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *errno = before;
    }
}
