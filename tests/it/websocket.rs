//! `examples/websocket.rs` as a page meets it: real sockets on a real port, and a clock that moves when told to.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use dwell::axum::SessionLayer;
use dwell::axum::test::Visitor;
use dwell::{Field, ManualClock, Options, Sessions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tungstenite::client::IntoClientRequest;
use tungstenite::http::Request;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

#[expect(dead_code, reason = "its `main` is not ours")]
#[path = "../../examples/websocket.rs"]
mod example;

/// What the example counts in.
const COUNT: Field<u32> = Field::new("count");
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The example, served.
struct Site {
    clock: ManualClock,
    sessions: Sessions,
    address: SocketAddr,
    /// What its `main` waits for at the end.
    all_closed: mpsc::Receiver<()>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<std::io::Result<()>>,
    runtime: tokio::runtime::Runtime,
}

impl Site {
    fn new() -> Self {
        let clock = ManualClock::new();
        let sessions = Options::new().clock(clock.clone()).manual_workers().in_memory().unwrap();
        let (open, all_closed) = mpsc::channel(1);
        let app = example::app(sessions.clone(), open);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let server = runtime.spawn(async { axum::serve(listener, app).with_graceful_shutdown(stopped).await });
        Self { clock, sessions, address, all_closed, stop, server, runtime }
    }

    /// Somebody signed in: the line with their cookie.
    fn sign_in(&self, who: &str) -> (dwell::Session, String) {
        let layer = SessionLayer::development(self.sessions.clone());
        let mut visitor = Visitor::new((), &layer);
        let session = self.runtime.block_on(visitor.sign_in(who)).unwrap();
        let request = visitor.request("GET", "/").body(()).unwrap();
        (session, request.headers()["cookie"].to_str().unwrap().to_owned())
    }

    fn request(&self, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = format!("ws://{}/socket", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    /// A page of ours opens one.
    fn open(&self, cookie: &str) -> WebSocket<TcpStream> {
        let origin = format!("http://{}", self.address);
        self.try_open(&[("cookie", cookie), ("origin", &origin)]).unwrap()
    }

    /// The socket, or the status of the refusal.
    fn try_open(&self, headers: &[(&'static str, &str)]) -> Result<WebSocket<TcpStream>, u16> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match tungstenite::client(self.request(headers), stream) {
            Ok((socket, _)) => Ok(socket),
            Err(HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    fn pass(&self, minutes: u64) {
        self.clock.advance(Duration::from_secs(60 * minutes));
        self.sessions.run_pending();
    }
}

fn count(socket: &mut WebSocket<TcpStream>) -> String {
    socket.send(Message::text("count")).unwrap();
    match socket.read().unwrap() {
        Message::Text(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

/// How it was closed.
fn closed(socket: &mut WebSocket<TcpStream>) -> (CloseCode, String) {
    match socket.read().unwrap() {
        Message::Close(Some(frame)) => (frame.code, frame.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_socket_is_opened_by_a_page_of_ours_for_somebody_signed_in() {
    let site = Site::new();
    let (_, cookie) = site.sign_in("ada");
    let own = format!("http://{}", site.address);
    let status = |headers: &[(&'static str, &str)]| site.try_open(headers).map(drop);
    assert_eq!(status(&[("cookie", &cookie), ("origin", &own)]), Ok(()));
    assert_eq!(status(&[("origin", &own)]), Err(401));
    assert_eq!(status(&[("cookie", &cookie)]), Err(403), "browsers say who opens a socket");
    for origin in ["http://evil.example", "http://127.0.0.1:1", "null", &own.replace("http", "https")] {
        assert_eq!(status(&[("cookie", &cookie), ("origin", origin)]), Err(403), "{origin}");
    }
    assert_eq!(status(&[("cookie", &cookie), ("origin", &own), ("sec-fetch-site", "same-site")]), Err(403));
    assert_eq!(status(&[("cookie", &cookie), ("origin", &own), ("host", "evil.example")]), Err(421));
}

#[test]
fn what_it_is_told_goes_through_the_session() {
    let site = Site::new();
    let (session, cookie) = site.sign_in("ada");
    let (mut one, mut two) = (site.open(&cookie), site.open(&cookie));
    assert_eq!((count(&mut one), count(&mut two), count(&mut one)), ("1".into(), "2".into(), "3".into()));
    assert_eq!(session.get(COUNT).unwrap(), Some(3));
    one.send(Message::text("nonsense")).unwrap();
    assert_eq!(one.read().unwrap(), Message::text("say `count`"));
    two.send(Message::text("x".repeat(1025))).unwrap();
    assert!(!matches!(two.read(), Ok(Message::Text(_))), "longer than a word");
}

#[test]
fn it_ends_with_the_session_or_its_token_and_says_why() {
    let site = Site::new();
    let policy = |reason: &str| (CloseCode::Policy, reason.to_owned());
    for reason in ["signed_out", "revoked", "replaced", "rotated"] {
        let (session, cookie) = site.sign_in("ada");
        let mut socket = site.open(&cookie);
        assert_eq!(count(&mut socket), "1");
        match reason {
            "signed_out" => session.destroy().unwrap().blocking_wait().unwrap(),
            "revoked" => drop(site.sessions.revoke_all("ada").unwrap().blocking_wait().unwrap()),
            "replaced" => drop(session.sign_in("ada").unwrap().blocking_wait().unwrap()),
            _ => drop(session.rotate().unwrap().blocking_wait().unwrap()),
        }
        site.sessions.run_pending();
        assert_eq!(closed(&mut socket), policy(reason));
    }
}

#[test]
fn an_open_socket_is_no_use_and_a_message_is() {
    let site = Site::new();
    let (session, cookie) = site.sign_in("ada");
    let mut socket = site.open(&cookie);
    site.pass(20);
    assert_eq!(count(&mut socket), "1");
    site.pass(20);
    socket.send(Message::text("nonsense")).unwrap();
    socket.read().unwrap();
    socket.send(Message::Ping("are you there".into())).unwrap();
    assert!(matches!(socket.read().unwrap(), Message::Pong(_)));
    // Neither is opening another one.
    let mut other = site.open(&cookie);
    assert_eq!(session.idle_left().unwrap(), Some(Duration::from_secs(10 * 60)));
    site.pass(10);
    assert_eq!(closed(&mut socket).1, "idle");
    assert_eq!(closed(&mut other).1, "idle");
    assert_eq!(site.try_open(&[("cookie", &cookie), ("origin", &format!("http://{}", site.address))]).err(), Some(401));
}

#[test]
fn a_message_that_comes_after_the_deadline_changes_nothing() {
    let site = Site::new();
    let (session, cookie) = site.sign_in("ada");
    let mut socket = site.open(&cookie);
    // Nobody has noticed yet.
    site.clock.advance(Duration::from_secs(30 * 60));
    socket.send(Message::text("count")).unwrap();
    assert_eq!(session.get(COUNT).unwrap_or_default(), None);
    site.sessions.run_pending();
    assert_eq!(closed(&mut socket).1, "idle");
}

#[test]
fn a_stop_closes_all_of_them_and_waits_until_they_are() {
    let mut site = Site::new();
    let cookies: Vec<String> = (0..10).map(|user| site.sign_in(&format!("user {user}")).1).collect();
    let mut sockets: Vec<_> = cookies.iter().map(|cookie| site.open(cookie)).collect();
    assert!(sockets.iter_mut().all(|socket| count(socket) == "1"));
    site.sessions.announce_close();
    site.sessions.run_pending();
    for socket in &mut sockets {
        assert_eq!(closed(socket), (CloseCode::Away, "shutdown".to_owned()));
        // The good-bye is answered, as browsers do.
        assert!(socket.flush().is_err() || socket.read().is_err());
    }
    site.stop.send(()).unwrap();
    site.runtime.block_on(site.server).unwrap().unwrap();
    // What the example's `main` waits for: it would hang here if a socket were left.
    assert_eq!(site.runtime.block_on(site.all_closed.recv()), None);
}
