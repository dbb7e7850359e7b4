//! No resurrection, no lost update: random interleavings against a model made of plain maps.
//!
//! Each run is a store of its own with several clients, scripts of random operations, restarts and power cuts. Receipts
//! are kept and waited for later, so that other operations come between a decision and its commit. Whatever can be
//! observed is compared. A failure prints the seed and the operations; `DWELL_SEED=n` replays one run and
//! `DWELL_RUNS=n` makes more.

mod checks;
mod client;
mod groups;
mod plain;
mod restarts;

use crate::rng::seeds;

/// Together 10,000 scripts.
const RUNS: u64 = 400;
const SCRIPTS: usize = 25;

#[test]
fn ten_thousand_interleavings_do_what_plain_maps_do() {
    for seed in seeds(RUNS) {
        client::run(seed, SCRIPTS);
    }
}
