//! The kernel and the machine.

use std::fs;
use std::path::Path;

use super::Finding;
use crate::limits::check_io_uring;

/// Oldest kernel with what the runtime asks io_uring for.
const KERNEL_MIN: (u32, u32) = (5, 8);

pub(super) fn kernel() -> Finding {
    const TOPIC: &str = "kernel";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let remedy = "run Linux 5.8 or newer";
    match version(release) {
        Some(version) if version >= KERNEL_MIN => Finding::ok(TOPIC, format!("Linux {release}")),
        Some(_) => Finding::fail(TOPIC, format!("Linux {release} is too old"), remedy),
        None => Finding::warn(TOPIC, format!("release {release:?} is not understood"), remedy),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn io_uring() -> Finding {
    const TOPIC: &str = "io_uring";
    let setting = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let setting = setting.map_or_else(String::new, |value| {
        format!(" (kernel.io_uring_disabled = {})", value.trim())
    });
    match check_io_uring() {
        Ok(()) => Finding::ok(TOPIC, format!("a ring can be made{setting}")),
        Err(error) => Finding::fail(TOPIC, format!("{}{setting}", error.fact()), error.remedy()),
    }
}

pub(super) fn governor(cpus: &[usize]) -> Finding {
    governor_below(Path::new("/sys/devices/system/cpu"), cpus)
}

fn governor_below(root: &Path, cpus: &[usize]) -> Finding {
    const TOPIC: &str = "governor";
    let governor_of = |cpu: &usize| {
        let path = root.join(format!("cpu{cpu}/cpufreq/scaling_governor"));
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    let found: Vec<String> = cpus.iter().filter_map(governor_of).collect();
    if found.is_empty() {
        return Finding::ok(TOPIC, "the kernel does not scale frequencies here");
    }
    match found.iter().find(|governor| *governor != "performance") {
        None => Finding::ok(TOPIC, "performance"),
        Some(governor) => Finding::warn(
            TOPIC,
            format!("{governor}: a core that sleeps between requests wakes up slow"),
            "run `cpupower frequency-set -g performance`",
        ),
    }
}

pub(super) fn clock() -> Finding {
    const TOPIC: &str = "clock";
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let Ok(source) = fs::read_to_string(path) else {
        return Finding::ok(TOPIC, "the kernel does not name its source");
    };
    match source.trim() {
        // Those that are read with a system call.
        slow @ ("hpet" | "acpi_pm" | "jiffies" | "xen") => Finding::warn(
            TOPIC,
            format!("{slow}: each look at the clock is a system call"),
            format!("run `echo tsc > {path}` if the machine has it"),
        ),
        source => Finding::ok(TOPIC, source),
    }
}

pub(super) fn huge_pages() -> Finding {
    const TOPIC: &str = "huge pages";
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let Ok(choice) = fs::read_to_string(path) else {
        return Finding::ok(TOPIC, "the kernel has no transparent ones");
    };
    let chosen = choice.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match chosen.map_or("", |(chosen, _)| chosen) {
        "always" => Finding::warn(
            TOPIC,
            "always: memory that was given back in small pages stays resident",
            format!("run `echo madvise > {path}`"),
        ),
        other => Finding::ok(TOPIC, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn kernel_releases_compare_by_number() {
        assert_eq!(version("6.18.0-generic"), Some((6, 18)));
        assert!(version("5.10.1").unwrap() > KERNEL_MIN);
        assert!(version("5.4.0").unwrap() < KERNEL_MIN);
        assert_eq!(version("next"), None);
    }

    #[test]
    fn one_cpu_that_saves_power_is_a_warning() {
        let root = tempfile::tempdir().unwrap();
        let set = |cpu: usize, governor: &str| {
            let directory = root.path().join(format!("cpu{cpu}/cpufreq"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("scaling_governor"), governor).unwrap();
        };
        let look = || governor_below(root.path(), &[0, 1]);
        assert_eq!(look().verdict, Verdict::Ok);
        set(0, "performance\n");
        set(1, "performance\n");
        assert_eq!(look().verdict, Verdict::Ok);
        set(1, "powersave\n");
        let warning = look();
        assert_eq!(warning.verdict, Verdict::Warn);
        assert!(warning.fact.contains("powersave") && warning.remedy.unwrap().contains("cpupower"));
    }

    #[test]
    fn this_kernel_is_looked_at() {
        assert_eq!(kernel().topic, "kernel");
        for finding in [io_uring(), clock(), huge_pages()] {
            assert_eq!(finding.verdict == Verdict::Ok, finding.remedy.is_none(), "{finding:?}");
        }
    }
}
