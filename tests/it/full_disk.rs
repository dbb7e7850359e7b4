//! A full disk: nobody comes back, nothing spins, clocks stay right, and closing keeps what it can.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use dwell::sim::Directory;
use dwell::{AtLimit, Clock, Field, Options, Sessions, SignIn, Timestamp, Token};

use crate::support::{manual, sign_in};

const TEXT: Field<String> = Field::new("text");
const SECOND: Duration = Duration::from_secs(1);

/// `run_pending`, which must come to an end.
fn run(sessions: &Sessions, directory: &Directory) {
    let (done, told) = mpsc::channel();
    let before = directory.operations();
    let sessions = sessions.clone();
    std::thread::spawn(move || {
        sessions.run_pending();
        let _ = done.send(());
    });
    told.recv_timeout(Duration::from_secs(5))
        .unwrap_or_else(|_| panic!("it spins: {} operations in 5 s", directory.operations() - before));
}

fn half_expired(directory: &Directory, options: &Options, clock: &dwell::ManualClock) -> Sessions {
    let sessions = directory.open(options).unwrap();
    for n in 0..600 {
        let idle = if n % 2 == 0 { 60 * SECOND } else { 7000 * SECOND };
        let who = SignIn::new(format!("user {n}")).limits(idle, 40_000 * SECOND);
        sessions.start().sign_in(who).unwrap().blocking_wait().unwrap();
    }
    sessions.run_pending();
    clock.advance(100 * SECOND);
    sessions.run_pending();
    assert_eq!(sessions.stats().sessions, 300);
    sessions
}

#[test]
fn a_file_system_that_never_writes_in_place_makes_nobody_spin() {
    let directory = Directory::new(5);
    let (options, clock) = manual();
    let sessions = half_expired(&directory, &options, &clock);
    // Brings everything to the tables: the ring is empty.
    sessions.rotate_key().unwrap().blocking_wait().unwrap();
    directory.fail_at(directory.operations(), u64::MAX, std::io::ErrorKind::StorageFull);
    clock.advance(3 * SECOND);
    run(&sessions, &directory);
}

#[test]
fn tables_that_cannot_grow_make_nobody_spin() {
    let directory = Directory::new(5);
    let (options, clock) = manual();
    let sessions = directory.open(&options).unwrap();
    for n in 0..600 {
        let idle = if n % 2 == 0 { 600 * SECOND } else { 70_000 * SECOND };
        let who = SignIn::new(format!("user {n}")).limits(idle, 140_000 * SECOND);
        sessions.start().sign_in(who).unwrap().blocking_wait().unwrap();
    }
    directory.limit_room(Some(0));
    for n in 0.. {
        (0..30).for_each(|_| drop(sessions.start().set(TEXT, "x".repeat(4000).as_str())));
        clock.advance(2 * SECOND);
        run(&sessions, &directory);
        if sessions.stats().dirty_bytes > 0 {
            break;
        }
        assert!(n < 1000, "never full");
    }
    clock.advance(700 * SECOND);
    run(&sessions, &directory);
    clock.advance(2 * SECOND);
    run(&sessions, &directory);
    clock.advance(2 * SECOND);
    run(&sessions, &directory);
}

/// Signs in until there is no room.
fn fill(sessions: &Sessions) -> Vec<Token> {
    let mut tokens = Vec::new();
    for n in 0..20_000 {
        match sessions.start().sign_in(["ada", "bob", "cyd"][n % 3]).unwrap().blocking_wait() {
            Ok(token) => tokens.push(token),
            Err(_) => return tokens,
        }
    }
    panic!("never full");
}

#[test]
fn closing_writes_every_end_that_fits() {
    let directory = Directory::new(3);
    let (options, _clock) = manual();
    let options = options.sessions_per_principal(1 << 20, AtLimit::Refuse);
    let sessions = directory.open(&options).unwrap();
    let mut tokens: Vec<Token> = (0..400).map(|_| sign_in(&sessions, "ada")).collect();
    directory.limit_room(Some(0));
    tokens.extend(fill(&sessions));
    let gone = &tokens[..240];
    for token in gone {
        drop(sessions.load(token).unwrap().unwrap().destroy().unwrap());
    }
    drop(sessions.close());
    let sessions = directory.open(&options).unwrap();
    let back = gone.iter().filter(|token| sessions.load(token).unwrap().is_some()).count();
    assert_eq!(back, 0, "of {} ended sessions came back", gone.len());
}

/// What a clock shows, in seconds.
#[derive(Debug, Default)]
struct Times {
    up: AtomicU64,
    wall: AtomicU64,
    boot: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Machine(Arc<Times>);

impl Clock for Machine {
    fn since_boot(&self) -> Duration {
        Duration::from_secs(self.0.up.load(Ordering::SeqCst))
    }
    fn wall(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.wall.load(Ordering::SeqCst) * 1000)
    }
    fn boot_id(&self) -> Option<[u8; 16]> {
        Some([u8::try_from(self.0.boot.load(Ordering::SeqCst)).unwrap(); 16])
    }
}

impl Machine {
    fn pass(&self, seconds: u64) {
        self.0.up.fetch_add(seconds, Ordering::SeqCst);
        self.0.wall.fetch_add(seconds, Ordering::SeqCst);
    }
}

#[test]
fn a_clock_that_is_set_right_while_the_disk_is_full_counts_after_a_crash() {
    const DAY: u64 = 24 * 3600;
    for full in [false, true] {
        let directory = Directory::new(3);
        let machine = Machine::default();
        machine.0.wall.store(1_700_000_000, Ordering::SeqCst);
        machine.0.up.store(100, Ordering::SeqCst);
        machine.0.boot.store(1, Ordering::SeqCst);
        let options = Options::new().clock(machine.clone()).manual_workers();
        let options = options.sessions_per_principal(1 << 20, AtLimit::Refuse);
        let options = options.idle_timeout(SECOND * 864_000).lifetime(SECOND * 864_000);
        let sessions = directory.open(&options).unwrap();
        let ada = sign_in(&sessions, "ada");
        let bob = sign_in(&sessions, "bob");
        sessions.close().unwrap();
        // Off for three days; the clock goes on where it stopped.
        machine.0.up.store(10, Ordering::SeqCst);
        machine.0.boot.store(2, Ordering::SeqCst);
        let sessions = directory.open(&options).unwrap();
        if full {
            directory.limit_room(Some(0));
            fill(&sessions);
        } else {
            sign_in(&sessions, "cyd");
        }
        machine.pass(20);
        sessions.run_pending();
        // And is set right.
        machine.0.wall.fetch_add(3 * DAY, Ordering::SeqCst);
        sessions.run_pending();
        sessions.load(&bob).unwrap().unwrap().destroy().unwrap().blocking_wait().unwrap();
        // The process is killed and starts again.
        let copy = directory.copy();
        copy.restore_power();
        let after = copy.open(&options).unwrap();
        machine.pass(8 * DAY);
        for sessions in [&sessions, &after] {
            assert!(sessions.load(&ada).unwrap().is_none(), "full: {full}: eleven days old, and ten are allowed");
        }
    }
}

#[test]
fn closing_when_there_is_room_again_is_no_error() {
    let directory = Directory::new(3);
    let (options, _clock) = manual();
    let options = options.sessions_per_principal(1 << 20, AtLimit::Refuse);
    let sessions = directory.open(&options).unwrap();
    directory.limit_room(Some(0));
    let tokens = fill(&sessions);
    let session = sessions.load(&tokens[0]).unwrap().unwrap();
    session.set(TEXT, "x").unwrap();
    directory.limit_room(None);
    let closed = sessions.close();
    let sessions = directory.open(&options).unwrap();
    let text = sessions.load(&tokens[0]).unwrap().unwrap().get(TEXT).unwrap();
    assert_eq!(text.as_deref(), Some("x"), "everything is written");
    closed.unwrap();
}
