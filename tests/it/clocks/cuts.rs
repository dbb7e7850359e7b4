//! Power cuts around the moment at which a credit is made.

use super::{DAY, HOUR, Machine, Shown};

const OFF: u64 = 3 * DAY;

/// Two power cuts in a row: the first after three days off, at every operation of the commit that would keep the
/// credit; then another day off and a clock that is behind again.
#[test]
fn wherever_the_power_fails_nothing_is_counted_twice_or_forgotten() {
    let (mut before, mut after) = (0, 0);
    for (seed, cut) in (0..8).flat_map(|seed| (0..12).map(move |cut| (seed, cut))) {
        let mut machine = Machine::seeded(seed);
        machine.run(DAY);
        let (old, mut used) = (machine.member(), machine.member());
        machine.stop_and_boot(OFF, Shown::Saved(5));
        machine.run(HOUR);
        machine.touch(&mut used);
        let new = machine.member();
        machine.run(2 * HOUR);
        machine.bench.directory.cut_power_at(machine.bench.directory.operations() + cut);
        machine.set_right();
        let whole = machine.sessions().stats().trouble.is_none();
        if whole && cut < 11 {
            // Not one of its operations any more.
            machine.check(&old, machine.now, 0, "in memory");
        }
        machine.cut();
        machine.boot(DAY, Shown::Saved(5));
        machine.run(60);
        machine.set_right();
        for (known, name) in [(&old, "old"), (&new, "new"), (&used, "used")] {
            let said = machine.said(known);
            assert!(said.ends <= known.ends(), "cut at {cut}: {name} ends late: {said:?}, {known:?}");
            assert!(said.life_ends <= known.made + known.life, "cut at {cut}: {name} lives too long");
        }
        assert_eq!(machine.said(&old).ends, old.ends(), "cut at {cut}");
        // If the credit was not kept, the time off before it is counted for what was made in between, too.
        let early = (new.made + new.life) - machine.said(&new).life_ends;
        assert!(early == 0 || early.abs_diff(OFF) < HOUR, "cut at {cut}: {early}");
        if early == 0 {
            after += 1
        } else {
            before += 1
        }
        for known in [&old, &new] {
            let said = machine.said(known);
            machine.crash();
            assert_eq!(machine.said(known), said, "cut at {cut}");
        }
    }
    assert!(before > 3 && after > 0, "{before} cuts before the credit was kept, {after} after");
}

#[test]
fn boots_without_a_right_clock_in_a_row_are_all_counted_once_it_is_right() {
    let mut machine = Machine::new();
    let old = machine.remembered();
    for _ in 0..5 {
        machine.cut();
        machine.boot(DAY, Shown::Zero);
        machine.run(HOUR);
        machine.member();
    }
    assert!(machine.said(&old).ends > old.ends() + 4 * DAY, "nobody can know yet");
    machine.set_right();
    assert_eq!(machine.said(&old).ends, old.ends());
    machine.crash();
    assert_eq!(machine.said(&old).ends, old.ends());
}
