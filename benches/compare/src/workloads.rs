//! What the stores are asked to do.
//!
//! It knows stores and rounds. Invariants: a round of each store, then the next round of each; every round begins in an
//! empty directory, so no store pays for what it was left with by another workload.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::Plan;
use crate::adapters::Adapter;
use crate::measure::{Round, disk};
use crate::store::{Key, Store, data};

/// One line of the plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) clients: usize,
    mix: bool,
}

const ROUNDS: usize = 3;

pub(crate) fn named(name: &str) -> Result<Vec<Workload>, String> {
    let create = |name, clients| Workload { name, what: "create, durably", clients, mix: false };
    Ok(match name {
        "p2" => vec![create("p2", 1)],
        "p3" => vec![create("p3", 16), create("p3", 64)],
        "p4" => {
            let what = "web mix: all load and renew, 5 % save, 0.5 % create, 0.2 % end, durably";
            vec![Workload { name: "p4", what, clients: 16, mix: true }]
        }
        _ => return Err(format!("no workload `{name}`; there are p2, p3, p4")),
    })
}

/// Every store's rounds, by its name, in the order in which they were chosen.
pub(crate) fn rounds(
    workload: &Workload,
    chosen: &[Adapter],
    plan: Plan,
    home: &Path,
) -> Result<Vec<(&'static str, Vec<Round>)>, String> {
    let mut rounds: BTreeMap<usize, Vec<Round>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (number, adapter) in chosen.iter().enumerate().filter(|(_, adapter)| adapter.keeps || !workload.mix) {
            let place = tempfile::tempdir_in(home).map_err(|error| error.to_string())?;
            let store = (adapter.open)(place.path());
            let keys = if workload.mix { store.fill(plan.sessions) } else { Vec::new() };
            rounds.entry(number).or_default().push(round(workload, store.as_ref(), &keys, plan));
        }
    }
    Ok(rounds.into_iter().map(|(number, rounds)| (chosen[number].name, rounds)).collect())
}

fn round(workload: &Workload, store: &dyn Store, keys: &[Key], plan: Plan) -> Round {
    let before = disk();
    let start = Barrier::new(workload.clients);
    let client = |number: usize| {
        let mut random = SmallRng::seed_from_u64(number as u64);
        let mut own: Vec<Key> = keys.iter().skip(number).step_by(workload.clients).cloned().collect();
        let mut done = Round::default();
        start.wait();
        let begun = Instant::now();
        while done.time < plan.round {
            let started = Instant::now();
            if workload.mix {
                request(store, &mut own, &mut random);
            } else {
                store.create(&data(usize::try_from(done.operations).unwrap_or_default()));
            }
            done.waits.push(started.elapsed());
            done.operations += 1;
            done.time = begun.elapsed();
        }
        done
    };
    let parts: Vec<Round> = std::thread::scope(|scope| {
        let client = &client;
        let running: Vec<_> = (0..workload.clients).map(|number| scope.spawn(move || client(number))).collect();
        running.into_iter().map(|thread| thread.join().expect("stores do not panic")).collect()
    });
    let mut all = Round::default();
    for mut part in parts {
        all.operations += part.operations;
        all.time = all.time.max(part.time);
        all.waits.append(&mut part.waits);
    }
    let given = before.zip(disk()).map(|(before, after)| (after.0 - before.0, after.1 - before.1));
    (all.bytes, all.flushes) = (given.map(|given| given.0), given.map(|given| given.1));
    all
}

/// One request of a visitor.
fn request(store: &dyn Store, own: &mut Vec<Key>, random: &mut SmallRng) {
    let at = random.random_range(0..own.len());
    let found = store.load(&own[at]);
    assert!(found.is_some(), "it is live");
    match random.random_range(0..1000) {
        0..50 => store.save(&own[at], &data(at + 1)),
        50..55 => own.push(store.create(&data(at))),
        55..57 if own.len() > 1 => store.destroy(&own.swap_remove(at)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_known_by_name() {
        assert_eq!(named("p3").unwrap().iter().map(|workload| workload.clients).collect::<Vec<_>>(), [16, 64]);
        assert!(named("p99").is_err_and(|error| error.contains("p99")));
    }
}
