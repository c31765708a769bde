//! What a run is told: options with the defaults of its workload filled in.

use std::path::PathBuf;
use std::time::Duration;

use chronik_shards::format::compression::Codec;
use serde_json::{Value, json};

use crate::cli::{Defaults, LoadOptions};
use crate::error::BenchError;

/// A load's settings, complete.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Size of a record's value.
    pub record_bytes: usize,
    /// Bytes of values in a batch, as far as whole records fit.
    pub batch_bytes: usize,
    /// Partitions of the topic.
    pub partitions: usize,
    /// Connections.
    pub connections: usize,
    /// Requests under way on a connection.
    pub in_flight: usize,
    /// Records a second over all connections; `None`: closed loop.
    pub rate: Option<f64>,
    /// What is measured of each cell and round.
    pub duration: Duration,
    /// What comes before it, each time.
    pub ramp: Duration,
    /// What comes before the first round, for each cell.
    pub warm_up: Duration,
    /// How often each cell is measured.
    pub rounds: usize,
    /// The producers' codec.
    pub codec: Codec,
    /// Threads that the connections are spread over.
    pub client_threads: usize,
    /// Whether everything is read back.
    pub verify: bool,
    /// Copies of each partition; −1: the server's default.
    pub replication_factor: i16,
    /// Configuration of the topics.
    pub topic_configs: Vec<(String, String)>,
    /// Where the JSON goes.
    pub json: Option<PathBuf>,
    /// Where percentile files go.
    pub hgrm: Option<PathBuf>,
}

impl Settings {
    /// Fills in a workload's defaults and refuses what cannot be.
    ///
    /// # Errors
    /// [`BenchError::Options`] naming the option.
    pub fn resolve(options: LoadOptions, defaults: &Defaults) -> Result<Self, BenchError> {
        let settings = Self {
            record_bytes: options.record_bytes.unwrap_or(defaults.record_bytes),
            batch_bytes: options.batch_bytes.unwrap_or(defaults.batch_bytes),
            partitions: options.partitions.unwrap_or(defaults.partitions),
            connections: options.connections.unwrap_or(defaults.connections),
            in_flight: options.in_flight.unwrap_or(defaults.in_flight),
            rate: options.rate.or(defaults.rate),
            duration: options.duration,
            ramp: options.ramp,
            warm_up: options.warm_up,
            rounds: options.rounds,
            codec: options.compression.codec(),
            client_threads: options.client_threads,
            verify: options.verify,
            replication_factor: options.replication_factor,
            topic_configs: options.topic_config,
            json: options.json,
            hgrm: options.hgrm,
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), BenchError> {
        let refuse = |what: &str| Err(BenchError::Options(what.to_owned()));
        let counts = [
            ("--record-bytes", self.record_bytes),
            ("--batch-bytes", self.batch_bytes),
            ("--partitions", self.partitions),
            ("--connections", self.connections),
            ("--in-flight", self.in_flight),
            ("--rounds", self.rounds),
            ("--client-threads", self.client_threads),
        ];
        for (option, value) in counts {
            if value == 0 {
                return refuse(&format!("{option}: at least 1 is due"));
            }
        }
        if self.client_threads > self.connections {
            return refuse("--client-threads: more threads than connections have nothing to do");
        }
        if self.record_bytes.max(self.batch_bytes) > 1 << 30 {
            return refuse(
                "--record-bytes and --batch-bytes: at most 1 GiB, which no batch exceeds",
            );
        }
        if self.duration.is_zero() {
            return refuse("--duration: more than 0 is due");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return refuse("--rate: more than 0 records a second are due");
        }
        if self
            .topic_configs
            .iter()
            .any(|(key, value)| key == "message.timestamp.type" && value == "LogAppendTime")
        {
            return refuse(
                "--topic-config message.timestamp.type: batches are numbered by their timestamps",
            );
        }
        Ok(())
    }

    /// For the JSON report.
    #[must_use]
    pub fn to_pairs(&self) -> Vec<(String, Value)> {
        let configs: Vec<String> =
            self.topic_configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pairs = [
            ("record-bytes", json!(self.record_bytes)),
            ("batch-bytes", json!(self.batch_bytes)),
            ("partitions", json!(self.partitions)),
            ("connections", json!(self.connections)),
            ("in-flight", json!(self.in_flight)),
            ("rate", json!(self.rate)),
            ("duration-seconds", json!(self.duration.as_secs_f64())),
            ("ramp-seconds", json!(self.ramp.as_secs_f64())),
            ("warm-up-seconds", json!(self.warm_up.as_secs_f64())),
            ("rounds", json!(self.rounds)),
            ("compression", json!(self.codec.to_string())),
            ("client-threads", json!(self.client_threads)),
            ("verify", json!(self.verify)),
            ("replication-factor", json!(self.replication_factor)),
            ("topic-config", json!(configs)),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
