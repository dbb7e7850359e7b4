//! The sweep: rows that are dead by what is on disk, and names that nobody needs, until there is time to delete them.
//!
//! It knows integers. Invariants: a row or name that comes in goes out once, the lowest first, because neighbours share
//! pages of the B-tree; no names go out while rows are left, because a name goes with the last row of its principal or
//! later; taking a bounded number costs no more than that, however many there are. A crash forgets all of it: the next
//! start finds it again.

use std::collections::{BTreeMap, BTreeSet};

use super::queue::{Swept, WRITE_BEHIND_MS};
use crate::storage::record::{PrincipalRef, Row};

/// What waits to be deleted.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// A bit for each row, 64 of them under the number of their block. Sessions made one after the other mostly end
    /// together, so this is small and takes no sorting.
    rows: BTreeMap<u64, u64>,
    /// Cutoffs that stay until their rows are gone.
    cutoffs: BTreeMap<Row, PrincipalRef>,
    emptied: BTreeSet<PrincipalRef>,
    /// When the first of it came in, in engine milliseconds.
    since_ms: Option<u64>,
}

/// How much a batch takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    rows: usize,
    /// Runs of neighbouring rows. A run costs a few pages, however long it is.
    runs: usize,
    names: usize,
}

impl Share {
    /// Where nobody waits: some 200 ms of deleting, which whoever comes meanwhile waits for, and about a megabyte where each
    /// run is far from the next. A commit costs some 50 KB by itself, so smaller ones would wear the disk.
    const IDLE: Self = Self { rows: 262_144, runs: 128, names: 65_536 };
    /// Where somebody waits: a few at a time, or as many as are written, so that there is an end to them under steady load.
    const URGENT: Self = Self { rows: 2048, runs: 16, names: 64 };
    /// Where somebody waits, and what is to be swept has not waited for long.
    const NOTHING: Self = Self { rows: 0, runs: 0, names: 64 };
}

const BLOCK_BITS: u32 = 6;
const BLOCK_MASK: u64 = (1 << BLOCK_BITS) - 1;

impl Sweep {
    /// Takes in what came in since `since_ms`.
    pub(super) fn add(&mut self, swept: Vec<Swept>, emptied: Vec<PrincipalRef>, since_ms: u64) {
        if swept.is_empty() && emptied.is_empty() {
            return;
        }
        self.since_ms = Some(self.since_ms.map_or(since_ms, |since| since.min(since_ms)));
        for Swept { row, cutoff } in swept {
            *self.rows.entry(row.0 >> BLOCK_BITS).or_default() |= 1 << (row.0 & BLOCK_MASK);
            if let Some(principal) = cutoff {
                self.cutoffs.insert(row, principal);
            }
        }
        self.emptied.extend(emptied);
    }

    /// When it has waited long enough.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.since_ms.map(|since| since.saturating_add(WRITE_BEHIND_MS))
    }

    /// How much of it goes into a batch that nobody waits for, or that somebody does and that writes `puts` rows.
    pub(super) fn share(&self, urgent: bool, puts: usize, now_ms: u64) -> Share {
        let least = Share::URGENT;
        match urgent {
            false => Share::IDLE,
            true if self.due_ms().is_some_and(|due| due <= now_ms) => {
                Share { runs: least.runs.max(puts), names: least.names.max(puts), ..least }
            }
            true => Share::NOTHING,
        }
    }

    /// Takes out the lowest rows, in order, each with its cutoff.
    pub(super) fn take_rows(&mut self, share: Share) -> Vec<Swept> {
        let (mut taken, mut runs) = (Vec::new(), 0);
        let mut next = None;
        while taken.len() < share.rows
            && let Some(mut block) = self.rows.first_entry()
        {
            let row = block.key() << BLOCK_BITS | u64::from(block.get().trailing_zeros());
            runs += usize::from(next != Some(row));
            if runs > share.runs {
                break;
            }
            // Clears the lowest bit that is set.
            *block.get_mut() &= block.get() - 1;
            if *block.get() == 0 {
                block.remove();
            }
            let cutoff = if self.cutoffs.is_empty() { None } else { self.cutoffs.remove(&Row(row)) };
            taken.push(Swept { row: Row(row), cutoff });
            next = Some(row + 1);
        }
        self.forget_when();
        taken
    }

    /// Takes out the lowest names, unless rows are left.
    pub(super) fn take_names(&mut self, share: Share) -> Vec<PrincipalRef> {
        let count = if self.rows.is_empty() { share.names } else { 0 };
        let taken = std::iter::from_fn(|| self.emptied.pop_first()).take(count).collect();
        self.forget_when();
        taken
    }

    fn forget_when(&mut self) {
        if self.rows.is_empty() && self.emptied.is_empty() {
            self.since_ms = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn swept(row: u64) -> Swept {
        Swept { row: Row(row), cutoff: None }
    }

    fn rows(taken: &[Swept]) -> Vec<u64> {
        taken.iter().map(|swept| swept.row.0).collect()
    }

    const ALL: Share = Share { rows: usize::MAX, runs: usize::MAX, names: usize::MAX };

    #[test]
    fn names_wait_for_the_last_row() {
        let mut sweep = Sweep::default();
        sweep.add(vec![swept(7), swept(5)], vec![PrincipalRef(3)], 10);
        assert_eq!(sweep.due_ms(), Some(10 + WRITE_BEHIND_MS));
        assert_eq!(rows(&sweep.take_rows(Share { rows: 1, ..ALL })), [5]);
        assert_eq!(sweep.take_names(ALL), []);
        assert_eq!(rows(&sweep.take_rows(ALL)), [7]);
        assert!(sweep.due_ms().is_some(), "a name is left");
        assert_eq!(sweep.take_names(ALL), [PrincipalRef(3)]);
        assert_eq!(sweep.due_ms(), None);
    }

    #[test]
    fn what_somebody_waits_for_takes_little_along_and_only_after_a_while() {
        let mut sweep = Sweep::default();
        sweep.add((1..400_000).map(swept).collect(), Vec::new(), 0);
        let share = sweep.share(true, 1, WRITE_BEHIND_MS - 1);
        assert_eq!(sweep.take_rows(share).len(), 0);
        let share = sweep.share(true, 1, WRITE_BEHIND_MS);
        assert_eq!(sweep.take_rows(share).len(), Share::URGENT.rows);
        let share = sweep.share(false, 1, WRITE_BEHIND_MS);
        assert_eq!(sweep.take_rows(share).len(), Share::IDLE.rows);
    }

    #[test]
    fn runs_far_apart_are_taken_a_few_at_a_time() {
        let mut sweep = Sweep::default();
        sweep.add((0..1000).map(|run| run * 100).flat_map(|row| [row, row + 1]).map(swept).collect(), Vec::new(), 0);
        assert_eq!(sweep.take_rows(Share::IDLE).len(), 2 * Share::IDLE.runs);
        assert_eq!(sweep.take_rows(Share::IDLE).first().map(|swept| swept.row.0), Some(12_800));
        for (puts, runs) in [(0, 16), (16, 16), (60, 60)] {
            let share = sweep.share(true, puts, WRITE_BEHIND_MS);
            assert_eq!(sweep.take_rows(share).len(), 2 * runs, "no fewer than come in while each write ends a session");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_row_goes_out_once_in_order_with_its_cutoff(
            input in prop::collection::vec((1_u64..2000, prop::option::of(1_u64..5)), 0..400), part in 1_usize..50, runs in 1_usize..9,
        ) {
            let mut sweep = Sweep::default();
            let mut expected = BTreeMap::new();
            for &(row, cutoff) in &input {
                expected.entry(row).or_insert(cutoff);
            }
            let all = expected.iter().map(|(&row, &cutoff)| Swept { row: Row(row), cutoff: cutoff.map(PrincipalRef) });
            sweep.add(all.rev().collect(), Vec::new(), 0);
            let mut out = Vec::new();
            loop {
                let taken = sweep.take_rows(Share { rows: part, runs, names: 0 });
                prop_assert!(taken.len() <= part);
                let chunks = rows(&taken).chunk_by(|a, b| a + 1 == *b).count();
                prop_assert!(chunks <= runs);
                if taken.is_empty() {
                    break;
                }
                out.extend(taken.iter().map(|swept| (swept.row.0, swept.cutoff.map(|principal| principal.0))));
            }
            prop_assert!(out.is_sorted_by(|a, b| a.0 < b.0));
            prop_assert_eq!(out.len(), expected.keys().collect::<BTreeSet<_>>().len());
            prop_assert_eq!(out, expected.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(sweep.due_ms(), None);
        }
    }
}
