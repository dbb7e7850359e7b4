//! The disk by itself: each write overwrites a block of a file that is there already, and flushes. It keeps nothing.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Mutex;

use crate::store::{Key, Store, random_key};

struct Floor(Mutex<(File, u64)>);

const BLOCK: u64 = 4096;
const BLOCKS: u64 = 256;

pub(crate) fn open(path: &Path) -> Box<dyn Store> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).open(path.join("blocks")).expect("a file");
    file.write_all(&vec![1; (BLOCK * BLOCKS) as usize]).expect("the disk works");
    file.sync_all().expect("the disk works");
    Box::new(Floor(Mutex::new((file, 0))))
}

impl Floor {
    fn write(&self) {
        let mut floor = self.0.lock().expect("nobody panics");
        let (file, next) = &mut *floor;
        file.seek(SeekFrom::Start(*next % BLOCKS * BLOCK)).expect("the disk works");
        file.write_all(&[2; BLOCK as usize]).expect("the disk works");
        file.sync_data().expect("the disk works");
        *next += 1;
    }
}

impl Store for Floor {
    fn create(&self, _data: &[u8]) -> Key {
        self.write();
        random_key()
    }

    fn load(&self, _key: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn save(&self, _key: &[u8], _data: &[u8]) {
        self.write();
    }

    fn destroy(&self, _key: &[u8]) {
        self.write();
    }

    fn fill(&self, count: usize) -> Vec<Key> {
        (0..count).map(|_| random_key()).collect()
    }
}
