//! Server keys as an application uses them.
//!
//! What lives here: rotating, listing and dropping them, and [`KeyInfo`]. It knows the engine.

use super::Sessions;
use crate::engine::{KeyStanding, Receipt};
use crate::error::Result;
use crate::time::Timestamp;

/// A server key, as [`Sessions::keys`] lists it.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its id, below 64: the character after `sid_s1` in every token that goes with it.
    pub id: u8,
    /// Whether sessions that begin now go with it.
    pub active: bool,
    /// When it was made, by the wall clock of that moment.
    pub made: Timestamp,
    /// Live sessions that go with it, by their token or by the successor that their client is offered: as many as
    /// [dropping](Sessions::drop_key) it would end. A session can go with two keys.
    pub sessions: usize,
}

impl Sessions {
    /// Makes a new server key. Its id is in the receipt; from then on whatever gets a new token goes with that key: new
    /// sessions, sign-ins, [`rotate`](crate::Session::rotate), and tokens replaced as time goes by
    /// ([`Options::rotate_every`](crate::Options::rotate_every)). Sessions under the keys before live on until
    /// [`drop_key`](Self::drop_key).
    ///
    /// Blocks nothing. Costs two flushes of `server.key` and a commit, in the writer's thread. A copy of `server.key` from
    /// before does not open the store any more: copy it again.
    ///
    /// # Errors
    /// [`Storage`](crate::ErrorKind::Storage) when the disk had failed before. From the receipt: the same, or
    /// [`Directory`](crate::ErrorKind::Directory), when `server.key` could not be written: nothing has changed;
    /// [`Unknown`](crate::ErrorKind::Unknown) when the new key may be found, and is the active one then, at the next open;
    /// [`Key`](crate::ErrorKind::Key) when somebody changed `server.key` meanwhile;
    /// [`Refused`](crate::ErrorKind::Refused) when there are 64 keys already, with the one to drop.
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// let before = sessions.start().sign_in("ada")?.blocking_wait()?;
    /// let key = sessions.rotate_key()?.blocking_wait()?;
    /// sessions.start().sign_in("bob")?.blocking_wait()?;
    /// assert!(sessions.load(&before)?.is_some());
    /// let keys: Vec<_> = sessions.keys()?.iter().map(|key| (key.id, key.active, key.sessions)).collect();
    /// assert_eq!(keys, [(0, false, 1), (key, true, 1)]);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn rotate_key(&self) -> Result<Receipt<u8>> {
        self.0.engine.rotate_key()
    }

    /// The server keys, in the order in which they were made. Looks at every session in memory: some milliseconds for a
    /// million.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed).
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// sessions.rotate_key()?.blocking_wait()?;
    /// let unused = sessions.keys()?.into_iter().find(|key| !key.active && key.sessions == 0);
    /// assert_eq!(unused.expect("the first one").id, 0);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn keys(&self) -> Result<Vec<KeyInfo>> {
        let info = |KeyStanding { id, active, made, sessions }| KeyInfo { id, active, made, sessions };
        Ok(self.0.engine.key_standings()?.into_iter().map(info).collect())
    }

    /// Ends every session that goes with a server key, then removes the key. The receipt says how many sessions.
    ///
    /// A session goes with the key of its token, and with that of the successor that its client is offered. It is dead
    /// before this returns, on disk and without its key when the receipt is ready, and told as
    /// [`Revoked`](crate::EndReason::Revoked) by [`DropKey`](crate::RevokedBy::DropKey). Waits for no disk; takes about a
    /// microsecond for each session in memory that is looked at or ended. In the writer's thread it reads every header on
    /// disk.
    ///
    /// The id may come again, after all others that are free. A token of before opens nothing then: the session's row is
    /// gone, and the new key is another.
    ///
    /// # Errors
    /// [`Refused`](crate::ErrorKind::Refused) for the active key: [rotate](Self::rotate_key) first.
    /// [`Invalid`](crate::ErrorKind::Invalid) for an id of 64 or more, and from the receipt for one that no key has. From
    /// the receipt also, when the sessions have ended and stay so, [`Storage`](crate::ErrorKind::Storage),
    /// [`Directory`](crate::ErrorKind::Directory) or [`Unknown`](crate::ErrorKind::Unknown) when a disk failed, and
    /// [`Key`](crate::ErrorKind::Key) when somebody changed `server.key` meanwhile. Once the cause is mended, drop it again.
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// let token = sessions.start().sign_in("ada")?.blocking_wait()?;
    /// assert_eq!(sessions.drop_key(0).unwrap_err().kind(), dwell::ErrorKind::Refused);
    /// sessions.rotate_key()?.blocking_wait()?;
    /// assert_eq!(sessions.drop_key(0)?.blocking_wait()?, 1);
    /// assert!(sessions.load(&token)?.is_none());
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn drop_key(&self, id: u8) -> Result<Receipt<usize>> {
        self.0.engine.drop_key(id)
    }
}
