//! Whether an address is free.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::BootError;

/// How long a port may stay taken by a process that was killed: the kernel closes its sockets only after
/// its last ring of io_uring is gone.
const TAKEN_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// Binds without `SO_REUSEPORT` and lets go again. The runtime's own listener sets that option, with
/// which a second server would bind beside the first and take half of its clients.
///
/// # Errors
/// [`BootError::AddressInUse`] or [`BootError::Address`].
pub fn check_port_free(address: SocketAddr) -> Result<(), BootError> {
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if begun.elapsed() >= TAKEN_MAX {
                    return Err(BootError::AddressInUse(address));
                }
            }
            Err(source) => return Err(BootError::Address { address, source }),
        }
        std::thread::sleep(PAUSE);
    }
}
