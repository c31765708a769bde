use std::path::Path;

use super::*;
use crate::profile::{ControlCore, Cores, ShardCount};

/// A machine with so many CPUs and nothing in the way.
fn host(cpus: usize) -> Host {
    Host {
        cpus: (0..cpus).collect(),
        cpu_quota_millis: None,
        memory: Memory::Physical(256 << 30),
        memlock_bytes: None,
        open_files: 1 << 20,
        socket_send_bytes_max: Some(212_992),
        socket_receive_bytes_max: Some(212_992),
    }
}

fn development() -> Profile {
    Profile::load("development").unwrap()
}

fn resolve(profile: &Profile, host: &Host) -> Plan {
    Plan::resolve(profile, host).unwrap()
}

fn refusal(profile: &Profile, host: &Host) -> String {
    let line = Plan::resolve(profile, host).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn development_has_a_pinned_shard_on_every_cpu_and_changes_nothing() {
    for cpus in [1, 2, 7, 64] {
        let plan = resolve(&development(), &host(cpus));
        assert_eq!(plan.shards, (0..cpus).map(Some).collect::<Vec<_>>());
        assert_eq!((plan.shard_cpus, plan.control_cpus), (None, None));
        assert_eq!((plan.profile, plan.notes), (development(), vec![]));
    }
}

#[test]
fn development_starts_on_small_and_large_hosts() {
    for (cpus, gib) in [(1, 1), (2, 2), (16, 8), (64, 4), (1000, 8)] {
        let host = Host { memory: Memory::ControlGroup(gib << 30), ..host(cpus) };
        let plan = resolve(&development(), &host);
        assert_eq!(plan.shards.len(), cpus.min(256));
        assert!(plan.memory_bytes() <= (gib << 30) / 4 * 3, "{cpus} CPUs, {gib} GiB");
        assert_eq!(plan.notes.is_empty(), plan.profile == development());
    }
}

#[test]
fn every_built_in_profile_resolves_on_a_server() {
    for (name, _) in crate::profile::BUILT_IN {
        resolve(&Profile::load(name).unwrap(), &host(8));
    }
}

#[test]
fn the_mask_decides_which_cpus_there_are() {
    let host = Host { cpus: vec![2, 5, 6], ..host(1) };
    assert_eq!(resolve(&development(), &host).shards, [Some(2), Some(5), Some(6)]);
    let two = Profile { shards: ShardCount::Count(2), ..development() };
    assert_eq!(resolve(&two, &host).shards, [Some(2), Some(5)]);
    let chosen = Profile { cores: Cores::List(vec![5]), ..development() };
    assert_eq!(resolve(&chosen, &host).shards, [Some(5)]);
    let foreign = Profile { cores: Cores::List(vec![2, 3]), ..development() };
    let line = refusal(&foreign, &host);
    assert!(line.contains("cores") && line.contains("CPU 3") && line.contains("2,5-6"), "{line}");
    let foreign = Profile { control_core: ControlCore::List(vec![0]), ..development() };
    let line = refusal(&foreign, &host);
    assert!(line.contains("control_core") && line.contains("CPU 0"), "{line}");
}

#[test]
fn a_control_core_is_no_shards_core() {
    let with = |control_core| Profile { control_core, ..development() };
    let plan = resolve(&with(ControlCore::List(vec![1])), &host(3));
    assert_eq!(plan.shards, [Some(0), Some(2)]);
    assert_eq!(plan.control_cpus, Some(vec![1]));
    let line = refusal(&with(ControlCore::List(vec![0, 1])), &host(2));
    assert!(line.contains("control_core"), "{line}");

    let plan = resolve(&with(ControlCore::Auto), &host(3));
    assert_eq!((plan.shards.len(), plan.control_cpus), (3, None));
    let plan = resolve(&with(ControlCore::Auto), &host(4));
    assert_eq!((plan.shards.len(), plan.control_cpus), (3, Some(vec![0])));
    let chosen = Profile { cores: Cores::List(vec![0, 1]), ..with(ControlCore::Auto) };
    assert_eq!(resolve(&chosen, &host(4)).control_cpus, Some(vec![2]));
    let chosen = Profile { cores: Cores::List(vec![0, 1, 2, 3]), ..with(ControlCore::Auto) };
    assert_eq!(resolve(&chosen, &host(4)).control_cpus, None);
}

#[test]
fn more_pinned_shards_than_cores_are_refused_and_unpinned_ones_share() {
    let three = Profile { shards: ShardCount::Count(3), ..development() };
    assert!(refusal(&three, &host(2)).contains("--no-pin"));
    let unpinned = Profile { pin: false, ..three };
    let plan = resolve(&unpinned, &host(2));
    assert_eq!((plan.shards, plan.shard_cpus), (vec![None; 3], None));
    let fenced = Profile { cores: Cores::List(vec![1]), ..unpinned };
    let plan = resolve(&fenced, &host(2));
    assert_eq!((plan.shards, plan.shard_cpus), (vec![None; 3], Some(vec![1])));
    for count in [0, 257] {
        let profile = Profile { shards: ShardCount::Count(count), pin: false, ..development() };
        assert!(refusal(&profile, &host(2)).contains("1 to 256"));
    }
}

#[test]
fn memory_that_is_not_there_is_refused_or_shrunk_as_the_profile_says() {
    let small = Host { memory: Memory::ControlGroup(1 << 30), ..host(4) };
    let refusing = Profile { memory_fit: MemoryFit::Refuse, ..development() };
    let line = refusal(&refusing, &small);
    assert!(line.contains("tail_cache_bytes") && line.contains("control group"), "{line}");
    let plan = resolve(&development(), &small);
    let before = development().limits.tail_cache_bytes;
    assert!((1..before).contains(&plan.profile.limits.tail_cache_bytes));
    assert!(plan.notes[0].fact.contains("1 GiB"), "{:?}", plan.notes);
    let tiny = Host { memory: Memory::Physical(64 << 20), ..host(4) };
    assert!(refusal(&development(), &tiny).contains("--shards"));
}

#[test]
fn limits_of_the_process_are_refused_by_name() {
    let line = refusal(&development(), &Host { memlock_bytes: Some(1 << 20), ..host(64) });
    assert!(line.contains("RLIMIT_MEMLOCK"), "{line}");
    let line = refusal(&development(), &Host { open_files: 1000, ..host(1) });
    assert!(line.contains("RLIMIT_NOFILE"), "{line}");
}

#[test]
fn a_socket_buffer_that_the_kernel_would_cut_is_refused() {
    let profile = Profile { socket_receive_bytes: Some(1 << 20), ..development() };
    assert!(refusal(&profile, &host(1)).contains("net.core.rmem_max=1048576"));
    let profile = Profile { socket_send_bytes: Some(1 << 20), ..development() };
    assert!(refusal(&profile, &host(1)).contains("net.core.wmem_max=1048576"));
    let unknown = Host { socket_send_bytes_max: None, ..host(1) };
    resolve(&profile, &unknown);
}

#[test]
fn a_quota_below_the_shards_is_noted() {
    let quota = Host { cpu_quota_millis: Some(2500), ..host(8) };
    let plan = resolve(&development(), &quota);
    let note = &plan.notes[0];
    assert!(note.fact.contains("2.500") && note.remedy.contains("--shards=2"), "{note:?}");
    let two = Profile { shards: ShardCount::Count(2), ..development() };
    assert!(resolve(&two, &quota).notes.is_empty());
}

#[test]
fn a_plan_shows_shard_core_and_wal_and_its_notes() {
    let profile = Profile { control_core: ControlCore::List(vec![0]), ..development() };
    let mut plan = resolve(&profile, &host(3));
    plan.notes.push(Note { topic: "t", fact: "a gap".to_owned(), remedy: "mind it".to_owned() });
    let text = plan.display(Path::new("/data")).to_string();
    assert!(text.contains("shard 1 → CPU 2 → /data/shards/1/wal"), "{text}");
    assert!(text.contains("control and storage threads → CPU 0\n"), "{text}");
    assert!(text.ends_with("note: a gap: mind it\n"), "{text}");
    let fenced = Profile { cores: Cores::List(vec![1, 2]), pin: false, ..development() };
    let text = resolve(&fenced, &host(3)).display(Path::new("/data")).to_string();
    assert!(text.contains("shard 0 → any of CPUs 1-2 →"), "{text}");
}
