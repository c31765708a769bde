//! Limits of this process.

use super::Finding;
use crate::host::Host;
use crate::limits::{
    CONNECTIONS_MAX, LimitError, OpenFiles, RING_BUFFER_BYTES_WANTED, memlock_bytes_wanted,
    memlock_remedy, open_files_remedy, ring_buffer_bytes,
};
use crate::size::rounded;

pub(super) fn cpus(host: &Host) -> Finding {
    let cpus = crate::cpulist::format(&host.cpus);
    Finding::ok(
        "cpus",
        match host.cpu_quota_millis {
            None => format!("{cpus}, without a quota"),
            Some(millis) => format!("{cpus}, and a quota of {millis} thousandths of a CPU"),
        },
    )
}

pub(super) fn memlock(host: &Host, shards: usize) -> Finding {
    const TOPIC: &str = "memlock";
    let limit = host.memlock_bytes.map_or_else(|| "no limit".to_owned(), rounded);
    match ring_buffer_bytes(host.memlock_bytes, shards) {
        Err(error) => refused(TOPIC, &error),
        Ok(bytes) if (bytes as u64) < RING_BUFFER_BYTES_WANTED => Finding::warn(
            TOPIC,
            format!(
                "RLIMIT_MEMLOCK is {limit}: the rings of {shards} shards register {} each instead of {}",
                rounded(bytes as u64),
                rounded(RING_BUFFER_BYTES_WANTED)
            ),
            memlock_remedy(memlock_bytes_wanted(shards)),
        ),
        Ok(_) => Finding::ok(TOPIC, format!("RLIMIT_MEMLOCK: {limit}, for {shards} shards")),
    }
}

pub(super) fn open_files(host: &Host, shards: usize) -> Finding {
    const TOPIC: &str = "nofile";
    match OpenFiles::share(host.open_files, shards) {
        Err(error) => refused(TOPIC, &error),
        Ok(files) if files.connections_max < CONNECTIONS_MAX => Finding::warn(
            TOPIC,
            format!(
                "RLIMIT_NOFILE is {}: at most {} connections",
                host.open_files, files.connections_max
            ),
            open_files_remedy(2 * CONNECTIONS_MAX as u64),
        ),
        Ok(files) => {
            let (limit, connections) = (host.open_files, files.connections_max);
            Finding::ok(TOPIC, format!("RLIMIT_NOFILE: {limit}, {connections} connections"))
        }
    }
}

fn refused(topic: &'static str, error: &LimitError) -> Finding {
    Finding::fail(topic, error.fact(), error.remedy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;
    use crate::host::Memory;

    fn host() -> Host {
        Host {
            cpus: (0..4).collect(),
            cpu_quota_millis: None,
            memory: Memory::Physical(1 << 34),
            memlock_bytes: None,
            open_files: 1 << 20,
            socket_send_bytes_max: None,
            socket_receive_bytes_max: None,
        }
    }

    #[test]
    fn locked_memory_fails_below_what_starts_and_warns_below_what_is_wanted() {
        let with = |memlock_bytes| memlock(&Host { memlock_bytes, ..host() }, 4);
        assert_eq!(with(None).verdict, Verdict::Ok);
        assert_eq!(with(Some(16 << 20)).verdict, Verdict::Ok);
        let warning = with(Some(8 << 20));
        assert_eq!(warning.verdict, Verdict::Warn);
        assert!(warning.remedy.unwrap().contains("ulimit -l 16384"));
        let failure = with(Some(64 << 10));
        assert_eq!(failure.verdict, Verdict::Fail);
        assert!(failure.remedy.unwrap().contains("ulimit -l 768"));
    }

    #[test]
    fn open_files_fail_below_what_starts_and_warn_below_what_is_wanted() {
        let with = |open_files| open_files_of(&Host { open_files, ..host() });
        assert_eq!(with(1 << 20), Verdict::Ok);
        assert_eq!(with(4096), Verdict::Warn);
        assert_eq!(with(512), Verdict::Fail);
    }

    fn open_files_of(host: &Host) -> Verdict {
        open_files(host, 4).verdict
    }
}
