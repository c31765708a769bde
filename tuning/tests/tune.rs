//! `chronik-tune` as an operator runs it.

use std::fs;
use std::process::{Command, Output};

fn tune(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chronik-tune"))
        .env_clear()
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn a_check_names_everything_it_looked_at_and_exits_by_what_failed() {
    let directory = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}/data", directory.path().display());
    let output = tune(&["check", &data]);
    let text = stdout(&output);
    let topics = [
        "kernel",
        "io_uring",
        "plan",
        "memlock",
        "nofile",
        "cpus",
        "governor",
        "clock",
        "huge pages",
        "disk space",
        "filesystem",
        "disk sync",
    ];
    for topic in topics {
        let has_topic = |line: &str| line.get(6..).is_some_and(|rest| rest.starts_with(topic));
        assert!(text.lines().any(has_topic), "no line for {topic}:\n{text}");
    }
    let has_failed = text.lines().any(|line| line.starts_with("fail"));
    assert_eq!(output.status.code(), Some(i32::from(has_failed)), "{text}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_check_in_json_has_an_object_a_finding() {
    let directory = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", directory.path().display());
    let text = stdout(&tune(&["check", "--json", "--profile=shared-host", &data]));
    assert!(text.starts_with("[\n") && text.ends_with("]\n"), "{text}");
    let objects = text.lines().filter(|line| line.starts_with("  {\"topic\": ")).count();
    assert_eq!(objects, text.lines().count() - 2, "{text}");
    assert_eq!(text.matches("durable: p50").count(), 3, "{text}");
}

#[test]
fn a_host_that_cannot_carry_the_profile_fails_the_check_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let profile = directory.path().join("own.toml");
    fs::write(&profile, "cores = \"1023\"\n").unwrap();
    let profile = format!("--profile={}", profile.display());
    let output = tune(&["check", &profile, &format!("--data-dir={}", directory.path().display())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("cores names CPU 1023"), "{}", stdout(&output));
}

#[test]
fn a_printed_profile_can_be_used_as_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("own.toml");
    for name in ["development", "latency", "throughput", "shared-host"] {
        fs::write(&path, tune(&["profile", name]).stdout).unwrap();
        let output = tune(&["profile", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert!(stdout(&output).contains("wal_file_bytes = "), "{name}");
    }
}

#[test]
fn a_profile_that_is_none_is_refused_in_one_line() {
    let output = tune(&["check", "--profile=fast"]);
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.contains("fast") && line.lines().count() == 1, "{line}");
}
