//! What is under way while a credit is made.

use dwell::ErrorKind;

use super::{DAY, HOUR, Machine, Shown};
use crate::traps::Table;

const OFF: u64 = 3 * DAY;

#[test]
fn a_rotation_under_way_keeps_the_true_deadlines() {
    for prove in [false, true] {
        let mut machine = Machine::new();
        machine.run(HOUR);
        let mut known = machine.member();
        machine.stop_and_boot(OFF, Shown::Zero);
        let (booted, session) = (machine.now, machine.load(&known));
        let receipt = if prove { session.reauthenticate(1) } else { session.rotate() }.unwrap();
        machine.set_right();
        known.token = receipt.blocking_wait().unwrap();
        (known.seen, known.proved) = (booted, known.proved.map(|proved| if prove { booted } else { proved }));
        machine.check(&known, booted, 0, "at once");
        machine.crash();
        machine.check(&known, booted, 0, "from disk");
        machine.restart();
        machine.check(&known, booted, 0, "and again");
        let again = machine.load(&known).rotate().unwrap().blocking_wait().unwrap();
        known.token = again;
        machine.check(&known, booted, 0, "rotated in the new frame");
        machine.crash();
        machine.check(&known, booted, 0, "rotated in the new frame, from disk");
    }
}

#[test]
fn a_sign_in_under_way_is_of_this_boot() {
    let mut machine = Machine::new();
    machine.run(HOUR);
    let old = machine.stranger();
    machine.stop_and_boot(OFF, Shown::Zero);
    let (booted, session) = (machine.now, machine.load(&old));
    let receipt = session.sign_in("ada").unwrap();
    machine.set_right();
    let known = super::Known {
        token: receipt.blocking_wait().unwrap(),
        made: booted,
        seen: booted,
        proved: Some(booted),
        idle: 30 * DAY,
        life: 60 * DAY,
    };
    assert!(!machine.lives(&old));
    machine.check(&known, booted, 0, "at once");
    machine.crash();
    machine.check(&known, booted, 0, "from disk");
}

#[test]
fn a_rotation_of_what_the_credit_ends_gives_nobody_a_session() {
    let mut machine = Machine::new();
    let known = machine.member();
    machine.stop_and_boot(70 * DAY, Shown::Zero);
    let session = machine.load(&known);
    let receipt = session.rotate().unwrap();
    machine.set_right();
    if let Ok(token) = receipt.blocking_wait() {
        assert!(machine.sessions().load(&token).unwrap().is_none());
    }
    assert!(!machine.lives(&known));
    machine.run(1);
    assert_eq!(machine.sessions().stats().sessions, 0);
    assert_eq!(session.rotate().unwrap_err().kind(), ErrorKind::Gone);
    machine.restart();
    assert_eq!(machine.bench.records(Table::Sessions), 0);
}

/// Renewals that were gathered before the step and written after, and those that a stop before the step wrote.
#[test]
fn renewals_are_of_the_boot_in_which_they_were() {
    let mut machine = Machine::new();
    let (mut quiet, mut busy) = (machine.remembered(), machine.remembered());
    machine.run(DAY);
    machine.touch(&mut quiet);
    machine.touch(&mut busy);
    machine.run(2 * HOUR);
    machine.stop_and_boot(OFF, Shown::Zero);
    let booted = machine.now;
    machine.run(HOUR);
    machine.touch(&mut busy);
    machine.run(1);
    // What is on disk says it in the frame before.
    machine.restart();
    machine.run(HOUR);
    machine.touch(&mut busy);
    machine.bench.advance(HOUR * 3 / 4);
    machine.now += HOUR * 3 / 4;
    machine.set_right();
    for how in [Machine::crash, Machine::restart, Machine::restart, Machine::crash] {
        // A step of age, 56 seconds, is rounded up at a stop.
        let said = [machine.said(&quiet), machine.said(&busy)];
        for (said, known) in said.into_iter().zip([&quiet, &busy]) {
            assert!((known.ends() - 4 * 56..=known.ends()).contains(&said.ends), "{said:?} {known:?} {booted}");
        }
        how(&mut machine);
    }
}

#[test]
fn sessions_that_come_in_from_disk_meanwhile_are_aged_once() {
    for round in 0..10 {
        let mut machine = Machine::new();
        machine.run(HOUR);
        let known: Vec<_> =
            (0..200).map(|n| machine.sign_in(format!("user {n}").as_str(), 30 * DAY, 60 * DAY)).collect();
        machine.stop_and_boot(OFF, Shown::Zero);
        let booted = machine.now;
        let start = std::sync::Barrier::new(3);
        std::thread::scope(|scope| {
            for part in [0, 1] {
                let (machine, known, start) = (&machine, &known, &start);
                scope.spawn(move || {
                    start.wait();
                    known.iter().skip(part).step_by(2).for_each(|known| assert!(machine.lives(known)));
                });
            }
            start.wait();
            machine.set_right();
        });
        known.iter().for_each(|known| machine.check(known, booted, 0, &format!("round {round}")));
    }
}
