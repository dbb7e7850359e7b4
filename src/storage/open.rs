//! Opening a store, and making one.
//!
//! It knows redb, the small files and the keys. Invariants: a store is made under a temporary name and renamed
//! when it is whole, so a power cut leaves either none or one that opens; nothing that exists is ever made again
//! or overwritten; every refusal happens before anything was changed.

use std::sync::Arc;

use parking_lot::RwLock;
use redb::{ReadableDatabase, ReadableTable, TableHandle};

use super::backend::Backend;
use super::credit::Credits;
use super::disk::Disk;
use super::effects::Effects;
use super::journal::{self, Journal, Position};
use super::key_file::KeyFile;
use super::keys::Keys;
use super::overlay::Layers;
use super::reader::Reader;
use super::record::{Checkpoint, Cutoff, CutoffBytes, PrincipalRef, State};
use super::schema::{
    BODIES, CUTOFFS, DRAFT, EPOCH_FILE, FORMAT, MAGIC, META, META_CREDITS, META_FORMAT, META_JOURNAL, META_KEYS,
    META_STATE, PRINCIPALS, SESSIONS, STORE_FILE, STORE_FILE_NEW, TOUCHES,
};
use super::tree::Tree;
use super::writer::{Parts, Writer};
use super::{contained, epoch, failed, io_failed, rekey};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;
use crate::token::Entropy;

/// An open store.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) keys: Arc<Keys>,
    /// As of the last commit.
    pub(crate) state: State,
    pub(crate) cutoffs: Vec<(PrincipalRef, Cutoff)>,
    pub(crate) credits: Credits,
}

/// What a store takes, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) page_cache: usize,
    /// The journal's ring, for a store that is to be made; `None` for one without a journal.
    pub(crate) journal: Option<u64>,
}

/// Opens the store in `disk`, or makes one if there is none. `clock` is what a new store begins with.
pub(crate) fn open(disk: &Arc<dyn Disk>, sizes: Sizes, clock: Checkpoint, entropy: &dyn Entropy) -> Result<Opened> {
    let names = disk.names().map_err(|error| io_failed("failed to list the directory", error))?;
    let has = |name: &str| names.iter().any(|other| other == name);
    let created = !has(STORE_FILE);
    if created && has(EPOCH_FILE) {
        return Err(Error::corrupt(
            "`store.redb` is missing although `epoch` is there; put it back, or empty the directory to start anew",
        ));
    }
    let key_file = key_file(disk.as_ref(), created.then_some(clock), entropy)?;
    if created {
        create(disk.as_ref(), sizes, clock, &key_file, entropy)?;
    }
    contained("failed to open `store.redb`: the file is damaged", || {
        let (database, backend) = open_database(disk.as_ref(), sizes.page_cache)?;
        adopt(disk, (database, backend, sizes.page_cache), &key_file, entropy)
    })
}

/// `beginning` is there for a store that is to be made.
fn key_file(disk: &dyn Disk, beginning: Option<Checkpoint>, entropy: &dyn Entropy) -> Result<KeyFile> {
    if let Some(file) = KeyFile::load(disk)? {
        return Ok(file);
    }
    let Some(beginning) = beginning else {
        return Err(Error::new(
            ErrorKind::Key,
            "the key file `server.key` of this store is missing; put it back (it is never made again, because \
             every session would be lost)",
        ));
    };
    let file = KeyFile::create(Timestamp::from_unix_ms(beginning.wall_ms), entropy)?;
    file.write_first(disk)?;
    Ok(file)
}

fn create(disk: &dyn Disk, sizes: Sizes, clock: Checkpoint, key_file: &KeyFile, entropy: &dyn Entropy) -> Result<()> {
    let (keys, wrapped) = Keys::create(key_file, entropy)?;
    let state = State { next_row: 1, epoch: 1, epoch_due: true, clock, ..State::default() };
    // First, so that a store is never without the journal that it says it has.
    let journal = sizes.journal.map(|bytes| journal::create(disk, bytes, &keys, entropy)).transpose()?;
    let what = "failed to create `store.redb`";
    let io = |error| io_failed(what, error);
    match disk.remove(STORE_FILE_NEW) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let file = disk.create(STORE_FILE_NEW).map_err(io)?;
    let database = redb::Builder::new()
        .set_cache_size(sizes.page_cache)
        .create_with_backend(Backend::direct(file))
        .map_err(|error| failed(what, error))?;
    let fill = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_FORMAT, format_record(keys.store_id()).as_slice())?;
            meta.insert(META_KEYS, wrapped.as_slice())?;
            meta.insert(META_STATE, state.encode(keys.store_id(), keys.store()).as_slice())?;
            if let Some(position) = &journal {
                meta.insert(META_JOURNAL, position.encode(&keys).as_slice())?;
            }
            transaction.open_table(SESSIONS)?;
            transaction.open_table(BODIES)?;
            transaction.open_table(PRINCIPALS)?;
            transaction.open_table(TOUCHES)?;
            transaction.open_table(CUTOFFS)?;
        }
        transaction.commit()?;
        database.close()?;
        Ok(())
    };
    fill().map_err(|error| failed(what, error))?;
    disk.rename(STORE_FILE_NEW, STORE_FILE).and_then(|()| disk.sync_directory()).map_err(io)
}

fn format_record(store_id: &[u8; 16]) -> Vec<u8> {
    [&MAGIC[..], &FORMAT.to_le_bytes(), store_id].concat()
}

/// Opens the database without changing its file, which the backend's release does.
fn open_database(disk: &dyn Disk, page_cache_bytes: usize) -> Result<(redb::Database, Backend)> {
    let what = "failed to open `store.redb`";
    // The directory is locked already; but people remove lock files that look left over.
    let file = disk.open_alone(STORE_FILE).map_err(|error| io_failed(what, error))?;
    // redb takes an empty file for a new one; ours was renamed into place whole, so an empty one is a lost one.
    if file.len().map_err(|error| io_failed(what, error))? == 0 {
        return Err(Error::corrupt("failed to open `store.redb`: the file is empty"));
    }
    let backend = Backend::held_back(file).map_err(|error| io_failed(what, error))?;
    let database = redb::Builder::new()
        .set_cache_size(page_cache_bytes)
        .create_with_backend(backend.clone())
        .map_err(|error| not_a_store(what, error))?;
    Ok((database, backend))
}

/// A file that redb does not take at all is somebody else's or damaged beyond telling.
fn not_a_store(what: &'static str, error: redb::DatabaseError) -> Error {
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Io(cause))
            if cause.kind() == std::io::ErrorKind::InvalidData =>
        {
            Error::corrupt("failed to open `store.redb`: it is no store of ours, or it is damaged").because(cause)
        }
        other => failed(what, other),
    }
}

/// Checks that the database is a store of this format that goes with this key file, and takes it over.
fn adopt(
    disk: &Arc<dyn Disk>,
    (database, backend, cache_bytes): (redb::Database, Backend, usize),
    key_file: &KeyFile,
    entropy: &dyn Entropy,
) -> Result<Opened> {
    let meta = read_meta(&database)?;
    check_format(&meta.format, key_file)?;
    let keys = Keys::open(key_file, &meta.keys)?;
    let unfinished = rekey::unfinished(key_file, &meta.keys, entropy)?;
    let mut state = State::decode(&meta.state, keys.store_id(), keys.store())?;
    let keys = Arc::new(keys);
    let mut layers = Layers::default();
    let position = meta.journal.as_deref().map(|record| Position::decode(record, &keys)).transpose()?;
    let mut journal = position.map(|from| replay(disk.as_ref(), &keys, from, (&mut state, &mut layers))).transpose()?;
    let cutoffs = read_cutoffs(&database, &layers, &keys, &state)?;
    let expected = (&state.credits_tag, state.credits_made);
    let record = layers.credits().unwrap_or(meta.credits);
    let credits = Credits::decode(record.as_deref(), expected, keys.store_id(), keys.store())?;
    let outcome = judge_epoch(disk.as_ref(), &keys, &mut state)?;
    if outcome == Epoch::FileIsOlder {
        // Or a power cut could leave the file ahead of the store, as an older copy would.
        journal.iter_mut().try_for_each(Journal::affirm)?;
        epoch::write(disk.as_ref(), &keys, state.epoch)?;
    }
    let (tree, layers) = (Tree::new(database, backend, cache_bytes), Arc::new(RwLock::new(layers)));
    let reader = Reader::new(Arc::clone(&tree), Arc::clone(&layers), Arc::clone(&keys));
    let parts = Parts { tree, layers, journal, state, wrapped: meta.keys };
    let mut writer = Writer::new(Arc::clone(disk), Arc::clone(&keys), parts);
    writer.unfinished = unfinished;
    if outcome == Epoch::StoreIsOlder {
        writer.end_everything()?;
        state = writer.state();
    }
    Ok(Opened { reader, writer, keys, state, cutoffs, credits })
}

/// Opens the journal of a store, and takes in what is not in the tables.
fn replay(
    disk: &dyn Disk,
    keys: &Arc<Keys>,
    from: Position,
    (state, layers): (&mut State, &mut Layers),
) -> Result<Journal> {
    journal::open(disk, keys, from, &mut |payload| {
        let damaged = || Error::corrupt("a frame of the file `journal` does not follow the one before it");
        let effects = Effects::decode(payload, keys.store_id(), keys.store()).ok_or_else(damaged)?;
        // What went to the tables at once is counted too, so tables from before it do not pass for those from after it.
        if effects.state.commits != state.commits + 1 {
            return Err(damaged());
        }
        *state = effects.state;
        layers.current.absorb(effects);
        Ok(())
    })
}

struct Meta {
    format: Vec<u8>,
    keys: Vec<u8>,
    state: Vec<u8>,
    credits: Option<Vec<u8>>,
    journal: Option<Vec<u8>>,
}

fn read_meta(database: &redb::Database) -> Result<Meta> {
    let what = "failed to read `store.redb`";
    let foreign = || Error::new(ErrorKind::Format, "`store.redb` is a database of another program");
    let transaction = database.begin_read().map_err(|error| failed(what, error))?;
    let mut tables = transaction.list_tables().map_err(|error| failed(what, error))?;
    if !tables.any(|table| table.name() == META.name()) {
        return Err(foreign());
    }
    let meta = match transaction.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::Storage(error)) => return Err(failed(what, error)),
        Err(_) => return Err(foreign()),
    };
    let find = |key: u64| -> Result<Option<Vec<u8>>> {
        Ok(meta.get(key).map_err(|error| failed(what, error))?.map(|value| value.value().to_vec()))
    };
    let record = |key: u64, name: &'static str| -> Result<Vec<u8>> {
        find(key)?.ok_or_else(|| Error::corrupt(format!("the {name} record of the store is missing")))
    };
    Ok(Meta {
        format: find(META_FORMAT)?.ok_or_else(foreign)?,
        keys: record(META_KEYS, "key")?,
        state: record(META_STATE, "state")?,
        credits: find(META_CREDITS)?,
        journal: find(META_JOURNAL)?,
    })
}

fn check_format(record: &[u8], key_file: &KeyFile) -> Result<()> {
    let parts = record.strip_prefix(&MAGIC).and_then(|rest| rest.split_first_chunk::<4>());
    let Some((number, store_id)) = parts else {
        return Err(Error::new(ErrorKind::Format, "`store.redb` is a database of another program"));
    };
    let number = u32::from_le_bytes(*number);
    if number != FORMAT {
        return Err(Error::new(
            ErrorKind::Format,
            format!(
                "the store has format {}, and this version reads only {}; use the version that wrote it",
                format_name(number),
                format_name(FORMAT)
            ),
        ));
    }
    if store_id != key_file.store_id {
        return Err(Error::new(
            ErrorKind::Key,
            "the key file `server.key` belongs to another store; put the right one back",
        ));
    }
    Ok(())
}

fn format_name(number: u32) -> String {
    if number & DRAFT == 0 { number.to_string() } else { format!("draft {}", number & !DRAFT) }
}

/// Reads every cutoff and holds their sum against the state record, so that a removed one is noticed.
fn read_cutoffs(
    database: &redb::Database,
    layers: &Layers,
    keys: &Keys,
    state: &State,
) -> Result<Vec<(PrincipalRef, Cutoff)>> {
    let read = || -> Result<Vec<(PrincipalRef, CutoffBytes)>, redb::Error> {
        let table = database.begin_read()?.open_table(CUTOFFS)?;
        table
            .iter()?
            .map(|entry| entry.map(|(key, value)| (PrincipalRef(key.value()), *value.value())))
            .map(|entry| entry.map_err(Into::into))
            .collect()
    };
    let mut records = read().map_err(|error| failed("failed to read `store.redb`", error))?;
    let new = layers.cutoffs();
    records.retain(|(principal, _)| !new.contains_key(&principal.0));
    records.extend(new.into_iter().filter_map(|(principal, record)| Some((PrincipalRef(principal), record?))));
    let sum = records.iter().fold(0_u128, |sum, (_, bytes)| sum.wrapping_add(Cutoff::share(bytes)));
    if sum != state.cutoff_sum {
        return Err(Error::corrupt("sign-out-everywhere records are missing from the store, or were added to it"));
    }
    records
        .into_iter()
        .map(|(principal, bytes)| Ok((principal, Cutoff::decode(&bytes, principal, keys.store())?)))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Epoch {
    Current,
    FileIsOlder,
    StoreIsOlder,
}

/// Whether the epoch file is behind the store, or the store is an old copy, which then gets the file's epoch.
fn judge_epoch(disk: &dyn Disk, keys: &Keys, state: &mut State) -> Result<Epoch> {
    match epoch::read(disk, keys)? {
        Some(file) if file > state.epoch => {
            state.epoch = file;
            Ok(Epoch::StoreIsOlder)
        }
        Some(file) if file == state.epoch => Ok(Epoch::Current),
        // A store that never acknowledged anything was cut off while it was made.
        None if state.commits > 0 => Err(Error::corrupt(
            "the file `epoch` of this store is missing; put it back (without it an old copy could pass for this store)",
        )),
        Some(_) | None => Ok(Epoch::FileIsOlder),
    }
}
