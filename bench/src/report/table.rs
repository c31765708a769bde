//! The table, and the lines around it.

use std::fmt::{self, Write};

use super::{BUSY_LIMIT, Cell, Durability, Report, Round, Spread};

/// Columns of words; the others hold numbers and are aligned at the right.
const WORD_COLUMNS: usize = 3;
const GAP: &str = "  ";

/// Aligns rows under their headings; the first `word_columns` at the left, the others at the right.
#[must_use]
pub fn render_table(headings: &[&str], rows: &[Vec<String>], word_columns: usize) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let mut out = String::new();
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    for row in std::iter::once(&headings).chain(rows) {
        let mut line = String::new();
        for (column, (text, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { GAP };
            let width = *width;
            let cell = if column < word_columns {
                format!("{gap}{text:<width$}")
            } else {
                format!("{gap}{text:>width$}")
            };
            line.push_str(&cell);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

type Figure = fn(&Round) -> Option<f64>;

/// A column of numbers: its heading, what it shows, and how.
struct Column {
    heading: &'static str,
    figure: Figure,
    show: fn(Spread) -> String,
}

const COLUMNS: &[Column] = &[
    Column {
        heading: "records/s",
        figure: |round| Some(round.records_per_second()),
        show: |s| grouped(s.median),
    },
    Column {
        heading: "min–max",
        figure: |round| Some(round.records_per_second()),
        show: |s| format!("{}–{}", grouped(s.min), grouped(s.max)),
    },
    Column {
        heading: "MB/s",
        figure: |round| Some(round.bytes_per_second() / 1e6),
        show: |s| short(s.median),
    },
    Column { heading: "p50 ms", figure: |round| round.latency_ms(0.5), show: |s| short(s.median) },
    Column { heading: "p99 ms", figure: |round| round.latency_ms(0.99), show: |s| short(s.median) },
    Column {
        heading: "p99.9 ms",
        figure: |round| round.latency_ms(0.999),
        show: |s| short(s.median),
    },
    Column { heading: "max ms", figure: |round| round.latency_ms(1.0), show: |s| short(s.max) },
    Column {
        heading: "p99 corr",
        figure: |round| round.corrected().and_then(|corrected| super::latency_ms(&corrected, 0.99)),
        show: |s| short(s.median),
    },
    Column {
        heading: "server s/GB",
        figure: |round| round.server.and_then(|server| round.cpu_seconds_per_gb(server.cpu)),
        show: |s| short(s.median),
    },
    Column {
        heading: "client s/GB",
        figure: |round| round.cpu_seconds_per_gb(round.client.cpu),
        show: |s| short(s.median),
    },
    Column {
        heading: "client busy",
        figure: |round| Some(round.client.busiest * 100.0),
        show: |s| format!("{:.0} %", s.median),
    },
    Column {
        heading: "server MiB",
        figure: |round| {
            round.server.map(|server| server.resident_bytes as f64 / f64::from(1 << 20))
        },
        show: |s| format!("{:.0}", s.max),
    },
];

/// A number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => grouped(v),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

impl Report {
    /// The cells as a table.
    fn table(&self) -> String {
        let mut extra: Vec<&str> = Vec::new();
        for (name, _) in
            self.cells.iter().flat_map(|cell| &cell.rounds).flat_map(|round| &round.extra)
        {
            if !extra.contains(&name.as_str()) {
                extra.push(name);
            }
        }
        let with_floor = self.cells.iter().any(|cell| cell.ratio_to_floor.is_some());
        let mut headings = vec!["target", "load", "acknowledged"];
        headings.extend(COLUMNS.iter().map(|column| column.heading));
        headings.extend(&extra);
        if with_floor {
            headings.push("of floor");
        }
        let rows: Vec<Vec<String>> = self
            .cells
            .iter()
            .map(|cell| {
                let mut row = vec![
                    cell.target.clone(),
                    cell.load.clone(),
                    cell.durability.as_str().to_owned(),
                ];
                for column in COLUMNS {
                    let figure = cell.over_rounds(column.figure);
                    row.push(figure.map_or_else(|| "–".to_owned(), column.show));
                }
                for name in &extra {
                    row.push(show_extra(cell, name));
                }
                if with_floor {
                    let ratio = cell.ratio_to_floor;
                    row.push(ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")));
                }
                row
            })
            .collect();
        render_table(&headings, &rows, WORD_COLUMNS)
    }

    /// What follows from the figures themselves and a reader should not have to find out.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        for cell in &self.cells {
            let name = format!("{} {}", cell.target, cell.load);
            if cell.client_was_limit() {
                remarks.push(format!(
                    "{name}: the client was the limit (its thread was busy {:.0} % and more); the server may do better",
                    BUSY_LIMIT * 100.0
                ));
            } else if cell
                .over_rounds(|round| round.client.busiest_or_waiting)
                .is_some_and(|share| share.median >= BUSY_LIMIT)
            {
                remarks.push(format!(
                    "{name}: the client's thread waited for a CPU that others used; with more CPUs both may do better"
                ));
            }
            remarks.extend(self.client_limit(cell));
            let refused: u64 = cell.rounds.iter().map(|round| round.refused).sum();
            if refused > 0 {
                remarks.push(format!("{name}: {refused} requests were refused and do not count"));
            }
            let unanswered: u64 = cell.rounds.iter().map(|round| round.unanswered).sum();
            if unanswered > 0 {
                remarks.push(format!(
                    "{name}: {unanswered} requests were not answered in time; their latency counts up to the end"
                ));
            }
        }
        remarks
    }

    /// Where the client alone, against a server that keeps nothing, does less than twice of what was measured.
    fn client_limit(&self, cell: &Cell) -> Option<String> {
        let rate = |cell: &Cell| {
            let closed =
                |round: &Round| round.closed_loop_slots.map(|_| round.records_per_second());
            cell.over_rounds(closed).map(|spread| spread.median)
        };
        let alone = self.cells.iter().find(|other| {
            other.durability == Durability::NoLog
                && other.load == cell.load
                && other.target != cell.target
        })?;
        let (alone, found) = (rate(alone)?, rate(cell)?);
        (alone < found * 2.0).then(|| {
            format!(
                "{} {}: the client alone does {} records/s, less than twice this figure: it is a part of the limit",
                cell.target,
                cell.load,
                grouped(alone)
            )
        })
    }
}

fn show_extra(cell: &Cell, name: &str) -> String {
    let figure = |round: &Round| {
        round.extra.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    };
    cell.over_rounds(figure).map_or_else(|| "–".to_owned(), |spread| short(spread.median))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = String::new();
        let rounds = self.cells.iter().map(|cell| cell.rounds.len()).max().unwrap_or(0);
        writeln!(head, "chronik-bench {}, {rounds} rounds", self.workload)?;
        for (name, value) in &self.host {
            writeln!(head, "  {name}: {value}")?;
        }
        for target in &self.targets {
            let facts: Vec<String> =
                target.facts.iter().map(|(name, value)| format!("{name} {value}")).collect();
            writeln!(head, "  target {}: {}", target.name, facts.join(", "))?;
        }
        writeln!(f, "{head}")?;
        writeln!(f, "{}", self.table())?;
        writeln!(
            f,
            "Medians over the rounds; percentiles are those of each round. MB/s: values of records, 10^6 bytes. s/GB: CPU \
             seconds\nfor 10^9 such bytes. p99 corr: closed loop, corrected for what it did not send while it waited."
        )?;
        for line in self.remarks().iter().chain(&self.notes) {
            writeln!(f, "- {line}")?;
        }
        Ok(())
    }
}
