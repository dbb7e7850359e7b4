//! Known traps, each by name: what went wrong in this engine or in others once, and must not again.

mod deadlines;
mod ends;
mod fields;
mod hook;
mod limits;
mod lists;

use std::time::Duration;

use dwell::sim::Directory;
use dwell::{Field, ManualClock, Options, Session, Sessions, Token};

use crate::support::journal_file;
pub(crate) use crate::support::store_file::Table;

pub(crate) const VISITS: Field<u64> = Field::new("visits");

/// A simulated directory, driven by hand.
pub(crate) struct Bench {
    pub(crate) directory: Directory,
    pub(crate) clock: ManualClock,
    pub(crate) options: Options,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|options| options)
    }

    pub(crate) fn with(choose: impl FnOnce(Options) -> Options) -> Self {
        let clock = ManualClock::new();
        let options = choose(Options::new().clock(clock.clone()).manual_workers().page_cache_bytes(1 << 20));
        Self { directory: Directory::new(1), clock, options }
    }

    pub(crate) fn open(&self) -> Sessions {
        self.directory.open(&self.options).unwrap()
    }

    pub(crate) fn restart(&self, sessions: Sessions) -> Sessions {
        sessions.close().unwrap();
        self.open()
    }

    /// The power fails now.
    pub(crate) fn crash(&self, sessions: Sessions) -> Sessions {
        self.directory.restore_power();
        drop(sessions);
        self.open()
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// How many records a table of the store has, on disk.
    pub(crate) fn records(&self, table: Table) -> usize {
        journal_file::read(&self.directory.contents(), table).len()
    }
}

pub(crate) fn sign_in(sessions: &Sessions, who: &str) -> (Session, Token) {
    let session = sessions.start();
    let token = session.sign_in(who).unwrap().blocking_wait().unwrap();
    (session, token)
}

pub(crate) fn sign_in_often(sessions: &Sessions, who: &str, times: usize) -> Vec<Token> {
    (0..times).map(|_| sign_in(sessions, who).1).collect()
}

pub(crate) fn begin(sessions: &Sessions, value: u64) -> (Session, Token) {
    let session = sessions.start();
    session.set(VISITS, &value).unwrap();
    let token = session.token().unwrap();
    (session, token)
}

pub(crate) fn lives(sessions: &Sessions, token: &Token) -> bool {
    sessions.load_without_touch(token).unwrap().is_some()
}

pub(crate) fn living(sessions: &Sessions, tokens: &[Token]) -> usize {
    tokens.iter().filter(|token| lives(sessions, token)).count()
}
