//! `chronik-server`: one node, from its command line to its exit code.

use std::process::ExitCode;

use chronik::boot::{init_logging, stop_signals};
use chronik::cli::{CommandLine, Task};
use chronik::cluster_tool;
use chronik::config::NodeConfig;
use chronik::node::Node;
use chronik_tuning::host::Host;
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
    if let Some(Task::Cluster(task)) = &command.task {
        return Ok(cluster_tool::run(task, command.node_id)?);
    }
    let prints_plan = command.plan;
    let host = Host::read().map_err(|error| format!("cannot read what this host has: {error}"))?;
    let config = NodeConfig::resolve(command, &host)?;
    if prints_plan {
        print!("{}", config.plan.display(&config.data_dir));
        return Ok(());
    }
    init_logging(config.log_level);
    let signals = stop_signals()?;
    let mut is_told_to_stop = || signals.try_recv().is_ok();
    let Some(node) = Node::start_unless(&config, &mut is_told_to_stop)? else {
        tracing::info!("told to stop before the peers were there");
        return Ok(());
    };
    let signal = signals.recv()?;
    tracing::info!(?signal, "stopping");
    node.stop();
    Ok(())
}
