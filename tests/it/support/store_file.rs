//! The closed file of a store, changed from outside by somebody who knows its format.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};

pub(crate) const NAME: &str = "store.redb";
pub(crate) const FORMAT: u64 = 0;
pub(crate) const KEYS: u64 = 1;
pub(crate) const STATE: u64 = 2;

const META_TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("meta");
const SESSIONS_TABLE: TableDefinition<'_, u64, &[u8; 116]> = TableDefinition::new("sessions");
const BODIES_TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bodies");
const PRINCIPALS_TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("principals");
const TOUCHES_TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("touches");
const CUTOFFS_TABLE: TableDefinition<'_, u64, &[u8; 40]> = TableDefinition::new("cutoffs");

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Meta,
    Sessions,
    Bodies,
    Principals,
    Cutoffs,
    Touches,
}

/// The records of a table.
pub(crate) fn read(file: &[u8], table: Table) -> BTreeMap<u64, Vec<u8>> {
    let (_, database) = open(file.to_vec());
    let transaction = database.begin_read().unwrap();
    macro_rules! records {
        ($table:expr) => {{
            let table = transaction.open_table($table).unwrap();
            let records = table.iter().unwrap().map(Result::unwrap);
            records.map(|(key, value)| (key.value(), value.value().to_vec())).collect()
        }};
    }
    match table {
        Table::Meta => records!(META_TABLE),
        Table::Sessions => records!(SESSIONS_TABLE),
        Table::Bodies => records!(BODIES_TABLE),
        Table::Principals => records!(PRINCIPALS_TABLE),
        Table::Cutoffs => records!(CUTOFFS_TABLE),
        Table::Touches => records!(TOUCHES_TABLE),
    }
}

/// Puts or removes a record.
pub(crate) fn write(file: &mut Vec<u8>, table: Table, key: u64, value: Option<&[u8]>) {
    change(file, |transaction| {
        macro_rules! put {
            ($table:expr, $convert:path) => {{
                let mut table = transaction.open_table($table).unwrap();
                match value {
                    Some(value) => drop(table.insert(key, $convert(value)).unwrap()),
                    None => assert!(table.remove(key).unwrap().is_some(), "no record {key} to remove"),
                }
            }};
        }
        match table {
            Table::Meta => put!(META_TABLE, std::convert::identity),
            Table::Sessions => put!(SESSIONS_TABLE, fixed),
            Table::Bodies => put!(BODIES_TABLE, std::convert::identity),
            Table::Principals => put!(PRINCIPALS_TABLE, std::convert::identity),
            Table::Cutoffs => put!(CUTOFFS_TABLE, fixed),
            Table::Touches => put!(TOUCHES_TABLE, std::convert::identity),
        }
    });
}

/// Removes a whole table.
pub(crate) fn drop_table(file: &mut Vec<u8>, name: &str) {
    let table = TableDefinition::<u64, u64>::new(name);
    let handles = |transaction: &WriteTransaction| {
        use redb::TableHandle;
        let mut tables = transaction.list_tables().unwrap();
        tables.find(|handle| handle.name() == table.name()).unwrap()
    };
    change(file, |transaction| assert!(transaction.delete_table(handles(transaction)).unwrap()));
}

/// A database of another program.
pub(crate) fn foreign() -> Vec<u8> {
    let mut file = Vec::new();
    change(&mut file, |transaction| {
        let mut table = transaction.open_table(TableDefinition::<u64, &str>::new("poems")).unwrap();
        table.insert(1, "a rose is a rose").unwrap();
    });
    file
}

fn change(file: &mut Vec<u8>, fill: impl FnOnce(&WriteTransaction)) {
    let (shared, database) = open(std::mem::take(file));
    let transaction = database.begin_write().unwrap();
    fill(&transaction);
    transaction.commit().unwrap();
    drop(database);
    *file = std::mem::take(&mut shared.lock().unwrap());
}

fn fixed<const N: usize>(value: &[u8]) -> &[u8; N] {
    value.try_into().unwrap()
}

fn open(file: Vec<u8>) -> (Arc<Mutex<Vec<u8>>>, Database) {
    let shared = Arc::new(Mutex::new(file));
    let database = Database::builder().create_with_backend(Bytes(Arc::clone(&shared))).unwrap();
    (shared, database)
}

#[derive(Debug)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    fn with<T>(&self, offset: u64, length: usize, work: impl FnOnce(&mut [u8]) -> T) -> io::Result<T> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).unwrap();
        let place = bytes.get_mut(start..start + length).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(work(place))
    }
}

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(offset, out.len(), |bytes| out.copy_from_slice(bytes))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(offset, data.len(), |bytes| bytes.copy_from_slice(data))
    }
}
