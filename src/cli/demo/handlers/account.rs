//! Signing in, proving it again, signing out.

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use dwell::axum::SignedIn;
use dwell::web::{Exchange, Refusal};
use dwell::{Session, SignIn};
use serde::Deserialize;
use serde_json::json;

use super::super::app::App;
use super::super::posted::{By, Posted, flag};
use super::devices::revoke_by_id;
use super::{Answer, invalid};

/// What everybody signs in with: it is a demonstration.
const PASSWORD: &str = "dwell";
/// The longest name or password, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 128;
/// How the person proved who they are, in this application's numbering.
const BY_PASSWORD: u8 = 1;

#[derive(Deserialize)]
pub(in super::super) struct Login {
    user: String,
    password: String,
    #[serde(default, deserialize_with = "flag")]
    remember: bool,
}

pub(in super::super) async fn login(exchange: Exchange, Posted { value: login, by }: Posted<Login>) -> Answer {
    for text in [&login.user, &login.password] {
        if text.is_empty() || text.len() > CREDENTIAL_BYTES_MAX {
            return Err(invalid("name and password take 1 to 128 bytes each").into());
        }
    }
    check_password(&login.password)?;
    let session = exchange.session_for_sign_in();
    let who = SignIn::new(login.user).method(BY_PASSWORD);
    session.sign_in(if login.remember { who.remembered() } else { who })?.await?;
    welcome(&exchange, &session, by)
}

#[derive(Deserialize)]
pub(in super::super) struct Elevate {
    password: String,
}

pub(in super::super) async fn elevate(
    user: SignedIn,
    exchange: Exchange,
    Posted { value, by }: Posted<Elevate>,
) -> Answer {
    check_password(&value.password)?;
    user.session().reauthenticate(BY_PASSWORD)?.await?;
    welcome(&exchange, user.session(), by)
}

fn check_password(password: &str) -> Result<(), Refusal> {
    if password == PASSWORD {
        return Ok(());
    }
    Err(Refusal::new(401, "bad_credentials", "That is not the password."))
}

/// The answer to a sign-in: who it is now, and what its pages need.
pub(super) fn welcome(exchange: &Exchange, session: &Session, by: By) -> Answer {
    let companion = exchange.companion()?;
    if by == By::Page {
        // Fragments are not sent to servers and not kept in their logs.
        let to = companion.map_or_else(|| "/".to_owned(), |companion| format!("/#companion={companion}"));
        return Ok(Redirect::to(&to).into_response());
    }
    let mut answer = json!({
        "id": session.id().map(|id| id.to_string()),
        "principal": session.principal()?.as_deref(),
        "csrf": exchange.csrf_token()?,
    });
    for (name, secret) in [("companion", companion), ("token", exchange.token())] {
        if let (Some(secret), Some(answer)) = (secret, answer.as_object_mut()) {
            answer.insert(name.to_owned(), secret.into());
        }
    }
    Ok(axum::Json(answer).into_response())
}

#[derive(Deserialize)]
pub(in super::super) struct Nothing {}

pub(in super::super) async fn logout(exchange: Exchange, State(app): State<App>, posted: Posted<Nothing>) -> Answer {
    // Somebody without the session's companion secret may not end it either.
    let session = exchange.session_or_new()?;
    let id = session.id();
    match (session.destroy(), id) {
        (Ok(receipt), _) => receipt.await?,
        // It ended a moment ago, which is what was asked for; or another request of it replaced its token, and then it
        // lives on, and is not to.
        (Err(error), Some(id)) if error.kind() == dwell::ErrorKind::Gone => {
            if let Some(receipt) = revoke_by_id(&app.sessions, id).await? {
                receipt.await?;
            }
        }
        (Err(error), _) => return Err(error.into()),
    }
    exchange.forget();
    Ok::<Response, _>(posted.by.done())
}
