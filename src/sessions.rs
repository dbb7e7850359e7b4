//! The store of sessions as an application uses it.
//!
//! What lives here: [`Sessions`], and opening one from [`Options`]. It knows the engine, the directory and ring 0.
//! Invariants: the directory's lock is held until the engine has closed the files; the last handle closes the engine.

mod keys;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use keys::KeyInfo;

use crate::engine::{Engine, Flaw, Found, Hot, Receipt, Spare};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::options::{Options, Settings};
use crate::seal::Tagger;
use crate::session::Session;
use crate::sign_in::{Class, SessionInfo, Stats, check_principal, decode_facts};
use crate::storage::directory::{self, DirectoryLock};
use crate::storage::disk::{Disk, SimDisk};
use crate::storage::port;
use crate::time::Tick;
use crate::token::{OsEntropy, SessionId, Token};

/// All sessions of an application, in one directory.
///
/// Cheap to clone and safe to share between threads; the last clone to go closes the files, and
/// [`close`](Self::close) does so in time to report an error. One process at a time has a directory open.
///
/// ```
/// use dwell::{Field, Sessions};
/// const VISITS: Field<u32> = Field::new("visits");
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("sessions");
/// let sessions = Sessions::open(&path)?;
/// let session = sessions.start();
/// session.update(VISITS, |n| *n += 1)?;
/// let token = session.token().expect("the first write made a token");
/// session.save()?.blocking_wait()?;
/// sessions.close()?;
///
/// let sessions = Sessions::open(&path)?;
/// let session = sessions.load(&token)?.expect("it survived");
/// assert_eq!(session.get(VISITS)?, Some(1));
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone)]
pub struct Sessions(Arc<Handle>);

/// What memory has of a token.
pub(crate) enum InMemory {
    Absent,
    Here(Session),
    OnDisk,
}

struct Handle {
    engine: Arc<Engine>,
    disk: Arc<dyn Disk>,
    found: Found,
    /// Let go of after the engine was closed.
    _lock: Option<DirectoryLock>,
}

impl Sessions {
    /// Opens the directory with the default [`Options`], or makes it. Its parent must exist.
    ///
    /// Blocks: reads every session's header (about a second for a million).
    ///
    /// # Errors
    /// [`Locked`](crate::ErrorKind::Locked), [`Directory`](crate::ErrorKind::Directory),
    /// [`Key`](crate::ErrorKind::Key), [`Format`](crate::ErrorKind::Format), [`Corrupt`](crate::ErrorKind::Corrupt),
    /// [`Storage`](crate::ErrorKind::Storage); each says what to do, and nothing was altered.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// A visitor without a session. Nothing is stored until the first write.
    #[must_use]
    pub fn start(&self) -> Session {
        Session::fresh(&self.0.engine)
    }

    /// The live session of a token, or `None`: unknown, expired and ended look the same. Counts as use.
    ///
    /// Works from memory; reads the disk once for a session whose data is not in memory, which can block.
    ///
    /// # Errors
    /// [`Storage`](crate::ErrorKind::Storage) or [`Corrupt`](crate::ErrorKind::Corrupt) when the session's data
    /// cannot be read: never passed off as "no session". [`Closed`](crate::ErrorKind::Closed).
    pub fn load(&self, token: &Token) -> Result<Option<Session>> {
        self.load_with(token, true)
    }

    /// Like [`load`](Self::load), but does not count as use: for polling that must not keep a session alive.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// let token = session.sign_in("ada")?.blocking_wait()?;
    /// assert!(sessions.load_without_touch(&token)?.is_some());
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn load_without_touch(&self, token: &Token) -> Result<Option<Session>> {
        self.load_with(token, false)
    }

    pub(crate) fn load_with(&self, token: &Token, touch: bool) -> Result<Option<Session>> {
        let found = self.0.engine.load(token, touch)?;
        Ok(found.map(|(cell, stamp)| Session::loaded(cell, stamp)))
    }

    /// Like [`load_with`](Self::load_with), but never blocks.
    pub(crate) fn load_in_memory(&self, token: &Token, touch: bool) -> Result<InMemory> {
        Ok(match self.0.engine.load_hot(token, touch)? {
            Hot::Absent => InMemory::Absent,
            Hot::Here(cell, stamp) => InMemory::Here(Session::loaded(cell, stamp)),
            Hot::OnDisk(_) => InMemory::OnDisk,
        })
    }

    /// Whether both are handles to one store.
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "layers ask it"))]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What tells this store from others in public.
    pub(crate) fn instance(&self) -> String {
        self.0.engine.keys.instance()
    }

    /// Tags what visitors without a session are handed.
    pub(crate) fn visitor_tags(&self) -> &Tagger {
        self.0.engine.keys.visitors()
    }

    /// Engine time in milliseconds.
    #[cfg(feature = "rate-limit")]
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.engine.clock.now_ms()
    }

    /// Notes a request that was refused, or let through although it should not have been.
    pub(crate) fn note_flaw(&self, flaw: Flaw, let_through: bool) {
        self.0.engine.note_flaw(flaw, let_through);
    }

    /// Engine time.
    pub(crate) fn now(&self) -> Tick {
        self.0.engine.clock.now()
    }

    /// The live sessions of a principal, oldest first: "your devices".
    ///
    /// Reads from disk the ones that are not in use, so it can block. A session that is rotated meanwhile is listed
    /// once, one that ends meanwhile is not. Of a damaged one device and address are empty; if not even its header
    /// verifies, it is left out, and [`revoke_all`](Self::revoke_all) ends it with the rest. Both are counted in
    /// [`Stats::refused_rows`].
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for an impossible name, [`Corrupt`](crate::ErrorKind::Corrupt) when the
    /// record of the name (which `revoke_all` mends) or the file itself is damaged,
    /// [`Storage`](crate::ErrorKind::Storage) when the disk cannot be read: never passed off as fewer sessions.
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// use dwell::SignIn;
    /// sessions.start().sign_in(SignIn::new("ada").device("Firefox on Linux"))?.blocking_wait()?;
    /// let devices = sessions.of("ada")?;
    /// assert_eq!(devices[0].device, "Firefox on Linux");
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn of(&self, principal: &str) -> Result<Vec<SessionInfo>> {
        check_principal(principal)?;
        let engine = &self.0.engine;
        let listed = engine.list(engine.keys.principal(principal), principal)?;
        let info = |listed: crate::engine::Listed| {
            let (device, address) = decode_facts(&listed.facts);
            SessionInfo {
                id: engine.keys.handle(listed.row),
                class: listed.header.class.into(),
                created: listed.header.created_wall,
                // Ticks are whole seconds, rounded down; nobody was seen before they signed in.
                last_seen: engine.clock.wall_of(listed.last_seen).max(listed.header.created_wall),
                device,
                address,
                method: listed.header.method,
                remembered: listed.header.remembered,
            }
        };
        Ok(listed.into_iter().map(info).collect())
    }

    /// Ends one session by its handle. `None` if no live session has it; a made-up handle costs nothing.
    ///
    /// Takes effect in memory before it returns. May read the disk; where that fails, it looks through all sessions in
    /// memory instead. Whether the caller may end that session is the application's to decide.
    ///
    /// # Errors
    /// [`Storage`](crate::ErrorKind::Storage), [`Corrupt`](crate::ErrorKind::Corrupt).
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// sessions.start().sign_in("ada")?.blocking_wait()?;
    /// let id = sessions.of("ada")?[0].id;
    /// sessions.revoke(id)?.expect("it is live").blocking_wait()?;
    /// assert!(sessions.revoke(id)?.is_none());
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn revoke(&self, id: SessionId) -> Result<Option<Receipt>> {
        self.0.engine.revoke(id)
    }

    /// Ends all sessions of a principal. The receipt says how many.
    ///
    /// Takes effect in memory before it returns, also against sign-ins that are under way; one commit, however many.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for an impossible name; from the receipt as
    /// [`Session::destroy`].
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// sessions.start().sign_in("ada")?.blocking_wait()?;
    /// assert_eq!(sessions.revoke_all("ada")?.blocking_wait()?, 1);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn revoke_all(&self, principal: &str) -> Result<Receipt<usize>> {
        self.end_many(principal, Spare::Nobody)
    }

    /// Ends all other sessions of the principal who is signed in to this one. The receipt says how many.
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone) if the session has ended or was rotated through another handle,
    /// [`Refused`](crate::ErrorKind::Refused) if nobody is signed in to it.
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// sessions.start().sign_in("ada")?.blocking_wait()?;
    /// let here = sessions.start();
    /// here.sign_in("ada")?.blocking_wait()?;
    /// assert_eq!(sessions.revoke_others(&here)?.blocking_wait()?, 1);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn revoke_others(&self, session: &Session) -> Result<Receipt<usize>> {
        let (cell, generation) = session.handle().require()?;
        let (principal, class) = {
            let content = cell.lock();
            content.check(generation)?;
            (content.header.principal, Class::from(content.header.class))
        };
        if class != Class::Authenticated {
            return Err(Error::new(crate::ErrorKind::Refused, "nobody is signed in to this session"));
        }
        self.0.engine.end_many(principal, Spare::Caller(&cell, generation))
    }

    /// Ends all sessions of a principal and refuses new ones until [`enable`](Self::enable). Survives restarts.
    ///
    /// # Errors
    /// As [`revoke_all`](Self::revoke_all).
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// sessions.disable("mallory")?.blocking_wait()?;
    /// let refused = sessions.start().sign_in("mallory").unwrap_err();
    /// assert_eq!(refused.kind(), dwell::ErrorKind::Refused);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn disable(&self, principal: &str) -> Result<Receipt<usize>> {
        self.end_many(principal, Spare::NobodyAndDisable(principal))
    }

    /// Lets a disabled principal sign in again. The receipt says whether it was disabled.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for an impossible name.
    pub fn enable(&self, principal: &str) -> Result<Receipt<bool>> {
        check_principal(principal)?;
        self.0.engine.enable(self.0.engine.keys.principal(principal), principal)
    }

    fn end_many(&self, principal: &str, spare: Spare<'_>) -> Result<Receipt<usize>> {
        check_principal(principal)?;
        self.0.engine.end_many(self.0.engine.keys.principal(principal), spare)
    }

    /// Counts and sizes, gathered in a few hundred microseconds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (engine, found) = (&self.0.engine, &self.0.found);
        let (cached, cached_bytes) = engine.index.cells();
        let counters = &engine.counters;
        Stats {
            sessions: engine.live() as usize,
            anonymous: engine.principals.anonymous_count() as usize,
            principals: engine.principals.count(),
            cached,
            cached_bytes,
            dirty_bytes: engine.dirty_bytes(),
            timer_bytes: engine.wheel_bytes(),
            commits: counters.commits.get(),
            restored: found.restored,
            expired: counters.expired.get(),
            evicted: counters.evicted.get(),
            revoked: counters.revoked.get(),
            refused_rows: counters.refused_rows.get(),
            undecodable: counters.undecodable(),
            trouble: engine.trouble(),
        }
    }

    /// Does the work that is due, for stores opened with [`Options::manual_workers`]. May block on the disk.
    pub fn run_pending(&self) {
        self.0.engine.run_pending();
    }

    /// What happens to sessions from now on, for a reader of its own. The first reader also gets what happened before, up
    /// to 1,024 events, such as the ends of sessions whose time ran out while nothing ran; how many more there were is
    /// told as [`What::Missed`](crate::What::Missed).
    ///
    /// Where nobody reads, an event costs one atomic operation once 1,024 are kept. Memory: at most 16,384 events on
    /// their way, and [`Options::events_kept`] for each reader.
    ///
    /// ```
    /// use dwell::{EndReason, What};
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// let mut events = sessions.events();
    /// sessions.start().sign_in("ada")?.blocking_wait()?;
    /// sessions.revoke_all("ada")?.blocking_wait()?;
    /// let first = events.recv().expect("the store is open");
    /// assert!(matches!(first.what, What::SignedIn { remembered: false, .. }));
    /// let second = events.recv().expect("the store is open");
    /// assert!(matches!(second.what, What::Ended { reason: EndReason::Revoked, .. }));
    /// assert_eq!(second.principal.as_deref(), Some("ada"));
    /// # Ok::<(), dwell::Error>(())
    /// ```
    #[must_use]
    pub fn events(&self) -> Events {
        Events::of(&self.0.engine)
    }

    /// Tells everybody who waits for a session's [end](Session::ended) that the store is about to close: every such wait
    /// answers [`EndReason::Shutdown`](crate::EndReason::Shutdown) from now on. Sessions and requests go on; so a server
    /// can end its open streams first and then finish its requests. Cannot be taken back.
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// session.sign_in("ada")?.blocking_wait()?;
    /// sessions.announce_close();
    /// assert_eq!(session.ended().blocking_wait(), dwell::EndReason::Shutdown);
    /// assert_eq!(session.principal()?.as_deref(), Some("ada"));
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn announce_close(&self) {
        self.0.engine.announce_close();
    }

    /// Writes what is left and closes the files. Other clones, and sessions, answer
    /// [`Closed`](crate::ErrorKind::Closed) from then on.
    ///
    /// # Errors
    /// Whatever kept something from being written, now or earlier.
    pub fn close(self) -> Result<()> {
        self.0.engine.close()
    }
}

impl Sessions {
    /// The port that a web server on these sessions listened on last.
    pub(crate) fn last_port(&self) -> Option<u16> {
        port::read(self.0.disk.as_ref())
    }

    /// Remembers it if possible.
    pub(crate) fn remember_port(&self, port: u16) {
        port::write(self.0.disk.as_ref(), port);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // There is nobody left to tell; `close` is for whoever wants to know.
        let _ = self.engine.close();
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("sessions", &self.0.engine.live()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens the directory with these options, or makes it. See [`Sessions::open`].
    ///
    /// # Errors
    /// As [`Sessions::open`]; [`Invalid`](crate::ErrorKind::Invalid) for impossible options, before anything is
    /// touched.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Sessions> {
        let settings = self.check()?;
        let (disk, lock) = directory::open(path.as_ref(), self.wait_for_lock)?;
        let disk: Arc<dyn Disk> = disk;
        let (engine, found) = Engine::open(&disk, settings, Arc::new(OsEntropy))?;
        Ok(Sessions(Arc::new(Handle { engine, disk, found, _lock: Some(lock) })))
    }

    /// Opens a store that lives in memory and ends with the last handle: for tests, and for applications that want
    /// no files. Everything else is the same; "durable" then means nothing.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for impossible options.
    pub fn in_memory(&self) -> Result<Sessions> {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::memory());
        // Nothing there lasts, so there is nothing to be gained by writing it twice.
        let settings = Settings { journal_bytes: None, ..self.check()? };
        let (engine, found) = Engine::open(&disk, settings, Arc::new(OsEntropy))?;
        Ok(Sessions(Arc::new(Handle { engine, disk, found, _lock: None })))
    }

    #[cfg(feature = "sim")]
    pub(crate) fn open_simulated(&self, disk: &SimDisk, entropy: crate::token::SeededEntropy) -> Result<Sessions> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        // Small, so that it goes round often.
        let sized = self.clone().journal_bytes(self.journal_bytes_or(64 * 1024));
        let (engine, found) = Engine::open(&disk, sized.check()?, Arc::new(entropy))?;
        Ok(Sessions(Arc::new(Handle { engine, disk, found, _lock: None })))
    }
}
