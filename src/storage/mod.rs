//! Storage: sessions as bytes on disk.
//!
//! What lives here: the directory and its files, the journal, the tables, the layouts, opening and creating, reading rows,
//! applying batches and bringing them from the journal to the tables. It knows redb and ring 0; it knows nothing of indexes, timers or tokens in use; of threads it has one, for checkpoints.
//! Invariants:
//!
//! - One [`Batch`] is one frame of the journal or one redb transaction: all of it or nothing is there after a crash. Nothing
//!   above may assume that an acknowledged batch is already in the B-tree: a checkpoint brings it there later.
//! - There is one [`Writer`]; it cannot be cloned. Readers never block it; it blocks them only while a
//!   batch goes to the tables at once.
//! - Whatever is read was verified under the store's keys before anybody sees it.
//! - No type of redb leaves this folder.
//!
//! On a crash the last acknowledged batch is there, and perhaps the one that was on its way. On a panic inside
//! redb while opening, the files are reported as damaged and left as they are.

mod backend;
mod checkpoint;
pub(crate) mod credit;
pub(crate) mod directory;
pub(crate) mod disk;
mod effects;
mod epoch;
mod journal;
mod key_file;
mod keys;
mod open;
mod overlay;
mod planted;
pub(crate) mod port;
#[cfg(feature = "sim")]
pub(crate) mod probe;
mod reader;
pub(crate) mod record;
mod rekey;
mod schema;
mod tables;
pub(crate) mod touch;
mod tree;
mod writer;

use credit::Credits;

pub(crate) use keys::{KeySet, Keys, Ring, WrapBinding};
pub(crate) use open::{Opened, Sizes, open};
#[cfg(any(feature = "sim", test))]
pub use planted::Planted;
pub(crate) use reader::{Reader, Scanned};
use record::{Checkpoint, Cutoff, Header, PrincipalRef, Row};
pub(crate) use writer::Writer;

use crate::error::{Error, ErrorKind, Result};
use crate::time::Tick;

/// Resolved effects that become durable together. The order of application is: puts, deletes, the rest; so a
/// row that is both put and deleted is deleted.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) puts: Vec<Put>,
    pub(crate) deletes: Vec<Row>,
    /// Sealed names to keep, or principals to forget.
    pub(crate) principals: Vec<(PrincipalRef, Option<Vec<u8>>)>,
    pub(crate) cutoffs: Vec<(PrincipalRef, Option<Cutoff>)>,
    pub(crate) touches: Vec<TouchBlock>,
    /// The touches in this batch say everything that the ones on disk do.
    pub(crate) replace_touches: bool,
    /// The engine's row counter when the batch was closed: above every row in it.
    pub(crate) next_row: u64,
    pub(crate) clock: Checkpoint,
    /// The record of credits, if it changed.
    pub(crate) credits: Option<Credits>,
    /// The record of the store's own keys, sealed under another server key.
    pub(crate) keys: Option<Vec<u8>>,
    /// A server key all of whose rows are to be deleted.
    pub(crate) dropped_key: Option<u8>,
    /// The clock is to be written even if nothing else is.
    pub(crate) clock_is_due: bool,
    /// Whether the batch ends a session, so that an older copy of the store must not come back.
    pub(crate) ends_sessions: bool,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.puts.is_empty()
            && self.deletes.is_empty()
            && self.principals.is_empty()
            && self.cutoffs.is_empty()
            && self.touches.is_empty()
            && !self.replace_touches
            && self.credits.is_none()
            && self.keys.is_none()
            && self.dropped_key.is_none()
            && !self.clock_is_due
    }
}

/// The new content of a row; what is `None` stays as it is.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) row: Row,
    pub(crate) header: Option<Header>,
    pub(crate) body: Option<Vec<u8>>,
}

/// Last-seen times of sessions with like idle timeouts; see [`touch`].
#[derive(Debug)]
pub(crate) struct TouchBlock {
    pub(crate) idle: u32,
    pub(crate) tick: Tick,
    pub(crate) step: u8,
    /// How many credits the times have in them.
    pub(crate) frame: u32,
    pub(crate) entries: Vec<(Row, Tick)>,
}

/// Turns an error of redb into ours. Damage, tables that are not as we made them and a file that ends early are the
/// file's fault, the rest the disk's.
fn failed(what: &'static str, error: impl Into<redb::Error>) -> Error {
    let error: redb::Error = error.into();
    let damaged = match &error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => true,
        redb::Error::Io(cause) => {
            matches!(cause.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData)
        }
        _ => false,
    };
    Error::new(if damaged { ErrorKind::Corrupt } else { ErrorKind::Storage }, what).because(error)
}

/// Turns an I/O error of one of our small files into ours.
fn io_failed(what: &'static str, error: std::io::Error) -> Error {
    if disk::Refusal::of(&error).is_some() {
        return directory::refused(what, error);
    }
    // What is larger than any that we write was not written by us.
    let foreign = error.kind() == std::io::ErrorKind::InvalidData;
    Error::new(if foreign { ErrorKind::Corrupt } else { ErrorKind::Storage }, what).because(error)
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed")
}

/// Runs `work`, which may meet a damaged file, and turns a panic of redb into [`ErrorKind::Corrupt`].
fn contained<T>(what: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Error::corrupt(what)))
}
