//! The machine, as far as it matters for figures.

use std::fs;
use std::path::Path;

use chronik_tuning::host::Host;

/// Facts for the head of a report.
#[must_use]
pub fn facts() -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: Option<String>| {
        facts.push((name.to_owned(), value.unwrap_or_else(|| "unknown".to_owned())));
    };
    let usable = Host::read().ok().map(|host| host.cpus.len().to_string());
    let model = line_value("/proc/cpuinfo", "model name");
    let processor = usable.map(|count| match model {
        Some(model) => format!("{count} × {model}"),
        None => count,
    });
    fact("CPUs", processor);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    fact("kernel", kernel.map(|release| release.trim().to_owned()));
    let memory = line_value("/proc/meminfo", "MemTotal");
    let kib = memory.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    fact("memory", kib.map(|kib| format!("{:.1} GiB", kib as f64 / f64::from(1 << 20))));
    facts
}

fn line_value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_owned())
}

/// The kind of filesystem that holds `path`, by its mount; `None` when that cannot be read.
#[must_use]
pub fn filesystem(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    filesystem_in(&mounts, &path)
}

/// Source: fstab(5): device, mount point, type. A later mount hides an earlier one.
fn filesystem_in(mounts: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let mut fields = line.split_whitespace();
        let (Some(device), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        // Spaces are written as octal escapes.
        let point = point.replace("\\040", " ");
        let depth = Path::new(&point).components().count();
        if path.starts_with(&point) && best.as_ref().is_none_or(|(known, _)| depth >= *known) {
            best = Some((depth, format!("{kind} on {device}")));
        }
    }
    best.map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_holds_a_path() {
        let mounts =
            "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /my\\040data xfs rw 0 0\n";
        let of = |path: &str| filesystem_in(mounts, Path::new(path)).unwrap();
        assert_eq!(of("/home/x"), "ext4 on /dev/vda");
        assert_eq!(of("/tmp/x"), "tmpfs on tmpfs");
        assert_eq!(of("/tmpfile"), "ext4 on /dev/vda");
        assert_eq!(of("/my data/x"), "xfs on /dev/vdb");
    }

    #[test]
    fn every_fact_has_a_value() {
        assert!(facts().iter().all(|(_, value)| !value.is_empty()));
    }
}
