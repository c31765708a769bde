//! The rules of the house that a compiler does not know: who may import whom, what a machine may
//! not call, and how long a file may grow.
//!
//! Tests beside the code (everything from `#[cfg(test)]` on, files under `tests/` or named `tests.rs` or
//! `testing.rs`) are judged for their length only: they may read clocks and take locks.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code after which a file must be split, or must argue for itself in its head comment.
const CODE_LINES_MAX: usize = 500;
/// The words by which a head comment argues for its file's length.
const LENGTH_ARGUMENT: &str = "One file because";

struct Source {
    /// Relative to the repository.
    path: String,
    /// Without comments, strings' contents left in, up to the test module.
    code: Vec<(usize, String)>,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        ["/tests/", "/tests.rs", "/testing.rs"].iter().any(|part| self.path.contains(part))
    }
}

/// Whether `line` has `word` with no letter, digit or underscore right behind it.
fn contains_word(line: &str, word: &str) -> bool {
    let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| word.ends_with("::") || !goes_on(&line[at + word.len()..]))
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `folder`, in a stable order.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![repository().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a source folder can be listed") {
            let path = entry.expect("a directory entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(source(&path));
            }
        }
    }
    assert!(!found.is_empty(), "no Rust file under {folder}: the rule would hold for nothing");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn source(path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a source file is UTF-8");
    let code = text
        .lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or("").to_owned()))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    let relative = path.strip_prefix(repository()).expect("sources lie in the repository");
    Source { path: relative.display().to_string(), code, text }
}

/// Fails with every line of `sources` that contains one of `banned`.
fn ban(sources: &[Source], banned: &[&str], reason: &str) {
    let breaches: Vec<String> = sources
        .iter()
        .flat_map(|source| source.code.iter().map(move |line| (source, line)))
        .filter(|(source, _)| !source.is_test())
        .filter(|(_, (_, line))| banned.iter().any(|word| contains_word(line, word)))
        .map(|(source, (number, line))| format!("{}:{number}: {}", source.path, line.trim()))
        .collect();
    assert!(breaches.is_empty(), "{reason}:\n{}", breaches.join("\n"));
}

#[test]
fn shard_layers_import_only_downwards() {
    let rules: &[(&str, &[&str])] = &[
        ("shards/src/format", &["machine", "store", "io", "mesh", "shard"]),
        ("shards/src/machine", &["store", "io", "mesh", "shard"]),
        ("shards/src/store", &["io", "mesh", "shard"]),
        ("shards/src/io", &["shard"]),
    ];
    for (folder, forbidden) in rules {
        let words: Vec<String> =
            forbidden.iter().map(|layer| format!("crate::{layer}::")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        ban(&sources(folder), &words, &format!("{folder} imports a layer above it"));
    }
}

#[test]
fn formats_and_machines_touch_no_clock_no_chance_and_no_device() {
    let banned = [
        "Instant::now",
        "SystemTime::now",
        "thread_rng",
        "rand::",
        "RandomState::new",
        "RandomState::default",
        "HashMap::new",
        "HashSet::new",
        "std::fs",
        "std::net",
        "std::thread",
        "glommio",
        "async fn",
        ".await",
    ];
    ban(&sources("shards/src/machine"), &banned, "a machine decides and does nothing else");
    ban(&sources("shards/src/format"), &banned, "a format is bytes and nothing else");
}

#[test]
fn nothing_on_the_data_path_takes_a_lock() {
    let banned = ["Mutex", "RwLock", "DashMap", "parking_lot"];
    let reason = "cores exchange commands, never locks";
    ban(&sources("shards/src"), &banned, reason);
    ban(&sources("src/net"), &banned, reason);
    ban(&sources("src/handlers"), &banned, reason);
}

#[test]
fn the_store_runs_without_a_runtime() {
    ban(&sources("shards/src/store"), &["glommio", "crossbeam"], "the simulator runs the store");
}

#[test]
fn the_protocol_knows_nothing_else() {
    ban(&sources("src/protocol"), &["chronik_shards", "glommio"], "codecs know bytes and messages");
}

#[test]
fn a_plan_is_made_without_a_runtime() {
    let banned = ["glommio", "crossbeam", "chronik_shards::io", "chronik_shards::shard"];
    ban(
        &sources("tuning/src"),
        &banned,
        "profiles and plans are data, and what they need of shards is pure",
    );
}

#[test]
fn the_benchmark_is_a_client() {
    let banned = ["chronik::net", "chronik::handlers", "chronik::control"];
    let reason = "what is measured is asked over the wire, like any other broker";
    ban(&sources("bench/src"), &banned, reason);
    let node = ["chronik::node", "chronik::config", "glommio"];
    let client: Vec<Source> = sources("bench/src")
        .into_iter()
        .filter(|source| source.path != "bench/src/embedded.rs")
        .filter(|source| !source.path.starts_with("bench/src/floor/"))
        .collect();
    ban(&client, &node, "only the embedded node and the floor are servers of this project");
    ban(
        &sources("bench/src/engine"),
        &["crate::produce", "crate::workloads", "chronik_protocol"],
        "the engine knows connections and frames",
    );
}

#[test]
fn only_handlers_speak_kafka_error_codes() {
    for folder in ["src/net", "src/control"] {
        ban(&sources(folder), &["ErrorCode::"], "Kafka's codes are mapped once, in handlers");
    }
    ban(&sources("shards/src"), &["chronik_protocol"], "shards do not know Kafka's requests");
}

#[test]
fn a_long_file_is_split_or_argues_for_itself() {
    let long: Vec<String> = ["src", "shards", "bench", "tuning", "tests"]
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|source| source.code.len() > CODE_LINES_MAX)
        .filter(|source| !source.text.contains(LENGTH_ARGUMENT))
        .map(|source| format!("{}: {} lines of code", source.path, source.code.len()))
        .collect();
    assert!(long.is_empty(), "split along a real seam, or argue in the head:\n{}", long.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent: Vec<String> = ["src", "shards/src", "bench/src", "tuning/src"]
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|source| !source.is_test() && !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "no head comment in: {silent:?}");
}
