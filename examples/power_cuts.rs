//! Cuts the power of a simulated store, as often as you like, and holds what is found against what was promised.
//!
//! ```text
//! cargo run --release --all-features --example power_cuts -- --cuts 100000 --seed 1
//! ```
//!
//! The last line says `cuts N, violations V`; the exit status is 1 if there were any.

#![expect(clippy::print_stdout, reason = "it is a program for the terminal")]

use std::process::ExitCode;

#[path = "../tests/it/support/power/mod.rs"]
mod power;

fn main() -> ExitCode {
    let Some((cuts, first)) = arguments() else {
        println!("usage: power_cuts [--cuts N] [--seed S]");
        return ExitCode::from(2);
    };
    let (mut done, mut violations) = (0, 0);
    for seed in first.. {
        if done >= cuts {
            break;
        }
        if let Err(violation) = power::run(seed) {
            violations += 1;
            println!("{}", violation.0);
        }
        done += u64::from(power::CUTS_PER_RUN);
        if done % PROGRESS_EVERY == 0 {
            println!("{done} of {cuts} cuts, {violations} violations");
        }
    }
    println!("cuts {done}, violations {violations}");
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

const PROGRESS_EVERY: u64 = 1000;

/// How many cuts, and the first seed.
fn arguments() -> Option<(u64, u64)> {
    let (mut cuts, mut seed) = (1000, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?.parse().ok()?;
        match name.as_str() {
            "--cuts" => cuts = value,
            "--seed" => seed = value,
            _ => return None,
        }
    }
    Some((cuts, seed))
}
