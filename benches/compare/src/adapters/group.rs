//! Group commit for stores that do not have it: one writer that commits for all who wait.
//!
//! It knows operations on keys and bytes. Invariant: whoever waits is told after the commit that has its change in it.

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

pub(crate) enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

/// Sends changes to the writer and waits for its commits.
pub(crate) struct Group(Sender<(Change, Sender<()>)>);

impl Group {
    /// `commit` makes changes durable, together.
    pub(crate) fn start(mut commit: impl FnMut(&[Change]) + Send + 'static) -> Self {
        let (sender, receiver): (Sender<(Change, Sender<()>)>, Receiver<_>) = unbounded();
        std::thread::spawn(move || {
            while let Ok(first) = receiver.recv() {
                let (changes, waiting): (Vec<_>, Vec<_>) = std::iter::once(first).chain(receiver.try_iter()).unzip();
                commit(&changes);
                // One who has gone does not wait.
                for waiter in waiting {
                    _ = waiter.send(());
                }
            }
        });
        Self(sender)
    }

    pub(crate) fn write(&self, change: Change) {
        let (done, told) = bounded(1);
        self.0.send((change, done)).expect("the writer runs as long as its group");
        told.recv().expect("the writer tells everybody");
    }
}
