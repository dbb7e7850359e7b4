//! Events: what happens to sessions, for logs and for whoever acts on it.
//!
//! What lives here: [`Events`] to read them with, [`Event`] and what it can say. It knows the engine's notes. Invariants:
//! an event names sessions by their handles and holds no token and no value; its text is one line, whatever a name is.

use std::fmt::{self, Write as _};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::engine::{By, EndReason, Engine, Flaw, Happening, Note, Refusal, Ring, Why};
use crate::sign_in::Class;
use crate::storage::record::Row;
use crate::time::Timestamp;
use crate::token::SessionId;

/// Something that happened to a session or a principal.
///
/// Its `Display` is one line for a log: every text in it is quoted and escaped, so no name can break the line or pass for
/// another field. Neither it nor `Debug` shows a token or a value of a session.
///
/// ```
/// # let sessions = dwell::Options::new().in_memory()?;
/// let mut events = sessions.events();
/// sessions.disable("mallory")?.blocking_wait()?;
/// let event = events.recv().expect("the store is open");
/// assert_eq!(event.principal.as_deref(), Some("mallory"));
/// assert!(event.to_string().ends_with(r#" disabled principal="mallory""#));
/// # Ok::<(), dwell::Error>(())
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub what: What,
    /// When, by the wall clock. For a session whose time ran out while nothing ran: when that was.
    pub at: Timestamp,
    /// The session that it happened to.
    pub session: Option<SessionId>,
    /// Who is, was or wanted to be signed in; `None` for an anonymous session, or if the name could not be read.
    pub principal: Option<Arc<str>>,
    /// What the session granted, or would have.
    pub class: Option<Class>,
    /// When the session began, if that was in memory.
    pub created: Option<Timestamp>,
}

/// What happened.
///
/// ```
/// use dwell::{EndReason, Event, What};
///
/// fn is_worth_a_mail(event: &Event) -> bool {
///     matches!(event.what, What::Ended { reason: EndReason::Revoked, .. } | What::Missed(_))
/// }
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An anonymous session began, with its first write.
    Created,
    /// A session began with a sign-in.
    #[non_exhaustive]
    SignedIn {
        /// The application's number for how the person proved who they are.
        method: u8,
        /// Whether "remember me" was asked for.
        remembered: bool,
        /// The session that it took the place of, which has an event of its own.
        replaced: Option<SessionId>,
    },
    /// The session got another token.
    #[non_exhaustive]
    Rotated {
        /// The application's number for how the person proved again who they are, if that was why.
        reauthenticated: Option<u8>,
    },
    /// The session ended. Once for each session while the process runs; of one that [ran out](EndReason::Idle), possibly
    /// again after a restart.
    #[non_exhaustive]
    Ended {
        /// Why.
        reason: EndReason,
        /// What call it was, if it was [revoked](EndReason::Revoked).
        by: Option<RevokedBy>,
    },
    /// A sign-in was refused, or the first write of a visitor without a session.
    #[non_exhaustive]
    Refused {
        /// Why.
        why: RefusedFor,
    },
    /// Sign-ins of the principal are refused from now on.
    Disabled,
    /// The principal can sign in again.
    Enabled,
    /// Sessions that begin go with another server key from now on.
    #[non_exhaustive]
    KeyRotated {
        /// Its id.
        key: u8,
    },
    /// A server key is gone. The ends of its sessions were told before.
    #[non_exhaustive]
    KeyDropped {
        /// Its id.
        key: u8,
    },
    /// Requests were refused before the application saw them. Told at most once a second for each reason, with how many
    /// there were since it was told the last time; the rest is told with the next.
    #[non_exhaustive]
    RequestsRefused {
        /// What was wrong with them.
        why: RequestFlaw,
        /// How many.
        count: u64,
        /// They were let through: because the site only [logs](crate::web::Dangerous::log_only), or because nothing was
        /// wrong with the requests themselves, as for [`NoAddress`](RequestFlaw::NoAddress) and
        /// [`Neighbour`](RequestFlaw::Neighbour).
        let_through: bool,
    },
    /// A row on disk could not be verified when the store was opened, so no session came of it; or when it was to be
    /// [listed](crate::Sessions::of), each time, so it was left out.
    RowRefused,
    /// This many events were not kept at this place, because too many waited.
    Missed(u64),
}

/// What was wrong with a request.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFlaw {
    /// Its host is not one of the site's, or makes no sense.
    Host,
    /// It may change something, and comes from a page of another site.
    Page,
    /// It may change something, and does not show the page's token.
    Token,
    /// It lacks the secret that goes with the session's cookie, where the profile asks for one.
    Companion,
    /// Its cookies hold two sessions, or more than four tokens, or are more than 16 KiB or 256 in all: somebody else may
    /// have put them there. It went on without a session.
    Cookies,
    /// It would have begun one session too many.
    Flood,
    /// It began a session, and the site was not told its client's address: what [one client may
    /// do](crate::web::NewSessions::per_client_per_minute) is not limited. Told once, as a warning, to whoever listens by then. In axum, serve with
    /// `into_make_service_with_connect_info::<dwell::axum::Connection>`; elsewhere hand
    /// [`Request::peer_address`](crate::web::Request::peer_address) on, or set the limit to 0. Where a proxy on this machine
    /// passes requests on, name it with [`Site::trusted_proxy`](crate::web::Site::trusted_proxy).
    NoAddress,
    /// It also carried the session cookie of another store, from plain HTTP: on HTTPS all stores have one name, so theirs
    /// cannot be told apart from an old one of this. Told at most once an hour for a site, as a warning: browsers send a
    /// host's cookies to all of its ports and paths, so another application on this host is sent the tokens of this one, and the other way round.
    /// Give each a host name of its own, or make sure that all of them may have each other's sessions. Told as well of
    /// what a browser kept from a store that is gone, and of a second store of the same application.
    Neighbour,
}

impl RequestFlaw {
    /// A stable name for logs, such as `token`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Page => "page",
            Self::Token => "token",
            Self::Companion => "companion",
            Self::Cookies => "cookies",
            Self::Flood => "flood",
            Self::NoAddress => "no_address",
            Self::Neighbour => "neighbour",
        }
    }

    const fn of(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Host => Self::Host,
            Flaw::Page => Self::Page,
            Flaw::Token => Self::Token,
            Flaw::Companion => Self::Companion,
            Flaw::Cookies => Self::Cookies,
            Flaw::Flood => Self::Flood,
            Flaw::NoAddress => Self::NoAddress,
            Flaw::Neighbour => Self::Neighbour,
        }
    }
}

/// What call ended a session.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokedBy {
    /// [`Sessions::revoke`](crate::Sessions::revoke).
    Handle,
    /// [`Sessions::revoke_all`](crate::Sessions::revoke_all).
    All,
    /// [`Sessions::revoke_others`](crate::Sessions::revoke_others), from this session.
    Others(SessionId),
    /// [`Sessions::disable`](crate::Sessions::disable).
    Disable,
    /// [`Sessions::drop_key`](crate::Sessions::drop_key), of the session's server key.
    DropKey,
}

/// Why a sign-in, or a visitor's first write, was refused.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedFor {
    /// The principal is disabled.
    Disabled,
    /// The principal has as many sessions as it may.
    AtLimit,
    /// The store holds as many sessions as it may.
    StoreFull,
}

impl What {
    /// A stable name for logs, such as `signed_in`.
    ///
    /// ```
    /// assert_eq!(dwell::What::Created.as_str(), "created");
    /// ```
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::SignedIn { .. } => "signed_in",
            Self::Rotated { .. } => "rotated",
            Self::Ended { .. } => "ended",
            Self::Refused { .. } => "refused",
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::KeyRotated { .. } => "key_rotated",
            Self::KeyDropped { .. } => "key_dropped",
            Self::RowRefused => "row_refused",
            Self::RequestsRefused { .. } => "requests_refused",
            Self::Missed(_) => "missed",
        }
    }

    fn write_details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignedIn { method, remembered, replaced } => {
                write!(f, " method={method} remembered={remembered}")?;
                replaced.map_or(Ok(()), |replaced| write!(f, " replaced={replaced}"))
            }
            Self::Rotated { reauthenticated } => {
                reauthenticated.map_or(Ok(()), |method| write!(f, " reauthenticated={method}"))
            }
            Self::Ended { reason, by } => {
                write!(f, " reason={reason}")?;
                match by {
                    Some(RevokedBy::Handle) => f.write_str(" by=handle"),
                    Some(RevokedBy::All) => f.write_str(" by=all"),
                    Some(RevokedBy::Others(session)) => write!(f, " by=others from={session}"),
                    Some(RevokedBy::Disable) => f.write_str(" by=disable"),
                    Some(RevokedBy::DropKey) => f.write_str(" by=drop_key"),
                    None => Ok(()),
                }
            }
            Self::Refused { why } => f.write_str(match why {
                RefusedFor::Disabled => " why=disabled",
                RefusedFor::AtLimit => " why=at_limit",
                RefusedFor::StoreFull => " why=store_full",
            }),
            Self::RequestsRefused { why, count, let_through } => {
                write!(f, " why={} count={count} let_through={let_through}", why.as_str())
            }
            Self::KeyRotated { key } | Self::KeyDropped { key } => write!(f, " key={key}"),
            Self::Missed(count) => write!(f, " count={count}"),
            Self::Created | Self::Disabled | Self::Enabled | Self::RowRefused => Ok(()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.what.as_str())?;
        self.what.write_details(f)?;
        if let Some(session) = self.session {
            write!(f, " session={session}")?;
        }
        if let Some(class) = self.class {
            f.write_str(match class {
                Class::Anonymous => " class=anonymous",
                Class::Pending => " class=pending",
                Class::Authenticated => " class=authenticated",
            })?;
        }
        if let Some(name) = &self.principal {
            f.write_str(" principal=\"")?;
            name.escape_debug().try_for_each(|part| f.write_char(part))?;
            f.write_str("\"")?;
        }
        self.created.map_or(Ok(()), |created| write!(f, " created={created}"))
    }
}

/// Events as they happen, for one reader. Made by [`Sessions::events`](crate::Sessions::events).
///
/// Read them in a thread of your own with [`recv`](Self::recv) or a `for` loop, or in a task with
/// [`next`](Self::next). A slow reader, or one that panics, holds up nothing: at most
/// [`Options::events_kept`](crate::Options::events_kept) events wait, and what comes then is counted and told in its
/// place as [`What::Missed`]. When the store closes, what is left can be read, and then it ends.
///
/// ```
/// # let sessions = dwell::Options::new().in_memory()?;
/// let events = sessions.events();
/// let log = std::thread::spawn(move || events.into_iter().map(|event| event.to_string()).collect::<Vec<_>>());
/// sessions.start().sign_in("ada\nroot")?.blocking_wait()?;
/// sessions.close()?;
/// let lines = log.join().unwrap();
/// assert!(lines[0].contains(r#"principal="ada\nroot""#) && !lines[0].contains('\n'));
/// # Ok::<(), dwell::Error>(())
/// ```
pub struct Events {
    engine: Arc<Engine>,
    ring: Arc<Ring>,
}

impl Events {
    pub(crate) fn of(engine: &Arc<Engine>) -> Self {
        Self { ring: engine.subscribe(), engine: Arc::clone(engine) }
    }

    /// The next event if one is waiting. Never blocks.
    ///
    /// ```
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// let mut events = sessions.events();
    /// assert_eq!(events.try_next(), None);
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn try_next(&mut self) -> Option<Event> {
        self.ring.take(&self.engine).map(|note| self.event(note))
    }

    /// The next event; blocks the thread until there is one. `None` once the store was closed and all was read.
    ///
    /// In a store with [manual workers](crate::Options::manual_workers) it does the work that is due first.
    pub fn recv(&mut self) -> Option<Event> {
        self.drive();
        self.ring.wait(&self.engine, None).map(|note| self.event(note))
    }

    /// Like [`recv`](Self::recv), but `None` also if nothing came for that long.
    pub fn recv_timeout(&mut self, patience: Duration) -> Option<Event> {
        self.drive();
        self.ring.wait(&self.engine, Some(patience)).map(|note| self.event(note))
    }

    /// The next event, for any async runtime. `None` once the store was closed and all was read. An event is lost by
    /// dropping the future only together with this.
    ///
    /// ```
    /// # async fn log(sessions: dwell::Sessions) {
    /// let mut events = sessions.events();
    /// while let Some(event) = events.next().await {
    ///     eprintln!("{event}");
    /// }
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<Event>> {
        self.ring.poll(&self.engine, context).map(|note| note.map(|note| self.event(note)))
    }

    fn drive(&self) {
        if self.engine.settings.manual_workers {
            self.engine.run_pending();
        }
    }

    fn event(&self, note: Note) -> Event {
        let handle = |row: Row| self.engine.keys.handle(row);
        let what = match note.what {
            Happening::Created => What::Created,
            Happening::SignedIn { method, remembered, replaced } => {
                What::SignedIn { method, remembered, replaced: replaced.map(handle) }
            }
            Happening::Rotated { reauthenticated } => What::Rotated { reauthenticated },
            Happening::Ended(why) => What::Ended {
                reason: why.reason(),
                by: if let Why::Revoked(by) = why { Some(revoked_by(by, handle)) } else { None },
            },
            Happening::Refused(Refusal::Disabled) => What::Refused { why: RefusedFor::Disabled },
            Happening::Refused(Refusal::AtLimit) => What::Refused { why: RefusedFor::AtLimit },
            Happening::Refused(Refusal::StoreFull) => What::Refused { why: RefusedFor::StoreFull },
            Happening::Disabled => What::Disabled,
            Happening::Enabled => What::Enabled,
            Happening::KeyRotated(key) => What::KeyRotated { key },
            Happening::KeyDropped(key) => What::KeyDropped { key },
            Happening::RowRefused => What::RowRefused,
            Happening::RequestRefused { flaw, count, let_through } => {
                What::RequestsRefused { why: RequestFlaw::of(flaw), count, let_through }
            }
            Happening::Missed(count) => What::Missed(count),
        };
        Event {
            what,
            at: note.at,
            session: note.row.map(handle),
            principal: note.name,
            class: note.class.map(Class::from),
            created: note.created,
        }
    }
}

fn revoked_by(by: By, handle: impl Fn(Row) -> SessionId) -> RevokedBy {
    match by {
        By::Handle => RevokedBy::Handle,
        By::All => RevokedBy::All,
        By::Others(row) => RevokedBy::Others(handle(row)),
        By::Disable => RevokedBy::Disable,
        By::Key => RevokedBy::DropKey,
    }
}

/// A `for` loop over events, which blocks between them.
#[derive(Debug)]
pub struct EventsIter(Events);

impl IntoIterator for Events {
    type Item = Event;
    type IntoIter = EventsIter;

    fn into_iter(self) -> EventsIter {
        EventsIter(self)
    }
}

impl Iterator for EventsIter {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.0.recv()
    }
}

#[cfg(feature = "stream")]
impl futures_core::Stream for Events {
    type Item = Event;

    fn poll_next(self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(context)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.engine.unsubscribe(&self.ring);
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events(..)")
    }
}
