//! What the kernel says of this process.

use std::fs;

/// The process at a moment. What the kernel does not tell is left out.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct ProcessFigures {
    /// Memory that is there.
    pub resident_bytes: Option<u64>,
    /// Addresses that are given out.
    pub virtual_bytes: Option<u64>,
    /// Time on CPUs, of the process and the kernel for it.
    pub cpu_seconds: Option<f64>,
    /// When it started, in seconds since 1970.
    pub start_seconds: Option<f64>,
    /// Its threads.
    pub threads: Option<u64>,
    /// Files and sockets that are open.
    pub open_fds: Option<u64>,
    /// How many may be.
    pub fds_max: Option<u64>,
}

impl ProcessFigures {
    /// This process now.
    #[must_use]
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|text| boot_seconds(&text));
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self {
            // The directory that is read is open, too.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|entries| (entries.count() as u64).saturating_sub(1)),
            fds_max: limit,
            ..Self::of_stat(&stat, ticks_per_second(), page_bytes(), boot)
        }
    }

    /// The fields of `/proc/self/stat`, which are separated by spaces behind the program's name in brackets.
    fn of_stat(stat: &str, ticks: f64, page_bytes: u64, boot_seconds: Option<f64>) -> Self {
        let behind_name = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
        // The state, which follows the name, is the third field by the manual.
        let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
        let seconds = |ticks_of: u64| ticks_of as f64 / ticks;
        let cpu = number(14).zip(number(15)).map(|(user, system)| seconds(user + system));
        Self {
            resident_bytes: number(24).map(|pages| pages * page_bytes),
            virtual_bytes: number(23),
            cpu_seconds: cpu,
            start_seconds: number(22).zip(boot_seconds).map(|(at, boot)| boot + seconds(at)),
            threads: number(20),
            open_fds: None,
            fds_max: None,
        }
    }
}

/// When the host started, as `/proc/stat` has it.
fn boot_seconds(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "42 (a ) b 7) S 1 42 42 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 12 0 300 \
                    1048576 25 18446744073709551615 1 1 0";
        let found = ProcessFigures::of_stat(stat, 100.0, 4096, Some(1000.0));
        let expected = ProcessFigures {
            resident_bytes: Some(25 * 4096),
            virtual_bytes: Some(1 << 20),
            cpu_seconds: Some(2.0),
            start_seconds: Some(1003.0),
            threads: Some(12),
            open_fds: None,
            fds_max: None,
        };
        assert_eq!(found, expected);
        let nothing = ProcessFigures::of_stat("", 100.0, 4096, None);
        assert_eq!(nothing, ProcessFigures::default());
    }

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let found = ProcessFigures::read();
        assert!(found.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{found:?}");
        assert!(found.threads.is_some_and(|threads| threads >= 1), "{found:?}");
        let before = found.open_fds.unwrap();
        let _file = tempfile::tempfile().unwrap();
        assert!(ProcessFigures::read().open_fds.unwrap() > 0 && before > 0, "{found:?}");
        assert!(found.start_seconds.is_some_and(|at| at > 1.5e9), "{found:?}");
    }
}
