//! raft-rs logs through slog; its lines go where all lines go.

use slog::{Drain, KV, Level, Never, OwnedKVList, Record, Serializer};

/// A logger whose lines become tracing events, at debug level at most: what raft calls information
/// is of use to nobody who does not debug it.
pub(super) fn logger() -> slog::Logger {
    slog::Logger::root(Bridge, slog::o!())
}

struct Bridge;

impl Drain for Bridge {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if record.level().is_at_least(Level::Warning) {
            tracing::warn!(target: "raft", "{}", line(record, values));
        } else if tracing::enabled!(target: "raft", tracing::Level::DEBUG) {
            tracing::debug!(target: "raft", "{}", line(record, values));
        }
        Ok(())
    }
}

fn line(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut line = Line(record.msg().to_string());
    // Writing into a String does not fail; a value that refuses to be shown is left out.
    let _ = record.kv().serialize(record, &mut line);
    let _ = values.serialize(record, &mut line);
    line.0
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: slog::Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        use std::fmt::Write;
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}
