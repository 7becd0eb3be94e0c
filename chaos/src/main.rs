//! `weir-chaos`: load and faults for a receiver of remote write.

use clap::{Parser, Subcommand};
use weir_chaos::load;

#[derive(Debug, Parser)]
#[command(name = "weir-chaos", version, about = "Load and faults for a receiver of Prometheus remote write")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends samples by remote write 1.0 and reports rates, latencies and what they cost.
    Load(load::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Load(args) => load::main(args),
    }
}
