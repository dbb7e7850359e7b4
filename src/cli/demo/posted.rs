//! Bodies of requests: JSON from scripts, forms from pages.

use axum::Form;
use axum::Json;
use axum::extract::rejection::{BytesRejection, FormRejection, JsonRejection};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use dwell::web::Refusal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// The longest body, in bytes: four times what a session can hold.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;

/// What was posted, and how.
pub(super) struct Posted<T> {
    pub(super) value: T,
    pub(super) by: By,
}

/// Who posted it: the answer takes the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Script,
    Page,
}

impl By {
    /// Data for a script; for a page, the way back to it.
    pub(super) fn answer(self, data: impl Serialize) -> Response {
        match self {
            Self::Script => Json(data).into_response(),
            Self::Page => Redirect::to("/").into_response(),
        }
    }

    /// Nothing for a script; for a page, the way back to it.
    pub(super) fn done(self) -> Response {
        match self {
            Self::Script => StatusCode::NO_CONTENT.into_response(),
            Self::Page => Redirect::to("/").into_response(),
        }
    }
}

enum Media {
    Json,
    Form,
    Nothing,
    Other,
}

fn media(headers: &HeaderMap) -> Media {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(first) = types.next() else { return Media::Nothing };
    let text = first.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        _ if types.next().is_some() => Media::Other,
        "application/json" => Media::Json,
        "application/x-www-form-urlencoded" => Media::Form,
        _ => Media::Other,
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Posted<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match media(request.headers()) {
            Media::Json => {
                // A struct would be read from an array, too, which nobody means.
                let read = Json::<serde_json::Map<String, serde_json::Value>>::from_request(request, state).await;
                let Json(object) = read.map_err(|rejection| bad_json(&rejection))?;
                let value = T::deserialize(serde_json::Value::Object(object));
                let value = value.map_err(|error| Refusal::new(422, "invalid", error.to_string()))?;
                Ok(Self { value, by: By::Script })
            }
            Media::Form => {
                let read = Form::<T>::from_request(request, state).await;
                let Form(value) = read.map_err(|rejection| bad_form(&rejection))?;
                Ok(Self { value, by: By::Page })
            }
            Media::Nothing => {
                let body = axum::body::Bytes::from_request(request, state).await;
                let body = body.map_err(|rejection: BytesRejection| bad(rejection.status(), rejection.body_text()))?;
                // Where nothing has to be said, nothing may be.
                let value = serde_json::from_str("{}").ok().filter(|_| body.is_empty()).ok_or_else(wrong_type)?;
                Ok(Self { value, by: By::Script })
            }
            Media::Other => Err(wrong_type()),
        }
    }
}

fn wrong_type() -> Refusal {
    Refusal::new(415, "content_type", "send application/json or application/x-www-form-urlencoded")
}

fn bad_json(rejection: &JsonRejection) -> Refusal {
    bad(rejection.status(), rejection.body_text())
}

fn bad_form(rejection: &FormRejection) -> Refusal {
    bad(rejection.status(), rejection.body_text())
}

fn bad(status: StatusCode, reason: String) -> Refusal {
    if status == StatusCode::PAYLOAD_TOO_LARGE { too_large() } else { Refusal::new(422, "invalid", reason) }
}

pub(super) fn too_large() -> Refusal {
    Refusal::new(413, "too_large", format!("a body may take {BODY_BYTES_MAX} bytes"))
}

/// Yes or no, as scripts and checkboxes say it.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Text(String),
    }
    Ok(match Flag::deserialize(deserializer)? {
        Flag::Bool(flag) => flag,
        Flag::Text(text) => matches!(text.as_str(), "on" | "true" | "1" | "yes"),
    })
}
