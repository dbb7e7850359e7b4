//! Events: a golden list for each scenario, and what happens when nobody reads, reads late or reads badly.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dwell::sim::Directory;
use dwell::{
    AtLimit, EndReason, ErrorKind, Event, Events, Field, ManualClock, Options, RevokedBy, Session, SessionId, Sessions,
};
use dwell::{SignIn, What};

use crate::support::store_file::{NAME, Table, read, write};
use crate::support::{manual, sign_in};

const NUMBER: Field<u32> = Field::new("number");
const MINUTE: Duration = Duration::from_secs(60);

fn signed_in(sessions: &Sessions, who: &str) -> Session {
    let session = sessions.start();
    session.sign_in(who).unwrap().blocking_wait().unwrap();
    session
}

fn all(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.try_next()).collect()
}

/// What was read since, without what differs from run to run: times, and handles by the order of their appearance.
struct Reader {
    sessions: Sessions,
    events: Events,
    seen: Vec<SessionId>,
}

impl Reader {
    fn new(sessions: &Sessions) -> Self {
        Self { sessions: sessions.clone(), events: sessions.events(), seen: Vec::new() }
    }

    fn lines(&mut self) -> Vec<String> {
        self.sessions.run_pending();
        let mut lines = Vec::new();
        for event in all(&mut self.events) {
            if let Some(session) = event.session.filter(|session| !self.seen.contains(session)) {
                self.seen.push(session);
            }
            let mut line = event.to_string();
            for (number, session) in self.seen.iter().enumerate() {
                line = line.replace(&session.to_string(), &number.to_string());
            }
            line = line.split_once(' ').unwrap().1.to_owned();
            lines.push(line.split(" created=").next().unwrap().to_owned());
        }
        lines
    }

    #[track_caller]
    fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.lines(), expected);
    }
}

fn open(options: &Options) -> (Sessions, Reader) {
    let sessions = options.in_memory().unwrap();
    let reader = Reader::new(&sessions);
    (sessions, reader)
}

#[test]
fn a_life_from_the_first_write_to_the_sign_out() {
    let (options, _clock) = manual();
    let (sessions, mut reader) = open(&options);
    let session = sessions.start();
    session.set(NUMBER, &1).unwrap();
    session.set(NUMBER, &2).unwrap();
    reader.expect(&["created session=0 class=anonymous"]);
    session.sign_in(SignIn::new("ada").method(3).pending()).unwrap().blocking_wait().unwrap();
    reader.expect(&[
        "ended reason=replaced session=0 class=anonymous",
        "signed_in method=3 remembered=false replaced=0 session=1 class=pending principal=\"ada\"",
    ]);
    session.sign_in(SignIn::new("ada").remembered()).unwrap().blocking_wait().unwrap();
    session.rotate().unwrap().blocking_wait().unwrap();
    session.reauthenticate(7).unwrap().blocking_wait().unwrap();
    reader.expect(&[
        "ended reason=replaced session=1 class=pending principal=\"ada\"",
        "signed_in method=0 remembered=true replaced=1 session=2 class=authenticated principal=\"ada\"",
        "rotated session=2 class=authenticated principal=\"ada\"",
        "rotated reauthenticated=7 session=2 class=authenticated principal=\"ada\"",
    ]);
    session.sign_in("eve").unwrap().blocking_wait().unwrap();
    session.destroy().unwrap().blocking_wait().unwrap();
    reader.expect(&[
        "ended reason=replaced session=2 class=authenticated principal=\"ada\"",
        "signed_in method=0 remembered=false replaced=2 session=3 class=authenticated principal=\"eve\"",
        "ended reason=signed_out session=3 class=authenticated principal=\"eve\"",
    ]);
}

#[test]
fn every_revocation_says_what_call_it_was() {
    let (options, _clock) = manual();
    let (sessions, mut reader) = open(&options);
    let ada: Vec<_> = (0..4).map(|_| signed_in(&sessions, "ada")).collect();
    assert_eq!(reader.lines().len(), 4);
    drop(sessions.revoke(ada[0].id().unwrap()).unwrap().unwrap());
    drop(sessions.revoke_others(&ada[3]).unwrap());
    reader.expect(&[
        "ended reason=revoked by=handle session=0 class=authenticated principal=\"ada\"",
        "ended reason=revoked by=others from=3 session=1 class=authenticated principal=\"ada\"",
        "ended reason=revoked by=others from=3 session=2 class=authenticated principal=\"ada\"",
    ]);
    drop(sessions.revoke_all("ada").unwrap());
    drop(sessions.revoke_all("ada").unwrap());
    signed_in(&sessions, "bob");
    drop(sessions.disable("bob").unwrap());
    drop(sessions.disable("bob").unwrap());
    drop(sessions.start().sign_in("bob").unwrap_err());
    drop(sessions.enable("bob").unwrap());
    drop(sessions.enable("bob").unwrap());
    reader.expect(&[
        "ended reason=revoked by=all session=3 class=authenticated principal=\"ada\"",
        "signed_in method=0 remembered=false session=4 class=authenticated principal=\"bob\"",
        "disabled principal=\"bob\"",
        "ended reason=revoked by=disable session=4 class=authenticated principal=\"bob\"",
        "refused why=disabled principal=\"bob\"",
        "enabled principal=\"bob\"",
    ]);
}

#[test]
fn limits_end_the_oldest_or_refuse() {
    let (options, _clock) = manual();
    let (sessions, mut reader) = open(&options.clone().sessions_per_principal(1, AtLimit::EndOldest).sessions_max(10));
    (0..2).for_each(|_| drop(signed_in(&sessions, "ada")));
    (0..2).for_each(|_| sessions.start().set(NUMBER, &1).unwrap());
    reader.expect(&[
        "signed_in method=0 remembered=false session=0 class=authenticated principal=\"ada\"",
        "ended reason=limit session=0 class=authenticated principal=\"ada\"",
        "signed_in method=0 remembered=false session=1 class=authenticated principal=\"ada\"",
        "created session=2 class=anonymous",
        "ended reason=limit session=2 class=anonymous",
        "created session=3 class=anonymous",
    ]);
    let (sessions, mut reader) = open(&options.sessions_per_principal(1, AtLimit::Refuse).sessions_max(1));
    drop(signed_in(&sessions, "ada"));
    drop(sessions.start().sign_in("ada").unwrap_err());
    drop(sessions.start().sign_in("bob").unwrap_err());
    assert_eq!(sessions.start().set(NUMBER, &1).unwrap_err().kind(), ErrorKind::Refused);
    reader.expect(&[
        "signed_in method=0 remembered=false session=0 class=authenticated principal=\"ada\"",
        "refused why=at_limit principal=\"ada\"",
        "refused why=store_full principal=\"bob\"",
        "refused why=store_full class=anonymous",
    ]);
}

#[test]
fn a_deadline_is_told_with_its_kind_and_its_time() {
    let (options, clock) = manual();
    let (sessions, mut reader) = open(&options.idle_timeout(MINUTE).lifetime(2 * MINUTE));
    let session = signed_in(&sessions, "ada");
    let token = session.token().unwrap();
    drop(signed_in(&sessions, "bob"));
    assert_eq!(reader.lines().len(), 2);
    clock.advance(MINUTE / 2);
    sessions.load(&token).unwrap().unwrap();
    clock.advance(MINUTE / 2);
    reader.expect(&["ended reason=idle session=1 class=authenticated principal=\"bob\""]);
    sessions.load(&token).unwrap().unwrap();
    clock.advance(MINUTE);
    sessions.run_pending();
    let event = reader.events.try_next().unwrap();
    assert!(matches!(event.what, What::Ended { reason: EndReason::Lifetime, by: None, .. }));
    assert!(event.at.to_string().ends_with("00:02:00Z") && event.created.unwrap().to_string().ends_with("00:00:00Z"));
}

/// A directory with sessions of several people in it, none of them in memory.
fn cold(options: &Options, names: &[&str]) -> (Directory, Sessions) {
    let directory = Directory::new(1);
    let sessions = directory.open(options).unwrap();
    names.iter().for_each(|name| drop(sign_in(&sessions, name)));
    sessions.close().unwrap();
    let sessions = directory.open(options).unwrap();
    (directory, sessions)
}

#[test]
fn the_name_of_a_cold_session_is_read_before_it_goes() {
    let (options, clock) = manual();
    let options = options.idle_timeout(MINUTE);
    let (_directory, sessions) = cold(&options, &["ada", "bob", "cay", "bob"]);
    let mut reader = Reader::new(&sessions);
    // Nobody drives the engine but the receipts.
    sessions.revoke_all("ada").unwrap().blocking_wait().unwrap();
    sessions.revoke_all("nobody").unwrap().blocking_wait().unwrap();
    clock.advance(MINUTE);
    let expired =
        |session, name| format!("ended reason=idle session={session} class=authenticated principal=\"{name}\"");
    let mut lines = reader.lines();
    lines[1..].sort_by(|a, b| a.split("principal").nth(1).cmp(&b.split("principal").nth(1)));
    assert_eq!(lines[0], "ended reason=revoked by=all session=0 class=authenticated principal=\"ada\"");
    assert_eq!(lines.len(), 4);
    assert!(
        lines
            .iter()
            .skip(1)
            .zip(["bob", "bob", "cay"])
            .all(|(line, name)| { (1..4).any(|session| *line == expired(session, name)) }),
        "{lines:?}"
    );
    sessions.run_pending();
    clock.advance(MINUTE);
    sessions.run_pending();
    assert_eq!(sessions.stats().principals, 0);
}

#[test]
fn what_expired_while_nothing_ran_is_told_again_until_it_is_swept() {
    let (options, clock) = manual();
    let options = options.idle_timeout(MINUTE);
    let (directory, sessions) = cold(&options, &["ada", "bob"]);
    directory.restore_power();
    drop(sessions);
    clock.advance(5 * MINUTE);
    for _ in 0..3 {
        let sessions = directory.open(&options).unwrap();
        let mut reader = Reader::new(&sessions);
        reader.expect(&[
            "ended reason=idle session=0 class=authenticated principal=\"ada\"",
            "ended reason=idle session=1 class=authenticated principal=\"bob\"",
        ]);
        reader.expect(&[]);
        // Killed before the rows were swept.
        directory.restore_power();
    }
    let sessions = directory.open(&options).unwrap();
    let mut events = sessions.events();
    sessions.run_pending();
    assert!(events.try_next().unwrap().at.to_string().ends_with("00:01:00Z"), "when it ran out, not when it was found");
    clock.advance(Duration::from_secs(2));
    sessions.run_pending();
    clock.advance(Duration::from_secs(2));
    sessions.run_pending();
    directory.restore_power();
    let sessions = directory.open(&options).unwrap();
    let mut events = sessions.events();
    sessions.run_pending();
    assert_eq!(all(&mut events), [], "swept is told no more");
}

#[test]
fn a_clean_close_leaves_nothing_to_tell_again() {
    let (options, clock) = manual();
    let options = options.idle_timeout(MINUTE);
    let (directory, sessions) = cold(&options, &["ada", "bob"]);
    sessions.close().unwrap();
    clock.advance(5 * MINUTE);
    // Nobody is there to be told.
    directory.open(&options).unwrap().close().unwrap();
    let sessions = directory.open(&options).unwrap();
    let mut events = sessions.events();
    sign_in(&sessions, "cay");
    let reasons = |events: &mut Events| all(events).into_iter().map(|event| event.what.as_str()).collect::<Vec<_>>();
    assert_eq!(reasons(&mut events), ["ended", "ended", "signed_in"]);
    sessions.close().unwrap();
    let sessions = directory.open(&options).unwrap();
    let mut events = sessions.events();
    clock.advance(5 * MINUTE);
    sessions.run_pending();
    assert_eq!(reasons(&mut events), ["ended"]);
    sessions.close().unwrap();
    let sessions = directory.open(&options).unwrap();
    let mut events = sessions.events();
    sessions.run_pending();
    assert_eq!(all(&mut events), []);
    assert_eq!(sessions.stats().principals, 0);
}

#[test]
fn after_the_end_of_the_stream_nothing_comes() {
    let (options, clock) = manual();
    let sessions = options.idle_timeout(MINUTE).in_memory().unwrap();
    let mut events = sessions.events();
    let session = signed_in(&sessions, "ada");
    let ended = session.ended();
    sessions.clone().close().unwrap();
    assert_eq!(events.recv().unwrap().what.as_str(), "signed_in");
    assert_eq!(events.recv(), None);
    clock.advance(5 * MINUTE);
    assert_eq!(ended.blocking_wait(), EndReason::Shutdown);
    sessions.run_pending();
    assert_eq!(events.recv(), None, "the next start tells what ran out since");
}

#[test]
fn a_damaged_row_is_told_of() {
    let (options, _clock) = manual();
    let (directory, sessions) = cold(&options, &["ada"]);
    let row = sessions.of("ada").unwrap()[0].id;
    sessions.close().unwrap();
    directory.overwrite(NAME, |file| {
        let (key, mut header) = read(file, Table::Sessions).pop_first().unwrap();
        header[40] ^= 1;
        write(file, Table::Sessions, key, Some(&header));
    });
    let sessions = directory.open(&options).unwrap();
    let mut events = sessions.events();
    sessions.run_pending();
    let event = events.try_next().unwrap();
    assert_eq!((event.what, event.session, event.principal), (What::RowRefused, Some(row), None));
}

fn numbers(events: &mut Events) -> (usize, Vec<u64>) {
    let (mut kept, mut missed) = (0, Vec::new());
    for event in all(events) {
        match event.what {
            What::Missed(count) => missed.push(count),
            _ => kept += 1,
        }
    }
    (kept, missed)
}

#[test]
fn before_anybody_listens_a_thousand_events_are_kept_and_the_rest_counted() {
    let (options, _clock) = manual();
    let sessions = options.sessions_max(20_000).in_memory().unwrap();
    let write = |count: usize, each: usize| {
        for number in 0..count {
            sessions.start().set(NUMBER, &1).unwrap();
            if number % each == 0 {
                sessions.run_pending();
            }
        }
    };
    write(1500, 100);
    let mut events = sessions.events();
    write(3, 1);
    sessions.run_pending();
    let read = all(&mut events);
    assert!(matches!(read[1024].what, What::Missed(476)), "{:?}", read[1024]);
    assert_eq!(read.len(), 1024 + 1 + 3);
    drop(events);
    write(10, 1);
    let mut events = sessions.events();
    assert_eq!(numbers(&mut events), (0, vec![]), "between readers nothing is kept");
}

#[test]
fn a_backlog_that_nobody_handed_on_keeps_as_much() {
    let (options, _clock) = manual();
    let sessions = options.sessions_max(50_000).in_memory().unwrap();
    (0..3000).for_each(|_| sessions.start().set(NUMBER, &1).unwrap());
    let mut events = sessions.events();
    sessions.run_pending();
    assert_eq!(numbers(&mut events), (1024, vec![1976]));
}

#[test]
fn a_reader_that_is_too_slow_is_told_how_much_it_missed_where_it_missed_it() {
    let (options, _clock) = manual();
    let sessions = options.events_kept(10).in_memory().unwrap();
    let (mut slow, mut other) = (sessions.events(), sessions.events());
    let write = |count: usize| {
        (0..count).for_each(|_| sessions.start().set(NUMBER, &1).unwrap());
        sessions.run_pending();
    };
    write(15);
    assert_eq!(numbers(&mut other), (10, vec![5]));
    assert!((0..4).all(|_| slow.try_next().unwrap().what == What::Created));
    write(2);
    let read: Vec<_> = all(&mut slow).into_iter().map(|event| event.what).collect();
    assert_eq!(read[6..], [What::Missed(5), What::Created, What::Created]);
    assert_eq!(read.len(), 9);
    assert_eq!(numbers(&mut other), (2, vec![]));
    write(11);
    assert_eq!(numbers(&mut slow), (10, vec![1]), "the count comes last if nothing came after");
}

#[test]
fn events_on_their_way_to_readers_have_a_limit_too() {
    let (options, _clock) = manual();
    let options = options.anonymous_in_memory().sessions_max(500_000).events_kept(100_000);
    let sessions = options.in_memory().unwrap();
    let mut events = sessions.events();
    for _ in 0..2 {
        (0..20_000).for_each(|_| sessions.start().set(NUMBER, &1).unwrap());
        sessions.run_pending();
        assert_eq!(numbers(&mut events), (16_384, vec![20_000 - 16_384]));
    }
}

#[test]
fn who_subscribes_after_the_close_gets_what_was_kept_and_then_the_end() {
    for threads in [false, true] {
        let (options, _clock) = manual();
        let options = if threads { Options::new() } else { options };
        let sessions = options.in_memory().unwrap();
        drop(signed_in(&sessions, "ada"));
        sessions.clone().close().unwrap();
        let (mut first, mut second) = (sessions.events(), sessions.events());
        assert_eq!(first.recv().map(|event| event.what.as_str()), Some("signed_in"));
        assert_eq!((first.recv(), second.recv()), (None, None));
    }
}

#[test]
fn a_subscriber_that_never_reads_or_panics_holds_up_nothing() {
    let clock = ManualClock::new();
    let sessions = Options::new().clock(clock).events_kept(4).in_memory().unwrap();
    let idle = sessions.events();
    let events = sessions.events();
    let panics = thread::spawn(move || {
        let mut events = events;
        let event = events.recv();
        std::panic::resume_unwind(Box::new(event));
    });
    for _ in 0..100 {
        let session = signed_in(&sessions, "ada");
        session.destroy().unwrap().blocking_wait().unwrap();
    }
    assert!(panics.join().is_err());
    assert_eq!(sessions.stats().sessions, 0);
    sessions.close().unwrap();
    let left: Vec<_> = idle.into_iter().collect();
    assert!(left.len() == 5 && matches!(left[4].what, What::Missed(196)), "{left:?}");
}

#[test]
fn the_end_of_the_store_is_the_end_of_the_stream_after_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let sessions = Options::new().open(directory.path().join("sessions")).unwrap();
    let (mut blocking, mut timed) = (sessions.events(), sessions.events());
    let reader = thread::spawn(move || std::iter::from_fn(|| blocking.recv()).count());
    let receipts: Vec<_> = (0..50).map(|number| sessions.start().sign_in(format!("{number}")).unwrap()).collect();
    sessions.close().unwrap();
    receipts.into_iter().for_each(|receipt| drop(receipt.blocking_wait().unwrap()));
    assert_eq!(reader.join().unwrap(), 50);
    assert_eq!(std::iter::from_fn(|| timed.recv_timeout(MINUTE)).count(), 50);
}

#[test]
fn it_is_a_future_and_a_stream() {
    let (options, _clock) = manual();
    let sessions = options.in_memory().unwrap();
    let mut events = sessions.events();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let sessions = sessions.clone();
        let task = tokio::spawn(async move {
            let first = events.next().await.unwrap();
            (first.what, events.next().await)
        });
        tokio::task::yield_now().await;
        sessions.start().set(NUMBER, &1).unwrap();
        sessions.run_pending();
        tokio::task::yield_now().await;
        sessions.close().unwrap();
        assert_eq!(task.await.unwrap(), (What::Created, None));
    });
}

#[test]
fn no_text_of_an_event_breaks_a_line_or_shows_a_token() {
    let (options, _clock) = manual();
    let sessions = options.in_memory().unwrap();
    let mut events = sessions.events();
    let name = "ada\r\n2026-01-01T00:00:00Z signed_in principal=\"root\" \u{202e}\u{2028}\u{7}\\";
    let session = signed_in(&sessions, name);
    let token = session.rotate().unwrap().blocking_wait().unwrap();
    drop(sessions.revoke_all(name).unwrap());
    sessions.run_pending();
    let read = all(&mut events);
    assert_eq!(read.len(), 3);
    for event in &read {
        assert_eq!(event.principal.as_deref(), Some(name));
        for text in [event.to_string(), format!("{event:?}"), format!("{events:?}")] {
            assert!(!text.contains(|sign: char| sign.is_control() || "\u{202e}\u{2028}".contains(sign)), "{text:?}");
            assert!(!text.contains(&token.expose()[8..51]));
        }
        assert!(event.to_string().contains(r#"principal=\"root\""#));
    }
    assert!(matches!(read[2].what, What::Ended { by: Some(RevokedBy::All), .. }));
}

#[test]
fn many_readers_see_the_same_in_the_same_order() {
    let sessions = Options::new().in_memory().unwrap();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let events = sessions.events();
            thread::spawn(move || events.into_iter().map(|event| event.to_string()).collect::<Vec<_>>())
        })
        .collect();
    thread::scope(|scope| {
        for number in 0..4 {
            let sessions = &sessions;
            scope.spawn(move || {
                for _ in 0..50 {
                    let name: Arc<str> = format!("person {number}").into();
                    signed_in(sessions, &name).destroy().unwrap().blocking_wait().unwrap();
                }
            });
        }
    });
    sessions.close().unwrap();
    let read: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert_eq!(read[0].len(), 400);
    assert!(read[1] == read[0] && read[2] == read[0]);
}
