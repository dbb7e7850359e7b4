//! Renewals: free while requests come in, on disk within an interval, never later there than they were.

use std::time::Duration;

use dwell::{Options, SignIn, Token};

use crate::rng::Rng;
use crate::traps::{Bench, Table, VISITS, begin, lives, sign_in};

/// Seconds that a last-seen time may lag behind on disk.
fn interval(idle: u64) -> u64 {
    (idle / 20).clamp(1, 3600)
}

#[test]
fn requests_that_only_read_write_nothing() {
    let bench = Bench::new();
    let sessions = bench.open();
    let tokens: Vec<Token> = (0..200).map(|n| sign_in(&sessions, &format!("user {n}")).1).collect();
    bench.advance(10);
    sessions.run_pending();
    let (before, operations) = (bench.directory.contents(), bench.directory.operations());
    for _ in 0..50 {
        bench.advance(1);
        for token in &tokens {
            sessions.load(token).unwrap().unwrap().get(VISITS).unwrap();
        }
        sessions.run_pending();
    }
    assert_eq!(bench.directory.operations(), operations);
    assert!(bench.directory.contents() == before);
}

#[test]
fn one_commit_in_an_interval_says_when_all_of_them_were_seen() {
    let bench = Bench::new();
    let sessions = bench.open();
    let tokens: Vec<Token> = (0..200).map(|n| sign_in(&sessions, &format!("user {n}")).1).collect();
    let commits = sessions.stats().commits;
    for minute in 1..=30 {
        for _ in 0..60 {
            bench.advance(1);
            tokens.iter().for_each(|token| assert!(sessions.load(token).unwrap().is_some()));
            sessions.run_pending();
        }
        let written = sessions.stats().commits - commits;
        // Gathered after three quarters of 90 seconds, with a quarter more to wait for a commit to ride on.
        assert!(written <= minute * 60 / 66 + 1, "{written} commits in {minute} minutes");
    }
    let sessions = bench.crash(sessions);
    for token in &tokens {
        let left = sessions.load_without_touch(token).unwrap().unwrap().idle_left().unwrap().unwrap().as_secs();
        assert!((1800 - 90..=1800).contains(&left), "{left} s left");
    }
}

#[test]
fn who_was_not_seen_again_costs_no_commit() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (_, token) = sign_in(&sessions, "ada");
    begin(&sessions, 1);
    bench.advance(3);
    sessions.run_pending();
    let commits = sessions.stats().commits;
    for _ in 0..600 {
        bench.advance(1);
        assert!(lives(&sessions, &token), "looking does not renew");
        sessions.run_pending();
    }
    assert_eq!(sessions.stats().commits, commits);
}

#[test]
fn renewals_ride_on_a_commit_that_comes_by() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (session, token) = sign_in(&sessions, "ada");
    let (_, other) = sign_in(&sessions, "bob");
    bench.advance(60);
    sessions.load(&token).unwrap();
    sessions.load(&other).unwrap();
    bench.advance(10);
    sessions.run_pending();
    let commits = sessions.stats().commits;
    session.set(VISITS, &1).unwrap();
    session.save().unwrap().blocking_wait().unwrap();
    bench.advance(60);
    sessions.run_pending();
    assert_eq!(sessions.stats().commits, commits + 1, "the save, and nothing else");
    let sessions = bench.crash(sessions);
    for token in [token, other] {
        let session = sessions.load_without_touch(&token).unwrap().unwrap();
        assert_eq!(session.idle_left().unwrap().unwrap().as_secs(), 1800 - 70);
    }
}

#[test]
fn what_is_kept_of_them_does_not_grow_for_ever() {
    let bench = Bench::with(|options| options.idle_timeout(Duration::from_secs(40)).lifetime(Options::LIFETIME_MAX));
    let sessions = bench.open();
    let tokens: Vec<Token> = (0..300).map(|n| sign_in(&sessions, &format!("user {n}")).1).collect();
    let mut most = 0;
    for round in 0..2000 {
        bench.advance(2);
        tokens.iter().for_each(|token| assert!(sessions.load(token).unwrap().is_some()));
        sessions.run_pending();
        if round % 20 == 19 {
            most = most.max(bench.records(Table::Touches));
        }
    }
    // 64 KiB and four times 900 bytes, in blocks of 940.
    assert!((20..=80).contains(&most), "{most} blocks");
    let sessions = bench.crash(sessions);
    tokens.iter().for_each(|token| assert!(lives(&sessions, token)));
    let sessions = bench.restart(sessions);
    assert_eq!(bench.records(Table::Touches), 1, "a clean stop says everything once");
    tokens.iter().for_each(|token| assert!(lives(&sessions, token)));
}

/// Sessions with all kinds of idle timeouts, used at random, over many power cuts: each ends early by an interval at
/// most, and never late.
#[test]
fn a_crash_costs_an_interval_at_most_and_never_gives_time() {
    for seed in crate::rng::seeds(30) {
        let mut rng = Rng::new(seed);
        let bench = Bench::with(|options| options.remembered(Duration::from_secs(90_000), Options::LIFETIME_MAX));
        let mut sessions = bench.open();
        let mut now = 0_u64;
        let mut known: Vec<(Token, u64, Vec<u64>)> = Vec::new();
        let idles = [3, 17, 40, 400, 1800, 90_000];
        for step in 0..400 {
            match rng.below(12) {
                0 if known.len() < 40 => {
                    let idle = *rng.pick(&idles);
                    let limits = (Duration::from_secs(idle), Options::LIFETIME_MAX);
                    let who = SignIn::new(format!("user {step}")).remembered().limits(limits.0, limits.1);
                    let token = sessions.start().sign_in(who).unwrap().blocking_wait().unwrap();
                    known.push((token, idle, vec![now]));
                }
                1 => {
                    let ran_at = now;
                    sessions.run_pending();
                    sessions = bench.crash(sessions);
                    known.retain_mut(|(token, idle, uses)| {
                        let interval = interval(*idle);
                        let stored =
                            uses.iter().rev().find(|&&at| at + interval <= ran_at).or_else(|| uses.first()).unwrap();
                        let soonest = stored.saturating_sub(interval / 64) + *idle;
                        let latest = uses.last().unwrap() + *idle;
                        match sessions.load_without_touch(token).unwrap() {
                            None => assert!(soonest <= now, "seed {seed}: {idle} s, {uses:?}, now {now}"),
                            Some(session) => {
                                let end = now + session.idle_left().unwrap().unwrap().as_secs();
                                assert!((soonest..=latest).contains(&end), "seed {seed}: {end} of {idle} s, {uses:?}");
                                *uses = vec![end - *idle];
                                return true;
                            }
                        }
                        false
                    });
                }
                2..=5 => {
                    let seconds = *rng.pick(&[1, 1, 1, 2, 5, 30, 70, 1000]);
                    bench.advance(seconds);
                    now += seconds;
                }
                6 | 7 => sessions.run_pending(),
                _ => {
                    known.retain_mut(|(token, idle, uses)| {
                        let lives = now < uses.last().unwrap() + *idle;
                        if !rng.one_in(3) {
                            return lives;
                        }
                        let loaded = sessions.load(token).unwrap();
                        assert_eq!(loaded.is_some(), lives, "seed {seed}: {idle} s, {uses:?}, now {now}");
                        uses.push(now);
                        lives
                    });
                }
            }
        }
    }
}

#[test]
fn a_clean_stop_loses_less_than_a_step() {
    let bench = Bench::with(|options| {
        options.idle_timeout(Duration::from_secs(30 * 86_400)).lifetime(Duration::from_secs(60 * 86_400))
    });
    let sessions = bench.open();
    let tokens: Vec<Token> = (0..50).map(|n| sign_in(&sessions, &format!("user {n}")).1).collect();
    // Spread over more than one block reaches back.
    for (token, n) in tokens.iter().zip(1..) {
        bench.advance(997 * n);
        sessions.load(token).unwrap().unwrap();
    }
    let left = |sessions: &dwell::Sessions| -> Vec<u64> {
        let left = |token| sessions.load_without_touch(token).ok()??.idle_left().ok()?;
        tokens.iter().map(|token| left(token).map_or(0, |left| left.as_secs())).collect()
    };
    let before = left(&sessions);
    let mut sessions = bench.restart(sessions);
    for (before, after) in before.into_iter().zip(left(&sessions)) {
        assert!(after <= before && before - after < 3600 / 64, "{before} s before and {after} s after");
    }
    let once = left(&sessions);
    for _ in 0..5 {
        sessions = bench.restart(sessions);
        assert_eq!(left(&sessions), once, "later stops cost nothing more");
    }
}

#[test]
fn saying_everything_anew_leaves_nobody_out() {
    let day = Duration::from_secs(86_400);
    let bench = Bench::with(|options| options.anonymous_lifetime(30 * day).anonymous_idle_timeout(day));
    let sessions = bench.open();
    let tokens: Vec<Token> = (0..3000).map(|n| begin(&sessions, n).1).collect();
    let (quiet, busy) = tokens.split_first().unwrap();
    bench.advance(3600);
    sessions.load(quiet).unwrap().unwrap();
    let mut blocks = Vec::new();
    for _ in 0..30 {
        busy.iter().for_each(|token| assert!(sessions.load(token).unwrap().is_some()));
        sessions.run_pending();
        bench.advance(2400);
        sessions.run_pending();
        blocks.push(bench.records(Table::Touches));
    }
    assert!(!blocks.is_sorted(), "{blocks:?}: it was said anew, and the old blocks went");
    let sessions = bench.crash(sessions);
    let left = sessions.load_without_touch(quiet).unwrap().unwrap().idle_left().unwrap().unwrap().as_secs();
    let exact = 86_400 - 30 * 2400;
    assert!((exact - 56..=exact).contains(&left), "{left} s left");
}

/// With idle timeouts of years few sessions fit in a block, and saying everything takes more than it is meant to.
#[test]
fn where_saying_everything_takes_much_it_is_not_said_again_and_again() {
    let years = |years: u64| Duration::from_secs(years * 365 * 86_400);
    let bench = Bench::with(|options| options.idle_timeout(years(10)).lifetime(years(10)));
    let sessions = bench.open();
    let hours_4 = 4 * 3600;
    for n in 0..4000 {
        sign_in(&sessions, &format!("user {n}"));
        bench.advance(hours_4);
    }
    sessions.run_pending();
    // All at once, so that blocks are many from the start.
    let sessions = bench.restart(sessions);
    assert!(bench.records(Table::Touches) > 3000, "each is far from the others");
    let commits = sessions.stats().commits;
    for _ in 0..600 {
        bench.advance(1);
        sessions.run_pending();
    }
    let commits = sessions.stats().commits - commits;
    assert!(commits <= 1, "{commits} commits in ten minutes in which nobody came");
}

#[test]
fn use_while_a_rotation_is_under_way_gets_to_disk() {
    let bench = Bench::new();
    let sessions = bench.open();
    let (session, token) = sign_in(&sessions, "ada");
    let receipt = session.rotate().unwrap();
    bench.advance(600);
    sessions.load(&token).unwrap().unwrap();
    let token = receipt.blocking_wait().unwrap();
    for _ in 0..90 {
        bench.advance(1);
        sessions.run_pending();
    }
    let sessions = bench.crash(sessions);
    let session = sessions.load_without_touch(&token).unwrap().unwrap();
    assert_eq!(session.idle_left().unwrap().unwrap().as_secs(), 1800 - 90);
}

/// Options that have changed put a session into another bucket than its last-seen time on disk lies in.
#[test]
fn saying_everything_anew_leaves_nobody_out_whose_timeout_was_lowered() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let bench = Bench::with(|options| options.idle_timeout(hours(2)).remembered(hours(2), hours(24)));
    let sessions = bench.open();
    let (_, other) = sign_in(&sessions, "other");
    let remembered = |n| sessions.start().sign_in(SignIn::new(format!("user {n}")).remembered()).unwrap();
    let busy: Vec<Token> = (0..6000).map(|n| remembered(n).blocking_wait().unwrap()).collect();
    let round = |sessions: &dwell::Sessions| {
        bench.advance(300);
        busy.iter().for_each(|token| assert!(sessions.load(token).unwrap().is_some()));
        sessions.run_pending();
        bench.advance(95);
        sessions.run_pending();
    };
    for _ in 0..6 {
        round(&sessions);
        assert!(sessions.load(&other).unwrap().is_some());
    }
    round(&sessions);
    // Seen some seven minutes ago, by the blocks of a timeout of two hours.
    let options = bench.options.clone().idle_timeout(hours(1) / 2);
    bench.directory.restore_power();
    drop(sessions);
    let sessions = bench.directory.open(&options).unwrap();
    let mut blocks = vec![bench.records(Table::Touches)];
    for _ in 0..3 {
        round(&sessions);
        blocks.push(bench.records(Table::Touches));
        assert!(lives(&sessions, &other), "half an hour is not over");
        let copy = bench.directory.copy();
        copy.restore_power();
        assert!(lives(&copy.open(&options).unwrap(), &other), "{blocks:?}");
    }
    assert!(!blocks.is_sorted(), "{blocks:?}: everything was said anew meanwhile");
}
