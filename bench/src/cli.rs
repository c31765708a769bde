//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use chronik_shards::format::compression::Codec;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::floor::FloorServerOptions;

/// Measures brokers that speak the Kafka protocol.
///
/// Without --bootstrap or --target it starts a Chronik node of its own in a temporary directory.
#[derive(Parser, Clone, Debug)]
#[command(name = "chronik-bench", version, args_override_self = true)]
pub struct CommandLine {
    /// What is measured.
    #[command(subcommand)]
    pub workload: Workload,
}

/// What is measured.
#[derive(Subcommand, Clone, Debug)]
pub enum Workload {
    /// Producers with acks 0, 1 and all, in turn
    #[command(after_help = Defaults::ACKS.help())]
    Acks(AcksOptions),
    /// One record a request: how many, and how fast at half of that
    #[command(after_help = Defaults::REQUESTS.help())]
    Requests(ProducerOptions),
    /// Keyed producers over many partitions, against the same over six
    #[command(after_help = Defaults::MANY_PARTITIONS.help())]
    ManyPartitions(ManyPartitionsOptions),
    /// The bare limits of this machine: sockets, disk, both together, the client
    #[command(after_help = Defaults::ACKS.help())]
    Floor(FloorWorkloadOptions),
    /// Many connections with a producer each, against sixteen
    #[command(after_help = Defaults::MANY_CONNECTIONS.help())]
    ManyConnections(ProducerOptions),
    /// End to end: records that are read while they are written
    #[command(after_help = Defaults::TAIL.help())]
    Tail(TailOptions),
    /// Producers at a fixed rate, alone and beside a reader of a long cold backlog
    #[command(after_help = Defaults::CATCHUP.help())]
    Catchup(CatchupOptions),
}

impl Workload {
    /// Which servers, and what the bare one does, of a workload that has it beside them.
    #[must_use]
    pub const fn compared(&self) -> Option<(&TargetOptions, &FloorOptions)> {
        match self {
            Self::Acks(options) => Some((&options.common.targets, &options.floor)),
            Self::Requests(options) | Self::ManyConnections(options) => {
                Some((&options.common.targets, &options.floor))
            }
            Self::ManyPartitions(options) => Some((&options.common.targets, &options.floor)),
            Self::Floor(_) | Self::Tail(_) | Self::Catchup(_) => None,
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Acks(_) => "acks",
            Self::Requests(_) => "requests",
            Self::ManyPartitions(_) => "many-partitions",
            Self::Floor(_) => "floor",
            Self::ManyConnections(_) => "many-connections",
            Self::Tail(_) => "tail",
            Self::Catchup(_) => "catchup",
        }
    }
}

/// What most workloads take.
#[derive(Args, Clone, Debug)]
pub struct WorkloadOptions {
    /// Which servers.
    #[command(flatten)]
    pub targets: TargetOptions,
    /// Which load.
    #[command(flatten)]
    pub load: LoadOptions,
}

/// What workloads of producers take, which have a floor.
#[derive(Args, Clone, Debug)]
pub struct ProducerOptions {
    /// As the others.
    #[command(flatten)]
    pub common: WorkloadOptions,
    /// What they are compared with.
    #[command(flatten)]
    pub floor: FloorOptions,
}

/// What `acks` takes.
#[derive(Args, Clone, Debug)]
pub struct AcksOptions {
    /// As the others.
    #[command(flatten)]
    pub common: WorkloadOptions,
    /// What they are compared with.
    #[command(flatten)]
    pub floor: FloorOptions,
    /// Levels to measure
    #[arg(long, value_enum, value_name = "LEVEL", value_delimiter = ',', allow_hyphen_values = true,
          default_values_t = [AcksLevel::None, AcksLevel::Leader, AcksLevel::All])]
    pub acks: Vec<AcksLevel>,
}

/// The bare server beside the measured ones.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Floor")]
pub struct FloorOptions {
    /// Do not measure the bare server in the same rounds
    #[arg(long)]
    pub no_floor: bool,
    /// Where the bare server puts its log [default: where the embedded node puts its data]
    #[arg(long, value_name = "DIR")]
    pub floor_dir: Option<PathBuf>,
    /// How it runs.
    #[command(flatten)]
    pub server: FloorServerOptions,
}

/// What `floor` takes.
#[derive(Args, Clone, Debug)]
pub struct FloorWorkloadOptions {
    /// Where the bare server puts its log: a directory on the disk that is to be measured
    /// [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Which load.
    #[command(flatten)]
    pub load: LoadOptions,
    /// How the bare server runs.
    #[command(flatten)]
    pub server: FloorServerOptions,
}

/// What `many-partitions` takes.
#[derive(Args, Clone, Debug)]
pub struct ManyPartitionsOptions {
    /// As the others.
    #[command(flatten)]
    pub common: WorkloadOptions,
    /// What they are compared with.
    #[command(flatten)]
    pub floor: FloorOptions,
    /// Partitions that it is compared with
    #[arg(long, value_name = "COUNT", default_value_t = 6)]
    pub few_partitions: usize,
    /// Bytes of values in a request, over all its batches
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10)]
    pub request_bytes: usize,
}

/// What `tail` takes.
#[derive(Args, Clone, Debug)]
pub struct TailOptions {
    /// As the others.
    #[command(flatten)]
    pub common: WorkloadOptions,
    /// How many read everything, each for itself
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub consumers: usize,
    /// Most bytes of an answer to a consumer
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, value_parser = fetch_bytes())]
    pub fetch_bytes: i32,
    /// Most bytes of a partition in such an answer
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = fetch_bytes())]
    pub partition_fetch_bytes: i32,
    /// How long the server may wait for a record, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(i32).range(0..=60_000))]
    pub fetch_wait_ms: i32,
}

/// What `catchup` takes.
#[derive(Args, Clone, Debug)]
pub struct CatchupOptions {
    /// As the others.
    #[command(flatten)]
    pub common: WorkloadOptions,
    /// Bytes of values that are written before, and read while producers write
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30)]
    pub backlog: u64,
    /// Most bytes of an answer to the reader
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20, value_parser = fetch_bytes())]
    pub fetch_bytes: i32,
    /// Most bytes of a partition in such an answer
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = fetch_bytes())]
    pub partition_fetch_bytes: i32,
}

fn fetch_bytes() -> clap::builder::RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(1..=256 << 20)
}

/// Which servers are measured.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Servers")]
pub struct TargetOptions {
    /// A broker, as host:port
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "target")]
    pub bootstrap: Option<String>,
    /// A broker with a name; give several to compare them side by side
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = name_and_value)]
    pub target: Vec<(String, String)>,
    /// Measure a Chronik node of its own beside the others
    #[arg(long)]
    pub embedded: bool,
    /// Measure a cluster of so many Chronik nodes of its own beside a single one and the others; they share out the
    /// CPUs, unless a --node-flag says how many shards a node has
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(2..=9))]
    pub nodes: Option<u8>,
    /// Measure the client itself too, against a server that keeps nothing
    #[arg(long)]
    pub sink: bool,
    /// Where the embedded nodes put their data: a directory on the disk that is to be measured
    /// [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where a target keeps its data, if it runs on this machine: for its filesystem, and so that catchup can read
    /// from the disk rather than from the page cache
    #[arg(long, value_name = "NAME=DIR", value_parser = name_and_value)]
    pub target_data: Vec<(String, String)>,
    /// A flag of chronik-server for the embedded nodes, such as --node-flag=--shards=1
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    pub node_flag: Vec<String>,
}

/// What load the servers get.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub struct LoadOptions {
    /// Size of a record's value
    #[arg(long, value_name = "BYTES")]
    pub record_bytes: Option<usize>,
    /// Bytes of values in a batch
    #[arg(long, value_name = "BYTES")]
    pub batch_bytes: Option<usize>,
    /// Partitions of the topic
    #[arg(long, value_name = "COUNT")]
    pub partitions: Option<usize>,
    /// Connections, each with a producer
    #[arg(long, value_name = "COUNT")]
    pub connections: Option<usize>,
    /// Requests under way on a connection
    #[arg(long, value_name = "COUNT")]
    pub in_flight: Option<usize>,
    /// Records a second over all connections, with latency from when each was due; without it, closed loop
    #[arg(long, value_name = "RECORDS")]
    pub rate: Option<f64>,
    /// How long each cell is measured in a round, such as 10s or 500ms
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub duration: Duration,
    /// How long each load runs before it is measured
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s")]
    pub ramp: Duration,
    /// How long each cell runs before the first round
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub warm_up: Duration,
    /// How often each cell is measured
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub rounds: usize,
    /// The producers' codec
    #[arg(long, value_enum, default_value_t = Compression::None)]
    pub compression: Compression,
    /// Threads that connections are spread over
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub client_threads: usize,
    /// Read everything back, and check count, order and CRC
    #[arg(long)]
    pub verify: bool,
    /// Copies of each partition; -1 is the server's default
    #[arg(long, value_name = "COUNT", default_value_t = -1, allow_hyphen_values = true)]
    pub replication_factor: i16,
    /// Configuration of the topics, such as flush.messages=1
    #[arg(long, value_name = "KEY=VALUE", value_parser = name_and_value)]
    pub topic_config: Vec<(String, String)>,
    /// Write the report to this file as JSON
    #[arg(long, value_name = "FILE", help_heading = "Report")]
    pub json: Option<PathBuf>,
    /// Write a percentile file for each cell to this directory
    #[arg(long, value_name = "DIR", help_heading = "Report")]
    pub hgrm: Option<PathBuf>,
}

/// What a workload takes where it is not told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Defaults {
    /// `--record-bytes`.
    pub record_bytes: usize,
    /// `--batch-bytes`.
    pub batch_bytes: usize,
    /// `--partitions`.
    pub partitions: usize,
    /// `--connections`.
    pub connections: usize,
    /// `--in-flight`.
    pub in_flight: usize,
    /// `--rate`.
    pub rate: Option<f64>,
}

impl Defaults {
    /// Of `acks`.
    pub const ACKS: Self = Self {
        record_bytes: 1024,
        batch_bytes: 64 << 10,
        partitions: 6,
        connections: 16,
        in_flight: 5,
        rate: None,
    };
    /// Of `requests`.
    pub const REQUESTS: Self = Self { batch_bytes: 1024, in_flight: 32, ..Self::ACKS };
    /// Of `many-partitions`.
    pub const MANY_PARTITIONS: Self = Self { partitions: 1000, ..Self::ACKS };
    /// Of `many-connections`.
    pub const MANY_CONNECTIONS: Self =
        Self { batch_bytes: 16 << 10, connections: 1000, in_flight: 1, ..Self::ACKS };
    /// Of `tail`.
    pub const TAIL: Self = Self { ..Self::ACKS };
    /// Of `catchup`.
    pub const CATCHUP: Self = Self { batch_bytes: 16 << 10, rate: Some(50_000.0), ..Self::ACKS };

    fn help(&self) -> String {
        let rate = self.rate.map(|rate| format!(" --rate {rate}")).unwrap_or_default();
        format!(
            "Load, unless said otherwise: --record-bytes {} --batch-bytes {} --partitions {} \
             --connections {} --in-flight {}{rate}",
            self.record_bytes, self.batch_bytes, self.partitions, self.connections, self.in_flight
        )
    }
}

/// When the server answers a producer.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcksLevel {
    /// Never.
    #[value(name = "0")]
    None,
    /// When the leader has the records.
    #[value(name = "1")]
    Leader,
    /// When all in-sync replicas have them.
    #[value(name = "all", alias = "-1")]
    All,
}

impl AcksLevel {
    /// As in a request.
    #[must_use]
    pub const fn number(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// A codec's name.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are their names")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    /// The codec.
    #[must_use]
    pub const fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd => Codec::Zstd,
        }
    }
}

/// `10s`, `500ms`, `2m`, or seconds without a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" => 60.0,
        unit => return Err(format!("no unit {unit}: ms, s or m is due")),
    };
    let count: f64 = digits.parse().map_err(|_| format!("{digits:?} is no number"))?;
    Duration::try_from_secs_f64(count * seconds).map_err(|error| error.to_string())
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a name, = and a value are due".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn load(line: &[&str]) -> LoadOptions {
        let line = ["chronik-bench", "acks"].iter().chain(line);
        match CommandLine::try_parse_from(line).unwrap().workload {
            Workload::Acks(options) => options.common.load,
            other => panic!("{}", other.name()),
        }
    }

    #[test]
    fn the_command_line_is_consistent_and_helps_with_each_workload() {
        CommandLine::command().debug_assert();
        for subcommand in CommandLine::command().get_subcommands_mut() {
            let help = subcommand.render_long_help().to_string();
            assert!(
                help.contains("--in-flight") && help.contains("unless said otherwise"),
                "{help}"
            );
        }
    }

    #[test]
    fn levels_of_acks_are_chosen_by_their_kafka_names() {
        let levels = |line: &[&str]| {
            let line = ["chronik-bench", "acks"].iter().chain(line);
            CommandLine::try_parse_from(line).map(|command| match command.workload {
                Workload::Acks(options) => {
                    options.acks.iter().map(|level| level.number()).collect::<Vec<_>>()
                }
                other => panic!("{}", other.name()),
            })
        };
        assert_eq!(levels(&[]).unwrap(), [0, 1, -1]);
        assert_eq!(levels(&["--acks", "1"]).unwrap(), [1]);
        assert_eq!(levels(&["--acks=all,-1,0"]).unwrap(), [-1, -1, 0]);
        assert!(levels(&["--acks=2"]).is_err());
    }

    #[test]
    fn options_are_read() {
        let load = load(&[
            "--record-bytes=10",
            "--duration=500ms",
            "--ramp=0",
            "--warm-up=1.5m",
            "--compression=zstd",
            "--topic-config=flush.messages=1",
            "--topic-config=a=b=c",
            "--replication-factor=-1",
            "--rate=5e4",
        ]);
        assert_eq!(load.record_bytes, Some(10));
        assert_eq!(load.duration, Duration::from_millis(500));
        assert_eq!(load.ramp, Duration::ZERO);
        assert_eq!(load.warm_up, Duration::from_secs(90));
        assert_eq!(load.compression.codec(), Codec::Zstd);
        assert_eq!(load.topic_config[0], ("flush.messages".to_owned(), "1".to_owned()));
        assert_eq!(load.topic_config[1], ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(load.rate, Some(5e4));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for option in [
            "--duration=5h",
            "--duration=-1",
            "--duration=s",
            "--topic-config=flush.messages",
            "--target=127.0.0.1:9092",
            "--compression=brotli",
            "--rounds=-1",
            "orphan",
        ] {
            assert!(
                CommandLine::try_parse_from(["chronik-bench", "acks", option]).is_err(),
                "{option}"
            );
        }
    }
}
