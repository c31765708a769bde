//! The command line. Every flag is also an environment variable, `CHRONIK_` and its name; a flag comes
//! before its variable, both before the configuration file.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Parser;
use clap::builder::BoolishValueParser;

/// A durable streaming broker that speaks the Kafka protocol.
///
/// Without arguments: one broker on 127.0.0.1:9092 with its data in ./data.
#[derive(Parser, Clone, Debug, Default, PartialEq, Eq)]
#[command(name = "chronik-server", version)]
pub struct CommandLine {
    /// Port for Kafka clients [default: 9092]
    #[arg(long, env = "CHRONIK_KAFKA_PORT", value_name = "PORT")]
    pub kafka_port: Option<u16>,

    /// Host, or host:port, that clients are told to connect to [default: where the server listens]
    #[arg(long, env = "CHRONIK_ADVERTISED_ADDR", value_name = "HOST[:PORT]")]
    pub advertised_addr: Option<String>,

    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, env = "CHRONIK_BIND_ADDR", value_name = "IP")]
    pub bind_addr: Option<IpAddr>,

    /// Number of this node, which its data directory remembers [default: 1]
    #[arg(long, env = "CHRONIK_NODE_ID", value_name = "ID")]
    pub node_id: Option<i32>,

    /// Directory for everything that is stored [default: ./data]
    #[arg(long, env = "CHRONIK_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Tuning profile: development, latency, throughput, shared-host, or a file [default: development]
    #[arg(long, env = "CHRONIK_PROFILE", value_name = "NAME|FILE")]
    pub profile: Option<String>,

    /// Print what the profile comes to on this host (shard → CPU → WAL), and do not start
    #[arg(long, env = "CHRONIK_PLAN", value_parser = BoolishValueParser::new())]
    pub plan: bool,

    /// Number of shards, each a thread with its own partitions and log [default: one a CPU]
    #[arg(long, env = "CHRONIK_SHARDS", value_name = "COUNT")]
    pub shards: Option<u16>,

    /// Let shards move between CPUs; needed for more shards than CPUs
    #[arg(long, env = "CHRONIK_NO_PIN", value_parser = BoolishValueParser::new())]
    pub no_pin: bool,

    /// Configuration file (TOML)
    #[arg(long, env = "CHRONIK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// error, warn, info, debug or trace [default: info]
    #[arg(long, env = "CHRONIK_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Start although acknowledged records are damaged, without them
    #[arg(long, env = "CHRONIK_ACCEPT_DATA_LOSS", value_parser = BoolishValueParser::new())]
    pub accept_data_loss: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_flag_is_also_a_variable_of_its_name() {
        let command = CommandLine::command();
        command.clone().debug_assert();
        let mut flags = 0;
        for argument in command.get_arguments() {
            let flag = argument.get_long().expect("there are no positional arguments");
            let variable = format!("CHRONIK_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().unwrap().to_str(), Some(variable.as_str()), "--{flag}");
            flags += 1;
        }
        assert_eq!(flags, 12);
    }

    #[test]
    fn flags_are_read() {
        let line = [
            "chronik-server",
            "--kafka-port=1",
            "--advertised-addr=host:2",
            "--bind-addr=::1",
            "--node-id=3",
            "--data-dir=/d",
            "--profile=latency",
            "--plan",
            "--shards=4",
            "--no-pin",
            "--config=/c",
            "--log-level=debug",
            "--accept-data-loss",
        ];
        let expected = CommandLine {
            kafka_port: Some(1),
            advertised_addr: Some("host:2".to_owned()),
            bind_addr: Some("::1".parse().unwrap()),
            node_id: Some(3),
            data_dir: Some("/d".into()),
            profile: Some("latency".to_owned()),
            plan: true,
            shards: Some(4),
            no_pin: true,
            config: Some("/c".into()),
            log_level: Some("debug".to_owned()),
            accept_data_loss: true,
        };
        assert_eq!(CommandLine::try_parse_from(line).unwrap(), expected);
    }

    #[test]
    fn unknown_flags_and_impossible_values_are_refused() {
        for flag in
            ["--peers=2@a:1", "--kafka-port=65536", "--bind-addr=host", "--shards=-1", "orphan"]
        {
            assert!(CommandLine::try_parse_from(["chronik-server", flag]).is_err(), "{flag}");
        }
    }
}
