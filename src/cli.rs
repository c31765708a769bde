//! The command line. Every flag is also an environment variable, `CHRONIK_` and its name; a flag comes
//! before its variable, both before the configuration file. Flags of the server stand before or behind the
//! subcommand.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};

/// A durable streaming broker that speaks the Kafka protocol.
///
/// Without arguments: one broker on 127.0.0.1:9092 with its data in ./data.
#[derive(Parser, Clone, Debug, Default, PartialEq, Eq)]
#[command(name = "chronik-server", version)]
pub struct CommandLine {
    /// Port for Kafka clients [default: 9092]
    #[arg(long, global = true, env = "CHRONIK_KAFKA_PORT", value_name = "PORT")]
    pub kafka_port: Option<u16>,

    /// Host, or host:port, that clients are told to connect to [default: where the server listens]
    #[arg(long, global = true, env = "CHRONIK_ADVERTISED_ADDR", value_name = "HOST[:PORT]")]
    pub advertised_addr: Option<String>,

    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, global = true, env = "CHRONIK_BIND_ADDR", value_name = "IP")]
    pub bind_addr: Option<IpAddr>,

    /// Number of this node, which its data directory remembers [default: 1]
    #[arg(long, global = true, env = "CHRONIK_NODE_ID", value_name = "ID")]
    pub node_id: Option<i32>,

    /// Directory for everything that is stored [default: ./data]
    #[arg(long, global = true, env = "CHRONIK_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Tuning profile: development, latency, throughput, shared-host, or a file [default: development]
    #[arg(long, global = true, env = "CHRONIK_PROFILE", value_name = "NAME|FILE")]
    pub profile: Option<String>,

    /// Print what the profile comes to on this host (shard → CPU → WAL), and do not start
    #[arg(long, global = true, env = "CHRONIK_PLAN", value_parser = BoolishValueParser::new())]
    pub plan: bool,

    /// Number of shards, each a thread with its own partitions and log [default: one a CPU]
    #[arg(long, global = true, env = "CHRONIK_SHARDS", value_name = "COUNT")]
    pub shards: Option<u16>,

    /// Let shards move between CPUs; needed for more shards than CPUs
    #[arg(long, global = true, env = "CHRONIK_NO_PIN", value_parser = BoolishValueParser::new())]
    pub no_pin: bool,

    /// Configuration file (TOML)
    #[arg(long, global = true, env = "CHRONIK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// error, warn, info, debug or trace [default: info]
    #[arg(long, global = true, env = "CHRONIK_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Start although acknowledged records are damaged, without them
    #[arg(long, global = true, env = "CHRONIK_ACCEPT_DATA_LOSS", value_parser = BoolishValueParser::new())]
    pub accept_data_loss: bool,

    /// Where this node stands; replicas of a partition are spread over racks
    #[arg(long, global = true, env = "CHRONIK_RACK", value_name = "NAME")]
    pub rack: Option<String>,

    /// Where to tell metrics, for Prometheus, and health; nowhere if it is not given
    #[arg(long, global = true, env = "CHRONIK_METRICS_ADDR", value_name = "IP:PORT")]
    pub metrics_addr: Option<SocketAddr>,

    /// Groups that the metrics tell by name, at most [default: 1000]
    #[arg(long, global = true, env = "CHRONIK_METRICS_GROUPS_MAX", value_name = "COUNT")]
    pub metrics_groups_max: Option<usize>,

    /// Partitions of groups whose offset and lag the metrics tell, at most [default: 5000]
    #[arg(long, global = true, env = "CHRONIK_METRICS_GROUP_PARTITIONS_MAX", value_name = "COUNT")]
    pub metrics_group_partitions_max: Option<usize>,

    /// Partitions whose high watermark the metrics tell, at most [default: 1000]
    #[arg(long, global = true, env = "CHRONIK_METRICS_PARTITIONS_MAX", value_name = "COUNT")]
    pub metrics_partitions_max: Option<usize>,

    /// What to do; nothing means: run a server
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// What a command line asks for beside a server that is alone or has its peers in a file.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Run a node of a cluster whose peers are named here instead of in a file
    RaftCluster(RaftCluster),
    /// Look at a running cluster, add nodes to it or take nodes off
    Cluster(ClusterTask),
}

/// Something about a running cluster.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ClusterTask {
    /// Where any of its nodes listens for clients
    #[arg(
        long,
        global = true,
        env = "CHRONIK_SERVER",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092"
    )]
    pub server: String,

    /// Answer in JSON
    #[arg(long, global = true, env = "CHRONIK_JSON", value_parser = BoolishValueParser::new())]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub action: ClusterAction,
}

/// What to do with a running cluster.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum ClusterAction {
    /// Say which nodes there are, who leads, and how the partitions are
    Status,
    /// Let node --node-id come to the cluster
    AddNode {
        /// Where the control plane of the new node listens
        #[arg(long, env = "CHRONIK_RAFT_ADDR", value_name = "HOST:PORT")]
        raft_addr: String,
    },
    /// Move the partitions of node --node-id away and take it off the cluster
    RemoveNode {
        /// Seconds that it may take
        #[arg(long, env = "CHRONIK_TIMEOUT_S", value_name = "SECONDS", default_value_t = 600)]
        timeout_s: u64,
    },
}

/// A node of a cluster, by flags alone.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct RaftCluster {
    /// Where this node listens for the control planes of its peers
    #[arg(long, env = "CHRONIK_RAFT_ADDR", value_name = "IP:PORT")]
    pub raft_addr: SocketAddr,

    /// Every other node and where its control plane listens: 2@host:port,3@host:port
    #[arg(
        long,
        env = "CHRONIK_PEERS",
        value_name = "ID@HOST:PORT",
        value_delimiter = ',',
        required = true
    )]
    pub peers: Vec<String>,

    /// Where this node listens for replication [default: the client port + 199]
    #[arg(long, env = "CHRONIK_WAL_ADDR", value_name = "IP:PORT")]
    pub wal_addr: Option<SocketAddr>,

    /// Form a cluster of this node and its peers, if the data directory is new; without it the node comes to the
    /// cluster of its peers, once it was added there
    #[arg(long, env = "CHRONIK_BOOTSTRAP", value_parser = BoolishValueParser::new())]
    pub bootstrap: bool,

    /// Replicas of partitions whose creator does not say how many [default: 1]
    #[arg(long, env = "CHRONIK_REPLICATION_FACTOR", value_name = "COUNT")]
    pub replication_factor: Option<i32>,

    /// In-sync replicas that an acknowledgement to acks=all needs where the topic does not say [default: 1]
    #[arg(long, env = "CHRONIK_MIN_INSYNC_REPLICAS", value_name = "COUNT")]
    pub min_insync_replicas: Option<i32>,
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
        let tasks = || command.get_subcommands();
        let actions = tasks().flat_map(clap::Command::get_subcommands);
        let of_tasks = tasks().chain(actions).flat_map(clap::Command::get_arguments);
        for argument in command.get_arguments().chain(of_tasks) {
            let flag = argument.get_long().expect("there are no positional arguments");
            let variable = format!("CHRONIK_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().unwrap().to_str(), Some(variable.as_str()), "--{flag}");
            flags += 1;
        }
        assert_eq!(flags, 27);
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
            "--rack=east",
            "--metrics-addr=[::1]:9644",
            "--metrics-groups-max=5",
            "--metrics-group-partitions-max=6",
            "--metrics-partitions-max=0",
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
            rack: Some("east".to_owned()),
            metrics_addr: Some("[::1]:9644".parse().unwrap()),
            metrics_groups_max: Some(5),
            metrics_group_partitions_max: Some(6),
            metrics_partitions_max: Some(0),
            task: None,
        };
        assert_eq!(CommandLine::try_parse_from(line).unwrap(), expected);
    }

    #[test]
    fn flags_of_the_server_stand_before_or_behind_the_subcommand() {
        let cluster = [
            "raft-cluster",
            "--raft-addr=0.0.0.0:9192",
            "--peers=2@b:9193,3@c:9194",
            "--wal-addr=[::]:9291",
            "--bootstrap",
            "--replication-factor=3",
            "--min-insync-replicas=2",
        ];
        let expected = RaftCluster {
            raft_addr: "0.0.0.0:9192".parse().unwrap(),
            peers: vec!["2@b:9193".to_owned(), "3@c:9194".to_owned()],
            wal_addr: Some("[::]:9291".parse().unwrap()),
            bootstrap: true,
            replication_factor: Some(3),
            min_insync_replicas: Some(2),
        };
        let own = ["--node-id=4", "--data-dir=/d"];
        let before = ["chronik-server"].into_iter().chain(own).chain(cluster);
        let behind = ["chronik-server"].into_iter().chain(cluster).chain(own);
        let read = CommandLine::try_parse_from(before).unwrap();
        assert_eq!(CommandLine::try_parse_from(behind).unwrap(), read);
        assert_eq!(read.task, Some(Task::RaftCluster(expected)));
        assert_eq!((read.node_id, read.data_dir), (Some(4), Some("/d".into())));
        for without in [1, 2] {
            let mut line = vec!["chronik-server"];
            line.extend(cluster.iter().enumerate().filter(|(at, _)| *at != without).map(|it| it.1));
            assert!(CommandLine::try_parse_from(line).is_err(), "{} is needed", cluster[without]);
        }
    }

    #[test]
    fn a_running_cluster_is_asked_for_by_its_own_subcommand() {
        let line = ["chronik-server", "cluster", "add-node", "--node-id=4", "--raft-addr=h:1"];
        let read = CommandLine::try_parse_from(line).unwrap();
        let expected = ClusterTask {
            server: "127.0.0.1:9092".to_owned(),
            json: false,
            action: ClusterAction::AddNode { raft_addr: "h:1".to_owned() },
        };
        assert_eq!((read.node_id, read.task), (Some(4), Some(Task::Cluster(expected))));
        let line = ["chronik-server", "cluster", "status", "--json", "--server=x:2"];
        let expected =
            ClusterTask { server: "x:2".to_owned(), json: true, action: ClusterAction::Status };
        let read = CommandLine::try_parse_from(line).unwrap();
        assert_eq!(read.task, Some(Task::Cluster(expected)));
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
