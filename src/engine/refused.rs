//! Refused requests: counted for each reason, and told at most once a second for each.
//!
//! It knows the clock and the events. Invariant: whoever sends junk makes one event a second of a kind and no more, so what
//! matters is not pushed out of the readers' buffers; what was not told is in the count of the next.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Engine;
use super::events::{Happening, Note};

/// What was wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Host,
    Page,
    Token,
    Companion,
    Cookies,
    #[cfg_attr(not(feature = "rate-limit"), expect(dead_code, reason = "limits tell of it"))]
    Flood,
    #[cfg_attr(not(feature = "rate-limit"), expect(dead_code, reason = "limits tell of it"))]
    NoAddress,
    Neighbour,
}

const FLAWS: usize = 8;

/// Requests that were refused, and those that were let through although they should have been.
#[derive(Debug, Default)]
pub(super) struct Refused {
    of: [[Tally; FLAWS]; 2],
}

#[derive(Debug, Default)]
struct Tally {
    untold: AtomicU64,
    /// The tick of the last event and 1; 0 if there was none.
    told: AtomicU32,
}

impl Engine {
    /// Notes a request that had a flaw and was refused, or let through where only a log is wanted.
    pub(crate) fn note_flaw(&self, flaw: Flaw, let_through: bool) {
        let tallies = self.refused.of.get(usize::from(let_through)).and_then(|of| of.get(flaw as usize));
        let Some(tally) = tallies else { return };
        tally.untold.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now().0.saturating_add(1);
        let told = tally.told.load(Ordering::Relaxed);
        let ours = told != now && tally.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if ours {
            let count = tally.untold.swap(0, Ordering::Relaxed);
            let what = Happening::RequestRefused { flaw, count, let_through };
            self.note(|| Note { what, ..Note::missed(0, self.clock.wall()) });
        }
    }
}
