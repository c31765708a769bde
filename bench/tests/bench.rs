//! The program as a whole: against a node of its own, against servers that lie, and when it is interrupted.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chronik_bench::sink::{Manner, Sink};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: [&str; 4] = ["--duration=150ms", "--ramp=20ms", "--warm-up=50ms", "--rounds=2"];

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronik-bench"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a workload against a node in `home`; answers with what it printed and its JSON.
fn measure(home: &TempDir, workload: &str, further: &[&str]) -> (String, Value) {
    let data = home.path().join("data");
    let json = home.path().join("report.json");
    let (data, json) = (format!("--data-dir={}", data.display()), json);
    let json_option = format!("--json={}", json.display());
    // Tests of other crates run at the same time, on the same CPUs.
    let mut arguments = vec![workload, &data, &json_option, "--node-flag=--no-pin"];
    arguments.extend(SHORT);
    arguments.extend(further);
    // The floor has tests of its own.
    if !["tail", "catchup"].contains(&workload) {
        arguments.push("--no-floor");
    }
    let output = run(&arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = serde_json::from_slice(&fs::read(json).expect("a report")).expect("JSON");
    assert_empty(&home.path().join("data"));
    (text(&output.stdout), report)
}

fn assert_empty(folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder).expect("a folder").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What must be true of every cell's rounds.
fn assert_consistent(report: &Value, cells: usize) {
    let found = report["cells"].as_array().expect("cells");
    assert_eq!(found.len(), cells);
    for cell in found {
        let rounds = cell["rounds"].as_array().expect("rounds");
        assert_eq!(rounds.len(), 2, "{cell}");
        for round in rounds {
            let (records, seconds) = (number(&round["records"]), number(&round["seconds"]));
            // On a busy machine nothing may get done within so short a window, but all that was sent is in the end.
            let done = number(&round["records_with_ramp_and_drain"]);
            assert!(done > 0.0 && records <= done && seconds > 0.0, "{round}");
            let latency = &round["latency_ms"];
            assert!(latency["max"].is_null() || number(&latency["p50"]) <= number(&latency["max"]));
            assert!(number(&round["server"]["resident_bytes"]) > 1e6);
            assert_eq!(round["refused"], 0);
            assert_eq!(round["unanswered"], 0);
        }
        let rates = &cell["records_per_second"];
        assert!(number(&rates["min"]) <= number(&rates["median"]));
        assert!(number(&rates["median"]) <= number(&rates["max"]));
    }
}

#[test]
fn acks_are_compared_and_everything_is_read_back() {
    let home = tempfile::tempdir().unwrap();
    let hgrm = home.path().join("hgrm");
    let hgrm_option = format!("--hgrm={}", hgrm.display());
    let further = [
        "--verify",
        "--batch-bytes=4096",
        "--in-flight=2",
        "--sink",
        "--client-threads=2",
        &hgrm_option,
    ];
    let (table, report) = measure(&home, "acks", &further);
    assert_consistent(&report, 6);
    let cell = |target: &str, load: &str| {
        let cells = report["cells"].as_array().unwrap();
        let found = cells.iter().find(|cell| cell["target"] == target && cell["load"] == load);
        found.unwrap_or_else(|| panic!("{target} {load} in {report}")).clone()
    };
    assert_eq!(cell("chronik", "acks=0")["durability"], "no answer");
    assert_eq!(cell("chronik", "acks=1")["durability"], "waits for disk");
    assert_eq!(cell("chronik", "acks=all")["durability"], "waits for disk");
    assert_eq!(cell("null-sink", "acks=1")["durability"], "no log");
    for round in cell("chronik", "acks=1")["rounds"].as_array().unwrap() {
        assert_eq!(number(&round["records"]), number(&round["requests"]) * 4.0);
        assert_eq!(number(&round["value_bytes"]), number(&round["records"]) * 1024.0);
    }
    assert!(table.contains("everything in the logs was read back"), "{table}");
    assert!(table.contains("acks=all"), "{table}");
    assert_eq!(fs::read_dir(hgrm).unwrap().count(), 6, "a percentile file a cell");
}

#[test]
fn every_codec_is_read_back() {
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let home = tempfile::tempdir().unwrap();
        let compression = format!("--compression={codec}");
        let further =
            ["--verify", &compression, "--batch-bytes=4096", "--connections=2", "--warm-up=0"];
        assert_consistent(&measure(&home, "acks", &further).1, 3);
    }
}

#[test]
fn requests_find_the_most_and_then_the_latency_at_half() {
    let home = tempfile::tempdir().unwrap();
    let (_, report) = measure(&home, "requests", &["--verify", "--in-flight=4"]);
    assert_consistent(&report, 2);
    let cells = report["cells"].as_array().unwrap();
    assert!(cells[1]["load"].as_str().unwrap().starts_with("half: "), "{report}");
    assert!(cells[0]["rounds"][0]["latency_corrected_ms"].is_object());
    assert!(cells[1]["rounds"][0]["latency_corrected_ms"].is_null(), "it counts from the due time");
}

#[test]
fn a_fixed_rate_is_kept() {
    let home = tempfile::tempdir().unwrap();
    let (_, report) = measure(&home, "requests", &["--rate=1000", "--duration=500ms"]);
    assert_consistent(&report, 1);
    for round in report["cells"][0]["rounds"].as_array().unwrap() {
        assert_eq!(number(&round["latency_ms"]["count"]), 500.0, "each that was due is timed");
    }
}

#[test]
fn many_partitions_and_many_connections_are_compared_with_few() {
    let home = tempfile::tempdir().unwrap();
    let further = ["--verify", "--partitions=40", "--request-bytes=32768"];
    let (table, report) = measure(&home, "many-partitions", &further);
    assert_consistent(&report, 2);
    assert!(table.contains("6 partitions, 5 a batch"), "{table}");
    assert!(table.contains("40 partitions, 1 a batch"), "{table}");

    let home = tempfile::tempdir().unwrap();
    let further = ["--verify", "--connections=50", "--batch-bytes=1024"];
    let (table, report) = measure(&home, "many-connections", &further);
    assert_consistent(&report, 2);
    assert!(table.contains("an idle connection that was used once takes"), "{table}");
}

#[test]
fn the_tail_is_read_to_its_end_and_timed() {
    let home = tempfile::tempdir().unwrap();
    let further = ["--consumers=2", "--batch-bytes=4096", "--partitions=3"];
    let (_, report) = measure(&home, "tail", &further);
    assert_consistent(&report, 4);
    let cells = report["cells"].as_array().unwrap();
    for half in
        cells[3]["rounds"].as_array().unwrap().iter().zip(cells[2]["rounds"].as_array().unwrap())
    {
        let (consumed, produced) = half;
        let batches = number(&consumed["latency_ms"]["count"]);
        let due = number(&produced["latency_ms"]["count"]);
        assert_eq!(batches, due * 2.0, "every batch that was due, by each of two");
    }
}

#[test]
fn producers_run_alone_and_beside_a_reader_of_everything() {
    let home = tempfile::tempdir().unwrap();
    let further = ["--backlog=20000000", "--rate=2000", "--partitions=2"];
    let (table, report) = measure(&home, "catchup", &further);
    assert_consistent(&report, 3);
    assert!(table.contains("dropped from the page cache"), "{table}");
}

/// Runs a workload against a sink; answers with what it complained about.
fn complaint(workload: &str, manner: Manner) -> String {
    let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0)), manner).expect("a free port");
    let at = format!("--bootstrap={}", sink.address());
    let mut arguments = vec![workload, &at];
    if !["tail", "catchup"].contains(&workload) {
        arguments.push("--no-floor");
    }
    arguments.extend(SHORT);
    let output = run(&arguments);
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn servers_that_lie_are_found_out() {
    let repeating = complaint("requests", Manner::Repeating);
    assert!(repeating.contains("base offset 0, and 1 is the lowest that can be"), "{repeating}");
    let forgetful = complaint("requests", Manner::Forgetful);
    assert!(forgetful.contains("records were acknowledged"), "{forgetful}");
    // 2: CORRUPT_MESSAGE.
    let refusing = complaint("requests", Manner::Refusing(2));
    assert!(refusing.contains("requests were refused and do not count"), "{refusing}");
    assert!(refusing.contains("CORRUPT_MESSAGE"), "{refusing}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let output = run(&["acks", "--target=a=127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("127.0.0.1:1"), "{}", text(&output.stderr));
    let twice = run(&["acks", "--target=a=127.0.0.1:1", "--target=a=127.0.0.1:2"]);
    assert!(text(&twice.stderr).contains("another one has that name"), "{}", text(&twice.stderr));
}

fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A run that takes long, with a node that serves.
fn long_run(home: &TempDir) -> (Child, u32) {
    let data = home.path().join("data");
    let option = format!("--data-dir={}", data.display());
    let process =
        command(&["acks", &option, "--duration=100s", "--node-flag=--no-pin", "--no-floor"])
            .spawn()
            .expect("the program");
    let node = wait_for("a node that serves", || {
        let folder = fs::read_dir(&data).ok()?.next()?.ok()?.path();
        folder.join("topics").is_dir().then_some(())?;
        child_of(process.id())
    });
    (process, node)
}

fn child_of(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn is_gone(pid: u32) -> Option<()> {
    (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
}

fn signal(process: &Child, signal: &str) {
    let pid = process.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
}

#[test]
fn an_interrupt_ends_the_run_and_its_node() {
    let home = tempfile::tempdir().unwrap();
    let (mut process, node) = long_run(&home);
    signal(&process, "-INT");
    let status = wait_for("the end", || process.try_wait().unwrap());
    let mut said = String::new();
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("stopped"), "{said}");
    assert!(is_gone(node).is_some(), "the node runs on");
    assert_empty(&home.path().join("data"));
}

#[test]
fn a_node_does_not_outlive_a_benchmark_that_was_killed() {
    let home = tempfile::tempdir().unwrap();
    let (mut process, node) = long_run(&home);
    process.kill().unwrap();
    process.wait().unwrap();
    wait_for("the node's end", || is_gone(node));
    assert_empty(&home.path().join("data"));
}
