//! Loads: from a token to what the session holds, in random order over all sessions.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use dwell::{Sessions, Token};
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::ChaCha8Rng};

use crate::report::{self, RUNS, Run};
use crate::store::{PROFILE, VISITS};

pub(crate) fn all(sessions: &Sessions, tokens: &[Token], run: Duration) {
    small_field(sessions, tokens, run);
    on_both(&Loads { what: "whole struct, owned", sessions, tokens, run }, |sessions, token| {
        let profile = sessions.load(token).unwrap().unwrap().get(PROFILE).unwrap().unwrap();
        profile.account.len() + profile.display_name.len() + profile.email.len() + profile.csrf.len()
    });
    on_both(&Loads { what: "whole struct, borrowed", sessions, tokens, run }, |sessions, token| {
        let session = sessions.load(token).unwrap().unwrap();
        session
            .with(PROFILE, |profile| {
                let profile = profile.unwrap();
                let texts = [profile.account, profile.display_name, profile.email, profile.csrf];
                let others = [profile.avatar, profile.locale, profile.time_zone, profile.last_page];
                texts.iter().chain(&others).map(|text| text.len()).sum::<usize>() + profile.cart.len()
            })
            .unwrap()
    });
    let texts: Vec<String> = tokens.iter().map(Token::expose).collect();
    on_both(&Loads { what: "small field, from the token's text", sessions, tokens: &texts, run }, |sessions, text| {
        let token = Token::parse(text).unwrap();
        sessions.load(&token).unwrap().unwrap().get(VISITS).unwrap().unwrap() as usize
    });
    let strangers: Vec<Token> = strangers(tokens.len());
    on_both(&Loads { what: "a token that is not ours", sessions, tokens: &strangers, run }, |sessions, token| {
        usize::from(sessions.load(token).unwrap().is_some())
    });
}

pub(crate) fn small_field(sessions: &Sessions, tokens: &[Token], run: Duration) {
    on_both(&Loads { what: "small field", sessions, tokens, run }, |sessions, token| {
        sessions.load(token).unwrap().unwrap().get(VISITS).unwrap().unwrap() as usize
    });
}

/// Well-formed tokens of another store.
fn strangers(count: usize) -> Vec<Token> {
    let other = crate::store::options().in_memory().unwrap();
    let make = |_| {
        let session = other.start();
        session.set(VISITS, &1).unwrap();
        session.token().unwrap()
    };
    (0..count.min(10_000)).map(make).collect()
}

struct Loads<'a, T> {
    what: &'a str,
    sessions: &'a Sessions,
    tokens: &'a [T],
    run: Duration,
}

fn on_both<T: Sync>(loads: &Loads<'_, T>, load: impl Fn(&Sessions, &T) -> usize + Sync) {
    let alone = on_threads(loads, 1, &load);
    let both = on_threads(loads, 2, &load);
    report::note("", &format!("{:.2} times as many on 2 threads", both / alone));
}

fn on_threads<T: Sync>(loads: &Loads<'_, T>, threads: usize, load: &(impl Fn(&Sessions, &T) -> usize + Sync)) -> f64 {
    let orders: Vec<Vec<u32>> = (0..threads).map(|thread| shuffled(loads.tokens.len(), thread as u64)).collect();
    let one = || {
        let start = Barrier::new(threads);
        let runs: Vec<Run> = std::thread::scope(|scope| {
            let start = &start;
            let running: Vec<_> =
                orders.iter().map(|order| scope.spawn(move || on_thread(loads, order, start, load))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        Run {
            operations: runs.iter().map(|run| run.operations).sum(),
            time: runs.iter().map(|run| run.time).max().unwrap_or_default(),
            ..Run::default()
        }
    };
    // The first run finds cold caches and, after filling, a store that is still tidying up.
    let _warm = one();
    let runs: Vec<Run> = (0..RUNS).map(|_| one()).collect();
    let plural = if threads == 1 { "thread" } else { "threads" };
    report::row(&format!("{}, {threads} {plural}", loads.what), &runs)
}

fn on_thread<T>(loads: &Loads<'_, T>, order: &[u32], start: &Barrier, load: &impl Fn(&Sessions, &T) -> usize) -> Run {
    start.wait();
    let (begun, mut done) = (Instant::now(), Run::default());
    let mut turns = order.iter().cycle();
    while done.time < loads.run {
        for &at in turns.by_ref().take(STRIDE) {
            black_box(load(loads.sessions, loads.tokens.get(at as usize).unwrap()));
        }
        done.operations += STRIDE as u64;
        done.time = begun.elapsed();
    }
    done
}

/// Loads between two looks at the clock.
const STRIDE: usize = 1024;

pub(crate) fn shuffled(count: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..u32::try_from(count).unwrap()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order
}
