//! Steps of the wall clock within the boot that made the store.

use std::time::Duration;

use dwell::{SignIn, Token};

use super::YEAR;
use crate::rng::Rng;
use crate::traps::Bench;

struct Made {
    token: Token,
    seen: u64,
    idle: u64,
    dies: u64,
}

impl Made {
    fn ends(&self) -> u64 {
        (self.seen + self.idle).min(self.dies)
    }
}

/// `DWELL_STEPS` makes more of them.
#[test]
fn no_step_of_the_wall_clock_ends_a_session_early_or_late() {
    let steps = std::env::var("DWELL_STEPS").ok().map_or(1000, |text| text.parse::<u64>().expect("a number"));
    let seed = 5;
    let mut rng = Rng::new(seed);
    let bench = Bench::with(|options| options.remembered(Duration::from_secs(2000), Duration::from_secs(9000)));
    let mut sessions = bench.open();
    let begun_ms = dwell::Clock::wall(&bench.clock).unix_ms();
    let (mut now, mut known, mut ended) = (0, Vec::<Made>::new(), 0);
    for step in 0..steps {
        let by = rng.next() % (10 * YEAR * 1000);
        let wall = if rng.one_in(2) { begun_ms + by } else { begun_ms - by };
        bench.clock.set_wall(dwell::Timestamp::from_unix_ms(wall));
        if rng.one_in(2) {
            sessions.run_pending();
        }
        match rng.below(12) {
            0 => sessions = bench.restart(sessions),
            1..=4 if known.len() < 60 => {
                let (idle, life) = (1 + rng.below(2000) as u64, 1 + rng.below(9000) as u64);
                let who = SignIn::new(format!("user {step}")).remembered();
                let who = who.limits(Duration::from_secs(idle.min(life)), Duration::from_secs(life));
                let token = sessions.start().sign_in(who).unwrap().blocking_wait().unwrap();
                known.push(Made { token, seen: now, idle: idle.min(life), dies: now + life });
            }
            5..=7 if !known.is_empty() => {
                let place = rng.below(known.len());
                let made = &mut known[place];
                assert!(sessions.load(&made.token).unwrap().is_some());
                made.seen = now;
            }
            _ => {}
        }
        // To the second in which the next one ends, or just before it, or anywhere.
        let next = known.iter().map(Made::ends).min().unwrap_or(now + 5) - now;
        let seconds = *rng.pick(&[1, next, next - 1, rng.clone().next() % 100]);
        bench.advance(seconds);
        now += seconds;
        known.retain(|made| {
            let found = sessions.load_without_touch(&made.token).unwrap();
            assert_eq!(found.is_some(), now < made.ends(), "step {step}: at {now}, ends at {}", made.ends());
            let Some(session) = found else {
                ended += 1;
                return false;
            };
            assert_eq!(now + session.idle_left().unwrap().unwrap().as_secs(), made.ends(), "step {step}");
            assert_eq!(now + session.life_left().unwrap().unwrap().as_secs(), made.dies, "step {step}");
            true
        });
    }
    assert!(ended * 10 > steps, "{ended} sessions ended in {steps} steps");
}
