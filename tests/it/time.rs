//! Time that passes while requests come in, and over a very long run.

use std::sync::Barrier;
use std::time::Duration;

use dwell::{Field, ManualClock, Options, Session, Sessions, Token};

const VISITS: Field<u64> = Field::new("visits");

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |number| number.parse().unwrap())
}

fn begin(sessions: &Sessions) -> (Session, Token) {
    let session = sessions.start();
    session.set(VISITS, &1).unwrap();
    let token = session.token().unwrap();
    (session, token)
}

const IDLE: u64 = 60;
/// Sessions that each round fights over.
const EACH: usize = 64;

/// The last second of some sessions ends while they are being used. Whichever comes first, it stays so: what was
/// renewed is not collected, and what expired does not come back. `DWELL_RACES` sets the number of rounds.
#[test]
fn a_use_and_the_reaper_in_the_same_second_agree() {
    let clock = ManualClock::new();
    let options = Options::new().clock(clock.clone()).manual_workers().anonymous_in_memory();
    let sessions = options.anonymous_idle_timeout(Duration::from_secs(IDLE)).in_memory().unwrap();
    let (mut renewed, mut expired) = (0, 0);
    for round in 0..number("DWELL_RACES", 1_000) {
        let tokens: Vec<Token> = (0..EACH).map(|_| begin(&sessions).1).collect();
        clock.advance(Duration::from_secs(IDLE - 1));
        sessions.run_pending();
        let barrier = Barrier::new(3);
        let live = std::thread::scope(|scope| {
            let user = |tokens: Vec<Token>| {
                let (barrier, sessions) = (&barrier, &sessions);
                scope.spawn(move || {
                    barrier.wait();
                    tokens.iter().map(|token| sessions.load(token).unwrap().is_some()).collect::<Vec<bool>>()
                })
            };
            let users = [user(tokens.clone()), user(tokens.iter().rev().cloned().collect())];
            barrier.wait();
            // More or less of the use comes first.
            (0..round % 97).for_each(|_| std::hint::spin_loop());
            clock.advance(Duration::from_secs(1));
            sessions.run_pending();
            let [first, second] = users.map(|user| user.join().unwrap());
            first
                .into_iter()
                .zip(second.into_iter().rev())
                .map(|(first, second)| first || second)
                .collect::<Vec<bool>>()
        });
        sessions.run_pending();
        for (token, live) in tokens.iter().zip(live) {
            assert_eq!(sessions.load_without_touch(token).unwrap().is_some(), live, "round {round}");
            renewed += u64::from(live);
            expired += u64::from(!live);
        }
        // Those that were renewed are ended by hand, so that only expired ones are counted as such.
        assert_eq!(sessions.stats().expired as u64, expired, "round {round}");
        for token in &tokens {
            if let Some(session) = sessions.load(token).unwrap() {
                drop(session.destroy().unwrap());
            }
        }
        assert_eq!(sessions.stats().sessions, 0);
    }
    assert!(renewed > 0 && expired > 0, "{renewed} renewed, {expired} expired: nothing raced");
}

/// Sessions come and go and come and go. `DWELL_CYCLES` sets how many; a hundred million of them, in a process of their
/// own so that its memory means something:
/// `DWELL_CYCLES=100000000 cargo test --release --all-features --test it -- --nocapture come_and_go`
#[test]
fn memory_stays_flat_however_many_sessions_come_and_go() {
    let clock = ManualClock::new();
    let options = Options::new().clock(clock.clone()).manual_workers().anonymous_in_memory();
    let sessions = options.sessions_max(100_000).in_memory().unwrap();
    let cycles = number("DWELL_CYCLES", 200_000);
    let begun = std::time::Instant::now();
    let mut open = std::collections::VecDeque::new();
    let mut timer_bytes_early = 0;
    for cycle in 1..=cycles {
        let (session, token) = begin(&sessions);
        match cycle % 10 {
            // Some stay until there are too many of them, or a day is over.
            0 => drop(token),
            // Some are signed out later.
            1..5 => open.push_back(session),
            _ => drop(session.destroy().unwrap()),
        }
        if open.len() > 2000 {
            // `None`: it had to make room meanwhile.
            let _ = open.pop_front().unwrap().destroy();
        }
        if cycle % 500 == 0 {
            clock.advance(Duration::from_secs(1 + cycle % 3));
            sessions.run_pending();
        }
        if cycle % 10_000 == 0 {
            let stats = sessions.stats();
            assert!(stats.sessions <= 10_001, "{} sessions", stats.sessions);
            if cycle <= cycles / 4 {
                timer_bytes_early = timer_bytes_early.max(stats.timer_bytes);
            } else {
                let bytes = stats.timer_bytes;
                assert!(
                    bytes <= 2 * timer_bytes_early,
                    "{bytes} bytes of timers after {cycle}, {timer_bytes_early} early on"
                );
            }
        }
        if [100_000, 1_000_000, 10_000_000, 100_000_000].contains(&cycle) {
            let bytes = sessions.stats().timer_bytes;
            println!(
                "{cycle} cycles, {:.0?}: {bytes} bytes of timers, {} KiB resident",
                begun.elapsed(),
                resident_kib()
            );
        }
    }
}

fn resident_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap_or("?").to_owned()
}
