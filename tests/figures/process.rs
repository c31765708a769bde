//! What the kernel says of a process: CPU time, wake-ups of its threads, resident memory.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use super::support::server::Server;

/// A thread as it stood at some time.
#[derive(Clone, Debug)]
struct Thread {
    name: String,
    switches: u64,
}

/// What a process cost within a time.
#[derive(Debug)]
pub struct Cost {
    pub cpu: Duration,
    pub elapsed: Duration,
    /// Context switches by thread name, of threads that had any.
    pub switches: BTreeMap<String, u64>,
}

impl Cost {
    /// CPU time as a share of one core, in percent.
    pub fn cpu_percent(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64() * 100.0
    }

    pub fn switches_of(&self, prefix: &str) -> u64 {
        self.switches
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, switches)| *switches)
            .sum()
    }
}

/// Watches a server for a while in which nobody asks it anything.
pub fn watch(server: &Server, window: Duration) -> Cost {
    let pid = server.pid();
    let begin = Instant::now();
    let (cpu, threads) = (cpu(pid), threads(pid));
    std::thread::sleep(window);
    let after = self::threads(pid);
    let mut switches = BTreeMap::new();
    for (tid, thread) in after {
        let before = threads.get(&tid).map_or(0, |thread| thread.switches);
        if thread.switches > before {
            *switches.entry(thread.name).or_default() += thread.switches - before;
        }
    }
    Cost { cpu: self::cpu(pid) - cpu, elapsed: begin.elapsed(), switches }
}

/// User and system time of all threads.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    // The name may hold spaces; fields are counted behind it.
    let fields = stat.rsplit_once(')').expect("a name in parentheses").1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    // SAFETY: takes no memory.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

/// Bytes that a process had read from and written to disks, in MiB.
pub fn disk_mib(pid: u32) -> (u64, u64) {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("the server runs");
    let value = |key: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(key)).expect("a counter");
        line.trim().parse::<u64>().expect("a number") >> 20
    };
    (value("read_bytes:"), value("write_bytes:"))
}

fn threads(pid: u32) -> BTreeMap<u32, Thread> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).expect("the server runs") {
        let entry = entry.expect("a thread");
        // A thread may end between the listing and the look.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{key} in {status}")).trim().to_owned()
        };
        let count = |key: &str| value(key).parse::<u64>().expect("a number");
        let switches = count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:");
        let tid = entry.file_name().to_str().and_then(|name| name.parse().ok()).expect("a number");
        threads.insert(tid, Thread { name: value("Name:"), switches });
    }
    threads
}
