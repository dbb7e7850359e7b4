//! Soft rotation: tokens are replaced as time goes by and nobody is signed out by it, but for whoever shows one that was
//! replaced. In every state: ends, hard rotations, restarts, crashes, cold loads.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use dwell::sim::Directory;
use dwell::{EndReason, ErrorKind, Field, ManualClock, Options, Result, Session, Sessions, Token, What};

use crate::support::{manual, sign_in, whose};

const NUMBER: Field<u32> = Field::new("number");
const EVERY: u64 = 300;
const OVERLAP: u64 = 10;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A store that rotates, on a directory that can lose its power.
struct Home {
    directory: Directory,
    options: Options,
    clock: ManualClock,
}

impl Home {
    fn new() -> Self {
        let (options, clock) = manual();
        Self { directory: Directory::new(1), options: options.rotate_every(seconds(EVERY)), clock }
    }

    /// Where strangers' sessions are kept off the disk, or not.
    fn of_strangers(in_memory: bool) -> Self {
        let mut home = Self::new();
        if in_memory {
            home.options = home.options.anonymous_in_memory();
        }
        home
    }

    fn open(&self) -> Sessions {
        self.directory.open(&self.options).unwrap()
    }

    fn pass(&self, sessions: &Sessions, count: u64) {
        self.clock.advance(seconds(count));
        sessions.run_pending();
    }

    /// Lets the interval pass and returns the successor of a token, which is on disk then.
    fn offer(&self, sessions: &Sessions, token: &Token) -> Token {
        self.clock.advance(seconds(EVERY));
        assert!(sessions.load(token).unwrap().unwrap().token().is_none(), "handed out before it is on disk");
        self.pass(sessions, 1);
        sessions.load_without_touch(token).unwrap().unwrap().token().expect("a successor")
    }

    /// Like [`offer`](Self::offer), where it may not have to be written first.
    fn offer_at_once(&self, sessions: &Sessions, token: &Token) -> Token {
        self.clock.advance(seconds(EVERY));
        sessions.load(token).unwrap().unwrap();
        self.pass(sessions, 1);
        sessions.load_without_touch(token).unwrap().unwrap().token().expect("a successor")
    }

    /// The power fails; whatever was synced is there.
    fn crash(&self, sessions: Sessions) -> Sessions {
        self.directory.restore_power();
        drop(sessions);
        self.open()
    }

    /// Closed and opened again, which leaves no cell in memory.
    fn restart(&self, sessions: Sessions) -> Sessions {
        sessions.close().unwrap();
        self.open()
    }
}

fn is_live(sessions: &Sessions, token: &Token) -> bool {
    sessions.load_without_touch(token).unwrap().is_some()
}

fn text(session: &Session) -> Option<String> {
    session.token().map(|token| token.expose())
}

fn ends(sessions: &Sessions) -> Vec<EndReason> {
    sessions.run_pending();
    let mut events = sessions.events();
    let ended = |what| if let What::Ended { reason, .. } = what { Some(reason) } else { None };
    std::iter::from_fn(|| events.try_next()).filter_map(|event| ended(event.what)).collect()
}

#[test]
fn a_token_is_replaced_and_everything_else_stays() {
    let home = Home::new();
    let sessions = home.open();
    let begun = sessions.start();
    let first = begun.sign_in("ada").unwrap().blocking_wait().unwrap();
    begun.set(NUMBER, &7).unwrap();
    let id = begun.id();
    home.pass(&sessions, EVERY - 1);
    assert!(sessions.load(&first).unwrap().unwrap().token().is_none());
    home.pass(&sessions, 1);
    assert!(sessions.load(&first).unwrap().unwrap().token().is_none(), "it is not on disk yet");
    home.pass(&sessions, 1);
    let with_first = sessions.load(&first).unwrap().unwrap();
    let second = with_first.token().expect("now it is");
    assert_ne!(second.expose(), first.expose());
    home.pass(&sessions, 1000);
    for _ in 0..3 {
        let again = sessions.load(&first).unwrap().unwrap();
        assert_eq!(text(&again), Some(second.expose()), "the same one, until it is used");
    }
    let with_second = sessions.load(&second).unwrap().unwrap();
    assert_eq!((with_second.id(), with_second.get(NUMBER).unwrap()), (id, Some(7)));
    assert!(with_second.token().is_none(), "its client has it");
    assert!(with_first.token().is_none(), "an answer that is late says nothing");
    assert!(sessions.load(&first).unwrap().unwrap().token().is_none());
    // Whatever handle, it is one session, and writes are seen by all.
    with_first.set(NUMBER, &8).unwrap();
    begun.update(NUMBER, |number| *number += 1).unwrap();
    assert_eq!(with_second.get(NUMBER).unwrap(), Some(9));
    assert_eq!((sessions.stats().sessions, sessions.of("ada").unwrap().len()), (1, 1));
    // And so on.
    home.pass(&sessions, OVERLAP);
    let third = home.offer(&sessions, &second);
    assert!(with_first.token().is_none(), "a handle from before is not told of the one after the next");
    assert_eq!(sessions.load(&third).unwrap().unwrap().get(NUMBER).unwrap(), Some(9));
    assert!(!is_live(&sessions, &first), "forgotten");
    assert!(is_live(&sessions, &second) && is_live(&sessions, &third));
    assert_eq!(ends(&sessions), []);
}

#[test]
fn without_the_option_nothing_is_replaced() {
    let (options, clock) = manual();
    let sessions = options.in_memory().unwrap();
    let token = sign_in(&sessions, "ada");
    for _ in 0..20 {
        clock.advance(seconds(1000));
        sessions.run_pending();
        assert!(sessions.load(&token).unwrap().unwrap().token().is_none());
    }
}

#[test]
fn a_replayed_token_ends_the_session_and_is_told() {
    for late in [0, 1, 200] {
        let home = Home::new();
        let sessions = home.open();
        let first = sign_in(&sessions, "ada");
        let second = home.offer(&sessions, &first);
        let session = sessions.load(&second).unwrap().unwrap();
        home.pass(&sessions, OVERLAP - 1);
        assert!(is_live(&sessions, &first), "within the overlap");
        home.pass(&sessions, 1 + late);
        let waiting = session.ended();
        assert!(sessions.load_without_touch(&first).unwrap().is_none());
        assert!(!is_live(&sessions, &second) && !is_live(&sessions, &first));
        assert_eq!(session.set(NUMBER, &1).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(waiting.blocking_wait(), EndReason::Replayed);
        assert_eq!(ends(&sessions), [EndReason::Replayed]);
        assert_eq!(sessions.stats().sessions, 0);
        // On disk within a second.
        home.pass(&sessions, 1);
        let sessions = home.crash(sessions);
        assert!(!is_live(&sessions, &second) && !is_live(&sessions, &first));
        assert!(sessions.of("ada").unwrap().is_empty());
    }
}

#[test]
fn a_token_that_was_replaced_begins_nothing() {
    let home = Home::new();
    let sessions = home.open();
    let first = sign_in(&sessions, "ada");
    let second = home.offer(&sessions, &first);
    let before = sessions.load(&first).unwrap().unwrap();
    sessions.load(&second).unwrap().unwrap();
    let after = sessions.load(&first).unwrap().unwrap();
    for stale in [before, after] {
        let refused = |receipt: Result<dwell::Receipt<Token>>| assert_eq!(receipt.unwrap_err().kind(), ErrorKind::Gone);
        refused(stale.rotate());
        refused(stale.reauthenticate(2));
        refused(stale.sign_in("ada"));
        refused(stale.sign_in("mallory"));
        assert!(stale.token().is_none());
        // What is under way goes on.
        stale.set(NUMBER, &3).unwrap();
        stale.save().unwrap().blocking_wait().unwrap();
        assert_eq!(stale.principal().unwrap().as_deref(), Some("ada"));
    }
    assert!(sessions.of("mallory").unwrap().is_empty());
    let session = sessions.load(&second).unwrap().unwrap();
    assert_eq!(session.get(NUMBER).unwrap(), Some(3));
    session.reauthenticate(2).unwrap().blocking_wait().unwrap();
}

#[test]
fn a_hard_rotation_ends_both_tokens_and_the_offer() {
    type Step = fn(&Session) -> Result<dwell::Receipt<Token>>;
    let steps: [Step; 3] = [Session::rotate, |session| session.reauthenticate(1), |session| session.sign_in("ada")];
    for (step, confirmed) in steps.into_iter().flat_map(|step| [(step, false), (step, true)]) {
        let home = Home::new();
        let sessions = home.open();
        let first = sign_in(&sessions, "ada");
        let second = home.offer(&sessions, &first);
        let with_first = sessions.load(&first).unwrap().unwrap();
        let acting = if confirmed { sessions.load(&second).unwrap().unwrap() } else { with_first.clone() };
        let receipt = step(&acting).unwrap();
        let other = sessions.load(&first).unwrap().unwrap();
        assert!(other.token().is_none(), "nothing is offered any more");
        let third = receipt.blocking_wait().unwrap();
        assert_eq!(text(&acting), Some(third.expose()));
        for (token, handle) in [(&first, &with_first), (&second, &other)] {
            assert!(!is_live(&sessions, token), "confirmed: {confirmed}");
            let same = text(handle) == Some(third.expose());
            assert!(same || handle.token().is_none(), "a late answer says nothing");
        }
        home.pass(&sessions, OVERLAP + 1);
        // No replay: both are unknown.
        assert!(!is_live(&sessions, &first) && !is_live(&sessions, &second));
        assert_eq!(whose(&sessions, &third).as_deref(), Some("ada"));
        let sessions = home.crash(sessions);
        assert!(!is_live(&sessions, &first) && !is_live(&sessions, &second));
        assert_eq!(whose(&sessions, &third).as_deref(), Some("ada"));
        let fourth = home.offer(&sessions, &third);
        assert_eq!(whose(&sessions, &fourth).as_deref(), Some("ada"));
    }
}

#[test]
fn a_hard_rotation_that_is_under_way_is_not_disturbed_by_the_successor() {
    let home = Home::new();
    let sessions = home.open();
    let first = sign_in(&sessions, "ada");
    let second = home.offer(&sessions, &first);
    let receipt = sessions.load(&first).unwrap().unwrap().rotate().unwrap();
    let early = sessions.load(&second).unwrap().expect("it is live until the commit");
    assert_eq!(early.rotate().unwrap_err().kind(), ErrorKind::Busy);
    let third = receipt.blocking_wait().unwrap();
    assert!(!is_live(&sessions, &first) && !is_live(&sessions, &second) && is_live(&sessions, &third));
    let receipt = sessions.load(&third).unwrap().unwrap().sign_in("bob").unwrap();
    receipt.blocking_wait().unwrap();
    assert_eq!(sessions.stats().sessions, 1);
}

/// All states of a session with a second token: its tokens, and what is to become of each.
fn in_each_state(mut test: impl FnMut(Home, Sessions, Token, Token)) {
    for confirmed in [false, true] {
        for restarted in [false, true] {
            let home = Home::new();
            let sessions = home.open();
            let first = sign_in(&sessions, "ada");
            let second = home.offer(&sessions, &first);
            if confirmed {
                assert!(is_live(&sessions, &second));
            }
            let sessions = if restarted { home.restart(sessions) } else { sessions };
            test(home, sessions, first, second);
        }
    }
}

#[test]
fn every_way_to_end_a_session_ends_both_tokens() {
    type End = fn(&Home, &Sessions, [&Token; 2]);
    let all: [End; 8] = [
        |_, sessions, [first, _]| drop(sessions.load(first).unwrap().unwrap().destroy().unwrap().blocking_wait()),
        |_, sessions, [_, second]| drop(sessions.load(second).unwrap().unwrap().destroy().unwrap().blocking_wait()),
        |_, sessions, _| {
            let id = sessions.of("ada").unwrap()[0].id;
            sessions.revoke(id).unwrap().expect("it is live").blocking_wait().unwrap();
        },
        |_, sessions, _| assert_eq!(sessions.revoke_all("ada").unwrap().blocking_wait().unwrap(), 1),
        |_, sessions, _| drop(sessions.disable("ada").unwrap().blocking_wait()),
        |_, sessions, _| {
            let other = sessions.start();
            other.sign_in("ada").unwrap().blocking_wait().unwrap();
            assert_eq!(sessions.revoke_others(&other).unwrap().blocking_wait().unwrap(), 1);
            other.destroy().unwrap().blocking_wait().unwrap();
        },
        |home, sessions, _| home.pass(sessions, 1800),
        |_, sessions, _| {
            for _ in 0..6 {
                sign_in(sessions, "ada");
            }
            assert_eq!(sessions.revoke_all("ada").unwrap().blocking_wait().unwrap(), 7, "by a cutoff");
        },
    ];
    for end in all {
        in_each_state(|home, sessions, first, second| {
            end(&home, &sessions, [&first, &second]);
            for _ in 0..2 {
                assert!(!is_live(&sessions, &first) && !is_live(&sessions, &second));
            }
            assert_eq!(sessions.stats().sessions, 0);
            let sessions = home.restart(sessions);
            assert!(!is_live(&sessions, &first) && !is_live(&sessions, &second));
            assert_eq!(sessions.stats().sessions, 0);
        });
    }
}

#[test]
fn an_offer_dies_with_the_token_that_it_follows() {
    in_each_state(|home, sessions, first, second| {
        // By its idle timeout, though nobody has collected it yet.
        home.clock.advance(seconds(1800));
        assert!(!is_live(&sessions, &second) && !is_live(&sessions, &first));
        assert_eq!(ends(&sessions), [EndReason::Idle], "and that is no replay");
    });
}

#[test]
fn a_session_lives_by_the_use_of_either_token() {
    in_each_state(|home, sessions, first, second| {
        let confirmed = sessions.load_without_touch(&first).unwrap().unwrap().token().is_none();
        if confirmed {
            home.clock.advance(seconds(5));
            assert!(sessions.load(&first).unwrap().is_some());
        } else {
            home.pass(&sessions, 1700);
            assert!(sessions.load(&second).unwrap().is_some());
        }
        home.pass(&sessions, 1797);
        assert!(is_live(&sessions, &second));
    });
}

#[test]
fn each_state_survives_a_restart_and_a_crash() {
    for crash in [false, true] {
        let home = Home::new();
        let again = |sessions| if crash { home.crash(sessions) } else { home.restart(sessions) };
        let sessions = home.open();
        let first = sign_in(&sessions, "ada");
        let second = home.offer(&sessions, &first);

        let sessions = again(sessions);
        let session = sessions.load(&first).unwrap().unwrap();
        assert_eq!(text(&session), Some(second.expose()), "the same successor");
        let sessions = again(sessions);
        assert_eq!(whose(&sessions, &second).as_deref(), Some("ada"), "cold, by the successor");
        assert_eq!(whose(&sessions, &first).as_deref(), Some("ada"));

        home.pass(&sessions, 1);
        let sessions = again(sessions);
        assert_eq!(whose(&sessions, &first).as_deref(), Some("ada"), "cold, by the token before");
        assert!(sessions.load(&first).unwrap().unwrap().token().is_none());
        assert_eq!(sessions.load(&first).unwrap().unwrap().rotate().unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(whose(&sessions, &second).as_deref(), Some("ada"));

        home.pass(&sessions, OVERLAP);
        let sessions = again(sessions);
        assert_eq!(whose(&sessions, &second).as_deref(), Some("ada"));
        let third = home.offer(&sessions, &second);
        let sessions = again(sessions);
        assert!(!is_live(&sessions, &first));
        assert_eq!(whose(&sessions, &third).as_deref(), Some("ada"));
        home.pass(&sessions, 1 + OVERLAP);
        let sessions = again(sessions);
        assert!(!is_live(&sessions, &second), "a replay, noticed without its session in memory");
        assert!(!is_live(&sessions, &third));
        assert_eq!(ends(&sessions), [EndReason::Replayed]);
    }
}

#[test]
fn a_crash_that_forgets_a_confirmation_leaves_both_tokens() {
    let home = Home::new();
    let sessions = home.open();
    let first = sign_in(&sessions, "ada");
    let second = home.offer(&sessions, &first);
    assert!(is_live(&sessions, &second));
    let sessions = home.crash(sessions);
    home.pass(&sessions, 60);
    assert!(sessions.load(&first).unwrap().unwrap().token().is_some(), "as if it had not been used");
    assert!(is_live(&sessions, &second));
    home.pass(&sessions, OVERLAP);
    assert!(!is_live(&sessions, &first) && !is_live(&sessions, &second));
    // One that is on disk is not forgotten.
    let first = sign_in(&sessions, "ada");
    let second = home.offer(&sessions, &first);
    assert!(is_live(&sessions, &second));
    home.pass(&sessions, 1);
    home.clock.advance(seconds(OVERLAP));
    let sessions = home.crash(sessions);
    assert!(!is_live(&sessions, &first) && !is_live(&sessions, &second));
}

#[test]
fn an_offer_that_a_crash_forgets_was_told_to_nobody() {
    let home = Home::new();
    let sessions = home.open();
    let first = sign_in(&sessions, "ada");
    home.clock.advance(seconds(EVERY));
    assert!(sessions.load(&first).unwrap().unwrap().token().is_none());
    let sessions = home.crash(sessions);
    assert!(is_live(&sessions, &first));
    assert!(sessions.load(&first).unwrap().unwrap().token().is_none(), "due again");
    home.pass(&sessions, 1);
    let second = sessions.load(&first).unwrap().unwrap().token().unwrap();
    assert!(is_live(&sessions, &second));
}

#[test]
fn sessions_are_revoked_by_their_handles_when_the_disk_is_behind() {
    let home = Home::new();
    let sessions = home.open();
    let first = sign_in(&sessions, "ada");
    let second = home.offer(&sessions, &first);
    let id = sessions.of("ada").unwrap()[0].id;
    assert!(is_live(&sessions, &second));
    // Nothing is written meanwhile: the disk knows the first two tokens, memory the second and the third.
    home.clock.advance(seconds(EVERY));
    assert!(sessions.load(&second).unwrap().is_some());
    assert!(!is_live(&sessions, &first));
    sessions.revoke(id).unwrap().expect("it is live").blocking_wait().unwrap();
    assert!(!is_live(&sessions, &second));
    assert_eq!(sessions.stats().sessions, 0);
}

#[test]
fn switching_it_off_strands_nobody() {
    in_each_state(|home, sessions, first, second| {
        sessions.close().unwrap();
        let (options, _) = manual();
        let sessions = home.directory.open(&options.clock(home.clock.clone())).unwrap();
        let session = sessions.load(&first).unwrap().unwrap();
        assert!(session.token().is_none(), "nothing is handed out any more");
        assert_eq!(whose(&sessions, &second).as_deref(), Some("ada"), "but taken");
        home.pass(&sessions, 1000);
        assert!(sessions.load(&second).unwrap().unwrap().token().is_none());
        assert!(!is_live(&sessions, &first));
    });
}

#[test]
fn anonymous_sessions_rotate_too_in_memory_and_on_disk() {
    for in_memory in [false, true] {
        let home = Home::of_strangers(in_memory);
        let sessions = home.open();
        let session = sessions.start();
        session.set(NUMBER, &5).unwrap();
        let first = session.token().unwrap();
        home.pass(&sessions, EVERY);
        let loaded = sessions.load(&first).unwrap().unwrap();
        assert_eq!(loaded.token().is_some(), in_memory, "nothing to wait for where nothing is written");
        home.pass(&sessions, 1);
        let second = loaded.token().unwrap();
        assert_eq!(text(&session), Some(second.expose()), "the handle that began it is one with the first token too");
        assert_eq!(sessions.load(&second).unwrap().unwrap().get(NUMBER).unwrap(), Some(5));
        assert_eq!(sessions.stats().anonymous, 1);
        home.pass(&sessions, OVERLAP);
        assert!(!is_live(&sessions, &first) && !is_live(&sessions, &second));
        assert_eq!((sessions.stats().anonymous, sessions.stats().dirty_bytes), (0, 0));
    }
}

#[test]
fn a_stranger_whose_token_was_replaced_often_is_ended_by_the_handle() {
    for in_memory in [false, true] {
        let home = Home::of_strangers(in_memory);
        let sessions = home.open();
        let session = sessions.start();
        session.set(NUMBER, &5).unwrap();
        let mut token = session.token().unwrap();
        for _ in 0..3 {
            token = home.offer_at_once(&sessions, &token);
            assert!(sessions.load(&token).unwrap().is_some());
            home.pass(&sessions, OVERLAP);
        }
        sessions.revoke(session.id().unwrap()).unwrap().expect("it is live").blocking_wait().unwrap();
        assert!(!is_live(&sessions, &token));
        assert_eq!(sessions.stats().sessions, 0);
    }
}

#[test]
fn polls_begin_no_rotation_but_may_confirm_one() {
    let home = Home::new();
    let sessions = home.open();
    let first = sign_in(&sessions, "ada");
    for _ in 0..5 {
        home.pass(&sessions, EVERY);
        assert!(sessions.load_without_touch(&first).unwrap().unwrap().token().is_none());
    }
    assert!(sessions.load(&first).unwrap().is_some());
    home.pass(&sessions, 1);
    let second = sessions.load_without_touch(&first).unwrap().unwrap().token().unwrap();
    let before = sessions.of("ada").unwrap()[0].last_seen;
    home.pass(&sessions, 100);
    assert!(sessions.load_without_touch(&second).unwrap().is_some());
    assert_eq!(sessions.of("ada").unwrap()[0].last_seen, before, "no use");
    home.pass(&sessions, OVERLAP);
    assert!(!is_live(&sessions, &first));
}

#[test]
fn cells_that_are_pushed_out_come_back_by_either_token() {
    let mut home = Home::new();
    home.options = home.options.clone().cache_bytes(1);
    let sessions = home.open();
    let first = sign_in(&sessions, "ada");
    let second = home.offer(&sessions, &first);
    let push_out = || {
        home.pass(&sessions, 1);
        let others: Vec<Token> = (0..600).map(|number| sign_in(&sessions, &format!("user {number}"))).collect();
        assert!(others.iter().all(|token| is_live(&sessions, token)));
        assert!(sessions.stats().cached < 500, "{}", sessions.stats().cached);
    };
    push_out();
    assert_eq!(text(&sessions.load(&first).unwrap().unwrap()), Some(second.expose()));
    push_out();
    assert_eq!(whose(&sessions, &second).as_deref(), Some("ada"));
    push_out();
    assert_eq!(whose(&sessions, &first).as_deref(), Some("ada"));
    push_out();
    assert_eq!(whose(&sessions, &second).as_deref(), Some("ada"));
    home.pass(&sessions, OVERLAP);
    assert_eq!(whose(&sessions, &second).as_deref(), Some("ada"));
}

#[test]
fn two_hundred_requests_at_once_across_the_rotation_agree() {
    let clock = ManualClock::new();
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().clock(clock.clone()).rotate_every(seconds(EVERY));
    let sessions = options.open(directory.path().join("sessions")).unwrap();
    let mut token = sign_in(&sessions, "ada");
    for round in 0..5_u32 {
        clock.advance(seconds(EVERY));
        let offered = Mutex::new(BTreeSet::new());
        let barrier = Barrier::new(200);
        thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    barrier.wait();
                    let session = sessions.load(&token).unwrap().expect("nobody is signed out");
                    session.update(NUMBER, |number| *number += 1).unwrap();
                    session.save().unwrap().blocking_wait().unwrap();
                    let Some(successor) = session.token() else { return };
                    offered.lock().unwrap().insert(successor.expose());
                    // As a browser with one jar: from then on everybody comes with it, while others are under way.
                    let session = sessions.load(&successor).unwrap().expect("nobody is signed out");
                    assert_eq!(session.principal().unwrap().as_deref(), Some("ada"));
                    assert!(sessions.load(&token).unwrap().is_some(), "for requests that are under way");
                });
            }
        });
        let offered = offered.into_inner().unwrap();
        assert_eq!(offered.len(), 1, "one successor");
        token = Token::parse(offered.first().unwrap()).unwrap();
        let session = sessions.load(&token).unwrap().unwrap();
        assert_eq!(session.get(NUMBER).unwrap(), Some(200 * (round + 1)), "no update is lost");
        assert_eq!((sessions.of("ada").unwrap().len(), sessions.stats().sessions), (1, 1), "one row");
        clock.advance(seconds(OVERLAP));
    }
}

#[test]
fn a_replay_at_once_with_everything_else_ends_the_session_once() {
    let clock = ManualClock::new();
    let sessions = Options::new().clock(clock.clone()).rotate_every(seconds(EVERY)).in_memory().unwrap();
    let mut events = sessions.events();
    for _ in 0..20 {
        let first = sign_in(&sessions, "ada");
        clock.advance(seconds(EVERY));
        let session = sessions.load(&first).unwrap().unwrap();
        session.set(NUMBER, &0).unwrap();
        session.save().unwrap().blocking_wait().unwrap();
        let second = session.token().expect("the same commit has it");
        assert!(is_live(&sessions, &second));
        clock.advance(seconds(OVERLAP));
        let barrier = Barrier::new(8);
        thread::scope(|scope| {
            for number in 0..8 {
                let (barrier, sessions, first, second) = (&barrier, &sessions, &first, &second);
                scope.spawn(move || {
                    barrier.wait();
                    if number % 2 == 0 {
                        assert!(sessions.load(first).unwrap().is_none());
                    } else if let Some(session) = sessions.load(second).unwrap() {
                        drop(session.update(NUMBER, |number| *number += 1));
                        drop(session.rotate());
                    }
                });
            }
        });
        assert!(!is_live(&sessions, &first));
        sessions.revoke_all("ada").unwrap().blocking_wait().unwrap();
        assert_eq!(sessions.stats().sessions, 0);
    }
    sessions.close().unwrap();
    let mut ends = 0;
    while let Some(event) = events.recv() {
        ends += usize::from(matches!(event.what, What::Ended { .. }));
    }
    assert_eq!(ends, 20);
}
