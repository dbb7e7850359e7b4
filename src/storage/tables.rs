//! The tables: putting changes into a redb transaction.
//!
//! It knows redb's write side and the overlay. Invariants: puts come before deletes, so a row in both is deleted; keys go in
//! ascending, which fills the B-tree's pages.

use redb::ReadableTable;

use super::overlay::Overlay;
use super::record::Header;
use super::schema::{BODIES, CUTOFFS, META, META_CREDITS, PRINCIPALS, SESSIONS, TOUCHES};

pub(super) type Filled = Result<(), redb::Error>;

/// From this many consecutive rows on, deleting by range touches fewer pages than row by row.
const RANGE_MIN: u64 = 8;

/// Brings everything in an overlay into the tables.
pub(super) fn fill(transaction: &redb::WriteTransaction, overlay: &Overlay) -> Filled {
    put_rows(transaction, overlay)?;
    delete_runs(transaction, overlay.deleted.iter().map(|(&first, &last)| (first, last)))?;
    put_principals(transaction, overlay)?;
    put_cutoffs(transaction, overlay)?;
    put_touches(transaction, overlay)?;
    put_credits(transaction, overlay)
}

fn put_rows(transaction: &redb::WriteTransaction, overlay: &Overlay) -> Filled {
    if overlay.rows.is_empty() {
        return Ok(());
    }
    let mut sessions = transaction.open_table(SESSIONS)?;
    let mut bodies = transaction.open_table(BODIES)?;
    for (&row, state) in &overlay.rows {
        if let Some(header) = &state.header {
            sessions.insert(row, header)?;
        }
        if let Some(body) = &state.body {
            bodies.insert(row, &**body)?;
        }
    }
    Ok(())
}

fn delete_runs(transaction: &redb::WriteTransaction, runs: impl Iterator<Item = (u64, u64)>) -> Filled {
    let mut runs = runs.peekable();
    if runs.peek().is_none() {
        return Ok(());
    }
    let mut sessions = transaction.open_table(SESSIONS)?;
    let mut bodies = transaction.open_table(BODIES)?;
    for (first, last) in runs {
        if last - first >= RANGE_MIN {
            sessions.retain_in(first..=last, |_, _| false)?;
            bodies.retain_in(first..=last, |_, _| false)?;
        } else {
            for row in first..=last {
                sessions.remove(row)?;
                bodies.remove(row)?;
            }
        }
    }
    Ok(())
}

/// Deletes the rows that say that they go with a key. Live ones were deleted before; these are dead ones that wait to be
/// swept, and whatever else says so.
pub(super) fn delete_of_key(transaction: &redb::WriteTransaction, id: u8) -> Filled {
    let mut rows = Vec::new();
    for entry in transaction.open_table(SESSIONS)?.iter()? {
        let (row, header) = entry?;
        if Header::key_id(header.value()) == id {
            rows.push(row.value());
        }
    }
    let ends = |run: &[u64]| Some((*run.first()?, *run.last()?));
    delete_runs(transaction, rows.chunk_by(|a, b| a + 1 == *b).filter_map(ends))
}

/// Ends every session. Principals that are disabled stay so.
pub(super) fn delete_everything(transaction: &redb::WriteTransaction) -> Filled {
    transaction.delete_table(SESSIONS)?;
    transaction.delete_table(BODIES)?;
    transaction.delete_table(TOUCHES)?;
    transaction.open_table(SESSIONS)?;
    transaction.open_table(BODIES)?;
    transaction.open_table(TOUCHES)?;
    let cutoffs = transaction.open_table(CUTOFFS)?;
    transaction.open_table(PRINCIPALS)?.retain(|principal, _| matches!(cutoffs.get(principal), Ok(Some(_))))?;
    Ok(())
}

fn put_principals(transaction: &redb::WriteTransaction, overlay: &Overlay) -> Filled {
    if overlay.names.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(PRINCIPALS)?;
    for (principal, name) in &overlay.names {
        match name {
            Some(sealed) => table.insert(principal, sealed.as_slice())?,
            None => table.remove(principal)?,
        };
    }
    Ok(())
}

fn put_cutoffs(transaction: &redb::WriteTransaction, overlay: &Overlay) -> Filled {
    if overlay.cutoffs.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(CUTOFFS)?;
    for (principal, cutoff) in &overlay.cutoffs {
        match cutoff {
            Some(record) => table.insert(principal, record)?,
            None => table.remove(principal)?,
        };
    }
    Ok(())
}

fn put_touches(transaction: &redb::WriteTransaction, overlay: &Overlay) -> Filled {
    if overlay.touches.is_empty() && !overlay.replace_touches {
        return Ok(());
    }
    let mut table = transaction.open_table(TOUCHES)?;
    if overlay.replace_touches {
        table.retain(|_, _| false)?;
    }
    for (key, block) in &overlay.touches {
        table.insert(key, block.as_slice())?;
    }
    Ok(())
}

fn put_credits(transaction: &redb::WriteTransaction, overlay: &Overlay) -> Filled {
    let Some(record) = &overlay.credits else { return Ok(()) };
    let mut table = transaction.open_table(META)?;
    match record {
        Some(bytes) => table.insert(META_CREDITS, bytes.as_slice())?,
        None => table.remove(META_CREDITS)?,
    };
    Ok(())
}
