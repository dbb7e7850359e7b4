//! A web application's day: 16 clients, each request loads, few change anything.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use dwell::{Sessions, Token};
use rand::{RngExt as _, SeedableRng, rngs::ChaCha8Rng};

use crate::durable::together;
use crate::report::{self, RUNS, Run};
use crate::store::{PROFILE, VISITS, profile};

const CLIENTS: usize = 16;

/// Replaces `tokens` by those that are live afterwards.
pub(crate) fn run(sessions: &Sessions, tokens: &mut Vec<Token>, run: Duration) {
    let mut shares: Vec<Share> = (0..CLIENTS)
        .map(|client| Share {
            tokens: tokens.iter().skip(client).step_by(CLIENTS).cloned().collect(),
            random: ChaCha8Rng::seed_from_u64(client as u64),
            client,
            created: 0,
        })
        .collect();
    let mut one = || {
        let (written, commits) = (report::written_bytes(), sessions.stats().commits);
        let start = Barrier::new(CLIENTS);
        let runs: Vec<Run> = std::thread::scope(|scope| {
            let client = |share| scope.spawn(|| requests(sessions, share, &start, run));
            let running: Vec<_> = shares.iter_mut().map(client).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        together(runs, sessions, written, commits)
    };
    let runs: Vec<Run> = (0..RUNS).map(|_| one()).collect();
    report::row(&format!("requests, {CLIENTS} clients"), &runs);
    *tokens = shares.into_iter().flat_map(|share| share.tokens).collect();
}

/// One client's visitors, so that no two sign the same one out.
struct Share {
    tokens: Vec<Token>,
    random: ChaCha8Rng,
    client: usize,
    created: usize,
}

fn requests(sessions: &Sessions, share: &mut Share, start: &Barrier, run: Duration) -> Run {
    start.wait();
    let (begun, mut done) = (Instant::now(), Run::default());
    while done.time < run {
        let started = Instant::now();
        request(sessions, share);
        done.latencies.push(started.elapsed());
        done.operations += 1;
        done.time = begun.elapsed();
    }
    done
}

fn request(sessions: &Sessions, share: &mut Share) {
    let at = share.random.random_range(0..share.tokens.len());
    let session = sessions.load(share.tokens.get(at).unwrap()).unwrap().unwrap();
    let visits = session.get(VISITS).unwrap().unwrap_or_default();
    match share.random.random_range(0..1000) {
        0..50 => {
            session.set(VISITS, &(visits + 1)).unwrap();
            session.save().unwrap().blocking_wait().unwrap();
        }
        50..55 => {
            let visitor = sessions.start();
            visitor.set(PROFILE, &profile(share.created)).unwrap();
            let name = format!("visitor-{}-{}", share.client, share.created);
            share.created += 1;
            share.tokens.push(visitor.sign_in(name).unwrap().blocking_wait().unwrap());
        }
        55..57 => {
            session.destroy().unwrap().blocking_wait().unwrap();
            share.tokens.swap_remove(at);
        }
        _ => {}
    }
}
