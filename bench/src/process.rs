//! What the kernel says of a server's process: which it is, its CPU time, its memory.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

/// What a process has used so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory now.
    pub resident_bytes: u64,
}

/// Looks at a process; `None` when it is gone or is not to be seen.
#[must_use]
pub fn usage(pid: u32) -> Option<Usage> {
    Some(Usage { cpu: cpu(pid)?, resident_bytes: resident_bytes(pid)? })
}

/// Source: proc_pid_stat(5), fields 14 and 15.
fn cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and parentheses; fields are counted behind its last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64((user + system) as f64 / per_second as f64))
}

/// Source: proc_pid_statm(5), the second number.
fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Bytes that a process had read from disks so far; `None` when it is not to be seen.
#[must_use]
pub fn disk_read_bytes(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    io.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

/// The process of this machine that listens on `address`; `None` when it cannot be found out.
#[must_use]
pub fn listener(address: SocketAddr) -> Option<u32> {
    // Another machine's processes are not ours to see, even if one of ours listens on the same port.
    let is_local =
        address.ip().is_loopback() || std::net::TcpListener::bind((address.ip(), 0)).is_ok();
    if !is_local {
        return None;
    }
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, address.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let descriptors = fs::read_dir(entry.path().join("fd")).ok()?;
        let mut links = descriptors.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        links
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
            .then_some(pid)
    })
}

/// Inodes of the sockets that listen on a port. Source: proc_net(5); `0A` is LISTEN.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    let inode = |line: &str| -> Option<u64> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, found) = fields.get(1)?.rsplit_once(':')?;
        let listens = *fields.get(3)? == "0A" && u16::from_str_radix(found, 16).ok()? == port;
        listens.then(|| fields.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn this_process_is_found_by_the_port_it_listens_on() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(listener(address), Some(std::process::id()));
        drop(socket);
        assert_eq!(listener(address), None);
    }

    #[test]
    fn this_process_uses_memory_and_time_and_one_that_is_not_there_says_nothing() {
        let used = usage(std::process::id()).unwrap();
        assert!(used.resident_bytes > 1 << 16, "{used:?}");
        assert_eq!(usage(u32::MAX), None);
    }
}
