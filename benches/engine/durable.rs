//! Sessions made and waited for: one client alone, and many whose waits share commits.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dwell::Sessions;

use crate::report::{self, RUNS, Run};
use crate::store::{PROFILE, profile};

pub(crate) fn sign_ins(sessions: &Sessions, clients: usize, run: Duration) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    on_clients(sessions, "data set, then signed in", clients, run, |number| {
        let session = sessions.start();
        session.set(PROFILE, &profile(number)).unwrap();
        let name = format!("newcomer-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        session.sign_in(name).unwrap().blocking_wait().unwrap();
    });
}

pub(crate) fn anonymous(sessions: &Sessions, clients: usize, run: Duration) {
    on_clients(sessions, "anonymous, saved", clients, run, |number| {
        let session = sessions.start();
        session.set(PROFILE, &profile(number)).unwrap();
        session.save().unwrap().blocking_wait().unwrap();
    });
}

fn on_clients(sessions: &Sessions, what: &str, clients: usize, run: Duration, create: impl Fn(usize) + Sync) {
    let one = || {
        let (written, commits) = (report::written_bytes(), sessions.stats().commits);
        let start = Barrier::new(clients);
        let runs: Vec<Run> = std::thread::scope(|scope| {
            let client = || {
                start.wait();
                let (begun, mut done) = (Instant::now(), Run::default());
                while done.time < run {
                    let started = Instant::now();
                    create(usize::try_from(done.operations).unwrap_or_default());
                    done.latencies.push(started.elapsed());
                    done.operations += 1;
                    done.time = begun.elapsed();
                }
                done
            };
            let running: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        together(runs, sessions, written, commits)
    };
    let runs: Vec<Run> = (0..RUNS).map(|_| one()).collect();
    let plural = if clients == 1 { "client" } else { "clients" };
    report::row(&format!("{what}, {clients} {plural}"), &runs);
}

/// The runs of several clients as one, with what they wrote since `written` and `commits`.
pub(crate) fn together(runs: Vec<Run>, sessions: &Sessions, written: Option<u64>, commits: usize) -> Run {
    let mut all = Run {
        written_bytes: report::written_bytes().zip(written).map(|(after, before)| after - before),
        commits: Some((sessions.stats().commits - commits) as u64),
        ..Run::default()
    };
    for mut run in runs {
        all.operations += run.operations;
        all.time = all.time.max(run.time);
        all.latencies.append(&mut run.latencies);
    }
    all
}
