//! What there is: CPUs, memory and limits of this process, as the kernel tells them.
//!
//! Facts only; what follows from them is in [`crate::limits`] and [`crate::plan`].

mod cgroup;

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};

/// What this process may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// CPUs in its affinity mask, ascending.
    pub cpus: Vec<usize>,
    /// Thousandths of a CPU that its control groups allow; `None` without a quota.
    pub cpu_quota_millis: Option<u64>,
    /// Memory that it may fill.
    pub memory: Memory,
    /// `RLIMIT_MEMLOCK`; `None` without a limit.
    pub memlock_bytes: Option<u64>,
    /// Hard `RLIMIT_NOFILE`.
    pub open_files: u64,
    /// `net.core.wmem_max`, where the system says it.
    pub socket_send_bytes_max: Option<u64>,
    /// `net.core.rmem_max`, where the system says it.
    pub socket_receive_bytes_max: Option<u64>,
}

/// Memory, and who bounds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    /// What is built in.
    Physical(u64),
    /// What a control group allows, which is less.
    ControlGroup(u64),
}

impl Memory {
    /// How much.
    #[must_use]
    pub fn bytes(self) -> u64 {
        let (Self::Physical(bytes) | Self::ControlGroup(bytes)) = self;
        bytes
    }

    /// Whose.
    #[must_use]
    pub fn owner(self) -> &'static str {
        match self {
            Self::Physical(_) => "this machine",
            Self::ControlGroup(_) => "this control group",
        }
    }
}

impl Host {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it does not tell the affinity mask or the size of the memory.
    pub fn read() -> io::Result<Self> {
        let mask = sched_getaffinity(None)?;
        let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu)).collect();
        let physical = memory_total(&fs::read_to_string("/proc/meminfo")?)
            .ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?;
        let groups =
            cgroup::Limits::read(Path::new("/sys/fs/cgroup"), Path::new("/proc/self/cgroup"));
        let memory = match groups.memory_bytes {
            Some(bytes) if bytes < physical => Memory::ControlGroup(bytes),
            _ => Memory::Physical(physical),
        };
        Ok(Self {
            cpus,
            cpu_quota_millis: groups.cpu_millis,
            memory,
            memlock_bytes: getrlimit(Resource::Memlock).current,
            open_files: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            socket_send_bytes_max: read_number("/proc/sys/net/core/wmem_max"),
            socket_receive_bytes_max: read_number("/proc/sys/net/core/rmem_max"),
        })
    }
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_a_cpu_memory_and_files() {
        let host = Host::read().unwrap();
        assert!(!host.cpus.is_empty() && host.cpus.is_sorted());
        assert!(host.memory.bytes() > 1 << 20);
        assert!(host.open_files > 0);
    }

    #[test]
    fn total_memory_is_read_in_kilobytes() {
        assert_eq!(memory_total("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 << 10));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert_eq!(memory_total("MemTotal: 18446744073709551615 kB\n"), None);
    }
}
