//! Bytes from sockets and disks against the decoders: no panic, no more memory than the input warrants.
//!
//! `cargo test` replays the corpus and makes a bounded number of random inputs. With
//! `CHRONIK_FUZZ_SECONDS` every target runs that long instead; `CHRONIK_FUZZ_SEED` repeats a run. An
//! input that fails is written beside the build's other files, and belongs into `corpus/` once fixed.

#![allow(clippy::unwrap_used, reason = "a test target")]

mod allocations;
mod disk_targets;
mod driver;
mod mutate;
mod peer_targets;
#[path = "../support/random.rs"]
#[allow(dead_code, reason = "shared with other targets")]
mod random;
mod wire_targets;
