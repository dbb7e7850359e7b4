//! Renewals: what a request costs that renews its session, beyond the load, and what they come to on disk.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use dwell::{ManualClock, Sessions, Token};

use crate::report;
use crate::store::{self, VISITS};

/// Time is told by hand, a second for each pass over all sessions, so that every load of a pass renews.
pub(crate) fn all(home: &Path, count: usize) {
    let clock = ManualClock::new();
    let options = store::options().clock(clock.clone()).manual_workers();
    let sessions = options.open(home.join("renewals")).unwrap();
    let tokens = store::fill(&sessions, count);
    let order = crate::loads::shuffled(count, 7);
    settle(&sessions, &clock);

    let (written, commits) = (report::written_bytes(), sessions.stats().commits);
    let mut passes = Vec::new();
    for _ in 0..PASSES {
        let looked = pass(&tokens, &order, |token| sessions.load_without_touch(token).unwrap().unwrap());
        clock.advance(Duration::from_secs(1));
        let renewed = pass(&tokens, &order, |token| sessions.load(token).unwrap().unwrap());
        sessions.run_pending();
        passes.push((looked, renewed));
    }
    let requests = (2 * PASSES * count) as f64;
    let figures = |of: fn(&(f64, f64)) -> f64| report::median(passes.iter().map(of).collect());
    let line = |(middle, least, most): (f64, f64, f64)| format!("{middle:>11.0} ns  ({least:.0} .. {most:.0})");
    report::note("load and read, without renewing", &line(figures(|pass| pass.0)));
    report::note("load, renew and read", &line(figures(|pass| pass.1)));
    report::note("the renewal alone", &line(figures(|pass| pass.1 - pass.0)));
    let spent = report::written_bytes().zip(written).map_or(0, |(now, then)| now - then);
    let commits = sessions.stats().commits - commits;
    report::note("written meanwhile", &format!("{:>11.3} B a request, {commits} commits", spent as f64 / requests));

    // An interval later all of them are on disk. What the passes left is written first.
    settle(&sessions, &clock);
    pass(&tokens, &order, |token| sessions.load(token).unwrap().unwrap());
    let (written, before) = (report::written_bytes(), sessions.stats().commits);
    clock.advance(Duration::from_secs(100));
    let begun = Instant::now();
    sessions.run_pending();
    let took = begun.elapsed();
    let spent = report::written_bytes().zip(written).map_or(0, |(now, then)| now - then);
    let commits = sessions.stats().commits - before;
    let text = format!(
        "{:>11.2} B a session, {commits} commit, {:.1} ms for {count}",
        spent as f64 / count as f64,
        took.as_secs_f64() * 1e3
    );
    report::note("an interval later, all written together", &text);
    sessions.close().unwrap();
}

const PASSES: usize = 9;

/// Nanoseconds for each session.
fn pass(tokens: &[Token], order: &[u32], load: impl Fn(&Token) -> dwell::Session) -> f64 {
    let begun = Instant::now();
    for &at in order {
        black_box(load(tokens.get(at as usize).unwrap()).get(VISITS).unwrap());
    }
    begun.elapsed().as_secs_f64() * 1e9 / order.len() as f64
}

fn settle(sessions: &Sessions, clock: &ManualClock) {
    for _ in 0..20 {
        clock.advance(Duration::from_secs(10));
        sessions.run_pending();
    }
}
