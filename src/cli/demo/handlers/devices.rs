//! One's own sessions: listing them, ending them.

use axum::extract::State;
use axum::response::IntoResponse;
use dwell::axum::SignedIn;
use dwell::web::{Exchange, Refusal};
use dwell::{Receipt, SessionId, SessionInfo, Sessions};
use serde::Deserialize;
use serde_json::json;

use super::super::app::App;
use super::super::page::Device;
use super::super::posted::{Posted, flag};
use super::{Answer, Failure, invalid};

/// Reads from disk what is not in memory, off the threads that run futures.
pub(super) async fn of(sessions: &Sessions, user: &SignedIn) -> Result<Vec<Device>, Failure> {
    let current = user.session().id();
    let device = |info: SessionInfo| Device {
        id: info.id.to_string(),
        created: info.created.to_string(),
        last_seen: info.last_seen.to_string(),
        device: info.device,
        address: info.address,
        current: Some(info.id) == current,
    };
    Ok(list(sessions, user.principal()).await?.into_iter().map(device).collect())
}

async fn list(sessions: &Sessions, principal: &str) -> Result<Vec<SessionInfo>, Failure> {
    let (sessions, principal) = (sessions.clone(), principal.to_owned());
    blocking(move || sessions.of(&principal)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> dwell::Result<T> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    let stopped = |_| Refusal::new(503, "storage", "the session store does not work at the moment");
    Ok(done.map_err(stopped)??)
}

pub(in super::super) async fn sessions(user: SignedIn, State(app): State<App>) -> Answer {
    Ok(axum::Json(of(&app.sessions, &user).await?).into_response())
}

#[derive(Deserialize)]
pub(in super::super) struct Revoke {
    id: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    others: bool,
    #[serde(default, deserialize_with = "flag")]
    all: bool,
}

pub(in super::super) async fn revoke(
    user: SignedIn,
    exchange: Exchange,
    State(app): State<App>,
    Posted { value: what, by }: Posted<Revoke>,
) -> Answer {
    // Its body may have been long in coming. Whoever was thrown out meanwhile throws nobody out.
    user.session().principal()?;
    let revoked = match what {
        Revoke { id: Some(id), others: false, all: false } => revoke_one(&app.sessions, &user, &exchange, &id).await?,
        Revoke { id: None, others: true, all: false } => app.sessions.revoke_others(user.session())?.await?,
        Revoke { id: None, others: false, all: true } => {
            let revoked = app.sessions.revoke_all(user.principal())?.await?;
            exchange.forget();
            revoked
        }
        _ => return Err(invalid("say one of `id`, `others` and `all`").into()),
    };
    Ok(by.answer(json!({ "revoked": revoked })))
}

/// Anybody's handle can be sent; only one's own sessions are ended, and nothing tells others from none.
async fn revoke_one(sessions: &Sessions, user: &SignedIn, exchange: &Exchange, id: &str) -> Result<usize, Failure> {
    let unknown = || Refusal::new(404, "not_found", "you have no such session");
    let id = SessionId::parse(id).ok_or_else(unknown)?;
    let own = list(sessions, user.principal()).await?;
    if !own.iter().any(|own| own.id == id) {
        return Err(unknown().into());
    }
    revoke_by_id(sessions, id).await?.ok_or_else(unknown)?.await?;
    if user.session().id() == Some(id) {
        exchange.forget();
    }
    Ok(1)
}

/// Ends a session, whatever token it has by now.
pub(super) async fn revoke_by_id(sessions: &Sessions, id: SessionId) -> Result<Option<Receipt>, Failure> {
    let sessions = sessions.clone();
    blocking(move || sessions.revoke(id)).await
}
