//! Health: whether the engine serves, and what is wrong if it does not.
//!
//! It knows errors only. Invariants: it only gets worse, but for a full disk, which may have room again; a degraded engine serves from memory and acknowledges nothing
//! durable; a closed or poisoned one answers every call with an error.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use parking_lot::Mutex;

use super::queue::Failure;
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug, Default)]
pub(crate) struct Health {
    /// One of the states below; read by every call, so it is one word that hardly ever changes.
    state: AtomicU8,
    /// The disk failed or a worker panicked, whether or not the engine was closed since.
    broken: AtomicBool,
    /// The disk is full: nothing new becomes durable until there is room.
    full: AtomicBool,
    why: Mutex<Option<String>>,
}

const RUNNING: u8 = 0;
const DEGRADED: u8 = 1;
const POISONED: u8 = 2;
const CLOSED: u8 = 3;

impl Health {
    /// Whether calls are served at all.
    pub(crate) fn check_open(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            RUNNING | DEGRADED => Ok(()),
            POISONED => Err(self.poisoned()),
            _ => Err(closed()),
        }
    }

    /// Whether durable changes are accepted.
    pub(crate) fn check_durable(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            RUNNING if self.is_full() => Err(full()),
            RUNNING => Ok(()),
            DEGRADED => Err(Error::new(ErrorKind::Storage, format!("storage failed earlier: {}", self.reason()))),
            _ => self.check_open(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Notes whether the disk is full. Tells whether that is over.
    pub(crate) fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::AcqRel) && !full
    }

    /// Notes that the disk failed; the first reason is the one that counts.
    pub(crate) fn degrade(&self, error: &Error) -> Failure {
        self.worsen(DEGRADED, || format!("{error:#}"));
        Failure::from(error)
    }

    pub(crate) fn poison(&self, message: &str) {
        self.worsen(POISONED, || message.to_owned());
    }

    /// Whether the writer may still write what it has, which it does while closing too.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.broken.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Storage, format!("storage failed earlier: {}", self.reason())));
        }
        Ok(())
    }

    /// Stops intake. `true` for the first call.
    pub(crate) fn begin_close(&self) -> bool {
        self.state.swap(CLOSED, Ordering::AcqRel) != CLOSED
    }

    /// Whether the engine serves no more, and if so whether a panic was the reason.
    pub(crate) fn stopped(&self) -> Option<bool> {
        match self.state.load(Ordering::Acquire) {
            RUNNING | DEGRADED => None,
            state => Some(state == POISONED),
        }
    }

    /// What is wrong, if anything is.
    pub(crate) fn trouble(&self) -> Option<String> {
        let is_running = self.state.load(Ordering::Acquire) == RUNNING;
        if is_running && self.is_full() {
            return Some(full().to_string());
        }
        (!is_running).then(|| self.reason())
    }

    fn worsen(&self, state: u8, why: impl FnOnce() -> String) {
        self.why.lock().get_or_insert_with(why);
        self.broken.store(true, Ordering::Release);
        self.state.fetch_max(state, Ordering::AcqRel);
    }

    fn reason(&self) -> String {
        self.why.lock().clone().unwrap_or_else(|| "the engine was closed".to_owned())
    }

    fn poisoned(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("a worker of the engine panicked ({}); open again", self.reason()))
    }
}

pub(super) fn full() -> Error {
    Error::new(
        ErrorKind::Storage,
        "the disk is full: sessions go on, and ends of sessions are written; anything new waits for room",
    )
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the engine was closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_gets_worse_and_keeps_the_first_reason() {
        let health = Health::default();
        assert!(health.check_durable().is_ok() && health.trouble().is_none());
        health.degrade(&Error::new(ErrorKind::Storage, "first"));
        health.degrade(&Error::new(ErrorKind::Storage, "second"));
        assert!(health.check_open().is_ok());
        assert!(health.check_durable().unwrap_err().to_string().contains("first"));
        health.poison("third");
        assert_eq!(health.check_open().unwrap_err().kind(), ErrorKind::Closed);
        assert!(health.begin_close() && !health.begin_close());
        health.degrade(&Error::new(ErrorKind::Storage, "late"));
        assert_eq!(health.check_durable().unwrap_err().kind(), ErrorKind::Closed);
    }
}
