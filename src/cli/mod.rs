//! The command line: what was asked for, and how the process ends.
//!
//! It knows the library's public API only. Exit codes: 0 fine, 1 it did not work, 2 it was asked for wrongly.

mod demo;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sessions that survive restarts.
#[derive(Debug, Parser)]
#[command(name = "dwell", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A small web application: sign in, kill the process, start it again, still signed in
    Demo(demo::Args),
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
enum Failure {
    /// It was asked for something that cannot be.
    Usage(String),
    /// It did not work.
    Failed(String),
}

pub(crate) fn run() -> ExitCode {
    let Command::Demo(args) = Cli::parse().command;
    match demo::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (message, code) = match failure {
                Failure::Usage(message) => (message, 2),
                Failure::Failed(message) => (message, 1),
            };
            // Where even standard error is gone, the exit code has to do.
            let _ = writeln!(std::io::stderr(), "dwell: {message}");
            ExitCode::from(code)
        }
    }
}
