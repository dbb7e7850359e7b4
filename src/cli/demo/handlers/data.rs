//! What a session keeps: visits, a cart, pairs of text.

use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use dwell::web::{Exchange, Refusal};
use dwell::{Result, Session};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::posted::Posted;
use super::account::Nothing;
use super::{Answer, CART, ITEMS, VISITS, invalid, is_for_reading};

pub(in super::super) async fn visit(session: Session, posted: Posted<Nothing>) -> Answer {
    let visits = session.update(VISITS, |visits| {
        *visits = visits.saturating_add(1);
        *visits
    })?;
    Ok(posted.by.answer(json!({ "visits": visits })))
}

#[derive(Deserialize)]
pub(in super::super) struct Pair {
    key: String,
    value: String,
}

pub(in super::super) async fn set(session: Session, Posted { value: pair, by }: Posted<Pair>) -> Answer {
    store(&session, pair).await?;
    Ok(by.done())
}

#[derive(Deserialize)]
pub(in super::super) struct Slow {
    ms: u64,
    #[serde(flatten)]
    pair: Pair,
}

/// The longest that a request waits on purpose, in milliseconds.
const SLOW_MS_MAX: u64 = 10_000;

/// Writes long after it loaded: for seeing what happens when the session ends meanwhile.
pub(in super::super) async fn slow(session: Session, Posted { value: slow, by }: Posted<Slow>) -> Answer {
    if slow.ms > SLOW_MS_MAX {
        return Err(invalid("`ms` is at most 10000").into());
    }
    tokio::time::sleep(Duration::from_millis(slow.ms)).await;
    store(&session, slow.pair).await?;
    Ok(by.done())
}

/// Keeps a pair and waits until it is on disk, also for a visitor who is not signed in.
async fn store(session: &Session, pair: Pair) -> Result<(), super::Failure> {
    if pair.key.is_empty() {
        return Err(invalid("`key` is empty").into());
    }
    if pair.key == CART.name() {
        session.set(CART, &pair.value)?;
    } else {
        session.update(ITEMS, |items| items.insert(pair.key.clone(), pair.value.clone()))?;
    }
    Ok(session.save()?.await?)
}

#[derive(Deserialize)]
pub(in super::super) struct Key {
    key: String,
}

pub(in super::super) async fn get(session: Session, query: Result<Query<Key>, QueryRejection>) -> Answer {
    let Query(Key { key }) = query.map_err(|_| invalid("say which with `?key=`"))?;
    let value = if key == CART.name() {
        session.get(CART)?
    } else {
        session.get(ITEMS)?.and_then(|mut items| items.remove(&key))
    };
    Ok(axum::Json(json!({ "key": key, "value": value })).into_response())
}

/// All that a session holds, as its visitor may have it.
#[derive(Serialize)]
#[serde(rename = "session")]
struct Export {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    created: String,
    visits: u32,
    cart: String,
    items: Items,
}

#[derive(Serialize)]
struct Items {
    item: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    #[serde(rename = "@key")]
    key: String,
    #[serde(rename = "$text")]
    value: String,
}

#[derive(Deserialize)]
pub(in super::super) struct Format {
    #[serde(default)]
    format: Option<String>,
}

pub(in super::super) async fn export(
    exchange: Exchange,
    headers: HeaderMap,
    query: Result<Query<Format>, QueryRejection>,
) -> Answer {
    let Query(Format { format }) = query.map_err(|_| invalid("say `?format=json` or `?format=xml`"))?;
    // Refuses a session that is not the caller's to see; creates nothing.
    exchange.session_or_new()?;
    let session = exchange.session();
    let Some(session) = session else {
        if is_for_reading(&headers) {
            return Ok(Redirect::to("/").into_response());
        }
        return Err(Refusal::new(401, "sign_in_required", "there is no session to export").into());
    };
    let items = session.get(ITEMS)?.unwrap_or_default();
    let id = session.id().map(|id| id.to_string()).unwrap_or_default();
    let principal = session.principal()?.map(|principal| principal.to_string());
    let created = session.created()?.map(|created| created.to_string()).unwrap_or_default();
    let visits = session.get(VISITS)?.unwrap_or_default();
    let cart = session.get(CART)?.unwrap_or_default();
    match format.as_deref() {
        None | Some("json") => {
            let data = json!({
                "id": id, "principal": principal, "created": created, "visits": visits, "cart": cart, "items": items,
            });
            Ok(download("application/json", "session.json", data.to_string()))
        }
        Some("xml") => {
            let item = items.into_iter().map(|(key, value)| Item { key: xml(&key), value: xml(&value) }).collect();
            let principal = principal.as_deref().map(xml);
            let export = Export { id, principal, created, visits, cart: xml(&cart), items: Items { item } };
            let body = quick_xml::se::to_string(&export).map_err(|_| invalid("this session does not fit XML"))?;
            let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
            Ok(download("application/xml", "session.xml", format!("{head}{body}\n")))
        }
        Some(_) => Err(invalid("`format` is `json` or `xml`").into()),
    }
}

/// What XML 1.0 has no way to say is replaced (section 2.2, `Char`).
fn xml(text: &str) -> String {
    let fits = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..);
    text.chars().map(|c| if fits(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn download(media_type: &'static str, name: &str, body: String) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_DISPOSITION, disposition)], body).into_response()
}
