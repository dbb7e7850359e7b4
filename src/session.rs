//! Sessions as an application uses them.
//!
//! What lives here: [`Session`], the handle to one visitor. It turns typed fields into bytes and back, outside every
//! lock, and leaves the rest to the engine. Invariants: no code of the application (closures, serde) runs under a
//! lock; absence is `None`; a value that does not decode is never passed off as another.

mod grant;
mod inquiries;
mod values;
mod visit;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::grant::Operation;
use self::values::{encode, entry, read, undecodable};
pub(crate) use self::visit::Gate;
pub(crate) use self::visit::{Caller, Visit, Way};
use crate::codec::{self, Codec};
use crate::engine::fields;
use crate::engine::{Cell, Engine, Handle, Receipt, Rotate, Stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::field::{Field, View};
use crate::sign_in::{Class, SignIn};
use crate::token::Token;

/// One visitor's session: typed data, and who is signed in.
///
/// A handle is cheap to clone; clones are the same session. All requests of one session share its data, so what one
/// sets the others see at once, and [`update`](Self::update) loses nothing. Reading creates nothing: a session that
/// [`start`](crate::Sessions::start) made exists from its first write on.
///
/// Calls work on memory and do not block, unless they say so. What was changed goes to disk within a second by
/// itself; [`save`](Self::save) tells when it is there.
///
/// When the session ends, or its token is replaced through another handle, every call answers
/// [`ErrorKind::Gone`]: nothing written through an old handle can bring a session back.
///
/// ```
/// use dwell::{Field, Options};
/// const VISITS: Field<u32> = Field::new("visits");
///
/// let sessions = Options::new().in_memory()?;
/// let session = sessions.start();
/// assert_eq!(session.get(VISITS)?, None);
/// let visits = session.update(VISITS, |n| { *n += 1; *n })?;
/// assert_eq!(visits, 1);
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone)]
pub struct Session(Handle, Option<Arc<Visit>>);

impl Session {
    pub(crate) fn fresh(engine: &Arc<Engine>) -> Self {
        Self(Handle::fresh(engine), None)
    }

    pub(crate) const fn loaded(cell: Arc<Cell>, stamp: Stamp) -> Self {
        Self(Handle::loaded(cell, stamp), None)
    }

    /// Notes for the layer that answers a request what the request does with this session.
    pub(crate) fn observed(self, visit: &Arc<Visit>) -> Self {
        Self(self.0, Some(Arc::clone(visit)))
    }

    /// Another handle of what this one is now: nothing is noted of it, and no sign-in or rotation moves it on. `None`
    /// before the first write.
    pub(crate) fn pinned(&self) -> Option<Self> {
        Some(Self(self.0.pinned()?, None))
    }

    pub(crate) const fn handle(&self) -> &Handle {
        &self.0
    }

    /// The value of a field, or `None` if there is none or it does not decode as a `T`.
    ///
    /// # Errors
    /// [`Gone`](ErrorKind::Gone); [`Decode`](ErrorKind::Decode) for a [strict](Field::strict) field.
    ///
    /// ```
    /// # use dwell::{Field, Options};
    /// # let sessions = Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// const NAME: Field<String> = Field::new("name");
    /// session.set(NAME, "ada")?;
    /// assert_eq!(session.get(NAME)?.as_deref(), Some("ada"));
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn get<T: DeserializeOwned>(&self, field: Field<T>) -> Result<Option<T>> {
        field.check()?;
        let Some(data) = self.data()? else { return Ok(None) };
        read(&self.0, field, fields::find(&data, field.name()))
    }

    /// Runs `read` on a field's value where it lies, without copying text or bytes out of it.
    ///
    /// Only a value of the field's own version and codec is lent; there is no migration. Besides that it is
    /// [`get`](Self::get).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # use dwell::{Field, Options};
    /// # let sessions = Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// const NAME: Field<String> = Field::new("name");
    /// session.set(NAME, "ada")?;
    /// assert_eq!(session.with(NAME, |name| name.map(str::len))?, Some(3));
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn with<T: View, R>(&self, field: Field<T>, read: impl FnOnce(Option<T::Of<'_>>) -> R) -> Result<R> {
        field.check()?;
        let Some(data) = self.data()? else { return Ok(read(None)) };
        let Some(entry) = fields::find(&data, field.name()) else { return Ok(read(None)) };
        let own = entry.version == field.stored_version() && Codec::from_byte(entry.codec) == Some(field.codec());
        let value = if own { codec::decode::<T::Of<'_>>(field.codec(), entry.value).ok() } else { None };
        if value.is_none() {
            undecodable(&self.0, field, entry)?;
        }
        Ok(read(value))
    }

    /// Sets a field. The first write begins the session.
    ///
    /// A debug build checks that the value comes back as it was, which formats that do not describe themselves
    /// cannot do for every type; see [`Field::json`].
    ///
    /// # Errors
    /// [`TooLarge`](ErrorKind::TooLarge), [`Busy`](ErrorKind::Busy), [`Gone`](ErrorKind::Gone),
    /// [`Refused`](ErrorKind::Refused) when the store is full, [`Invalid`](ErrorKind::Invalid) for a value that does
    /// not encode. Nothing is changed then.
    ///
    /// ```
    /// # use dwell::{Field, Options};
    /// # let sessions = Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// session.set(Field::<Vec<u64>>::new("cart"), &vec![7, 9])?;
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn set<T, Q>(&self, field: Field<T>, value: &Q) -> Result<()>
    where
        T: Borrow<Q> + Serialize + DeserializeOwned,
        Q: Serialize + ?Sized,
    {
        field.check()?;
        let bytes = encode(field, value)?;
        self.edit(field.is_relaxed(), |data| fields::with_set(data, entry(field, &bytes)).map(Some))?;
        Ok(())
    }

    /// Changes a field's value, atomically: no other change to it comes in between. An absent value starts as the
    /// type's default.
    ///
    /// `change` runs outside our locks, and again if another request was faster; so it should do nothing but change
    /// the value.
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`set`](Self::set).
    ///
    /// ```
    /// # use dwell::{Field, Options};
    /// # let sessions = Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// const VISITS: Field<u32> = Field::new("visits");
    /// assert_eq!(session.update(VISITS, |n| { *n += 1; *n })?, 1);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn update<T, R>(&self, field: Field<T>, mut change: impl FnMut(&mut T) -> R) -> Result<R>
    where
        T: Default + Serialize + DeserializeOwned,
    {
        self.try_update(field, |value| Ok::<_, Error>(change(value.get_or_insert_with(T::default))))
    }

    /// Changes, sets or removes a field's value, atomically, or refuses to: an error of `change` leaves everything
    /// as it was and is returned.
    ///
    /// `change` runs outside our locks, and again if another request was faster.
    ///
    /// # Errors
    /// Whatever `change` returns; as [`get`](Self::get) and [`set`](Self::set).
    ///
    /// ```
    /// # use dwell::{Field, Options};
    /// # let sessions = Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// const CREDIT: Field<u32> = Field::new("credit").strict();
    /// #[derive(Debug)]
    /// enum Refusal { TooLittle, Session(dwell::Error) }
    /// impl From<dwell::Error> for Refusal {
    ///     fn from(error: dwell::Error) -> Self { Self::Session(error) }
    /// }
    /// let paid = session.try_update(CREDIT, |credit| {
    ///     let left = credit.unwrap_or(0).checked_sub(5).ok_or(Refusal::TooLittle)?;
    ///     *credit = Some(left);
    ///     Ok(left)
    /// });
    /// assert!(matches!(paid, Err(Refusal::TooLittle)));
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn try_update<T, R, E>(
        &self,
        field: Field<T>,
        mut change: impl FnMut(&mut Option<T>) -> std::result::Result<R, E>,
    ) -> std::result::Result<R, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Error>,
    {
        field.check()?;
        loop {
            let data = self.data()?.unwrap_or_default();
            let before = fields::find(&data, field.name());
            let mut value = read(&self.0, field, before)?;
            let was_absent = value.is_none();
            let answer = change(&mut value)?;
            let bytes = value.as_ref().map(|value| encode(field, value)).transpose()?;
            // Nothing to do; and a value of another version that reads as absent is not ours to remove.
            if bytes.is_none() && was_absent {
                return Ok(answer);
            }
            let done = self.edit(field.is_relaxed(), |now| {
                if fields::find(now, field.name()) != before {
                    return Ok(None);
                }
                match &bytes {
                    Some(bytes) => fields::with_set(now, entry(field, bytes)).map(Some),
                    None => Ok(fields::without(now, field.name())),
                }
            })?;
            if done {
                return Ok(answer);
            }
        }
    }

    /// Takes a field's value out, atomically: of several requests one gets it.
    ///
    /// # Errors
    /// As [`get`](Self::get) and [`set`](Self::set).
    ///
    /// ```
    /// # use dwell::{Field, Options};
    /// # let sessions = Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// const NOTICE: Field<String> = Field::new("notice").relaxed();
    /// session.set(NOTICE, "saved")?;
    /// assert_eq!(session.take(NOTICE)?.as_deref(), Some("saved"));
    /// assert_eq!(session.take(NOTICE)?, None);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn take<T: Serialize + DeserializeOwned>(&self, field: Field<T>) -> Result<Option<T>> {
        self.try_update(field, |value| Ok(value.take()))
    }

    /// Removes a field, whether or not its value decodes. `true` if there was one.
    ///
    /// # Errors
    /// [`Gone`](ErrorKind::Gone), [`Busy`](ErrorKind::Busy).
    ///
    /// ```
    /// # use dwell::{Field, Options};
    /// # let sessions = Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// assert!(!session.remove(Field::<u32>::new("visits"))?);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn remove<T>(&self, field: Field<T>) -> Result<bool> {
        field.check()?;
        if self.0.session().is_none() {
            return Ok(false);
        }
        self.edit(field.is_relaxed(), |data| Ok(fields::without(data, field.name())))
    }

    /// Signs somebody in. The session gets a new row, token, key and deadlines, and the old token opens nothing any
    /// more; all in one commit, which the receipt waits for and whose token it hands out.
    ///
    /// On the web, device and address are those of the request, unless the [`SignIn`] names its own.
    ///
    /// Data passes over whole if the same principal was signed in, [kept fields](Field::keep_on_sign_in) if nobody
    /// was, none of it if it was somebody else. Until the commit the old session can be read but not written
    /// ([`Busy`](ErrorKind::Busy)); afterwards this handle is the new session.
    ///
    /// May read the disk to compare the principal's name. Costs one commit.
    ///
    /// # Errors
    /// [`Refused`](ErrorKind::Refused) for a disabled principal or at a limit, [`Invalid`](ErrorKind::Invalid) for a
    /// name that is empty or too long, [`Gone`](ErrorKind::Gone) (as for [`rotate`](Self::rotate)),
    /// [`Busy`](ErrorKind::Busy), [`Storage`](ErrorKind::Storage). From the receipt also [`Unknown`](ErrorKind::Unknown): then neither the old
    /// nor the new session goes on.
    ///
    /// ```
    /// # use dwell::Options;
    /// # let sessions = Options::new().in_memory()?;
    /// let session = sessions.start();
    /// let token = session.sign_in("ada")?.blocking_wait()?;
    /// assert_eq!(session.principal()?.as_deref(), Some("ada"));
    /// assert!(sessions.load(&token)?.is_some());
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn sign_in(&self, who: impl Into<SignIn>) -> Result<Receipt<Token>> {
        let mut who = who.into();
        if let Some(visit) = &self.1 {
            who = who.called_by(visit.caller());
        }
        self.0.engine().sign_in(self.0.binding(), &who.check()?)
    }

    /// Replaces the token and raises the session's generation: the old token, other handles and everything else bound
    /// to them are void when the receipt is ready. Data, deadlines and [`id`](Self::id) stay.
    ///
    /// # Errors
    /// [`NotDurable`](ErrorKind::NotDurable) for a session kept in memory; [`Gone`](ErrorKind::Gone) also where the token
    /// that this handle was loaded by is only good for what is left of an
    /// [overlap](crate::Options::rotation_overlap); otherwise as [`sign_in`](Self::sign_in).
    ///
    /// ```
    /// # use dwell::Options;
    /// # let sessions = Options::new().in_memory()?;
    /// let session = sessions.start();
    /// let first = session.sign_in("ada")?.blocking_wait()?;
    /// let second = session.rotate()?.blocking_wait()?;
    /// assert!(sessions.load(&first)?.is_none());
    /// assert!(sessions.load(&second)?.is_some());
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn rotate(&self) -> Result<Receipt<Token>> {
        self.0.engine().rotate(self.0.binding(), Rotate::Plain)
    }

    /// Notes that the person proved again who they are, by a method of the application's numbering, and
    /// [rotates](Self::rotate). Counts as use; the absolute deadline stays.
    ///
    /// # Errors
    /// As [`rotate`](Self::rotate); [`Refused`](ErrorKind::Refused) if nobody is signed in.
    ///
    /// ```
    /// # use dwell::Options;
    /// # let sessions = Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// session.sign_in("ada")?.blocking_wait()?;
    /// session.reauthenticate(2)?.blocking_wait()?;
    /// assert!(session.auth_age()?.is_some_and(|age| age.as_secs() < 5));
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn reauthenticate(&self, method: u8) -> Result<Receipt<Token>> {
        if self.class()? != Class::Authenticated {
            return Err(Error::new(ErrorKind::Refused, "nobody is signed in"));
        }
        self.0.engine().rotate(self.0.binding(), Rotate::Reauthenticated { method })
    }

    /// Ends the session, now in memory and on disk when the receipt is ready. Without a session it does nothing.
    ///
    /// Never refused for lack of room; costs one commit.
    ///
    /// # Errors
    /// [`Gone`](ErrorKind::Gone) if it ended before or this handle is out of date; from the receipt
    /// [`Unknown`](ErrorKind::Unknown) or [`Storage`](ErrorKind::Storage) when the disk fails (the session stays
    /// ended while the process runs).
    ///
    /// ```
    /// # use dwell::Options;
    /// # let sessions = Options::new().in_memory()?;
    /// let session = sessions.start();
    /// let token = session.sign_in("ada")?.blocking_wait()?;
    /// session.destroy()?.blocking_wait()?;
    /// assert!(sessions.load(&token)?.is_none());
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn destroy(self) -> Result<Receipt> {
        let Some((mut cell, mut generation)) = self.0.session() else { return Ok(Receipt::ready(())) };
        loop {
            match cell.engine.destroy(&cell, generation) {
                Err(error) if error.kind() == ErrorKind::Gone => {}
                done => {
                    if let (Some(visit), Ok(_)) = (&self.1, &done) {
                        visit.note_end();
                    }
                    return done;
                }
            }
            // A sign-in or rotation of this handle may have moved it on meanwhile; what it is now is what is to end.
            match self.0.session() {
                Some((now, new)) if !Arc::ptr_eq(&now, &cell) || new != generation => (cell, generation) = (now, new),
                _ => return Err(Error::gone()),
            }
        }
    }

    /// Counts as use, as a request does: for connections that stay open, such as a web socket, when a person did something
    /// there. Most applications do not need this: loading a session counts as use. Without a session it does nothing.
    ///
    /// Works on memory and does not block.
    ///
    /// # Errors
    /// [`Gone`](ErrorKind::Gone), also if the session's time has run out and nobody has noticed yet.
    ///
    /// ```
    /// use std::time::Duration;
    /// let clock = dwell::ManualClock::new();
    /// let sessions = dwell::Options::new().clock(clock.clone()).in_memory()?;
    /// let session = sessions.start();
    /// session.sign_in("ada")?.blocking_wait()?;
    /// clock.advance(Duration::from_secs(20 * 60));
    /// session.renew()?;
    /// assert_eq!(session.idle_left()?, Some(Duration::from_secs(30 * 60)));
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn renew(&self) -> Result<()> {
        match self.0.session() {
            Some((cell, generation)) => cell.engine.renew(&cell, generation),
            None => Ok(()),
        }
    }

    /// Asks for the session's changes to be on disk; the receipt tells when they are. Ready at once if they are
    /// already, or if only [relaxed](Field::relaxed) fields changed.
    ///
    /// # Errors
    /// [`NotDurable`](ErrorKind::NotDurable) for a session kept in memory, [`Gone`](ErrorKind::Gone),
    /// [`Storage`](ErrorKind::Storage); from the receipt also [`Unknown`](ErrorKind::Unknown).
    ///
    /// ```
    /// # use dwell::{Field, Options};
    /// # let sessions = Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// session.set(Field::<u32>::new("visits"), &1)?;
    /// session.save()?.blocking_wait()?;
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn save(&self) -> Result<Receipt> {
        match self.0.session() {
            Some((cell, generation)) => cell.engine.save(&cell, generation),
            None => Ok(Receipt::ready(())),
        }
    }

    /// The encoded fields, or `None` before the first write.
    fn data(&self) -> Result<Option<Arc<[u8]>>> {
        self.0
            .with(|cell, generation| {
                cell.engine.check_open()?;
                cell.data(generation).map(Some)
            })
            .unwrap_or(Ok(None))
    }

    /// Applies an edit to the session, or to no data at all, which begins it. `false` if the edit declined.
    fn edit(&self, relaxed: bool, edit: impl Fn(&[u8]) -> Result<Option<Arc<[u8]>>>) -> Result<bool> {
        let done = self.apply(relaxed, edit)?;
        if let Some(visit) = self.1.as_ref().filter(|_| done && !relaxed) {
            visit.note_change();
        }
        Ok(done)
    }

    fn apply(&self, relaxed: bool, edit: impl Fn(&[u8]) -> Result<Option<Arc<[u8]>>>) -> Result<bool> {
        loop {
            if let Some((cell, generation)) = self.0.session() {
                return cell.engine.change(&cell, generation, relaxed, edit);
            }
            let Some(data) = edit(&[])? else { return Ok(false) };
            self.0.binding().check_unclaimed()?;
            self.1.as_ref().map_or(Ok(()), |visit| visit.begin())?;
            let door = self.1.as_ref().map_or(0, |visit| visit.caller().door);
            let (cell, token) = self.0.engine().begin(data, door)?;
            if self.0.binding().begin(Arc::clone(&cell), 0, token) {
                return Ok(true);
            }
            // A clone of this handle began the session first: ours is not needed, its edit applies to that one. It may
            // have ended already, to make room.
            drop(cell.engine.destroy(&cell, 0));
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id()).finish_non_exhaustive()
    }
}
