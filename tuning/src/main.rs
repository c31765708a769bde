//! `chronik-tune`: what a node needs of this host, and the profiles it may be told.

use std::path::PathBuf;
use std::process::ExitCode;

use chronik_tuning::check::{self, Verdict};
use chronik_tuning::host::Host;
use chronik_tuning::profile::{BUILT_IN, DEFAULT_PROFILE, Key, Profile};
use clap::{Parser, Subcommand};

/// Looks at what a Chronik node needs of this host.
#[derive(Parser, Debug)]
#[command(name = "chronik-tune", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Check this host: io_uring, limits, CPUs, the disk. Exits with 1 when something fails
    Check {
        /// Profile: development, latency, throughput, shared-host, or a file
        #[arg(long, env = "CHRONIK_PROFILE", value_name = "NAME|FILE", default_value = DEFAULT_PROFILE)]
        profile: String,

        /// Directory that the node will store in
        #[arg(long, env = "CHRONIK_DATA_DIR", value_name = "DIR", default_value = "./data")]
        data_dir: PathBuf,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a profile, complete, as a file to start an own one from
    Profile {
        /// development, latency, throughput, shared-host, or a file
        #[arg(value_name = "NAME|FILE", default_value = DEFAULT_PROFILE)]
        profile: String,
    },
}

fn main() -> ExitCode {
    match run(CommandLine::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chronik-tune: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match command {
        Command::Check { profile, data_dir, json } => {
            let profile = Profile::load(&profile)?;
            let findings = check::run(&profile, &Host::read()?, &data_dir);
            print!("{}", if json { check::json(&findings) } else { check::text(&findings) });
            let has_failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
            Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Command::Profile { profile: name } => {
            let profile = Profile::load(&name)?;
            match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
                Some((_, text)) => print!("{text}"),
                None => {
                    for key in Key::ALL {
                        println!("{} = {}", key.name(), key.show(&profile));
                    }
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
