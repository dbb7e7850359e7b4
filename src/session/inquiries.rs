//! What a session says about itself: who, since when, for how long.
//!
//! It knows the engine's cells. Invariants: asking changes nothing and counts as no use; an ended session answers `Gone`
//! and a closed store `Closed`.

use std::sync::Arc;
use std::time::Duration;

use super::Session;
use crate::engine::{Content, Ended};
use crate::error::Result;
use crate::seal::Key;
use crate::sign_in::Class;
use crate::storage::record::ClassByte;
use crate::time::Timestamp;
use crate::token::{SessionId, Token};

impl Session {
    /// The token to hand to the client, if it is to have another: this handle's session got it at its first write, a
    /// sign-in or a rotation; or it is the [successor](crate::Options::rotate_every) of the token that the session was
    /// loaded by. `None` otherwise; the client has the token.
    ///
    /// A successor is handed out again and again, until somebody comes with it.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        self.0.token()
    }

    /// What names the session in lists and logs; `None` before the first write. Stays the same from sign-in to
    /// sign-out.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.0.session().map(|(cell, _)| cell.engine.keys.handle(cell.row))
    }

    /// Who is signed in, if anybody is. Somebody who has taken only the [first of several steps](crate::SignIn::pending) is
    /// not.
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone).
    pub fn principal(&self) -> Result<Option<Arc<str>>> {
        self.inspect(None, |content| content.principal.clone().filter(|_| is_authenticated(content)))
    }

    /// Who has taken the [first of several steps](crate::SignIn::pending) to sign in, if this session is about that.
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone).
    pub fn pending_principal(&self) -> Result<Option<Arc<str>>> {
        self.inspect(None, |content| content.principal.clone().filter(|_| !is_authenticated(content)))
    }

    /// What the session grants.
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone).
    pub fn class(&self) -> Result<Class> {
        self.inspect(Class::Anonymous, |content| content.header.class.into())
    }

    /// When the session began, by the wall clock of that moment; `None` before the first write.
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone).
    pub fn created(&self) -> Result<Option<Timestamp>> {
        self.inspect(None, |content| Some(content.header.created_wall))
    }

    /// How long ago the person last proved who they are; `None` if nobody is signed in.
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone).
    pub fn auth_age(&self) -> Result<Option<Duration>> {
        let authenticated =
            self.inspect(None, |content| is_authenticated(content).then_some(content.header.authenticated))?;
        let Some(authenticated) = authenticated else { return Ok(None) };
        let seconds = self.0.engine().clock.now().since(authenticated);
        Ok(Some(Duration::from_secs(seconds.into())))
    }

    /// How long the session would live without another request, in whole seconds; `None` before the first write.
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone).
    pub fn idle_left(&self) -> Result<Option<Duration>> {
        Ok(self.left()?.map(|(idle, _)| Duration::from_secs(idle.into())))
    }

    /// How long the session can live at most, in whole seconds; `None` before the first write.
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone).
    pub fn life_left(&self) -> Result<Option<Duration>> {
        Ok(self.left()?.map(|(_, life)| Duration::from_secs(life.into())))
    }

    /// Whether the session was signed in with [`SignIn::remembered`](crate::SignIn::remembered).
    ///
    /// # Errors
    /// [`Gone`](crate::ErrorKind::Gone).
    pub fn is_remembered(&self) -> Result<bool> {
        self.inspect(false, |content| content.header.remembered)
    }

    /// The number of the profile that the session was made under; zero is none.
    ///
    /// # Errors
    /// `Gone`.
    pub(crate) fn door(&self) -> Result<u8> {
        self.inspect(0, |content| content.header.door)
    }

    /// 32 secret bytes for one purpose, which change whenever the session's token is replaced. They come from the key
    /// that the session's data is sealed under, so the files alone do not give them away. `None` before the first
    /// write.
    ///
    /// # Errors
    /// `Gone`.
    pub(crate) fn secret(&self, purpose: &str) -> Result<Option<Key>> {
        self.0
            .with(|cell, generation| {
                cell.engine.check_open()?;
                let content = cell.lock();
                content.check(generation)?;
                let key = content.data_key.clone();
                drop(content);
                let (row, generation) = (cell.row.0.to_le_bytes(), generation.to_le_bytes());
                Ok(Some(key.derive(None, purpose, &[cell.engine.keys.store_id(), &row, &generation])))
            })
            .unwrap_or(Ok(None))
    }

    /// The session's end, to wait for: for connections that live as long as the session, such as an event stream.
    ///
    /// It follows the session that this handle is of at the moment. A sign-in, through this handle too, puts another in
    /// its place ([`EndReason::Replaced`](crate::EndReason::Replaced)); a rotation does not end it, unless
    /// [asked for](Ended::or_rotated). A handle before its first write has no session that could end, so all it tells is
    /// [`EndReason::Shutdown`](crate::EndReason::Shutdown); ask again after that write.
    ///
    /// Who waits is woken as soon as the session has ended in memory, or within about a second after its time ran out.
    /// Asking counts as no use.
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// # let session = sessions.start();
    /// session.sign_in("ada")?.blocking_wait()?;
    /// let ended = session.ended();
    /// session.sign_in("ada")?.blocking_wait()?;
    /// assert_eq!(ended.blocking_wait(), dwell::EndReason::Replaced);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn ended(&self) -> Ended {
        match self.0.with(|cell, generation| Ended::of(Arc::clone(cell), generation)) {
            Ok(ended) => ended,
            Err(engine) => Ended::of_nothing(engine),
        }
    }

    fn left(&self) -> Result<Option<(u32, u32)>> {
        self.0.session().map(|(cell, generation)| cell.engine.left(&cell, generation)).transpose()
    }

    fn inspect<T>(&self, fresh: T, read: impl FnOnce(&Content) -> T) -> Result<T> {
        self.0
            .with(|cell, generation| {
                cell.engine.check_open()?;
                let content = cell.lock();
                content.check(generation)?;
                Ok(read(&content))
            })
            .unwrap_or(Ok(fresh))
    }
}

fn is_authenticated(content: &Content) -> bool {
    content.header.class == ClassByte::Authenticated
}
