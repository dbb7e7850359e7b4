//! From one browser to another: a link that signs in once.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use dwell::axum::{Rejection, SignedIn};
use dwell::web::{Exchange, Refusal};
use serde::Deserialize;
use serde_json::json;

use super::super::app::App;
use super::super::args::Profile;
use super::super::page;
use super::super::posted::{By, Posted};
use super::account::welcome;
use super::{Answer, is_for_reading};

#[derive(Deserialize)]
pub(in super::super) struct Link {
    #[serde(default)]
    code: String,
}

#[derive(Deserialize)]
pub(in super::super) struct Confirmed {
    code: Option<String>,
}

/// Makes a link, or uses one that somebody confirmed.
pub(in super::super) async fn give(
    exchange: Exchange,
    user: Result<SignedIn, Rejection>,
    State(app): State<App>,
    headers: HeaderMap,
    Posted { value, by }: Posted<Confirmed>,
) -> Answer {
    if let Some(code) = value.code {
        return take(&exchange, &code, by).await;
    }
    user?;
    let code = exchange.hand_off()?;
    // The layer has let this host through.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let scheme = if app.profile == Profile::Https { "https" } else { "http" };
    let url = format!("{scheme}://{host}/handoff?code={code}");
    Ok(match by {
        By::Page if is_for_reading(&headers) => Html(page::handed_off(&url, app.profile.name())).into_response(),
        _ => axum::Json(json!({ "url": url })).into_response(),
    })
}

/// Follows a link.
pub(in super::super) async fn follow(
    method: Method,
    exchange: Exchange,
    user: Option<SignedIn>,
    State(app): State<App>,
    headers: HeaderMap,
    link: Result<Query<Link>, QueryRejection>,
) -> Answer {
    let Query(link) = link.map_err(|_| gone())?;
    let principal = exchange.code_principal(&link.code).ok_or_else(gone)?;
    if method == Method::HEAD {
        return Ok(StatusCode::OK.into_response());
    }
    if is_prefetch(&headers) || is_part(&headers) {
        // No answer to keep: the link is followed again when a person does.
        return Err(Refusal::new(425, "prefetch", "this link is followed by people only").into());
    }
    let is_other = user.is_some_and(|user| user.principal() != &*principal) || exchange.is_locked();
    if is_other {
        let (csrf, profile) = (exchange.csrf_token()?, app.profile.name());
        return Ok(Html(page::confirm(&principal, &link.code, &csrf, profile)).into_response());
    }
    take(&exchange, &link.code, By::Page).await
}

async fn take(exchange: &Exchange, code: &str, by: By) -> Answer {
    let receipt = exchange.redeem(code)?.ok_or_else(gone)?;
    receipt.await?;
    match by {
        By::Page => Ok(after(exchange)?),
        By::Script => welcome(exchange, &exchange.session_for_sign_in(), by),
    }
}

/// To an address without the code.
fn after(exchange: &Exchange) -> Result<Response, dwell::Error> {
    let companion = exchange.companion()?;
    let to = companion.map_or_else(|| "/".to_owned(), |companion| format!("/#companion={companion}"));
    Ok(Redirect::to(&to).into_response())
}

fn is_prefetch(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"].iter().any(|name| {
        let mut values = headers.get_all(*name).iter();
        values.any(|value| value.to_str().is_ok_and(|value| value.contains("prefetch") || value.contains("preview")))
    })
}

/// Whether a page asks for it as a picture or a frame of its own, or by a script: browsers tell where nobody can listen in.
fn is_part(headers: &HeaderMap) -> bool {
    headers.get_all("sec-fetch-dest").iter().any(|value| value != "document")
}

fn gone() -> Refusal {
    Refusal::new(410, "handoff", "this link was used already, is too old, or its session has ended")
}
