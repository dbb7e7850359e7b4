//! A small site with axum whose visitors stay signed in.
//!
//! `cargo run --release --features axum --example axum`, then open <http://127.0.0.1:3000>. Any name signs in, with the
//! password `dwell`. Kill it with `kill -9`, start it again, and reload the page: still signed in, the count goes on.
//! The same with curl, which shows the token of the page and says where the request comes from, as a browser does:
//!
//! ```sh
//! site=http://127.0.0.1:3000
//! token=$(curl -s $site | grep -o 'sid_v1_[A-Za-z0-9_-]*')
//! curl -c jar -H "Origin: $site" -H "X-CSRF-Token: $token" -d 'name=ada&password=dwell' $site/sign-in
//! curl -b jar $site
//! ```

use axum::extract::State;
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use axum::{Form, Router};
use dwell::axum::{Connection, Rejection, SessionLayer, SignedIn};
use dwell::web::{Exchange, Refusal};
use dwell::{Field, Sessions};

const VISITS: Field<u32> = Field::new("visits");
const HEAD: &str = "<!doctype html><html lang=en><meta name=color-scheme content=\"light dark\"><title>dwell</title>";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = Sessions::open("dwell-data")?;
    let app = Router::new()
        .route("/", get(home))
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/sign-out-others", post(sign_out_others))
        .with_state(sessions.clone())
        .layer(SessionLayer::development(sessions.clone()).sign_in_page("/"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    // Ctrl-C; a service manager sends SIGTERM, which `tokio::signal::unix` has.
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let app = app.into_make_service_with_connect_info::<Connection>();
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    // Writes when each session was last used, which a crash forgets.
    Ok(sessions.close()?)
}

async fn home(exchange: Exchange, user: Option<SignedIn>) -> dwell::Result<Html<String>> {
    let token = exchange.csrf_token()?;
    let form = |action: &str, fields: &str, label: &str| {
        let token = format!("<input type=hidden name={} value={token}>", exchange.site().token_field());
        format!("<form method=post action={action}>{token}{fields}<button>{label}</button></form>")
    };
    let Some(user) = user else {
        let fields = "<input name=name placeholder=Name> <input name=password type=password placeholder=Password> ";
        return Ok(Html(format!("{HEAD}{}", form("/sign-in", fields, "Sign in"))));
    };
    let visits = user.session().update(VISITS, |visits| {
        *visits += 1;
        *visits
    })?;
    let name = user.principal().replace('&', "&amp;").replace('<', "&lt;");
    let buttons = form("/sign-out", "", "Sign out") + &form("/sign-out-others", "", "Sign out everywhere else");
    Ok(Html(format!("{HEAD}<h1>Hello, {name}</h1><p>Visit number {visits}</p>{buttons}")))
}

#[derive(serde::Deserialize)]
struct Credentials {
    name: String,
    password: String,
}

async fn sign_in(exchange: Exchange, Form(given): Form<Credentials>) -> Result<Redirect, Rejection> {
    if given.password != "dwell" {
        return Err(Refusal::new(401, "bad_credentials", "that is not the password").into());
    }
    exchange.session_for_sign_in().sign_in(given.name)?.await?;
    Ok(Redirect::to("/"))
}

async fn sign_out(user: SignedIn) -> dwell::Result<Redirect> {
    user.into_session().destroy()?.await?;
    Ok(Redirect::to("/"))
}

async fn sign_out_others(user: SignedIn, State(sessions): State<Sessions>) -> dwell::Result<Redirect> {
    sessions.revoke_others(user.session())?.await?;
    Ok(Redirect::to("/"))
}
