//! SQLite with a write-ahead log: one table, key to expiry and data.

use std::path::Path;
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::group::{Change, Group};
use crate::store::{Key, Store, live, random_key, row};

/// Each connection is one client's at a time; readers do not wait for the writer.
struct Sqlite {
    writer: Writer,
    readers: Vec<Mutex<Connection>>,
}

enum Writer {
    Each(Mutex<Connection>),
    Group(Group),
}

const READERS: usize = 8;

/// Every write is flushed.
pub(crate) fn full(path: &Path) -> Box<dyn Store> {
    open(path, "FULL", false)
}

pub(crate) fn full_group(path: &Path) -> Box<dyn Store> {
    open(path, "FULL", true)
}

/// A write that was acknowledged may be lost with the power.
pub(crate) fn normal(path: &Path) -> Box<dyn Store> {
    open(path, "NORMAL", false)
}

fn open(path: &Path, synchronous: &str, group: bool) -> Box<dyn Store> {
    let connect = || {
        let connection = Connection::open(path.join("sessions.sqlite")).expect("the directory can be written");
        connection.busy_timeout(std::time::Duration::from_secs(60)).expect("a setting");
        connection.pragma_update(None, "journal_mode", "WAL").expect("a setting");
        connection.pragma_update(None, "synchronous", synchronous).expect("a setting");
        connection
    };
    let writer = connect();
    writer
        .execute_batch("CREATE TABLE IF NOT EXISTS sessions (key BLOB PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID")
        .expect("a table");
    let writer = if group { Writer::Group(Group::start(committer(writer))) } else { Writer::Each(Mutex::new(writer)) };
    Box::new(Sqlite { writer, readers: (0..READERS).map(|_| Mutex::new(connect())).collect() })
}

fn committer(mut connection: Connection) -> impl FnMut(&[Change]) + Send {
    move |changes| {
        let transaction = connection.transaction().expect("the disk works");
        changes.iter().for_each(|change| apply(&transaction, change));
        transaction.commit().expect("the disk works");
    }
}

fn apply(connection: &Connection, change: &Change) {
    match change {
        Change::Put(key, row) => {
            let mut put = connection.prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2)").expect("SQL");
            put.execute(params![key, row]).expect("the disk works");
        }
        Change::Delete(key) => {
            let mut delete = connection.prepare_cached("DELETE FROM sessions WHERE key = ?1").expect("SQL");
            delete.execute(params![key]).expect("the disk works");
        }
    }
}

impl Sqlite {
    fn write(&self, change: Change) {
        match &self.writer {
            Writer::Each(connection) => apply(&connection.lock().expect("nobody panics"), &change),
            Writer::Group(group) => group.write(change),
        }
    }
}

impl Store for Sqlite {
    fn create(&self, data: &[u8]) -> Key {
        let key = random_key();
        self.write(Change::Put(key.clone(), row(data)));
        key
    }

    fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        let place = usize::from(*key.first()?) % READERS;
        let connection = self.readers.get(place)?.lock().expect("nobody panics");
        let mut find = connection.prepare_cached("SELECT row FROM sessions WHERE key = ?1").expect("SQL");
        let row: Option<Vec<u8>> = find.query_row(params![key], |row| row.get(0)).optional().expect("the disk works");
        live(&row?)
    }

    fn save(&self, key: &[u8], data: &[u8]) {
        self.write(Change::Put(key.to_vec(), row(data)));
    }

    fn destroy(&self, key: &[u8]) {
        self.write(Change::Delete(key.to_vec()));
    }
}
