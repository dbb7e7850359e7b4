//! No resurrection and no lost update with real threads, real workers and a real directory.
//!
//! What the model decides one step at a time happens here at once, so only invariants can be checked: what was ended
//! and acknowledged never loads again, what was acknowledged is there after a restart, and nothing hangs. Threads meet
//! at barriers and end by counts; nothing depends on how fast they are.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use dwell::{ErrorKind, Field, Options, Receipt, Result, Session, Sessions, Token};

use crate::rng::{Rng, seeds};

const VISITS: Field<u64> = Field::new("visits");
const BLOB: Field<Vec<u8>> = Field::new("blob");

struct Home {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        Self { _directory: directory, path }
    }

    fn open(&self) -> Sessions {
        Options::new().sessions_per_principal(1000, dwell::AtLimit::Refuse).open(&self.path).unwrap()
    }
}

fn signed_in(sessions: &Sessions, who: &str) -> (Session, Token) {
    let session = sessions.start();
    let token = session.sign_in(who).unwrap().blocking_wait().unwrap();
    (session, token)
}

fn at_once(threads: usize, work: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        for number in 0..threads {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(number);
            });
        }
    });
}

#[test]
fn everybody_in_a_large_batch_is_told_whatever_comes_next() {
    let home = Home::new();
    let sessions = home.open();
    let told = Mutex::new(Vec::new());
    at_once(64, |number| {
        for turn in 0..10 {
            let (_, token) = signed_in(&sessions, &format!("person-{number}-{turn}"));
            told.lock().unwrap().push(token);
        }
    });
    // Asked for all at once and waited for only after the store was closed.
    let begin = |number| sessions.start().sign_in(format!("late-{number}")).unwrap();
    let receipts: Vec<Receipt<Token>> = (0..200).map(begin).collect();
    sessions.close().unwrap();
    let late = receipts.into_iter().map(|receipt| receipt.blocking_wait().unwrap());
    told.lock().unwrap().extend(late);
    let sessions = home.open();
    let told = told.into_inner().unwrap();
    assert_eq!(told.len(), 64 * 10 + 200);
    assert!(told.iter().all(|token| sessions.load(token).unwrap().is_some()));
}

#[test]
fn sixty_four_threads_add_to_one_field() {
    let home = Home::new();
    let sessions = home.open();
    let (_, token) = signed_in(&sessions, "ada");
    at_once(64, |number| {
        let session = sessions.load(&token).unwrap().unwrap();
        for turn in 0..1000 {
            session.update(VISITS, |n| *n += 1).unwrap();
            if turn % 250 == number {
                session.save().unwrap().blocking_wait().unwrap();
            }
        }
    });
    let session = sessions.load(&token).unwrap().unwrap();
    assert_eq!(session.get(VISITS).unwrap(), Some(64_000));
    session.save().unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    let sessions = home.open();
    assert_eq!(sessions.load(&token).unwrap().unwrap().get(VISITS).unwrap(), Some(64_000));
}

/// A token that threads share, and what is known of it.
struct Shared {
    token: Token,
    who: String,
    /// An end of this session was acknowledged.
    ended: AtomicBool,
    /// A rotation gave it another token, so this one is void.
    void: AtomicBool,
    /// An end was asked for, so what is acknowledged later proves nothing.
    doomed: AtomicBool,
    /// The highest value that was acknowledged as saved.
    saved: AtomicU64,
}

impl Shared {
    fn new(sessions: &Sessions, who: String) -> Self {
        let (_, token) = signed_in(sessions, &who);
        let no = || AtomicBool::new(false);
        Self { token, who, ended: no(), void: no(), doomed: no(), saved: AtomicU64::new(0) }
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::SeqCst) || self.void.load(Ordering::SeqCst)
    }
}

fn doubtful(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Gone | ErrorKind::Busy)
}

/// One random operation on a shared session. What is over before it begins must stay over.
fn act(sessions: &Sessions, shared: &Shared, old: &mut Vec<Session>, rng: &mut Rng) {
    let over = shared.is_over();
    let loaded = sessions.load(&shared.token).unwrap();
    assert!(!(over && loaded.is_some()), "a session that ended loads again");
    for session in old.iter() {
        let over = shared.is_over();
        let written = session.update(VISITS, |n| *n += 1);
        assert!(!(over && written.is_ok()), "an old handle writes to a session that ended");
    }
    let Some(session) = loaded else { return };
    match rng.below(40) {
        0 => end(shared, || session.destroy().ok()),
        1 => end(shared, || sessions.revoke(session.id()?).unwrap()),
        2 => {
            shared.doomed.store(true, Ordering::SeqCst);
            sessions.revoke_all(&shared.who).unwrap().blocking_wait().unwrap();
            shared.ended.store(true, Ordering::SeqCst);
        }
        3 => rotate(shared, &session),
        4..14 => {
            let value = session.update(VISITS, |n| {
                *n += 1;
                *n
            });
            let Ok(value) = value.inspect_err(|error| assert!(doubtful(error.kind()), "{error:?}")) else { return };
            if rng.one_in(2) {
                return;
            }
            let Ok(receipt) = session.save().inspect_err(|error| assert!(doubtful(error.kind()))) else { return };
            if rng.one_in(3) {
                drop(receipt);
            } else if receipt.blocking_wait().inspect_err(|error| assert_eq!(error.kind(), ErrorKind::Gone)).is_ok() {
                shared.saved.fetch_max(value, Ordering::SeqCst);
            }
        }
        14..16 => old.push(session),
        _ => {
            let _ = session.get(VISITS);
        }
    }
}

fn end(shared: &Shared, end: impl FnOnce() -> Option<Receipt>) {
    shared.doomed.store(true, Ordering::SeqCst);
    if let Some(receipt) = end() {
        receipt.blocking_wait().unwrap();
        shared.ended.store(true, Ordering::SeqCst);
    }
}

fn rotate(shared: &Shared, session: &Session) {
    let Ok(receipt) = session.rotate().inspect_err(|error| assert!(doubtful(error.kind()))) else { return };
    shared.doomed.store(true, Ordering::SeqCst);
    match receipt.blocking_wait() {
        Ok(_) => shared.void.store(true, Ordering::SeqCst),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Gone),
    }
}

#[test]
fn what_was_ended_stays_ended_on_every_thread_and_after_a_restart() {
    for seed in seeds(3) {
        let home = Home::new();
        let sessions = home.open();
        let shared: Vec<Shared> = (0..40).map(|n| Shared::new(&sessions, format!("user {}", n % 30))).collect();
        at_once(8, |number| {
            let mut rng = Rng::new(seed.wrapping_mul(1000) + number as u64);
            let mut old: Vec<Vec<Session>> = shared.iter().map(|_| Vec::new()).collect();
            for _ in 0..400 {
                let at = rng.below(shared.len());
                act(&sessions, &shared[at], &mut old[at], &mut rng);
                old[at].truncate(3);
                // Places of ended sessions are used again by strangers.
                if rng.one_in(40) {
                    let _ = sessions.start().set(VISITS, &7);
                }
            }
        });
        sessions.close().unwrap();
        let sessions = home.open();
        for one in &shared {
            let session = sessions.load(&one.token).unwrap();
            assert!(
                !(one.is_over() && session.is_some()),
                "seed {seed}: a session that ended is back after the restart"
            );
            // A principal of two sessions may have lost this one by the end of the other.
            let shares =
                shared.iter().filter(|other| other.who == one.who).any(|other| other.doomed.load(Ordering::SeqCst));
            if !shares {
                let value = session.expect("nobody ended it").get(VISITS).unwrap().unwrap_or(0);
                assert!(value >= one.saved.load(Ordering::SeqCst), "seed {seed}: {value} is less than was saved");
            }
        }
    }
}

#[test]
fn everywhere_and_a_sign_in_have_one_order() {
    let home = Home::new();
    let sessions = home.open();
    let outcomes = Mutex::new(BTreeMap::new());
    for round in 0..40 {
        let who = format!("user {}", round % 5);
        // More than are deleted one by one in some rounds, fewer in others.
        let before: Vec<Token> = (0..round % 7).map(|_| signed_in(&sessions, &who).1).collect();
        let count = AtomicU64::new(0);
        let tokens = Mutex::new(Vec::new());
        at_once(5, |number| {
            if number == 0 {
                let ended = sessions.revoke_all(&who).unwrap().blocking_wait().unwrap();
                count.store(ended as u64, Ordering::SeqCst);
            } else if let Ok(token) = sessions.start().sign_in(who.as_str()).unwrap().blocking_wait() {
                tokens.lock().unwrap().push(token);
            }
        });
        assert!(before.iter().all(|token| sessions.load(token).unwrap().is_none()));
        let tokens = tokens.into_inner().unwrap();
        let mut outcomes = outcomes.lock().unwrap();
        let live = tokens.iter().filter(|token| sessions.load(token).unwrap().is_some()).count();
        let left = outcomes.values().filter(|(name, live)| *live && *name == who).count();
        assert_eq!(sessions.of(&who).unwrap().len(), live, "those listed are those that load");
        // What it counted is what it ended: sessions from before it, and sign-ins that were complete.
        let known = before.len() + left + tokens.len() - live;
        assert_eq!(count.load(Ordering::SeqCst), known as u64);
        for (_, (name, live)) in outcomes.iter_mut() {
            *live &= *name != who;
        }
        let dead = before.into_iter().map(|token| (token.expose(), (who.clone(), false)));
        outcomes.extend(dead);
        for token in tokens {
            let live = sessions.load(&token).unwrap().is_some();
            outcomes.insert(token.expose(), (who.clone(), live));
        }
    }
    sessions.close().unwrap();
    let sessions = home.open();
    for (text, (who, live)) in outcomes.into_inner().unwrap() {
        let token = Token::parse(&text).unwrap();
        assert_eq!(sessions.load(&token).unwrap().is_some(), live, "a session of {who}");
    }
}

/// Replaces a session's token on one thread and signs the session out on another, again and again. The second thread
/// waits a little longer when it was too early and a little less when it was too late, so that most rounds are close.
fn race(
    rounds: u32,
    prepare: impl Fn(&Sessions) -> (Session, Token),
    replace: impl Fn(&Session) -> Result<Receipt<Token>> + Sync,
) {
    let sessions = Options::new().in_memory().unwrap();
    let mut patience = 0_u32;
    let mut rng = Rng::new(1);
    let (mut lost, mut won) = (0, 0);
    for round in 0..rounds {
        let (session, token) = prepare(&sessions);
        let other = sessions.load(&token).unwrap().unwrap();
        let ready = Barrier::new(2);
        let jitter = patience.saturating_sub(3) + u32::try_from(rng.below(7)).unwrap();
        let (replaced, ended) = thread::scope(|scope| {
            let replacing = scope.spawn(|| {
                ready.wait();
                replace(&session).and_then(Receipt::blocking_wait).ok()
            });
            ready.wait();
            (0..jitter).for_each(|_| drop(sessions.load_without_touch(&token)));
            let ended = other.destroy().and_then(Receipt::blocking_wait).is_ok();
            (replacing.join().unwrap(), ended)
        });
        let live = replaced.is_some_and(|token| sessions.load(&token).unwrap().is_some());
        assert_eq!(live, !ended, "round {round}: signed out, or replaced and live");
        if ended {
            won += 1;
            patience += 1;
        } else {
            lost += 1;
            patience = patience.saturating_sub(1);
            sessions.revoke_all("ada").unwrap().blocking_wait().unwrap();
        }
    }
    assert!(lost > 0 && won > 0, "signing out won {won} and lost {lost} rounds");
}

#[test]
fn a_sign_out_and_a_rotation_have_one_winner() {
    race(1500, |sessions| signed_in(sessions, "ada"), Session::rotate);
}

#[test]
fn a_sign_out_and_a_sign_in_from_that_session_have_one_winner() {
    let visitor = |sessions: &Sessions| {
        let session = sessions.start();
        session.set(VISITS, &1).unwrap();
        let token = session.token().unwrap();
        (session, token)
    };
    race(1500, visitor, |session| session.sign_in("ada"));
}

#[test]
fn old_handles_cannot_reach_into_the_stranger_that_took_the_place() {
    let sessions = Options::new().in_memory().unwrap();
    // Far more sessions come and go than there are places, so places are used again and again.
    let strangers = Mutex::new(Vec::new());
    at_once(4, |number| {
        for turn in 0..300 {
            let (session, token) = signed_in(&sessions, &format!("user {number}"));
            let old = [session.clone(), sessions.load(&token).unwrap().unwrap()];
            session.destroy().unwrap().blocking_wait().unwrap();
            let stranger = sessions.start();
            stranger.set(VISITS, &turn).unwrap();
            for handle in old {
                assert_eq!(handle.set(VISITS, &9999).unwrap_err().kind(), ErrorKind::Gone);
                assert_eq!(handle.update(VISITS, |n| *n = 9999).unwrap_err().kind(), ErrorKind::Gone);
                assert_eq!(handle.rotate().unwrap_err().kind(), ErrorKind::Gone);
                assert_eq!(handle.sign_in("mallory").unwrap_err().kind(), ErrorKind::Gone);
                assert_eq!(handle.idle_left().unwrap_err().kind(), ErrorKind::Gone);
                assert_eq!(handle.destroy().unwrap_err().kind(), ErrorKind::Gone);
            }
            assert!(sessions.load(&token).unwrap().is_none());
            strangers.lock().unwrap().push((stranger.token().unwrap(), turn));
        }
    });
    for (token, turn) in strangers.into_inner().unwrap() {
        assert_eq!(sessions.load(&token).unwrap().unwrap().get(VISITS).unwrap(), Some(turn));
    }
}

#[test]
fn closing_under_load_hangs_nobody_and_keeps_what_was_acknowledged() {
    for seed in seeds(4) {
        let home = Home::new();
        let sessions = home.open();
        let started = Barrier::new(5);
        let kept: Mutex<Vec<(Token, u64)>> = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for number in 0..4 {
                let (sessions, started, kept) = (sessions.clone(), &started, &kept);
                scope.spawn(move || {
                    let (session, token) = signed_in(&sessions, &format!("user {number}"));
                    started.wait();
                    let mut acknowledged = 0;
                    // Until the engine says that it is closed.
                    let error = loop {
                        let value = session.update(VISITS, |n| {
                            *n += 1;
                            *n
                        });
                        let saved = value.and_then(|value| session.save()?.blocking_wait().map(|()| value));
                        match saved {
                            Ok(value) => acknowledged = value,
                            Err(error) => break error,
                        }
                    };
                    assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::Unknown), "{error:?}");
                    kept.lock().unwrap().push((token, acknowledged));
                });
            }
            started.wait();
            let mut rng = Rng::new(seed);
            (0..rng.below(2000)).for_each(|_| drop(sessions.stats()));
            sessions.close().unwrap();
        });
        let sessions = home.open();
        for (token, acknowledged) in kept.into_inner().unwrap() {
            let value = sessions.load(&token).unwrap().expect("signed in").get(VISITS).unwrap().unwrap_or(0);
            assert!(value >= acknowledged, "seed {seed}: {value} is less than the {acknowledged} acknowledged");
        }
    }
}

#[test]
fn many_cold_loads_of_one_session_give_one_cell() {
    let home = Home::new();
    let mut tokens = Vec::new();
    let sessions = home.open();
    for number in 0..20_u64 {
        let (session, token) = signed_in(&sessions, "ada");
        session.set(VISITS, &number).unwrap();
        tokens.push(token);
    }
    sessions.close().unwrap();
    let sessions = home.open();
    let handles = Mutex::new(Vec::new());
    for (number, token) in tokens.iter().enumerate() {
        at_once(8, |_| {
            let session = sessions.load(token).unwrap().unwrap();
            session.update(VISITS, |n| *n += 100).unwrap();
            handles.lock().unwrap().push(session);
        });
        let session = sessions.load(token).unwrap().unwrap();
        assert_eq!(session.get(VISITS).unwrap(), Some(number as u64 + 800));
    }
    assert_eq!(sessions.stats().cached, tokens.len());
}

/// The smallest ring, which a few commits fill, and next to nothing in memory, so that most is read from disk.
fn small() -> Options {
    let options = Options::new().sessions_per_principal(1000, dwell::AtLimit::Refuse);
    options.journal_bytes(64 * 1024).cache_bytes(1).page_cache_bytes(1)
}

/// What one thread was told. Nobody else touches its sessions.
struct Owner<'a> {
    sessions: &'a Sessions,
    who: String,
    rng: Rng,
    /// With the value that was acknowledged last.
    live: Vec<(Token, u64)>,
    /// Of all threads.
    ended: &'a Mutex<Vec<Token>>,
}

impl Owner<'_> {
    fn act(&mut self) {
        let at = self.rng.below(self.live.len());
        match self.rng.below(20) {
            _ if self.live.len() < 2 => self.live.push((signed_in(self.sessions, &self.who).1, 0)),
            0..4 => self.live.push((signed_in(self.sessions, &self.who).1, 0)),
            4..7 => {
                let (token, _) = self.live.swap_remove(at);
                self.load(&token).destroy().unwrap().blocking_wait().unwrap();
                self.ended.lock().unwrap().push(token);
            }
            7..15 => self.write(at),
            15..18 => {
                let (token, saved) = &self.live[at];
                assert_eq!(self.load(token).get(VISITS).unwrap().unwrap_or(0), *saved);
            }
            _ => {
                let ended = self.ended.lock().unwrap();
                let token = ended.get(self.rng.below(ended.len())).cloned();
                drop(ended);
                assert!(token.is_none_or(|token| self.sessions.load(&token).unwrap().is_none()), "ended, and back");
            }
        }
    }

    fn load(&self, token: &Token) -> Session {
        self.sessions.load(token).unwrap().expect("signed in")
    }

    /// Some of it is too large for the journal, and goes to the tables with all that is before it.
    fn write(&mut self, at: usize) {
        let large = self.rng.one_in(200);
        let session = self.load(&self.live[at].0);
        session.set(BLOB, &vec![7; if large { 10_000 } else { 700 }]).unwrap();
        let value = session.update(VISITS, |n| {
            *n += 1;
            *n
        });
        session.save().unwrap().blocking_wait().unwrap();
        self.live[at].1 = value.unwrap();
    }
}

/// How often a ring was gone round. A checkpoint frees no more than the ring at once, so there were at least as many, and
/// most likely twice as many.
fn laps(journal: &[u8]) -> u64 {
    const BLOCK: usize = 4096;
    let (pair, ring) = (&journal[32..48], &journal[BLOCK..]);
    let frames = ring.chunks(BLOCK).filter(|block| block.starts_with(pair));
    let position = frames.map(|block| u64::from_le_bytes(block[16..24].try_into().unwrap())).max();
    position.unwrap() / ring.len() as u64
}

#[test]
fn sixteen_threads_beside_many_checkpoints_lose_nothing_and_nobody_comes_back() {
    let home = Home::new();
    let sessions = small().open(&home.path).unwrap();
    let (ended, live) = (Mutex::default(), Mutex::new(Vec::new()));
    at_once(16, |number| {
        let (who, rng) = (format!("user {number}"), Rng::new(number as u64));
        let mut owner = Owner { sessions: &sessions, who, rng, live: Vec::new(), ended: &ended };
        (0..1000).for_each(|_| owner.act());
        live.lock().unwrap().push((owner.who, owner.live));
    });
    sessions.close().unwrap();
    let laps = laps(&std::fs::read(home.path.join("journal")).unwrap());
    assert!(laps > 80, "{laps} laps");
    let sessions = small().open(&home.path).unwrap();
    for (who, live) in live.into_inner().unwrap() {
        assert_eq!(sessions.of(&who).unwrap().len(), live.len(), "those of {who}");
        for (token, saved) in live {
            let session = sessions.load(&token).unwrap().expect("signed in");
            assert_eq!(session.get(VISITS).unwrap().unwrap_or(0), saved);
        }
    }
    let ended = ended.into_inner().unwrap();
    assert!(ended.len() > 500 && ended.iter().all(|token| sessions.load(token).unwrap().is_none()));
}
