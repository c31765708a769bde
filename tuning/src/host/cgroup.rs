//! Bounds of the control groups that this process is in, of either version.
//!
//! A group's ancestors bound it too. Within a container the path that the kernel tells may lie outside
//! of what is mounted; then the mount's root is the container's own group.

use std::fs;
use std::path::Path;

/// The tightest bounds; `None` where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Limits {
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
}

impl Limits {
    /// Reads them below `mount`, for the groups that `membership` lists.
    pub fn read(mount: &Path, membership: &Path) -> Self {
        let mut limits = Self::default();
        let Ok(groups) = fs::read_to_string(membership) else { return limits };
        for line in groups.lines() {
            // hierarchy:controllers:path
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            if controllers.is_empty() {
                limits.meet(mount, path, unified);
                continue;
            }
            for controller in controllers.split(',') {
                let root = mount.join(controller);
                match controller {
                    "memory" => limits.meet(&root, path, memory_v1),
                    "cpu" => limits.meet(&root, path, cpu_v1),
                    _ => {}
                }
            }
        }
        limits
    }

    /// Takes the bounds of a group and of all above it.
    fn meet(&mut self, root: &Path, path: &str, read: fn(&Path) -> Self) {
        let path = Path::new(path.trim_start_matches('/'));
        for part in path.ancestors() {
            let found = read(&root.join(part));
            let least = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
            self.memory_bytes = least(self.memory_bytes, found.memory_bytes);
            self.cpu_millis = least(self.cpu_millis, found.cpu_millis);
        }
    }
}

fn unified(group: &Path) -> Limits {
    let quota = fs::read_to_string(group.join("cpu.max")).ok();
    let cpu_millis = quota.and_then(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        millis(quota.parse().ok()?, period.parse().ok()?)
    });
    Limits { memory_bytes: number(&group.join("memory.max")), cpu_millis }
}

fn memory_v1(group: &Path) -> Limits {
    let memory_bytes = number(&group.join("memory.limit_in_bytes"));
    Limits { memory_bytes, cpu_millis: None }
}

fn cpu_v1(group: &Path) -> Limits {
    let quota = number(&group.join("cpu.cfs_quota_us"));
    let period = number(&group.join("cpu.cfs_period_us"));
    let cpu_millis = quota.zip(period).and_then(|(quota, period)| millis(quota, period));
    Limits { memory_bytes: None, cpu_millis }
}

fn millis(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period)
}

/// A file's number; `max` and −1 mean that there is no bound.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn write(root: &Path, file: &str, text: &str) -> PathBuf {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn an_ancestor_of_the_second_version_bounds_its_children() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "a/memory.max", "1000\n");
        write(root.path(), "a/b/memory.max", "max\n");
        write(root.path(), "a/cpu.max", "max 100000\n");
        write(root.path(), "a/b/cpu.max", "150000 100000\n");
        let groups = write(root.path(), "self", "0::/a/b\n");
        let found = Limits::read(root.path(), &groups);
        assert_eq!(found, Limits { memory_bytes: Some(1000), cpu_millis: Some(1500) });
    }

    #[test]
    fn the_first_version_has_a_hierarchy_for_each_controller() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "memory/x/memory.limit_in_bytes", "4096\n");
        write(root.path(), "cpu/cpu.cfs_quota_us", "50000\n");
        write(root.path(), "cpu/cpu.cfs_period_us", "100000\n");
        let groups = write(root.path(), "self", "5:memory:/x\n4:cpu,cpuacct:/not/mounted\n0::/\n");
        let found = Limits::read(root.path(), &groups);
        assert_eq!(found, Limits { memory_bytes: Some(4096), cpu_millis: Some(500) });
    }

    #[test]
    fn without_groups_or_bounds_there_is_none() {
        let root = tempfile::tempdir().unwrap();
        let none = Limits::default();
        assert_eq!(Limits::read(root.path(), &root.path().join("self")), none);
        write(root.path(), "cpu/cpu.cfs_quota_us", "-1\n");
        write(root.path(), "cpu/cpu.cfs_period_us", "0\n");
        write(root.path(), "cpu.max", "100 0\n");
        let groups = write(root.path(), "self", "1:cpu:/\n0::/\nnonsense\n");
        assert_eq!(Limits::read(root.path(), &groups), none);
    }
}
