//! The overlay: what the journal holds and the tables do not yet, in memory, for reading and for the next checkpoint.
//!
//! It knows effects and ordered maps; no files. Invariants: of each row, name, cutoff and record it keeps the latest state
//! only, so it takes about as much memory as the part of the journal that it stands for; a deleted row is never put again,
//! because row numbers are not reused; what is sealed does not change any more until the checkpoint has taken it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::effects::Effects;
use super::record::{CutoffBytes, HeaderBytes};

/// Changes to the tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay {
    pub(super) rows: BTreeMap<u64, RowState>,
    /// First to last row of each run.
    pub(super) deleted: BTreeMap<u64, u64>,
    pub(super) names: BTreeMap<u64, Option<Vec<u8>>>,
    pub(super) cutoffs: BTreeMap<u64, Option<CutoffBytes>>,
    pub(super) replace_touches: bool,
    pub(super) touches: BTreeMap<u64, Vec<u8>>,
    pub(super) credits: Option<Option<Vec<u8>>>,
}

/// What is new of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RowState {
    pub(super) header: Option<HeaderBytes>,
    pub(super) body: Option<Arc<[u8]>>,
}

impl RowState {
    /// What is missing here, from an older state.
    fn or(self, older: &Self) -> Self {
        Self { header: self.header.or(older.header), body: self.body.or_else(|| older.body.clone()) }
    }
}

/// What an overlay says of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Patch {
    Deleted,
    /// Laid over what the tables have.
    Put(RowState),
}

impl Overlay {
    /// Takes in what comes after everything that is here.
    pub(super) fn absorb(&mut self, effects: Effects) {
        for put in effects.rows {
            self.put(put.row, RowState { header: put.header, body: put.body.map(Into::into) });
        }
        effects.deleted.into_iter().for_each(|(first, last)| self.delete(first, last));
        self.names.extend(effects.names);
        self.cutoffs.extend(effects.cutoffs);
        if effects.replace_touches {
            self.replace_touches = true;
            self.touches.clear();
        }
        self.touches.extend(effects.touches);
        if effects.credits.is_some() {
            self.credits = effects.credits;
        }
    }

    /// Takes in another overlay, which comes after this one.
    pub(super) fn merge(&mut self, newer: Self) {
        newer.rows.into_iter().for_each(|(row, state)| self.put(row, state));
        newer.deleted.into_iter().for_each(|(first, last)| self.delete(first, last));
        self.names.extend(newer.names);
        self.cutoffs.extend(newer.cutoffs);
        if newer.replace_touches {
            self.replace_touches = true;
            self.touches.clear();
        }
        self.touches.extend(newer.touches);
        if newer.credits.is_some() {
            self.credits = newer.credits;
        }
    }

    fn put(&mut self, row: u64, state: RowState) {
        debug_assert!(!self.has_deleted(row), "row {row} is put after it was deleted");
        let known = self.rows.entry(row).or_default();
        *known = state.or(known);
    }

    fn delete(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        let gone: Vec<u64> = self.rows.range(first..=last).map(|(&row, _)| row).collect();
        gone.iter().for_each(|row| _ = self.rows.remove(row));
        // Runs that touch become one.
        let reach = last.saturating_add(1);
        while let Some((&start, &end)) = self.deleted.range(..=reach).next_back()
            && end.saturating_add(1) >= first
        {
            self.deleted.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        self.deleted.insert(first, last);
    }

    pub(super) fn has_deleted(&self, row: u64) -> bool {
        self.deleted.range(..=row).next_back().is_some_and(|(_, &last)| row <= last)
    }

    pub(super) fn deleted_rows(&self) -> u64 {
        self.deleted.iter().map(|(first, last)| last - first + 1).sum()
    }

    fn patch(&self, row: u64) -> Option<Patch> {
        if self.has_deleted(row) {
            return Some(Patch::Deleted);
        }
        self.rows.get(&row).cloned().map(Patch::Put)
    }
}

/// What lies over the tables: what a checkpoint is writing, and over that what came since.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub(super) current: Overlay,
    pub(super) sealed: Option<Arc<Overlay>>,
}

impl Layers {
    /// Puts everything aside for a checkpoint.
    pub(super) fn seal(&mut self) -> Arc<Overlay> {
        debug_assert!(self.sealed.is_none(), "one checkpoint at a time");
        let sealed = Arc::new(std::mem::take(&mut self.current));
        self.sealed = Some(Arc::clone(&sealed));
        sealed
    }

    /// The checkpoint did not take what was put aside.
    pub(super) fn unseal(&mut self) {
        let Some(sealed) = self.sealed.take() else { return };
        let mut merged = Arc::unwrap_or_clone(sealed);
        merged.merge(std::mem::take(&mut self.current));
        self.current = merged;
    }

    /// From the newest on.
    fn each(&self) -> impl Iterator<Item = &Overlay> {
        std::iter::once(&self.current).chain(self.sealed.as_deref())
    }

    pub(super) fn row(&self, row: u64) -> Option<Patch> {
        let newer = match self.current.patch(row) {
            Some(Patch::Put(newer)) => newer,
            Some(Patch::Deleted) => return Some(Patch::Deleted),
            None => return self.sealed.as_ref()?.patch(row),
        };
        match self.sealed.as_ref().and_then(|sealed| sealed.patch(row)) {
            Some(Patch::Put(older)) => Some(Patch::Put(newer.or(&older))),
            _ => Some(Patch::Put(newer)),
        }
    }

    /// The headers that are new in a range of rows.
    pub(super) fn headers(&self, rows: Range<u64>) -> BTreeMap<u64, HeaderBytes> {
        let mut headers = BTreeMap::new();
        for overlay in self.sealed.as_deref().into_iter().chain([&self.current]) {
            let new = overlay.rows.range(rows.clone()).filter_map(|(&row, state)| Some((row, state.header?)));
            headers.extend(new);
        }
        headers.retain(|&row, _| !self.has_deleted(row));
        headers
    }

    pub(super) fn has_deleted(&self, row: u64) -> bool {
        self.each().any(|overlay| overlay.has_deleted(row))
    }

    /// The first row from `row` on that is not deleted.
    pub(super) fn skip_deleted(&self, mut row: u64) -> u64 {
        let end = |row| {
            self.each().find_map(|overlay| {
                overlay.deleted.range(..=row).next_back().filter(|(_, last)| row <= **last).map(|(_, last)| *last)
            })
        };
        while let Some(last) = end(row) {
            row = last.saturating_add(1);
        }
        row
    }

    pub(super) fn name(&self, principal: u64) -> Option<Option<Vec<u8>>> {
        self.each().find_map(|overlay| overlay.names.get(&principal)).cloned()
    }

    pub(super) fn names(&self) -> BTreeMap<u64, bool> {
        let mut names = BTreeMap::new();
        for overlay in self.sealed.as_deref().into_iter().chain([&self.current]) {
            names.extend(overlay.names.iter().map(|(&principal, name)| (principal, name.is_some())));
        }
        names
    }

    pub(super) fn cutoff(&self, principal: u64) -> Option<Option<CutoffBytes>> {
        self.each().find_map(|overlay| overlay.cutoffs.get(&principal)).copied()
    }

    pub(super) fn cutoffs(&self) -> BTreeMap<u64, Option<CutoffBytes>> {
        let mut cutoffs = BTreeMap::new();
        for overlay in self.sealed.as_deref().into_iter().chain([&self.current]) {
            cutoffs.extend(overlay.cutoffs.iter().map(|(&principal, &cutoff)| (principal, cutoff)));
        }
        cutoffs
    }

    /// The new blocks of touches, and whether those in the tables count no more.
    pub(super) fn touches(&self) -> (Vec<(u64, &[u8])>, bool) {
        let mut blocks = Vec::new();
        for overlay in self.each() {
            blocks.extend(overlay.touches.iter().map(|(&key, block)| (key, block.as_slice())));
            if overlay.replace_touches {
                return (blocks, true);
            }
        }
        (blocks, false)
    }

    pub(super) fn credits(&self) -> Option<Option<Vec<u8>>> {
        self.each().find_map(|overlay| overlay.credits.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::storage::effects::RowEffect;

    /// What happens to the layers.
    #[derive(Clone, Debug)]
    enum Step {
        /// Which of header and body, and what is in them.
        Put(u64, bool, bool, u8),
        Delete(u64, u64),
        Seal,
        Unseal,
        /// The checkpoint is over.
        Drop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u64..40, any::<bool>(), any::<bool>(), any::<u8>()).prop_map(|(row, h, b, x)| Step::Put(row, h, b, x)),
            2 => (0_u64..40, 0_u64..6).prop_map(|(first, more)| Step::Delete(first, first + more)),
            1 => Just(Step::Seal),
            1 => Just(Step::Unseal),
            1 => Just(Step::Drop),
        ]
    }

    type Plain = BTreeMap<u64, (Option<u8>, Option<u8>)>;

    /// Laid over tables, both have to come to the same.
    fn laid_over(layers: &Layers, tables: &Plain) -> Plain {
        let mut found = Plain::new();
        for row in 0..50 {
            let (header, body) = tables.get(&row).copied().unwrap_or_default();
            let known = match layers.row(row) {
                Some(Patch::Deleted) => continue,
                Some(Patch::Put(state)) => {
                    (state.header.map(|bytes| bytes[0]).or(header), state.body.map(|bytes| bytes[0]).or(body))
                }
                None => (header, body),
            };
            if known != (None, None) {
                found.insert(row, known);
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_read_through_the_layers_is_what_was_written(steps in prop::collection::vec(step(), 0..80)) {
            let (mut layers, mut plain, mut tables) = (Layers::default(), Plain::new(), Plain::new());
            // Of everything up to the last seal.
            let (mut sealed, mut gone) = (Plain::new(), BTreeSet::new());
            for step in steps {
                match step {
                    // A row that is gone does not come again.
                    Step::Put(row, header, body, byte) if !gone.contains(&row) && (header || body) => {
                        let put = RowEffect {
                            row,
                            header: header.then_some([byte; 116]),
                            body: body.then(|| vec![byte]),
                        };
                        layers.current.absorb(Effects { rows: vec![put], ..Effects::default() });
                        let known = plain.entry(row).or_default();
                        *known = (header.then_some(byte).or(known.0), body.then_some(byte).or(known.1));
                    }
                    Step::Put(..) => {}
                    Step::Delete(first, last) => {
                        layers.current.absorb(Effects { deleted: vec![(first, last)], ..Effects::default() });
                        gone.extend(first..=last);
                        plain.retain(|row, _| !(first..=last).contains(row));
                    }
                    Step::Seal if layers.sealed.is_none() => {
                        layers.seal();
                        sealed.clone_from(&plain);
                    }
                    Step::Seal => {}
                    Step::Unseal => layers.unseal(),
                    Step::Drop if layers.sealed.take().is_some() => tables.clone_from(&sealed),
                    Step::Drop => {}
                }
                prop_assert_eq!(&laid_over(&layers, &tables), &plain);
                let headers: Vec<u64> = layers.headers(0..u64::MAX).into_keys().collect();
                prop_assert!(headers.iter().all(|row| plain.contains_key(row)));
                prop_assert!(gone.iter().all(|&row| layers.skip_deleted(row) > row || !layers.has_deleted(row)));
                let runs: Vec<_> = layers.current.deleted.iter().collect();
                prop_assert!(runs.is_sorted_by(|one, two| *one.1 + 1 < *two.0), "runs that touch are one: {:?}", runs);
            }
        }
    }
}
