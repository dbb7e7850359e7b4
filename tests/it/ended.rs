//! Waiting for a session's end: every reason is told, to everybody who waits, whatever their wakers do.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use dwell::sim::Directory;
use dwell::{AtLimit, EndReason, Ended, ErrorKind, Field, ManualClock, Options, Session, Sessions, What};

use crate::rng::{Rng, seeds};
use crate::support::manual;

const BLOB: Field<Vec<u8>> = Field::new("blob").keep_on_sign_in();
const MINUTE: Duration = Duration::from_secs(60);

/// Counts how often it was woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Somebody who waits, and how often they were woken.
struct Waiter {
    ended: Ended,
    count: Arc<Count>,
}

impl Waiter {
    /// Waits for a session, which must not have ended.
    fn of(session: &Session) -> Self {
        Self::on(session.ended())
    }

    fn on(ended: Ended) -> Self {
        let mut waiter = Self { ended, count: Arc::default() };
        assert_eq!(waiter.poll(), None);
        waiter
    }

    fn poll(&mut self) -> Option<EndReason> {
        let waker = Waker::from(Arc::clone(&self.count));
        match Pin::new(&mut self.ended).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(reason) => Some(reason),
            Poll::Pending => None,
        }
    }

    fn woken(&self) -> usize {
        self.count.0.load(Ordering::SeqCst)
    }

    /// What a task would get that polls when it is woken and not before.
    fn told(&mut self) -> Option<EndReason> {
        if self.woken() > 0 { self.poll() } else { None }
    }
}

fn signed_in(sessions: &Sessions, who: &str) -> Session {
    let session = sessions.start();
    session.sign_in(who).unwrap().blocking_wait().unwrap();
    session
}

type End = fn(&Sessions, &Session);

/// Ends ada's session in some way and returns what whoever waits for it is told.
fn told_after(end: End) -> Option<EndReason> {
    let (options, _clock) = manual();
    let sessions = options.sessions_per_principal(2, AtLimit::EndOldest).in_memory().unwrap();
    let session = signed_in(&sessions, "ada");
    let mut waiter = Waiter::of(&session);
    let mut late = Waiter { ended: session.ended(), count: Arc::default() };
    let mut other = Waiter::of(&signed_in(&sessions, "bob"));
    end(&sessions, &session);
    sessions.run_pending();
    assert_eq!((other.told(), other.poll()), (None, None), "somebody else's goes on");
    let told = waiter.told();
    assert_eq!(told, waiter.poll(), "whoever was not woken has nothing to learn");
    assert_eq!(late.poll(), told, "whoever asks only afterwards is told the same");
    told
}

#[test]
fn every_way_to_end_a_session_is_told() {
    let cases: [(&str, End); 11] = [
        ("signed_out", |_, session| drop(session.clone().destroy().unwrap())),
        ("replaced", |_, session| drop(session.sign_in("ada").unwrap().blocking_wait())),
        ("replaced", |_, session| drop(session.sign_in("eve").unwrap().blocking_wait())),
        ("revoked", |sessions, session| drop(sessions.revoke(session.id().unwrap()).unwrap().unwrap())),
        ("revoked", |sessions, _| drop(sessions.revoke_all("ada").unwrap())),
        ("revoked", |sessions, _| drop(sessions.disable("ada").unwrap())),
        ("revoked", |sessions, _| drop(sessions.revoke_others(&signed_in(sessions, "ada")).unwrap())),
        ("limit", |sessions, _| (0..2).for_each(|_| drop(signed_in(sessions, "ada")))),
        ("none", |sessions, session| drop(sessions.revoke_others(session).unwrap())),
        ("none", |_, session| drop(session.rotate().unwrap().blocking_wait())),
        ("none", |_, session| session.set(BLOB, &vec![7]).unwrap()),
    ];
    for (number, (expected, end)) in cases.into_iter().enumerate() {
        let told = told_after(end).map_or("none", EndReason::as_str);
        assert_eq!(told, expected, "case {number}");
    }
}

#[test]
fn a_rotation_is_told_to_those_who_asked_for_it() {
    let (options, _clock) = manual();
    let sessions = options.in_memory().unwrap();
    let session = signed_in(&sessions, "ada");
    let (mut row, mut token) = (Waiter::of(&session), Waiter::on(session.ended().or_rotated()));
    session.rotate().unwrap().blocking_wait().unwrap();
    assert_eq!((row.told(), token.told()), (None, Some(EndReason::Rotated)));
    let mut next = Waiter::on(session.ended().or_rotated());
    drop(session.destroy().unwrap());
    sessions.run_pending();
    let after = (row.told(), next.told(), token.poll());
    assert_eq!(after, (Some(EndReason::SignedOut), Some(EndReason::SignedOut), Some(EndReason::SignedOut)));
}

#[test]
fn what_has_no_session_yet_is_told_of_the_shutdown_only() {
    let (options, _clock) = manual();
    let sessions = options.in_memory().unwrap();
    let session = sessions.start();
    let mut waiter = Waiter::of(&session);
    session.set(BLOB, &vec![7]).unwrap();
    session.destroy().unwrap().blocking_wait().unwrap();
    assert_eq!((waiter.told(), waiter.poll()), (None, None));
    sessions.close().unwrap();
    assert_eq!(waiter.told(), Some(EndReason::Shutdown));
}

#[test]
fn an_anonymous_session_that_makes_room_ended_by_a_limit() {
    let (options, _clock) = manual();
    for options in [options.clone(), options.anonymous_in_memory()] {
        let sessions = options.sessions_max(10).in_memory().unwrap();
        let visitors = [sessions.start(), sessions.start()];
        visitors[0].set(BLOB, &vec![7]).unwrap();
        let mut waiter = Waiter::of(&visitors[0]);
        visitors[1].set(BLOB, &vec![7]).unwrap();
        sessions.run_pending();
        assert_eq!(waiter.told(), Some(EndReason::Limit));
    }
}

#[test]
fn the_deadline_that_came_first_is_the_reason() {
    let told = |idle: Duration, lifetime: Duration, uses: u32| {
        let (options, clock) = manual();
        let sessions = options.idle_timeout(idle).lifetime(lifetime).in_memory().unwrap();
        let session = signed_in(&sessions, "ada");
        let token = session.token().unwrap();
        let mut waiter = Waiter::of(&session);
        for _ in 0..uses {
            clock.advance(MINUTE);
            assert!(sessions.load(&token).unwrap().is_some());
            sessions.run_pending();
            assert_eq!(waiter.told(), None);
        }
        clock.advance(lifetime);
        sessions.run_pending();
        waiter.told()
    };
    assert_eq!(told(2 * MINUTE, 10 * MINUTE, 0), Some(EndReason::Idle));
    assert_eq!(told(2 * MINUTE, 10 * MINUTE, 7), Some(EndReason::Idle));
    assert_eq!(told(2 * MINUTE, 10 * MINUTE, 9), Some(EndReason::Lifetime));
    assert_eq!(told(2 * MINUTE, 10 * MINUTE, 8), Some(EndReason::Lifetime), "both at once: nothing could have kept it");
    assert_eq!(told(10 * MINUTE, 10 * MINUTE, 0), Some(EndReason::Lifetime));
}

#[test]
fn who_comes_after_the_deadline_ends_nothing() {
    let cases: [End; 4] = [
        |_, session| drop(session.clone().destroy().unwrap()),
        |sessions, session| drop(sessions.revoke(session.id().unwrap()).unwrap()),
        |sessions, _| assert_eq!(sessions.revoke_all("ada").unwrap().blocking_wait().unwrap(), 0),
        |sessions, _| drop(sessions.disable("ada").unwrap()),
    ];
    for (idle, reason) in [(MINUTE, EndReason::Idle), (2 * MINUTE, EndReason::Lifetime)] {
        for (number, end) in cases.iter().enumerate() {
            let (options, clock) = manual();
            let sessions = options.idle_timeout(idle).lifetime(2 * MINUTE).in_memory().unwrap();
            let session = signed_in(&sessions, "ada");
            let (mut waiter, mut events) = (Waiter::of(&session), sessions.events());
            sessions.run_pending();
            assert!(events.try_next().is_some());
            // Nobody has noticed yet.
            clock.advance(2 * MINUTE);
            end(&sessions, &session);
            sessions.run_pending();
            assert_eq!(waiter.told(), Some(reason), "case {number}");
            let told = std::iter::from_fn(|| events.try_next());
            let told: Vec<_> = told.filter(|event| event.what.as_str() == "ended").map(|event| event.what).collect();
            assert!(matches!(told[..], [What::Ended { reason: told, by: None, .. }] if told == reason), "{told:?}");
            let stats = sessions.stats();
            assert_eq!((stats.sessions, stats.expired, stats.revoked), (0, 1, 0));
        }
    }
}

#[test]
fn a_use_in_the_last_second_counts_and_one_in_the_next_does_not() {
    for (late, expected) in [(0, None), (1, Some(EndReason::Idle))] {
        let (options, clock) = manual();
        let sessions = options.idle_timeout(MINUTE).in_memory().unwrap();
        let session = signed_in(&sessions, "ada");
        let mut waiter = Waiter::of(&session);
        clock.advance(Duration::from_secs(59 + late));
        assert_eq!(sessions.load(&session.token().unwrap()).unwrap().is_some(), late == 0);
        clock.advance(Duration::from_secs(1 - late));
        sessions.run_pending();
        assert_eq!(waiter.told(), expected);
    }
}

#[test]
fn a_sign_in_with_an_unknown_outcome_ends_the_old_session_by_fault() {
    let (options, _clock) = manual();
    let told = (0..40).filter_map(|at| {
        let directory = Directory::new(at);
        let sessions = directory.open(&options).unwrap();
        let session = signed_in(&sessions, "ada");
        let mut waiter = Waiter::of(&session);
        directory.fail_at(directory.operations() + at, 1000, io::ErrorKind::Other);
        let unknown = session.sign_in("ada").unwrap().blocking_wait().err();
        let unknown = unknown.filter(|error| error.kind() == ErrorKind::Unknown);
        assert_eq!(unknown.is_some(), waiter.told() == Some(EndReason::Fault), "operation {at}");
        unknown
    });
    assert!(told.count() > 0, "no operation left the outcome unknown");
}

#[test]
fn the_shutdown_is_told_once_announced_and_everything_goes_on() {
    let (options, _clock) = manual();
    let sessions = options.in_memory().unwrap();
    let session = signed_in(&sessions, "ada");
    let (mut waiter, mut fresh) = (Waiter::of(&session), Waiter::of(&sessions.start()));
    let signing_in = sessions.start();
    let receipt = signing_in.sign_in("bob").unwrap();
    sessions.announce_close();
    sessions.announce_close();
    sessions.run_pending();
    assert_eq!((waiter.told(), fresh.told()), (Some(EndReason::Shutdown), Some(EndReason::Shutdown)));
    receipt.blocking_wait().unwrap();
    assert_eq!(signing_in.ended().blocking_wait(), EndReason::Shutdown);
    session.set(BLOB, &vec![7]).unwrap();
    session.save().unwrap().blocking_wait().unwrap();
    assert!(sessions.load(&session.token().unwrap()).unwrap().is_some());
    let ended = session.ended();
    session.destroy().unwrap().blocking_wait().unwrap();
    assert_eq!(ended.blocking_wait(), EndReason::SignedOut, "what ended says why all the same");
    assert_eq!(sessions.start().ended().blocking_wait(), EndReason::Shutdown);
}

#[test]
fn closing_and_the_last_handle_tell_too() {
    for close in [|sessions: Sessions| sessions.close().unwrap(), |sessions: Sessions| drop(sessions)] {
        let (options, _clock) = manual();
        let sessions = options.in_memory().unwrap();
        let session = signed_in(&sessions, "ada");
        let mut waiter = Waiter::of(&session);
        close(sessions);
        assert_eq!(waiter.told(), Some(EndReason::Shutdown));
        assert_eq!(session.ended().blocking_wait(), EndReason::Shutdown);
    }
}

#[test]
fn whoever_waits_keeps_the_session_in_memory() {
    let (options, _clock) = manual();
    let sessions = options.cache_bytes(1024).in_memory().unwrap();
    let mut waiters: Vec<_> = (0..300)
        .map(|number| {
            let session = signed_in(&sessions, "ada");
            session.set(BLOB, &vec![7; 1000]).unwrap();
            session.save().unwrap().blocking_wait().unwrap();
            if number < 32 { Some(Waiter::of(&session)) } else { None }
        })
        .collect();
    // The limit of 32 ended all of the first.
    assert!(waiters.iter_mut().flatten().all(|waiter| waiter.told() == Some(EndReason::Limit)));
}

#[test]
fn a_waiter_that_goes_leaves_nothing() {
    let (options, _clock) = manual();
    let sessions = options.in_memory().unwrap();
    let session = signed_in(&sessions, "ada");
    let count = Arc::new(Count::default());
    let mut ends: Vec<_> = (0..1000).map(|_| session.ended()).collect();
    for ended in &mut ends {
        let waker = Waker::from(Arc::clone(&count));
        for _ in 0..3 {
            assert!(Pin::new(&mut *ended).poll(&mut Context::from_waker(&waker)).is_pending());
        }
    }
    assert_eq!(Arc::strong_count(&count), 1001, "one waker for each, however often it was polled");
    drop(ends);
    assert_eq!(Arc::strong_count(&count), 1);
    drop(session.destroy().unwrap());
    sessions.run_pending();
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
}

#[test]
fn the_last_task_that_asked_is_woken() {
    let (options, _clock) = manual();
    let sessions = options.in_memory().unwrap();
    let session = signed_in(&sessions, "ada");
    let (first, mut last) = (Arc::new(Count::default()), Waiter::of(&session));
    let mut both = session.ended();
    for count in [&first, &last.count] {
        let waker = Waker::from(Arc::clone(count));
        assert!(Pin::new(&mut both).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&first), 1, "its waker is gone");
    drop(session.destroy().unwrap());
    sessions.run_pending();
    assert_eq!((first.0.load(Ordering::SeqCst), last.woken()), (0, 2));
    assert_eq!(last.told(), Some(EndReason::SignedOut));
}

#[test]
fn a_session_that_was_read_from_disk_again_is_waited_for_like_any() {
    let (options, _clock) = manual();
    let sessions = options.cache_bytes(1024).in_memory().unwrap();
    let begin = |who: &str| {
        let session = signed_in(&sessions, who);
        session.set(BLOB, &vec![7; 1000]).unwrap();
        session.save().unwrap().blocking_wait().unwrap();
        session
    };
    let ada = begin("ada");
    let (id, token) = (ada.id().unwrap(), ada.token().unwrap());
    drop(ada);
    let others = || (0..1000).for_each(|number| drop(begin(&format!("person {number}"))));
    others();
    assert!(sessions.stats().cached < 900, "not all fit");
    let load = || sessions.load(&token).unwrap().unwrap();
    let mut waiters = [Waiter::of(&load()), Waiter::of(&load())];
    others();
    sessions.revoke(id).unwrap().unwrap().blocking_wait().unwrap();
    waiters.iter_mut().for_each(|waiter| assert_eq!(waiter.told(), Some(EndReason::Revoked)));
}

/// Says when it is woken.
struct Tells(mpsc::Sender<()>);

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
    }
}

/// No commit, no event: nothing else makes a worker look up.
#[test]
fn an_end_wakes_by_itself() {
    let sessions = Options::new().clock(ManualClock::new()).anonymous_in_memory().in_memory().unwrap();
    drop(sessions.events());
    for _ in 0..100 {
        let session = sessions.start();
        session.set(BLOB, &vec![7]).unwrap();
        let (tells, told) = mpsc::channel();
        let waker = Waker::from(Arc::new(Tells(tells)));
        let mut ended = session.ended();
        assert!(Pin::new(&mut ended).poll(&mut Context::from_waker(&waker)).is_pending());
        session.destroy().unwrap().blocking_wait().unwrap();
        told.recv_timeout(MINUTE).unwrap();
        assert_eq!(ended.blocking_wait(), EndReason::SignedOut);
    }
}

/// Ends another session and waits for one when woken, and then panics.
struct Trouble {
    sessions: Sessions,
    other: Session,
}

impl Wake for Trouble {
    fn wake(self: Arc<Self>) {
        drop(self.sessions.revoke_all("bob").unwrap());
        let mut ended = self.other.ended();
        let polled = Pin::new(&mut ended).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(EndReason::Revoked));
        std::panic::resume_unwind(Box::new("a waker that panics"));
    }
}

#[test]
fn a_waker_may_use_the_store_and_panic() {
    let (options, _clock) = manual();
    let sessions = options.in_memory().unwrap();
    let (session, other) = (signed_in(&sessions, "ada"), signed_in(&sessions, "bob"));
    let mut before = Waiter::of(&session);
    let mut trouble = session.ended();
    let waker = Waker::from(Arc::new(Trouble { sessions: sessions.clone(), other: other.clone() }));
    assert!(Pin::new(&mut trouble).poll(&mut Context::from_waker(&waker)).is_pending());
    let mut after = Waiter::of(&session);
    let mut others = Waiter::of(&other);
    drop(session.destroy().unwrap());
    sessions.run_pending();
    sessions.run_pending();
    let signed_out = Some(EndReason::SignedOut);
    assert_eq!((before.told(), after.told(), others.told()), (signed_out, signed_out, Some(EndReason::Revoked)));
    sessions.close().unwrap();
}

#[test]
fn an_end_and_a_waiter_at_the_same_moment_meet() {
    let directory = tempfile::tempdir().unwrap();
    let sessions = Options::new().open(directory.path().join("sessions")).unwrap();
    for seed in seeds(200) {
        let session = signed_in(&sessions, &format!("person {}", seed % 7));
        let mut rng = Rng::new(seed);
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            let wait = |delay: usize| {
                let (session, barrier) = (&session, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    (0..delay).for_each(|_| std::hint::spin_loop());
                    session.ended().or_rotated().blocking_wait()
                })
            };
            let waiters = [0; 3].map(|_| wait(rng.below(2000)));
            barrier.wait();
            let expected = match seed % 3 {
                0 => {
                    drop(sessions.revoke(session.id().unwrap()).unwrap().unwrap());
                    EndReason::Revoked
                }
                1 => {
                    drop(session.clone().destroy().unwrap());
                    EndReason::SignedOut
                }
                _ => {
                    session.sign_in("somebody else").unwrap().blocking_wait().unwrap();
                    EndReason::Replaced
                }
            };
            // Whoever asks after the sign-in took effect asks about the new session.
            drop(sessions.revoke_all("somebody else").unwrap().blocking_wait());
            for waiter in waiters {
                let told = waiter.join().unwrap();
                assert!(told == expected || seed % 3 == 2 && told == EndReason::Revoked, "seed {seed}: {told}");
            }
        });
    }
    let session = signed_in(&sessions, "the last");
    let ended = session.ended();
    let waiter = thread::spawn(move || ended.blocking_wait());
    sessions.close().unwrap();
    assert_eq!(waiter.join().unwrap(), EndReason::Shutdown);
}
