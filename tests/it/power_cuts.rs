//! The whole engine under power cuts; the simulator is in `support/power`.

use dwell::sim::Planted;

use crate::support::power::{CUTS_PER_RUN, run, run_with};

/// Runs seeds from `first` on until there were this many power cuts.
fn cuts(first: u64, cuts: u32) {
    let runs = u64::from(cuts.div_ceil(CUTS_PER_RUN));
    let violations: Vec<String> = (first..first + runs).filter_map(|seed| Some(run(seed).err()?.0)).collect();
    if let Some(first) = violations.first() {
        panic!("{} of {runs} runs went wrong, the first:\n{first}", violations.len());
    }
}

// Two halves, so that they can run side by side.

#[test]
fn five_hundred_power_cuts_break_no_promise() {
    cuts(0, 500);
}

#[test]
fn five_hundred_other_power_cuts_break_no_promise() {
    cuts(1_000_000, 500);
}

/// What the simulation is worth: it finds each of these within so many runs.
#[test]
fn mistakes_in_the_journal_are_caught() {
    let mistakes = [
        Planted::UnflushedFrame,
        Planted::StaleFrame,
        Planted::FreedTooEarly,
        Planted::ReplayNotNoted,
        Planted::CheckNotChecked,
    ];
    for mistake in mistakes {
        let caught =
            (0..RUNS_TO_CATCH).find_map(|seed| run_with(seed, mistake).err().map(|violation| (seed, violation)));
        let (seed, violation) = caught.unwrap_or_else(|| panic!("{mistake:?} is not caught"));
        println!("{mistake:?} is caught by seed {seed}: {}", violation.0.lines().next().unwrap_or_default());
    }
}

const RUNS_TO_CATCH: u64 = 200;
