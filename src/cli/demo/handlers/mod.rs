//! What each route does.
//!
//! What a session keeps is declared here, once.

mod account;
mod data;
mod devices;
mod hand_off;
mod live;
mod show;

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use dwell::axum::Rejection;
use dwell::web::Refusal;
use dwell::{Error, Field};

pub(super) use self::account::{elevate, login, logout};
pub(super) use self::data::{export, get, set, slow, visit};
pub(super) use self::devices::{revoke, sessions};
pub(super) use self::hand_off::{follow as follow_hand_off, give as hand_off};
pub(super) use self::live::live;
pub(super) use self::show::{healthz, home, whoami};

const VISITS: Field<u32> = Field::new("visits");
/// What one puts in before signing in is there afterwards.
const CART: Field<String> = Field::new("cart").keep_on_sign_in();
const ITEMS: Field<BTreeMap<String, String>> = Field::new("items");

/// Why a handler does not do what it was asked to.
pub(super) enum Failure {
    Refused(Refusal),
    Rejected(Rejection),
    Failed(Error),
}

type Answer = Result<Response, Failure>;

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => refusal.into_response(),
            Self::Rejected(rejection) => rejection.into_response(),
            Self::Failed(error) => error.into_response(),
        }
    }
}

/// Whether a person reads the answer, as browsers say for forms and links.
fn is_for_reading(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

fn invalid(reason: &'static str) -> Refusal {
    Refusal::new(422, "invalid", reason)
}
