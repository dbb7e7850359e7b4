//! A way to do something between two steps of the engine, in one thread.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell::{Clock, ManualClock, Timestamp};

/// A clock that does something of the test's when it is read for the nth time, between two steps of the engine.
#[derive(Clone, Default)]
pub(crate) struct Hook(Arc<Hooked>);

#[derive(Default)]
struct Hooked {
    clock: ManualClock,
    left: AtomicUsize,
    action: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Hook {
    pub(crate) fn arm(&self, reading: usize, action: impl FnOnce() + Send + 'static) {
        *self.0.action.lock().unwrap() = Some(Box::new(action));
        self.0.left.store(reading, Ordering::SeqCst);
    }

    /// Whether the action ran since it was armed; it will not any more.
    pub(crate) fn disarm(&self) -> bool {
        self.0.action.lock().unwrap().take().is_none()
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Clock for Hook {
    fn since_boot(&self) -> Duration {
        let due = self.0.left.fetch_sub(1, Ordering::SeqCst) == 1;
        let action = if due { self.0.action.lock().unwrap().take() } else { None };
        if let Some(action) = action {
            action();
        }
        self.0.clock.since_boot()
    }

    fn wall(&self) -> Timestamp {
        self.0.clock.wall()
    }

    fn boot_id(&self) -> Option<[u8; 16]> {
        self.0.clock.boot_id()
    }
}
