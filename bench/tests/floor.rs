//! The bare server as a process, and the reports that it stands in.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use chronik_bench::engine::StopFlag;
use chronik_bench::floor::{FloorCell, FloorServer, FloorServerOptions, Service};
use chronik_bench::load::ProducePlan;
use chronik_bench::measure::Timing;
use chronik_bench::produce::batch::BatchShape;
use chronik_bench::progress::Progress;
use chronik_shards::format::compression::Codec;

const PROGRAM: &str = env!("CARGO_BIN_EXE_chronik-bench");

fn options() -> FloorServerOptions {
    // Servers of tests that run at the same time would otherwise share the first CPUs.
    FloorServerOptions {
        floor_cores: Some(2),
        floor_no_pin: true,
        floor_commit_bytes: Some(64 << 10),
        ..FloorServerOptions::default()
    }
}

fn plan(record_bytes: usize, records: usize) -> ProducePlan {
    ProducePlan {
        acks: 1,
        shape: BatchShape { record_bytes, records, codec: Codec::None, key_bytes: 0 },
        partitions: 3,
        batches_per_request: 1,
        connections: 4,
        in_flight: 3,
        rate: None,
        threads: 1,
        requests_max: Some(200),
    }
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("the binary runs")
}

#[test]
fn every_service_takes_every_size_of_frame_and_nothing_is_left_behind() {
    let parent = tempfile::tempdir().unwrap();
    let server = FloorServer::start(Path::new(PROGRAM), parent.path(), &options()).unwrap();
    let timing = Timing { ramp: Duration::ZERO, window: Duration::from_secs(600) };
    // From frames that share a read to such that take several commits each.
    for (record_bytes, records) in [(10, 1), (1024, 1), (1024, 64), (100_000, 3)] {
        for service in Service::ALL {
            let load = format!("{service:?} {record_bytes} × {records}");
            let cell = FloorCell { service, load, plan: plan(record_bytes, records) };
            let mut progress = Progress::new(Duration::ZERO);
            let round = cell.measure(&server, timing, &StopFlag::default(), &mut progress).unwrap();
            assert_eq!(round.measured.requests, 200, "{}", cell.load);
            assert_eq!(round.measured.bytes, 200 * (record_bytes * records) as u64);
            assert_eq!((round.refused, round.unanswered), (0, 0), "{}", cell.load);
        }
    }
    let process = format!("/proc/{}", server.pid());
    assert!(Path::new(&process).exists());
    drop(server);
    assert!(!Path::new(&process).exists());
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn a_bare_server_ends_with_its_standard_input() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("own");
    fs::create_dir(&directory).unwrap();
    let mut process = Command::new(PROGRAM)
        .args(["floor-server", "--floor-cores=1", "--floor-no-pin", "--directory"])
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(process.stdout.take().unwrap()).lines();
    let last = said.map(Result::unwrap).find(|line| line == "ready");
    assert!(last.is_some());
    drop(process.stdin.take());
    assert!(process.wait().unwrap().success());
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn a_comparison_has_the_floor_as_a_row_and_the_ratio_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("report.json");
    let data = format!("--data-dir={}/data", directory.path().display());
    let file = format!("--json={}", json.display());
    let tiny = ["--duration=200ms", "--ramp=0", "--warm-up=0", "--rounds=1", "--connections=2"];
    let node = ["--node-flag=--shards=1", "--node-flag=--no-pin"];
    let run = |more: &[&str]| {
        let arguments = [&["acks", &data, &file], &tiny[..], &node[..], more].concat();
        let output = bench(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let text = fs::read_to_string(&json).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        (String::from_utf8(output.stdout).unwrap(), report["cells"].as_array().unwrap().clone())
    };
    let (text, cells) = run(&[]);
    assert_eq!(cells.len(), 4, "{text}");
    let ratio = |cell: &serde_json::Value| cell["ratio_to_floor"].as_f64();
    assert!(
        cells[..3].iter().all(|cell| ratio(cell).is_some_and(|ratio| ratio > 0.0)),
        "{cells:?}"
    );
    assert_eq!((cells[3]["target"].as_str(), ratio(&cells[3])), (Some("floor"), None));
    assert!(text.contains("of floor"), "{text}");

    let (text, cells) = run(&["--no-floor"]);
    assert_eq!(cells.len(), 3);
    assert!(!text.contains("floor"), "{text}");
}

#[test]
fn the_floor_alone_measures_sockets_and_disk() {
    let directory = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", directory.path().display());
    let output = bench(&[
        "floor",
        &data,
        "--duration=30ms",
        "--ramp=0",
        "--warm-up=0",
        "--rounds=1",
        "--connections=2",
        "--floor-no-pin",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let loads =
        ["commit", "answer", "echo", "sink", "copy", "write 4 KiB × 1", "write 256 KiB × 2"];
    for load in loads {
        let row = format!("floor   {load} ");
        assert!(text.lines().any(|line| line.starts_with(&row)), "no row for {load}:\n{text}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn options_that_would_have_no_effect_are_refused() {
    for arguments in [
        &["acks", "--no-floor", "--floor-cores=1"][..],
        &["acks", "--floor-commits=9"],
        &["acks", "--floor-commit-bytes=5000"],
        &["acks", "--floor-profile=fast"],
        &["floor", "--verify"],
        &["floor", "--topic-config=a=b"],
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let option = arguments[1].trim_start_matches("--no-").trim_start_matches("--");
        let name = option.split(['=', '-']).next().unwrap();
        assert!(said.contains(name) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
}
