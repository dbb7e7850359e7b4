//! Listing somebody's sessions while they change.

use dwell::Options;

use super::hook::Hook;
use super::{Bench, sign_in};

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

#[test]
fn a_session_that_ends_while_it_is_listed_is_left_out() {
    for cold in [false, true] {
        // The two looks; later readings are for showing times.
        for reading in 1..3 {
            let hook = Hook::default();
            let bench = Bench::with(|options: Options| options.clock(hook.clone()));
            let sessions = bench.open();
            let (_, token) = sign_in(&sessions, "ada");
            let (stays, _) = sign_in(&sessions, "ada");
            let stays = stays.id().unwrap();
            let sessions = if cold { bench.restart(sessions) } else { sessions };
            let session = sessions.load(&token).unwrap().unwrap();
            hook.arm(reading, move || session.destroy().unwrap().blocking_wait().unwrap());
            let listed = sessions.of("ada").unwrap();
            assert!(hook.disarm());
            assert_eq!(listed.iter().map(|info| info.id).collect::<Vec<_>>(), [stays], "ended at reading {reading}");
            assert_eq!(sessions.stats().refused_rows, 0);
        }
    }
}
