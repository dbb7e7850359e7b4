//! fjall: one keyspace, a journal that is flushed for each write or for all who wait.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::group::{Change, Group};
use crate::store::{Key, Store, live, random_key, row};

struct Fjall {
    database: Database,
    sessions: Keyspace,
    group: Option<Group>,
}

pub(crate) fn each(path: &Path) -> Box<dyn Store> {
    let (database, sessions) = open(path);
    Box::new(Fjall { database, sessions, group: None })
}

pub(crate) fn group(path: &Path) -> Box<dyn Store> {
    let (database, sessions) = open(path);
    let (writer, table) = (database.clone(), sessions.clone());
    let group = Group::start(move |changes| commit(&writer, &table, changes, Some(PersistMode::SyncData)));
    Box::new(Fjall { database, sessions, group: Some(group) })
}

fn open(path: &Path) -> (Database, Keyspace) {
    let database = Database::builder(path.join("fjall")).open().expect("the directory can be written");
    let sessions = database.keyspace("sessions", KeyspaceCreateOptions::default).expect("a keyspace");
    (database, sessions)
}

fn commit(database: &Database, sessions: &Keyspace, changes: &[Change], flush: Option<PersistMode>) {
    let mut batch = database.batch().durability(flush);
    for change in changes {
        match change {
            Change::Put(key, row) => batch.insert(sessions, key.as_slice(), row.as_slice()),
            Change::Delete(key) => batch.remove(sessions, key.as_slice()),
        }
    }
    batch.commit().expect("the disk works");
}

impl Fjall {
    fn write(&self, change: Change) {
        match &self.group {
            Some(group) => group.write(change),
            None => commit(&self.database, &self.sessions, &[change], Some(PersistMode::SyncData)),
        }
    }
}

impl Store for Fjall {
    fn create(&self, data: &[u8]) -> Key {
        let key = random_key();
        self.write(Change::Put(key.clone(), row(data)));
        key
    }

    fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        live(&self.sessions.get(key).expect("the disk works")?)
    }

    fn save(&self, key: &[u8], data: &[u8]) {
        self.write(Change::Put(key.to_vec(), row(data)));
    }

    fn destroy(&self, key: &[u8]) {
        self.write(Change::Delete(key.to_vec()));
    }

    fn fill(&self, count: usize) -> Vec<Key> {
        let keys: Vec<Key> = (0..count).map(|_| random_key()).collect();
        for (number, key) in keys.iter().enumerate() {
            let put = Change::Put(key.clone(), row(&crate::store::data(number)));
            commit(&self.database, &self.sessions, &[put], None);
        }
        self.database.persist(PersistMode::SyncAll).expect("the disk works");
        keys
    }
}
