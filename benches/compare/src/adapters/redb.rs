//! redb by itself: one table, random key to row, a commit for each write or for all who wait.

use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, TableDefinition};

use super::group::{Change, Group};
use crate::store::{Key, Store, live, random_key, row};

const SESSIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sessions");

struct Redb {
    database: Arc<Database>,
    group: Option<Group>,
}

pub(crate) fn each(path: &Path) -> Box<dyn Store> {
    Box::new(Redb { database: open(path), group: None })
}

pub(crate) fn group(path: &Path) -> Box<dyn Store> {
    let database = open(path);
    let writer = Arc::clone(&database);
    Box::new(Redb { database, group: Some(Group::start(move |changes| commit(&writer, changes))) })
}

fn open(path: &Path) -> Arc<Database> {
    let database = Database::create(path.join("sessions.redb")).expect("the directory can be written");
    commit(&database, &[]);
    Arc::new(database)
}

fn commit(database: &Database, changes: &[Change]) {
    let transaction = database.begin_write().expect("the disk works");
    {
        let mut table = transaction.open_table(SESSIONS).expect("a table");
        for change in changes {
            match change {
                Change::Put(key, row) => drop(table.insert(key.as_slice(), row.as_slice()).expect("the disk works")),
                Change::Delete(key) => drop(table.remove(key.as_slice()).expect("the disk works")),
            }
        }
    }
    transaction.commit().expect("the disk works");
}

impl Redb {
    fn write(&self, change: Change) {
        match &self.group {
            Some(group) => group.write(change),
            None => commit(&self.database, &[change]),
        }
    }
}

impl Store for Redb {
    fn create(&self, data: &[u8]) -> Key {
        let key = random_key();
        self.write(Change::Put(key.clone(), row(data)));
        key
    }

    fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        let transaction = self.database.begin_read().expect("the disk works");
        let table = transaction.open_table(SESSIONS).expect("a table");
        live(table.get(key).expect("the disk works")?.value())
    }

    fn save(&self, key: &[u8], data: &[u8]) {
        self.write(Change::Put(key.to_vec(), row(data)));
    }

    fn destroy(&self, key: &[u8]) {
        self.write(Change::Delete(key.to_vec()));
    }

    fn fill(&self, count: usize) -> Vec<Key> {
        let keys: Vec<Key> = (0..count).map(|_| random_key()).collect();
        let put = |(number, key): (usize, &Key)| Change::Put(key.clone(), row(&crate::store::data(number)));
        commit(&self.database, &keys.iter().enumerate().map(put).collect::<Vec<_>>());
        keys
    }
}
