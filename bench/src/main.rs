//! `chronik-bench`: from its command line to its exit code.

use std::process::ExitCode;
use std::thread;

use chronik::boot::stop_signals;
use chronik_bench::cli::CommandLine;
use chronik_bench::embedded;
use chronik_bench::engine::StopFlag;
use chronik_bench::{floor, sink, workloads};
use clap::Parser;

/// What a shell expects of a program that was interrupted.
const EXIT_INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(|first| first.to_str()) {
        Some(embedded::SUBCOMMAND) => return embedded::serve(arguments),
        Some(sink::SUBCOMMAND) => return sink::serve(arguments),
        Some(floor::server::SUBCOMMAND) => return floor::server::serve(arguments),
        _ => {}
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chronik-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let command = CommandLine::parse();
    let stop = StopFlag::default();
    let signals = stop_signals()?;
    let raised = stop.clone();
    thread::Builder::new().name("stop".to_owned()).spawn(move || {
        // The first ends the run in order; whoever repeats it does not want to wait for that.
        if signals.recv().is_ok() {
            raised.raise();
        }
        if signals.recv().is_ok() {
            std::process::exit(EXIT_INTERRUPTED);
        }
    })?;
    let program = std::env::current_exe()?;
    let report = workloads::run(command, &program, &stop)?;
    print!("{report}");
    Ok(())
}
