//! The page, what scripts ask, and whether all is well.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use dwell::axum::SignedIn;
use dwell::web::Exchange;
use dwell::{Class, ErrorKind, Result, Session};
use serde::Serialize;
use serde_json::json;

use super::super::app::App;
use super::super::args::{Profile, Tracking};
use super::super::page;
use super::{Answer, CART, VISITS, devices};

const FOR_PROGRAMS: &str = "Sessions are tracked by a header here, so this page cannot sign in. The answer to `POST /login` has \
                            a token; send it as `Authorization: Bearer`.";

const BY_ADDRESS: &str = "Sessions are tracked by addresses here, so this page cannot sign in. The answer to `POST /login` has \
                          a token; append it to each address as `?session=`.";

/// Who is asking. Every field is always there.
#[derive(Serialize)]
struct Whoami {
    id: Option<String>,
    principal: Option<String>,
    class: &'static str,
    created: Option<String>,
    idle_left_s: Option<u64>,
    life_left_s: Option<u64>,
    visits: u32,
    csrf: String,
}

impl Whoami {
    fn of(exchange: &Exchange) -> Result<Self> {
        let session = exchange.session().map_or(Ok(None), |session| Self::session(&session));
        let known = match session {
            // It ended while we asked.
            Err(error) if error.kind() == ErrorKind::Gone => None,
            known => known?,
        };
        let stranger = Self {
            id: None,
            principal: None,
            class: "none",
            created: None,
            idle_left_s: None,
            life_left_s: None,
            visits: 0,
            csrf: String::new(),
        };
        Ok(Self { csrf: exchange.csrf_token()?, ..known.unwrap_or(stranger) })
    }

    fn session(session: &Session) -> Result<Option<Self>> {
        let class = match session.class()? {
            Class::Authenticated => "authenticated",
            _ => "anonymous",
        };
        Ok(Some(Self {
            id: session.id().map(|id| id.to_string()),
            principal: session.principal()?.map(|principal| principal.to_string()),
            class,
            created: session.created()?.map(|created| created.to_string()),
            idle_left_s: session.idle_left()?.map(|left| left.as_secs()),
            life_left_s: session.life_left()?.map(|left| left.as_secs()),
            visits: session.get(VISITS)?.unwrap_or_default(),
            csrf: String::new(),
        }))
    }
}

pub(in super::super) async fn whoami(exchange: Exchange) -> Answer {
    Ok(axum::Json(Whoami::of(&exchange)?).into_response())
}

pub(in super::super) async fn home(exchange: Exchange, user: Option<SignedIn>, State(app): State<App>) -> Answer {
    let who = Whoami::of(&exchange)?;
    let cart = match exchange.session().map(|session| session.get(CART)) {
        Some(Err(error)) if error.kind() != ErrorKind::Gone => return Err(error.into()),
        cart => cart.and_then(Result::ok).flatten().unwrap_or_default(),
    };
    let devices = match &user {
        Some(user) => devices::of(&app.sessions, user).await?,
        None => Vec::new(),
    };
    let facts = page::Facts {
        created: who.created.unwrap_or_default(),
        idle_left_s: who.idle_left_s.unwrap_or_default(),
        life_left_s: who.life_left_s.unwrap_or_default(),
    };
    let visitor = match (&who.principal, who.class) {
        (Some(principal), _) => page::Visitor::SignedIn { principal, devices, facts },
        (None, "anonymous") => page::Visitor::Anonymous(facts),
        (None, _) => page::Visitor::Stranger,
    };
    let home = page::Home {
        csrf: &who.csrf,
        profile: app.profile.name(),
        needs_script: app.profile == Profile::Localhost && app.tracking == Tracking::Cookie,
        hands_off: app.tracking == Tracking::Cookie,
        visitor,
        visits: who.visits,
        cart: &cart,
        notice: match app.tracking {
            Tracking::Cookie => None,
            Tracking::Header => Some(FOR_PROGRAMS),
            Tracking::Url => Some(BY_ADDRESS),
        },
    };
    Ok(Html(page::home(&home)).into_response())
}

pub(in super::super) async fn healthz(State(app): State<App>) -> Answer {
    let (stats, streams) = (app.sessions.stats(), app.streams.count());
    Ok(match stats.trouble {
        None => axum::Json(json!({ "status": "ok", "sessions": stats.sessions, "streams": streams })).into_response(),
        Some(trouble) => {
            let body =
                json!({ "status": "degraded", "reason": trouble, "sessions": stats.sessions, "streams": streams });
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], axum::Json(body)).into_response()
        }
    })
}
