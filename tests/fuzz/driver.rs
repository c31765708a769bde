//! Runs one target: its corpus, then mutations of it.
//!
//! There is no instrumentation. An input whose outcome was not seen before is kept and mutated further,
//! which walks through a decoder nearly as coverage would: outcomes name the error and where it was.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use bytes::Bytes;

use super::allocations::peak_of;
use super::mutate::mutate;
use super::random::Random;

/// Random inputs of a target in `cargo test`.
const INPUTS: usize = 20_000;

/// Inputs that are kept to be mutated further.
const KEPT_MAX: usize = 4096;

/// A decoder under test.
pub struct Target {
    /// Says what failed.
    pub name: &'static str,
    /// The corpus's directory.
    pub corpus: &'static str,
    /// Well-formed inputs.
    pub seeds: Vec<Vec<u8>>,
    /// Makes lengths and checksums right again, so that what lies behind them is reached.
    pub repair: fn(&mut Vec<u8>),
    /// Decodes; panics when a property does not hold. What it yields names the outcome.
    pub run: fn(&Bytes) -> u64,
    /// Bytes that decoding may hold whatever the input's length.
    pub held_bytes: usize,
    /// Bytes that decoding may hold for each byte of input.
    pub held_per_byte: usize,
}

/// The name of an outcome.
pub fn outcome(of: impl std::fmt::Debug) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{of:?}").hash(&mut hasher);
    hasher.finish()
}

impl Target {
    /// Replays, then mutates.
    pub fn fuzz(&self) {
        let seed = Random::seed_from_env("CHRONIK_FUZZ_SEED");
        let mut random = Random::new(seed);
        let mut kept = self.seeds.clone();
        let mut seen = HashSet::new();
        for input in &kept {
            seen.insert(self.check(input, seed));
        }
        for input in self.corpus() {
            seen.insert(self.check(&input, seed));
            kept.push(input);
        }
        assert!(!kept.is_empty(), "{}: nothing to begin with", self.name);
        let begin = Instant::now();
        let limit = env::var("CHRONIK_FUZZ_SECONDS").ok().map(|text| {
            Duration::from_secs(text.parse().expect("CHRONIK_FUZZ_SECONDS is a number"))
        });
        let mut inputs = 0usize;
        loop {
            // The clock is not looked at for each of them.
            let is_over = match limit {
                Some(limit) => inputs.is_multiple_of(256) && begin.elapsed() >= limit,
                None => inputs >= INPUTS,
            };
            if is_over {
                break;
            }
            inputs += 1;
            let mut input = kept[random.below(kept.len())].clone();
            let other = random.below(kept.len());
            mutate(&mut random, &mut input, &kept[other]);
            if random.chance(2) {
                (self.repair)(&mut input);
            }
            if seen.insert(self.check(&input, seed)) && kept.len() < KEPT_MAX {
                kept.push(input);
            }
        }
        println!(
            "fuzz {}: {inputs} inputs, {} outcomes, CHRONIK_FUZZ_SEED={seed}",
            self.name,
            seen.len()
        );
        assert!(seen.len() > 1, "{}: every input has the same outcome", self.name);
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let directory =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(self.corpus);
        let Ok(entries) = fs::read_dir(&directory) else { return Vec::new() };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    fn check(&self, input: &[u8], seed: u64) -> u64 {
        let bytes = Bytes::copy_from_slice(input);
        let (outcome, peak) = peak_of(|| panic::catch_unwind(|| (self.run)(&bytes)));
        let allowed = self.held_bytes + self.held_per_byte * input.len();
        match outcome {
            Ok(outcome) if peak <= allowed => outcome,
            Ok(_) => self.fail(input, seed, &format!("held {peak} bytes, {allowed} are allowed")),
            Err(_) => self.fail(input, seed, "panicked"),
        }
    }

    fn fail(&self, input: &[u8], seed: u64, what: &str) -> ! {
        let name = format!("fuzz-{}-{:016x}", self.name, outcome(input));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, input).unwrap();
        panic!(
            "{}: {what}; CHRONIK_FUZZ_SEED={seed}, input of {} bytes in {}",
            self.name,
            input.len(),
            path.display()
        );
    }
}
