//! `chronik-server`: one node, from its command line to its exit code.

use std::process::ExitCode;

use chronik::boot::{init_logging, stop_signals};
use chronik::cli::CommandLine;
use chronik::config::NodeConfig;
use chronik::node::{Node, config_limits};
use chronik_shards::io::process;
use chronik_shards::machine::shard::ShardLimits;
use clap::Parser;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chronik-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let command = CommandLine::parse();
    let cpus = u16::try_from(process::cpus()?.len()).unwrap_or(u16::MAX);
    let config = NodeConfig::resolve(command, config_limits(&ShardLimits::default()), cpus)?;
    init_logging(config.log_level);
    let signals = stop_signals()?;
    let node = Node::start(&config)?;
    let signal = signals.recv()?;
    tracing::info!(?signal, "stopping");
    node.stop();
    Ok(())
}
