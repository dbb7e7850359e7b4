//! Reading rows: one at a time for a session that is not in memory, all of them at start.
//!
//! It knows redb's read side, what the journal holds over it, records and keys. Invariants: a read transaction lives for one call, because a long
//! one keeps freed pages from being used again; nothing is returned that was not verified; "not there" is `None`
//! and damage is an error. The ring is looked at before the rows, because a key leaves it only after its rows are gone.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;
use redb::ReadableTable;

use super::credit::Credits;
use super::overlay::{Layers, Patch, RowState};
use super::record::{Body, Header, HeaderBytes, PrincipalRef, Row};
use super::schema::{BODIES, PRINCIPALS, SESSIONS, TOUCHES};
use super::tree::Tree;
use super::{Keys, Ring, contained, failed, touch};
use crate::error::{Error, Result};
use crate::time::Tick;

/// Reads the last state that was written. Each call may block on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    tree: Arc<Tree>,
    layers: Arc<RwLock<Layers>>,
    keys: Arc<Keys>,
}

/// What a scan finds at a row.
#[derive(Debug)]
pub(crate) enum Scanned {
    Live(Header),
    /// The header's tag is wrong, or its server key was dropped: it authenticates nobody.
    Refused,
}

/// The touches of a store.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    /// The latest of each row, ascending by row.
    pub(crate) seen: Vec<(Row, Tick)>,
    /// Bytes of the blocks of each bucket.
    pub(crate) bytes: HashMap<u64, u64>,
}

/// A row's header, and its body where that was asked for.
type Stored = (HeaderBytes, Option<Arc<[u8]>>);

const WHAT: &str = "failed to read `store.redb`";
const DAMAGED: &str = "failed to read `store.redb`: the file is damaged";

fn damaged() -> Error {
    Error::corrupt("a session's header is damaged")
}

impl Reader {
    pub(super) fn new(tree: Arc<Tree>, layers: Arc<RwLock<Layers>>, keys: Arc<Keys>) -> Self {
        Self { tree, layers, keys }
    }

    /// Header and body of a row.
    pub(crate) fn session(&self, row: Row) -> Result<Option<(Header, Body)>> {
        let ring = self.keys.ring();
        let Some((header, body)) = self.row(row, true)? else { return Ok(None) };
        let Some(body) = body else { return Ok(None) };
        let header = self.verify(&ring, row, &header).ok_or_else(damaged)?;
        let body = Body::decode(&body).ok_or_else(|| Error::corrupt("a session's body is damaged"))?;
        Ok(Some((header, body)))
    }

    /// What can be told of a row without its token: its header, and its sealed facts unless the body is damaged.
    pub(crate) fn shown(&self, row: Row) -> Result<Option<(Scanned, Option<Vec<u8>>)>> {
        let ring = self.keys.ring();
        Ok(self.row(row, true)?.map(|(header, body)| {
            let header = self.verify(&ring, row, &header).map_or(Scanned::Refused, Scanned::Live);
            (header, body.and_then(|body| Body::decode(&body)).map(|body| body.facts))
        }))
    }

    /// Header of a row.
    pub(crate) fn header(&self, row: Row) -> Result<Option<Header>> {
        let ring = self.keys.ring();
        let found = self.row(row, false)?;
        found.map(|(bytes, _)| self.verify(&ring, row, &bytes).ok_or_else(damaged)).transpose()
    }

    /// A row as it was written last: what the journal has of it, over what the tables have.
    fn row(&self, row: Row, with_body: bool) -> Result<Option<Stored>> {
        self.tree.retrying(|| self.row_once(row, with_body))
    }

    fn row_once(&self, row: Row, with_body: bool) -> Result<Option<Stored>> {
        let (patch, transaction) = self.at(|layers| layers.row(row.0))?;
        let RowState { header, body } = match patch {
            Some(Patch::Deleted) => return Ok(None),
            Some(Patch::Put(state)) => state,
            None => RowState::default(),
        };
        read(|| {
            let header = match header {
                Some(header) => Some(header),
                None => transaction.open_table(SESSIONS)?.get(row.0)?.map(|value| *value.value()),
            };
            let body = match body {
                None if with_body => transaction.open_table(BODIES)?.get(row.0)?.map(|value| value.value().into()),
                body => body,
            };
            Ok(header.map(|header| (header, body)))
        })
    }

    /// The name behind a reference.
    pub(crate) fn principal(&self, principal: PrincipalRef) -> Result<Option<String>> {
        let found = self.tree.retrying(|| {
            let (new, transaction) = self.at(|layers| layers.name(principal.0))?;
            let stored = || Ok(transaction.open_table(PRINCIPALS)?.get(principal.0)?.map(|v| v.value().to_vec()));
            new.map_or_else(|| read(stored), Ok)
        })?;
        found
            .map(|sealed| {
                self.keys
                    .open_name(principal, &sealed)
                    .ok_or_else(|| Error::corrupt("a principal's name is damaged or was changed"))
            })
            .transpose()
    }

    /// Every reference that has a name.
    pub(crate) fn principals(&self) -> Result<Vec<PrincipalRef>> {
        let (new, transaction) = self.at(Layers::names)?;
        let mut found = read(|| {
            let table = transaction.open_table(PRINCIPALS)?;
            let known = |principal: &u64| !new.contains_key(principal);
            table.iter()?.map(|entry| Ok(entry?.0.value())).filter(|entry| entry.as_ref().map_or(true, known)).collect()
        })
        .map(|found: Vec<u64>| found)?;
        found.extend(new.into_iter().filter(|&(_, is_there)| is_there).map(|(principal, _)| principal));
        Ok(found.into_iter().map(PrincipalRef).collect())
    }

    /// Visits the rows of a range in ascending order, each verified. Holds up the writer meanwhile, so it is for the start.
    pub(crate) fn scan(&self, rows: Range<u64>, visit: &mut dyn FnMut(Row, Scanned)) -> Result<()> {
        let ring = self.keys.ring();
        let layers = self.layers.read();
        let transaction = self.tree.begin_read()?;
        let mut new = layers.headers(rows.clone()).into_iter().peekable();
        let mut seen = |row: u64, bytes: &HeaderBytes| {
            let header = self.verify(&ring, Row(row), bytes);
            visit(Row(row), header.map_or(Scanned::Refused, Scanned::Live));
        };
        read(|| {
            for entry in transaction.open_table(SESSIONS)?.range(rows)? {
                let (row, bytes) = entry?;
                let row = row.value();
                while let Some((newer, bytes)) = new.next_if(|(newer, _)| *newer < row) {
                    seen(newer, &bytes);
                }
                if let Some((_, bytes)) = new.next_if(|(newer, _)| *newer == row) {
                    seen(row, &bytes);
                } else if !layers.has_deleted(row) {
                    seen(row, bytes.value());
                }
            }
            new.by_ref().for_each(|(row, bytes)| seen(row, &bytes));
            Ok(())
        })
    }

    /// The lowest row number in the store, verified or not.
    pub(crate) fn first_row(&self) -> Result<Option<Row>> {
        let layers = self.layers.read();
        let transaction = self.tree.begin_read()?;
        let old = read(|| {
            let table = transaction.open_table(SESSIONS)?;
            let mut from = 0;
            while let Some(entry) = table.range(from..)?.next() {
                let row = entry?.0.value();
                from = layers.skip_deleted(row);
                if from == row {
                    return Ok(Some(row));
                }
            }
            Ok(None)
        })?;
        let new = layers.headers(0..u64::MAX).first_key_value().map(|(&row, _)| row);
        Ok(old.into_iter().chain(new).min().map(Row))
    }

    /// A row number that no row in the store is above, verified or not.
    pub(crate) fn last_row(&self) -> Result<Option<Row>> {
        let (new, transaction) = self.at(|layers| layers.headers(0..u64::MAX).last_key_value().map(|(&row, _)| row))?;
        let old = read(|| Ok(transaction.open_table(SESSIONS)?.last()?.map(|(row, _)| row.value())))?;
        Ok(old.max(new).map(Row))
    }

    /// Every persisted touch, with these credits in it. Damaged blocks are left out: losing a touch only shortens a
    /// session's life.
    pub(crate) fn touches(&self, credits: &Credits) -> Result<Touches> {
        let mut touches = Touches::default();
        let layers = self.layers.read();
        let transaction = self.tree.begin_read()?;
        let mut take = |key: u64, block: &[u8]| {
            *touches.bytes.entry(touch::bucket_of(key)).or_default() += block.len() as u64;
            let (frame, entries) = touch::decode(key, block, self.keys.store()).unwrap_or_default();
            let seen = entries.into_iter().map(|(row, seen)| (row, credits.seen(frame, row, seen)));
            touches.seen.extend(seen);
        };
        let (new, replaced) = layers.touches();
        new.into_iter().for_each(|(key, block)| take(key, block));
        if !replaced {
            read(|| {
                for entry in transaction.open_table(TOUCHES)?.iter()? {
                    let (key, block) = entry?;
                    take(key.value(), block.value());
                }
                Ok(())
            })?;
        }
        touches.seen.sort_unstable_by_key(|&(row, seen)| (row, std::cmp::Reverse(seen)));
        touches.seen.dedup_by_key(|(row, _)| *row);
        Ok(touches)
    }

    fn verify(&self, ring: &Ring, row: Row, bytes: &HeaderBytes) -> Option<Header> {
        if row.0 == 0 || row.0 >= Row::MEMORY {
            return None;
        }
        Header::decode(bytes, row, self.keys.store_id(), ring.headers(Header::key_id(bytes))?)
    }

    /// Looks at what is not in the tables, and begins to read those as they are at the same moment: a checkpoint brings
    /// rows from the one to the other.
    fn at<T>(&self, look: impl FnOnce(&Layers) -> T) -> Result<(T, redb::ReadTransaction)> {
        let layers = self.layers.read();
        let transaction = self.tree.begin_read()?;
        Ok((look(&layers), transaction))
    }
}

fn read<T>(read: impl FnOnce() -> Result<T, redb::Error>) -> Result<T> {
    contained(DAMAGED, || read().map_err(|error| failed(WHAT, error)))
}
