//! A web socket that belongs to a session, and ends with it.
//!
//! `cargo run --release --features axum --example websocket`, then open <http://127.0.0.1:3000>. Any name signs in. Each
//! press of "Count" goes through the socket. Sign out in another tab: the socket closes with the reason.
//!
//! What makes it safe: the layer opens a socket only for a page of this site (browsers send the `Origin` of whoever opens
//! one, and no token follows); every message goes through the session's handle, which refuses once the session has ended;
//! and an open socket is no use of the session, a message that was handled is.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::{Html, Redirect, Response};
use axum::routing::{get, post};
use dwell::axum::{SessionLayer, SignedIn};
use dwell::web::Exchange;
use dwell::{EndReason, Field, Options, Session, Sessions};
use tokio::sync::mpsc;

const COUNT: Field<u32> = Field::new("count");
/// The longest message, in bytes: it is a word.
const MESSAGE_BYTES_MAX: usize = 1024;
/// How long a client may take to hear why its socket closes.
const GOOD_BYE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sessions = Options::new().in_memory()?; // `Sessions::open` keeps them
    let (open, mut all_closed) = mpsc::channel(1);
    let app = app(sessions.clone(), open);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let stop = async move {
        tokio::signal::ctrl_c().await.unwrap_or_default();
        sessions.announce_close();
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    // The server does not wait for its sockets, each of which is about to say good-bye.
    while all_closed.recv().await.is_some() {}
    Ok(())
}

/// Somebody holds one of these as long as a socket is open; nothing is ever sent.
type Open = mpsc::Sender<()>;

pub(crate) fn app(sessions: Sessions, open: Open) -> Router {
    let layer = SessionLayer::development(sessions).sign_in_page("/");
    let pages = Router::new()
        .route("/", get(home))
        .route("/sign-in", post(sign_in))
        .route("/sign-out", post(sign_out))
        .layer(layer.clone());
    // Pages open sockets by themselves, again and again if need be.
    let sockets = Router::new().route("/socket", get(socket)).with_state(open).layer(layer.passive());
    pages.merge(sockets)
}

async fn socket(user: SignedIn, State(open): State<Open>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.max_message_size(MESSAGE_BYTES_MAX).on_upgrade(async move |socket| {
        talk(socket, user.into_session()).await;
        drop(open);
    })
}

/// Answers messages until the session ends, its token is replaced, or the other side leaves.
async fn talk(mut socket: WebSocket, session: Session) {
    let mut ended = session.ended().or_rotated();
    let reason = loop {
        tokio::select! {
            biased;
            reason = &mut ended => break reason,
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => match handle(&session, &text).await {
                    // A client that stops reading must not outlive its session either.
                    Ok(answer) => tokio::select! {
                        biased;
                        reason = &mut ended => break reason,
                        sent = socket.send(Message::text(answer)) => if sent.is_err() { return },
                    },
                    // Its reason is on the way. A store that fails is no reason to act on without a session.
                    Err(error) if error.kind() == dwell::ErrorKind::Gone => break (&mut ended).await,
                    Err(_) => break EndReason::Fault,
                },
                // Pings are answered by axum.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    };
    let code = if reason == EndReason::Shutdown { close_code::AWAY } else { close_code::POLICY };
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason.as_str()) };
    // Whoever has left already, or does not listen, is not told.
    let _ = tokio::time::timeout(GOOD_BYE, socket.send(Message::Close(Some(frame)))).await;
}

async fn handle(session: &Session, text: &str) -> dwell::Result<String> {
    if text != "count" {
        return Ok("say `count`".to_owned());
    }
    // Somebody did something: that is use. It also fails if the session's time ran out a moment ago.
    session.renew()?;
    let count = session.update(COUNT, |count| {
        *count += 1;
        *count
    })?;
    // No layer waits for what a socket changes.
    session.save()?.await?;
    Ok(count.to_string())
}

async fn home(exchange: Exchange, user: Option<SignedIn>) -> dwell::Result<Html<String>> {
    let token = exchange.csrf_token()?;
    let form = |action: &str, inside: &str| {
        let field = exchange.site().token_field();
        format!("<form method=post action={action}><input type=hidden name={field} value={token}>{inside}</form>")
    };
    Ok(Html(match user {
        None => format!("{HEAD}{}", form("/sign-in", "<input name=name placeholder=Name> <button>Sign in</button>")),
        Some(_) => format!("{HEAD}{PAGE}{}", form("/sign-out", "<button>Sign out</button>")),
    }))
}

const HEAD: &str = "<!doctype html><html lang=en><meta name=color-scheme content=\"light dark\"><title>dwell</title>";
const PAGE: &str = "<p><button onclick=\"socket.send('count')\">Count</button> <output>…</output></p><script>
    const socket = new WebSocket('/socket'), shown = document.querySelector('output');
    socket.onmessage = (message) => { shown.textContent = message.data; };
    socket.onclose = (close) => { shown.textContent = 'closed: ' + (close.reason || 'no answer'); };
</script>";

#[derive(serde::Deserialize)]
struct Name {
    name: String,
}

async fn sign_in(exchange: Exchange, axum::Form(given): axum::Form<Name>) -> Result<Redirect, dwell::axum::Rejection> {
    exchange.session_for_sign_in().sign_in(given.name)?.await?;
    Ok(Redirect::to("/"))
}

async fn sign_out(user: SignedIn) -> dwell::Result<Redirect> {
    user.into_session().destroy()?.await?;
    Ok(Redirect::to("/"))
}
