//! dwell as it comes: anonymous sessions that are saved and waited for. A load also renews, which the others do not do.

use std::path::Path;

use dwell::{Field, Options, Sessions, Token};

use crate::store::{Key, Store, data};

const DATA: Field<Vec<u8>> = Field::new("data");

struct Dwell(Sessions);

/// The defaults, but for how many sessions may be anonymous and how much of them is kept in memory.
pub(crate) fn open(path: &Path) -> Box<dyn Store> {
    let options = Options::new().sessions_max(40_000_000).cache_bytes(3 << 30);
    Box::new(Dwell(options.open(path.join("dwell")).expect("the directory is empty or a store's")))
}

impl Dwell {
    fn session(&self, key: &[u8]) -> Option<dwell::Session> {
        let token = Token::parse(std::str::from_utf8(key).ok()?)?;
        self.0.load(&token).expect("the disk works")
    }
}

impl Store for Dwell {
    fn create(&self, data: &[u8]) -> Key {
        let session = self.0.start();
        session.set(DATA, data).expect("there is room");
        session.save().expect("the disk works").blocking_wait().expect("the disk works");
        session.token().expect("it was written to").expose().as_bytes().to_vec()
    }

    fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.session(key)?.get(DATA).expect("it is live")
    }

    fn save(&self, key: &[u8], data: &[u8]) {
        let Some(session) = self.session(key) else { return };
        session.set(DATA, data).expect("there is room");
        session.save().expect("the disk works").blocking_wait().expect("the disk works");
    }

    fn destroy(&self, key: &[u8]) {
        let Some(session) = self.session(key) else { return };
        session.destroy().expect("it is live").blocking_wait().expect("the disk works");
    }

    fn fill(&self, count: usize) -> Vec<Key> {
        (0..count)
            .map(|number| {
                let session = self.0.start();
                while session.set(DATA, &data(number)).is_err() {
                    std::thread::yield_now();
                }
                session.token().expect("it was written to").expose().as_bytes().to_vec()
            })
            .collect()
    }
}
