//! Bindings: which cell and generation a handle works on, and which of the session's tokens it came with.
//!
//! It knows cells and tokens. Invariants: a binding's lock is taken before a cell's and never while another lock is
//! held, except by its owner reading a cell; the writer moves a binding on when a sign-in or rotation has become
//! durable, so a handle that signed in goes on as the new session; all clones of a handle share its binding, which is
//! made when the first of them needs to move or to be cloned.

use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::Engine;
use super::cell::{Cell, Stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::token::Token;

/// A handle: most only read what they were loaded for, and cost no allocation and no lock of their own.
#[derive(Debug)]
pub(crate) struct Handle {
    start: Start,
    /// Counts instead of `start` once it is there.
    binding: OnceLock<Arc<Binding>>,
}

/// What a handle works on until it has a binding.
#[derive(Clone, Debug)]
enum Start {
    Fresh(Arc<Engine>),
    Session(Arc<Cell>, Stamp),
}

impl Handle {
    pub(crate) fn fresh(engine: &Arc<Engine>) -> Self {
        Self { start: Start::Fresh(Arc::clone(engine)), binding: OnceLock::new() }
    }

    pub(crate) const fn loaded(cell: Arc<Cell>, stamp: Stamp) -> Self {
        Self { start: Start::Session(cell, stamp), binding: OnceLock::new() }
    }

    /// What the handle can be moved by.
    pub(crate) fn binding(&self) -> &Arc<Binding> {
        self.binding.get_or_init(|| {
            Arc::new(Binding(Mutex::new(match &self.start {
                Start::Fresh(engine) => Bound::Fresh { engine: Arc::clone(engine), claim: Weak::new() },
                Start::Session(cell, stamp) => Bound::Session { cell: Arc::clone(cell), stamp: *stamp, token: None },
            })))
        })
    }

    /// Runs `work` on the session and the handle's generation of it, or returns the engine to make one with.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&Arc<Cell>, u32) -> T) -> std::result::Result<T, Arc<Engine>> {
        self.with_stamp(|cell, stamp| work(cell, stamp.generation))
    }

    fn with_stamp<T>(&self, work: impl FnOnce(&Arc<Cell>, Stamp) -> T) -> std::result::Result<T, Arc<Engine>> {
        match (self.binding.get(), &self.start) {
            (Some(binding), _) => binding.with(work),
            (None, Start::Session(cell, stamp)) => Ok(work(cell, *stamp)),
            (None, Start::Fresh(engine)) => Err(Arc::clone(engine)),
        }
    }

    /// A handle of the same session, by the token that it has now, which nothing moves on.
    pub(crate) fn pinned(&self) -> Option<Self> {
        self.with_stamp(|cell, stamp| Self::loaded(Arc::clone(cell), stamp)).ok()
    }

    /// The session, if there is one.
    pub(crate) fn session(&self) -> Option<(Arc<Cell>, u32)> {
        self.with(|cell, generation| (Arc::clone(cell), generation)).ok()
    }

    /// The session, or `Gone` where an operation makes no sense without one.
    pub(crate) fn require(&self) -> Result<(Arc<Cell>, u32)> {
        self.session().ok_or_else(Error::gone)
    }

    pub(crate) fn engine(&self) -> Arc<Engine> {
        self.with(|cell, _| Arc::clone(&cell.engine)).unwrap_or_else(|engine| engine)
    }

    /// The token to hand to the client, if it has another than the client: the one that the handle's session got, or
    /// its successor.
    pub(crate) fn token(&self) -> Option<Token> {
        let offered = self.with_stamp(|cell, stamp| cell.engine.offered_successor(cell, stamp));
        offered.ok().flatten().or_else(|| self.binding.get()?.token())
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self { start: self.start.clone(), binding: OnceLock::from(Arc::clone(self.binding())) }
    }
}

/// What a handle and its clones work on.
#[derive(Debug)]
pub(crate) struct Binding(Mutex<Bound>);

#[derive(Debug)]
pub(crate) enum Bound {
    /// No session yet: the first write makes one, unless a sign-in holds the claim to.
    Fresh { engine: Arc<Engine>, claim: Weak<()> },
    Session {
        cell: Arc<Cell>,
        stamp: Stamp,
        /// The token, if this handle's session got a new one.
        token: Option<Token>,
    },
}

impl Binding {
    /// Moves the handle to a new session, or to its session's new generation.
    pub(crate) fn move_to(&self, cell: Arc<Cell>, generation: u32, token: Token) {
        let stamp = Stamp { generation, step: 0 };
        let before = std::mem::replace(&mut *self.0.lock(), Bound::Session { cell, stamp, token: Some(token) });
        drop(before);
    }

    /// The session that a sign-in starts from. Without one, nothing else begins one while the claim is held.
    ///
    /// # Errors
    /// `Busy` if another sign-in holds it.
    pub(crate) fn claim(&self) -> Result<Claimed> {
        let held = Arc::new(());
        match &mut *self.0.lock() {
            Bound::Session { cell, stamp, .. } => {
                Ok(Claimed { old: Some((Arc::clone(cell), *stamp)), claim: Claim(held) })
            }
            Bound::Fresh { claim, .. } if claim.strong_count() > 0 => Err(busy()),
            Bound::Fresh { claim, .. } => {
                *claim = Arc::downgrade(&held);
                Ok(Claimed { old: None, claim: Claim(held) })
            }
        }
    }

    /// Whether a first write may begin a session.
    pub(crate) fn check_unclaimed(&self) -> Result<()> {
        match &*self.0.lock() {
            Bound::Fresh { claim, .. } if claim.strong_count() > 0 => Err(busy()),
            Bound::Fresh { .. } | Bound::Session { .. } => Ok(()),
        }
    }

    /// Like [`move_to`](Self::move_to), unless another clone of the handle was first or is signing in.
    pub(crate) fn begin(&self, cell: Arc<Cell>, generation: u32, token: Token) -> bool {
        let mut bound = self.0.lock();
        let fresh = matches!(&*bound, Bound::Fresh { claim, .. } if claim.strong_count() == 0);
        if fresh {
            *bound = Bound::Session { cell, stamp: Stamp { generation, step: 0 }, token: Some(token) };
        }
        fresh
    }

    fn with<T>(&self, work: impl FnOnce(&Arc<Cell>, Stamp) -> T) -> std::result::Result<T, Arc<Engine>> {
        match &*self.0.lock() {
            Bound::Session { cell, stamp, .. } => Ok(work(cell, *stamp)),
            Bound::Fresh { engine, .. } => Err(Arc::clone(engine)),
        }
    }

    fn token(&self) -> Option<Token> {
        match &*self.0.lock() {
            Bound::Session { token, .. } => token.clone(),
            Bound::Fresh { .. } => None,
        }
    }

    /// The session, or `Gone` where an operation makes no sense without one.
    pub(crate) fn require(&self) -> Result<(Arc<Cell>, Stamp)> {
        self.with(|cell, stamp| (Arc::clone(cell), stamp)).map_err(|_| Error::gone())
    }
}

/// What a sign-in starts from.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) old: Option<(Arc<Cell>, Stamp)>,
    pub(crate) claim: Claim,
}

/// Held by a sign-in until it is decided.
#[derive(Debug)]
pub(crate) struct Claim(#[expect(dead_code, reason = "what counts is that it is held")] Arc<()>);

fn busy() -> Error {
    Error::new(ErrorKind::Busy, "the session is being signed in; wait for that receipt first")
}
