//! Durable session stores side by side, in one run on one machine.
//!
//! ```text
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- [--quick] [--only p2,p3,p4] [--adapters a,b] [--json FILE] [--dir DIR]
//! ```
//!
//! Every adapter keeps the same: a key as random as a token, when it expires, and 291 bytes of data. Before it is timed it
//! proves that it works. Each figure is the median of three rounds, and the rounds are interleaved: whatever else the
//! machine does in an hour meets all of them alike.

mod adapters;
mod measure;
mod prove;
mod report;
mod store;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// Durable session stores side by side.
#[derive(Debug, Parser)]
struct Args {
    /// Short rounds, to see that it works
    #[arg(long)]
    quick: bool,
    /// Workloads, of p2 (create, 1 client), p3 (create, 16 and 64 clients), p4 (web mix, 16 clients)
    #[arg(long, value_delimiter = ',', default_value = "p2,p3,p4")]
    only: Vec<String>,
    /// Adapters, all of them by default
    #[arg(long, value_delimiter = ',')]
    adapters: Vec<String>,
    /// Writes a line of JSON for each figure
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keeps the stores on another disk than that of temporary files
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) round: Duration,
    pub(crate) sessions: usize,
}

fn main() -> ExitCode {
    if prove::is_child() {
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let plan = if args.quick {
        Plan { round: Duration::from_millis(300), sessions: 5_000 }
    } else {
        Plan { round: Duration::from_secs(3), sessions: 100_000 }
    };
    let chosen = adapters::choose(&args.adapters)?;
    let home = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    measure::count_disk_of(&home);
    report::environment(&home);
    for adapter in &chosen {
        prove::works(adapter, &home)?;
    }
    let mut figures = Vec::new();
    for workload in &args.only {
        for one in workloads::named(workload)? {
            figures.extend(report::table(&one, &workloads::rounds(&one, &chosen, plan, &home)?));
        }
    }
    if let Some(path) = &args.json {
        let lines: String = figures.iter().map(|figure| format!("{figure}\n")).collect();
        std::fs::write(path, lines).map_err(|error| format!("failed to write {}: {error}", path.display()))?;
    }
    Ok(())
}
