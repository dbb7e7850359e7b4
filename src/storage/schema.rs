//! Schema: the tables, their keys and the format number.
//!
//! It knows redb's table definitions and ring 0. Invariant: table types are only `u64`, `&[u8; N]` and `&[u8]`,
//! whose encodings do not change between redb's major versions. The byte tables of the values are in `record`
//! and in the guide's disk format page.

use redb::TableDefinition;

use super::record::{CutoffBytes, HeaderBytes};

/// What says that a file of ours is ours; the first bytes of the format record, the key file and the epoch file.
pub(crate) const MAGIC: [u8; 8] = *b"dwell\0s\n";

/// The format of everything in the directory. Drafts have the top bit set and change with every change of
/// bytes; format 1 will be the first that later versions read for ever.
pub(crate) const FORMAT: u32 = DRAFT | 6;
pub(crate) const DRAFT: u32 = 1 << 31;

/// One record for each `META_*` key.
pub(crate) const META: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("meta");
/// Row number to header.
pub(crate) const SESSIONS: TableDefinition<'_, u64, &HeaderBytes> = TableDefinition::new("sessions");
/// Row number to key wrap, sealed facts and sealed data.
pub(crate) const BODIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
/// Principal reference to sealed name.
pub(crate) const PRINCIPALS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("principals");
/// Idle bucket and flush number to a block of last-seen times.
pub(crate) const TOUCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("touches");
/// Principal reference to the row below which its sessions are dead.
pub(crate) const CUTOFFS: TableDefinition<'_, u64, &CutoffBytes> = TableDefinition::new("cutoffs");

/// Magic, format number, store id. Never changes after creation.
pub(crate) const META_FORMAT: u64 = 0;
/// The store and index keys, wrapped under a server key. Changes when the server key does.
pub(crate) const META_KEYS: u64 = 1;
/// Row counter, commit counter, epoch, clock checkpoint. Written by every commit.
pub(crate) const META_STATE: u64 = 2;
/// Time that was not counted when it passed. There only while rows need it.
pub(crate) const META_CREDITS: u64 = 3;
/// How far the tables have what is in the journal. Written by every checkpoint; not there if the store has no journal.
pub(crate) const META_JOURNAL: u64 = 4;

/// The store, made under the temporary name and renamed when it is whole.
pub(crate) const STORE_FILE: &str = "store.redb";
pub(crate) const STORE_FILE_NEW: &str = "store.redb.new";
/// What is not in the store yet, made under the temporary name and renamed when it is whole.
pub(crate) const JOURNAL_FILE: &str = "journal";
pub(crate) const JOURNAL_FILE_NEW: &str = "journal.new";
/// The server keys.
pub(crate) const KEY_FILE: &str = "server.key";
/// The highest epoch that was acknowledged.
pub(crate) const EPOCH_FILE: &str = "epoch";
/// The port that was listened on last, in decimal. Nothing depends on it.
pub(crate) const PORT_FILE: &str = "port";
