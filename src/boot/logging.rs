//! Log lines: plain text on standard error. Crates that log through `log` (the runtime, raft-engine) end
//! up in the same lines.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Begins logging at `level`. To be called once; a later call changes nothing.
pub fn init_logging(level: LevelFilter) {
    // The runtime reports as an error that a write-only file cannot be read to find out whether its
    // device polls; the WAL opens such a file first on purpose, see `io/wal_writer`.
    let targets = Targets::new()
        .with_default(level)
        .with_target("glommio::reactor", LevelFilter::OFF)
        .with_target("raft_engine", level.min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // An error means that a subscriber is installed, which is then the one that was wanted first.
    let _ = tracing_subscriber::registry().with(lines).with(targets).try_init();
}
