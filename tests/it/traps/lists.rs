//! Listing somebody's sessions while they change, and when some of them are damaged.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell::{Clock, ManualClock, Options, Timestamp};

use super::{Bench, sign_in};

/// A clock that does something of the test's when it is read for the nth time, between two steps of the engine.
#[derive(Clone, Default)]
struct Hook(Arc<Hooked>);

#[derive(Default)]
struct Hooked {
    clock: ManualClock,
    left: AtomicUsize,
    action: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Hook {
    fn arm(&self, reading: usize, action: impl FnOnce() + Send + 'static) {
        *self.0.action.lock().unwrap() = Some(Box::new(action));
        self.0.left.store(reading, Ordering::SeqCst);
    }

    /// Whether the action ran since it was armed; it will not any more.
    fn disarm(&self) -> bool {
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

#[test]
fn a_session_that_is_rotated_while_it_is_listed_is_listed_once() {
    for cold in [false, true] {
        for reading in 1.. {
            let hook = Hook::default();
            let bench = Bench::with(|options: Options| options.clock(hook.clone()));
            let sessions = bench.open();
            let (_, token) = sign_in(&sessions, "ada");
            sign_in(&sessions, "ada");
            let sessions = if cold { bench.restart(sessions) } else { sessions };
            let id = sessions.load(&token).unwrap().unwrap().id().unwrap();
            let session = sessions.load(&token).unwrap().unwrap();
            hook.arm(reading, move || drop(session.rotate().unwrap().blocking_wait().unwrap()));
            let listed = sessions.of("ada").unwrap();
            let ran = hook.disarm();
            assert_eq!(listed.len(), 2, "rotated at reading {reading} of the clock");
            assert_eq!(listed.iter().filter(|info| info.id == id).count(), 1);
            if !ran {
                assert!(reading > 2, "the clock was read {reading} times only");
                break;
            }
        }
    }
}
