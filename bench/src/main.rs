//! `chronik-bench`: one subcommand a workload.

fn main() {}
