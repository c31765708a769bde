//! Sending and receiving on a stream socket without waiting, in pieces. Whoever would have to wait does so
//! through the runtime.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::task::Poll;

/// Slices handed to one `sendmsg`. The kernel's bound is 1,024.
pub const SLICES_MAX: usize = 256;

/// Hands as much of the first [`SLICES_MAX`] slices to the socket as it takes now.
///
/// # Errors
/// `WouldBlock` when its buffer is full; anything else is the end of the connection.
pub fn send_now<'a>(socket: RawFd, slices: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; SLICES_MAX];
    let mut used = 0;
    for (vector, slice) in vectors.iter_mut().zip(slices) {
        let base = slice.as_ptr().cast_mut().cast();
        vector.write(libc::iovec { iov_base: base, iov_len: slice.len() });
        used += 1;
    }
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = vectors.as_mut_ptr().cast();
    message.msg_iovlen = used as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: `message` points at the `used` vectors that were set, of memory that outlives the call, which only
        // reads it.
        let sent = unsafe { libc::sendmsg(socket, &raw const message, flags) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Receives into `first` and what is more into `then`, without waiting. `None`: there is nothing now, or the peer has
/// ended its stream.
///
/// # Errors
/// The end of the connection.
pub fn receive_now(
    socket: RawFd,
    first: &mut [MaybeUninit<u8>],
    then: &mut [u8],
) -> io::Result<Option<usize>> {
    let slot =
        |base: *mut libc::c_void, bytes: usize| libc::iovec { iov_base: base, iov_len: bytes };
    let mut slots =
        [slot(first.as_mut_ptr().cast(), first.len()), slot(then.as_mut_ptr().cast(), then.len())];
    // SAFETY: all-zero is a valid `msghdr`: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slots.as_mut_ptr();
    message.msg_iovlen = slots.len() as _;
    loop {
        // SAFETY: `message` points at slices that this call has to itself and that outlive it.
        let received = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_DONTWAIT) };
        if let Ok(received) = usize::try_from(received) {
            return Ok((received > 0).then_some(received));
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            error => return Err(error),
        }
    }
}

/// Polls a read or a write again when a signal came in between.
pub fn poll_uninterrupted(
    mut poll: impl FnMut() -> Poll<io::Result<usize>>,
) -> Poll<io::Result<usize>> {
    loop {
        match poll() {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Shuts a socket down both ways: whoever waits on it learns that.
pub fn shut_down(socket: RawFd) {
    // SAFETY: no memory is involved; a descriptor that is not a connected socket is an error without effect.
    unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
}
