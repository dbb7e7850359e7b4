//! What one request does with its session, noted for the layer that answers it.
//!
//! It knows nothing of the engine. Invariants: notes are only ever added; who calls is worked out when a sign-in asks
//! and not for every request.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;

/// What a new anonymous session has to pass.
pub(crate) trait Gate: fmt::Debug + Send + Sync {
    /// # Errors
    /// `Throttled` if none may begin for this client now.
    fn admit(&self, caller: &Caller) -> Result<()>;
}

/// Notes about one request.
#[derive(Debug)]
pub(crate) struct Visit {
    caller: Caller,
    gate: Option<Arc<dyn Gate>>,
    changed: AtomicBool,
    ended: AtomicBool,
}

impl Visit {
    pub(crate) const fn new(caller: Caller, gate: Option<Arc<dyn Gate>>) -> Self {
        Self { caller, gate, changed: AtomicBool::new(false), ended: AtomicBool::new(false) }
    }

    /// Asks whether one more anonymous session may begin.
    pub(super) fn begin(&self) -> Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate.admit(&self.caller))
    }

    pub(crate) const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// A field that is not relaxed was changed.
    pub(super) fn note_change(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// The request ended its own session.
    pub(crate) fn note_end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Who sent a request, as far as the request tells.
#[derive(Debug, Default)]
pub(crate) struct Caller {
    pub(crate) user_agent: Box<str>,
    pub(crate) address: Option<IpAddr>,
    /// What its address says.
    #[cfg_attr(not(feature = "rate-limit"), expect(dead_code, reason = "limits ask for it"))]
    pub(crate) way: Way,
    /// The number of the profile that the request came by; zero is none.
    pub(crate) door: u8,
    /// Makes of a `User-Agent` what a person recognises.
    pub(crate) describe: Option<fn(&str) -> String>,
}

/// How a request came from the client to here, as far as its address tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    /// Nothing says that it was passed on.
    #[default]
    Direct,
    /// By a proxy that is known.
    Proxy,
    /// It says that it was passed on, and whoever is connected is not known as a proxy.
    Unknown,
}

impl Caller {
    pub(crate) fn device(&self) -> String {
        self.describe.map(|describe| describe(&self.user_agent)).unwrap_or_default()
    }

    pub(crate) fn address(&self) -> String {
        self.address.map(|address| address.to_string()).unwrap_or_default()
    }
}
