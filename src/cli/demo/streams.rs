//! Open event streams: how many there may be, and which gives way.
//!
//! It knows sessions' ids. Invariants: a stream that ends in whatever way gives its place back; nobody waits under the
//! lock; the newest stream of a session always gets a place, because the oldest may be a tab that is long forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dwell::SessionId;
use tokio::sync::oneshot;

/// The most streams of one session: browsers open six connections to a host, so two are left for requests.
pub(super) const STREAMS_PER_SESSION_MAX: usize = 4;
/// The most streams of all: each is a connection, and processes often may open no more than 1,024 files.
const STREAMS_MAX: usize = 800;

/// All open streams. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    /// By number, so that the oldest comes first. Dropping a sender tells its stream to give way.
    of: HashMap<SessionId, BTreeMap<u64, oneshot::Sender<()>>>,
    count: usize,
    next: u64,
}

/// The place of one stream, until it is dropped.
pub(super) struct Place {
    streams: Streams,
    session: SessionId,
    number: u64,
}

impl Streams {
    /// A place for one more stream of this session, and what is ready when it has to give way; `None` if all are taken.
    pub(super) fn open(&self, session: SessionId) -> Option<(Place, oneshot::Receiver<()>)> {
        let (told, gives_way) = oneshot::channel();
        let mut open = self.lock();
        let is_full = open.count >= STREAMS_MAX;
        open.next += 1;
        let number = open.next;
        let own = open.of.entry(session).or_default();
        let oldest = if own.len() >= STREAMS_PER_SESSION_MAX { own.pop_first() } else { None };
        if oldest.is_none() && is_full {
            if own.is_empty() {
                open.of.remove(&session);
            }
            return None;
        }
        own.insert(number, told);
        open.count += usize::from(oldest.is_none());
        drop(open);
        // Wakes whoever waits, so not under the lock.
        drop(oldest);
        Some((Place { streams: self.clone(), session, number }, gives_way))
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    fn close(&self, session: SessionId, number: u64) {
        let mut open = self.lock();
        let Some(streams) = open.of.get_mut(&session) else { return };
        // One that gave way has no place any more.
        let told = streams.remove(&number);
        if streams.is_empty() {
            open.of.remove(&session);
        }
        open.count -= usize::from(told.is_some());
        drop(open);
        drop(told);
    }

    /// Nothing in here panics halfway through a change.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.close(self.session, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids of as many sessions.
    fn ids(count: usize) -> Vec<SessionId> {
        let sessions = dwell::Options::new().in_memory().unwrap();
        let begin = |_| {
            let session = sessions.start();
            session.set(dwell::Field::<u8>::new("a"), &1).unwrap();
            session.id().unwrap()
        };
        (0..count).map(begin).collect()
    }

    #[test]
    fn the_oldest_of_a_session_gives_way() {
        let streams = Streams::default();
        let ids = ids(2);
        let (one, other) = (ids[0], ids[1]);
        let (_others, mut others_way) = streams.open(other).unwrap();
        let mut open: Vec<_> = (0..STREAMS_PER_SESSION_MAX).map(|_| streams.open(one).unwrap()).collect();
        assert_eq!(streams.count(), STREAMS_PER_SESSION_MAX + 1);
        assert!(open.iter_mut().all(|(_, way)| way.try_recv() == Err(oneshot::error::TryRecvError::Empty)));
        let newest = streams.open(one).unwrap();
        let gone = |way: &mut oneshot::Receiver<()>| way.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        assert!(gone(&mut open[0].1) && !gone(&mut open[1].1) && !gone(&mut others_way));
        assert_eq!(streams.count(), STREAMS_PER_SESSION_MAX + 1, "a place was handed on");
        drop(open);
        assert_eq!(streams.count(), 2);
        drop(newest);
        assert_eq!(streams.count(), 1);
        assert_eq!(streams.lock().of.len(), 1, "nothing is left of a session without streams");
    }

    #[test]
    fn all_of_them_together_have_a_limit_which_shuts_nobody_out_who_is_in() {
        let streams = Streams::default();
        let ids = ids(STREAMS_MAX / STREAMS_PER_SESSION_MAX + 1);
        let (late, early) = ids.split_last().unwrap();
        let all = early.iter().flat_map(|&id| [id; STREAMS_PER_SESSION_MAX]);
        let mut places: Vec<_> = all.map(|id| streams.open(id).unwrap()).collect();
        assert_eq!(streams.count(), STREAMS_MAX);
        assert!(streams.open(*late).is_none());
        assert!(streams.open(early[0]).is_some(), "its oldest gave way");
        places.clear();
        assert_eq!((streams.count(), streams.lock().of.len()), (0, 0));
    }
}
