//! A process is killed with SIGKILL while it works, again and again on one directory; everything that it was told is
//! durable is found as it was told.
//!
//! The child is this test binary, told by its environment to run [`child`]. It says what it is about to do and what
//! was acknowledged, a line each. It ends with its parent: its standard input is a pipe that nobody writes to.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dwell::{AtLimit, Field, Options, Sessions, Token};

/// A number and a text that it makes, in one field: fields that are set one after the other may be written apart.
const BOTH: Field<(u64, String)> = Field::new("both");
const WORKERS: u64 = 3;
/// Sessions that each life of the child goes on with, for each worker.
const HANDED_ON: usize = 3;
const DIRECTORY: &str = "DWELL_TEST_KILL_DIRECTORY";
const SEED: &str = "DWELL_TEST_KILL_SEED";
const SESSIONS: &str = "DWELL_TEST_KILL_SESSIONS";

fn options() -> Options {
    Options::new().sessions_per_principal(1_000_000, AtLimit::Refuse)
}

fn text_of(number: u64) -> String {
    format!("{number}:{}", "x".repeat(usize::try_from(number % 3001).unwrap()))
}

/// Not a test by itself: the process that is killed.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    say("");
    say("opening");
    let sessions = options().open(directory).unwrap();
    say("opened");
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let known = std::env::var(SESSIONS).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let mine: Vec<(String, Token)> = known
                .split_terminator(';')
                .map(|session| session.split_once('=').unwrap())
                .filter(|(name, _)| owner(name) == worker)
                .map(|(name, token)| (name.to_owned(), Token::parse(token).unwrap()))
                .collect();
            let sessions = &sessions;
            scope.spawn(move || work(sessions, worker, seed, mine));
        }
    });
}

/// The worker in front of a session's name.
fn owner(name: &str) -> u64 {
    name.split_once('-').unwrap().0.parse().unwrap()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A parent that is gone ends the child.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

fn work(sessions: &Sessions, worker: u64, seed: u64, mut mine: Vec<(String, Token)>) {
    let mut random = Random(seed ^ worker << 32);
    let principal = format!("worker {worker}");
    for turn in 0.. {
        let place = usize::try_from(random.next()).unwrap_or(0) % mine.len().max(1);
        match (random.next() % 12, mine.get(place).cloned()) {
            (0..=6, Some((name, token))) => {
                let number = random.next();
                let session = sessions.load(&token).unwrap().unwrap_or_else(|| panic!("{name} is lost"));
                say(&format!("do save {name} {number}"));
                session.set(BOTH, &(number, text_of(number))).unwrap();
                session.save().unwrap().blocking_wait().unwrap();
                say(&format!("ok save {name} {number}"));
            }
            (7, Some((name, token))) => {
                say(&format!("do rotate {name}"));
                let session = sessions.load(&token).unwrap().unwrap();
                let token = session.rotate().unwrap().blocking_wait().unwrap();
                say(&format!("ok rotate {name} {}", token.expose()));
                mine[place].1 = token;
            }
            (8, Some((name, token))) => {
                say(&format!("do end {name}"));
                sessions.load(&token).unwrap().unwrap().destroy().unwrap().blocking_wait().unwrap();
                say(&format!("ok end {name}"));
                mine.remove(place);
            }
            (9, Some(_)) if random.next().is_multiple_of(4) => {
                say(&format!("do all {worker}"));
                sessions.revoke_all(&principal).unwrap().blocking_wait().unwrap();
                say(&format!("ok all {worker}"));
                mine.clear();
            }
            _ => {
                let name = format!("{worker}-{seed}-{turn}");
                say(&format!("do sign {name}"));
                let token = sessions.start().sign_in(&principal).unwrap().blocking_wait().unwrap();
                say(&format!("ok sign {name} {}", token.expose()));
                mine.push((name, token));
            }
        }
    }
}

/// What the parent knows of a session.
#[derive(Debug, Default)]
struct Known {
    /// Whether it may live, and whether it may be gone.
    may_live: bool,
    may_be_gone: bool,
    token: String,
    /// Its numbers: the acknowledged one, and perhaps one that was on its way.
    numbers: Vec<Option<u64>>,
}

#[derive(Debug, Default)]
struct Model {
    sessions: BTreeMap<String, Known>,
    /// Tokens of sessions before their rotation was acknowledged.
    replaced: Vec<String>,
}

impl Model {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ok", "sign", name, token] => {
                let known = Known { may_live: true, token: token.into(), numbers: vec![None], ..Known::default() };
                self.sessions.insert(name.into(), known);
            }
            [how, "save", name, number] => {
                let number = Some(number.parse().unwrap());
                let numbers = &mut self.sessions.get_mut(name).unwrap().numbers;
                numbers.push(number);
                numbers.retain(|other| how == "do" || *other == number);
            }
            [how, "rotate", name, ..] => {
                let known = self.sessions.get_mut(name).unwrap();
                // Until it is acknowledged, nobody has the new token.
                known.may_be_gone = how == "do";
                if let Some(token) = words.get(3) {
                    self.replaced.push(std::mem::replace(&mut known.token, (*token).into()));
                }
            }
            [how, "end", name] => Self::end(self.sessions.get_mut(name).unwrap(), how),
            [how, "all", worker] => {
                let worker: u64 = worker.parse().unwrap();
                let all = self.sessions.iter_mut().filter(|(name, _)| owner(name) == worker);
                all.for_each(|(_, known)| Self::end(known, how));
            }
            _ => {}
        }
    }

    fn end(known: &mut Known, how: &str) {
        known.may_be_gone = true;
        known.may_live &= how == "do";
    }

    /// Holds what is on disk against what is known, and settles what was in doubt.
    fn check(&mut self, directory: &Path) {
        let sessions = options().open(directory).unwrap();
        assert_eq!(sessions.stats().refused_rows, 0);
        for (name, known) in &mut self.sessions {
            let Some(session) = sessions.load(&Token::parse(&known.token).unwrap()).unwrap() else {
                assert!(known.may_be_gone, "{name} is lost: {known:?}");
                known.may_live = false;
                continue;
            };
            assert!(known.may_live, "{name} has ended and is back: {known:?}");
            known.may_be_gone = false;
            assert_eq!(session.principal().unwrap().unwrap().as_ref(), format!("worker {}", owner(name)));
            let both = session.get(BOTH).unwrap();
            let number = both.as_ref().map(|(number, _)| *number);
            assert!(known.numbers.contains(&number), "{name} says {number:?}: {known:?}");
            assert_eq!(both.map(|(_, text)| text), number.map(text_of), "{name}");
            known.numbers = vec![number];
        }
        for token in &self.replaced {
            assert!(sessions.load(&Token::parse(token).unwrap()).unwrap().is_none(), "a replaced token loads");
        }
        sessions.close().unwrap();
    }

    /// Sessions for the next life, as `name=token;`.
    fn hand_on(&self) -> String {
        let live = |worker| self.sessions.iter().filter(move |(name, known)| known.may_live && owner(name) == worker);
        let some = (0..WORKERS).flat_map(|worker| live(worker).take(HANDED_ON));
        some.map(|(name, known)| format!("{name}={};", known.token)).collect()
    }
}

/// A child that does not outlive the test, however that ends.
struct Mortal(Child);

impl Drop for Mortal {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn life(directory: &Path, seed: u64, model: &mut Model, lines: u64) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(SEED, seed.to_string())
        .env(SESSIONS, model.hand_on())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Mortal(child.unwrap());
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    // A line without its end was cut off, and says nothing.
    let mut hear = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let line = line.strip_suffix('\n')?.to_owned();
        model.hear(&line);
        Some(line)
    };
    while hear().expect("the child ended by itself") != "opening" {}
    for _ in 0..lines {
        hear().expect("the child ended by itself");
    }
    child.0.kill().unwrap();
    // What it had said before it died counts.
    while hear().is_some() {}
    child.0.wait().unwrap();
}

#[test]
fn what_was_acknowledged_survives_being_killed() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("sessions");
    let kills: u64 = std::env::var("DWELL_KILLS").map_or(20, |kills| kills.parse().unwrap());
    let mut random = Random(u64::from(std::process::id()));
    let mut model = Model::default();
    for seed in 0..kills {
        // Now and then within the opening.
        let lines = if seed % 7 == 3 { 0 } else { 1 + random.next() % 100 };
        life(&directory, seed, &mut model, lines);
        model.check(&directory);
    }
    let live = model.sessions.values().filter(|known| known.may_live).count();
    assert!(live > 0 && live < model.sessions.len(), "{live} of {} sessions live", model.sessions.len());
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
