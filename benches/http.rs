//! What sessions cost a web server: one axum handler bare, and the same handler reading a session through the layer.
//!
//! `cargo bench --bench http --features axum` takes about half a minute; `-- --quick` only shows that it works. Clients
//! and server share the machine and speak over loopback on connections that are kept. The two servers are measured in
//! turns, five times each; what counts is the ratio.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it prints a table and stops at the first failure")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use dwell::axum::{Connection, SessionLayer};
use dwell::{Field, Options, Session};

const VISITS: Field<u32> = Field::new("visits");
const CLIENTS: usize = 16;
const ROUNDS: usize = 5;
const SESSIONS: usize = 10_000;

async fn bare() -> String {
    7.to_string()
}

async fn read(session: Session) -> dwell::Result<String> {
    Ok(session.get(VISITS)?.unwrap_or_default().to_string())
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let run = if quick { Duration::from_millis(50) } else { Duration::from_secs(2) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let home = tempfile::tempdir().unwrap();
    let sessions = Options::new().open(home.path().join("sessions")).unwrap();
    let tokens: Vec<String> = (0..SESSIONS)
        .map(|number| {
            let session = sessions.start();
            let receipt = session.sign_in(format!("user {number}")).unwrap();
            let token = receipt.blocking_wait().unwrap();
            session.set(VISITS, &7).unwrap();
            token.expose()
        })
        .collect();
    // What the layer names its cookie is its own business: it is read off a first answer.
    let name = cookie_name(&sessions);
    let layered = Router::new().route("/", get(read)).layer(SessionLayer::development(sessions.clone()));
    let servers = [serve(&runtime, Router::new().route("/", get(bare))), serve(&runtime, layered)];
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (server, rates) in servers.iter().zip(&mut rates) {
            rates.push(measure(*server, &name, &tokens, run));
        }
    }
    println!("{CLIENTS} clients, {SESSIONS} sessions, median of {ROUNDS} rounds (least .. most)");
    let medians = rates.map(|mut rates| {
        rates.sort_unstable_by(f64::total_cmp);
        let pick = |at: usize| rates.get(at).copied().unwrap_or_default();
        (pick(ROUNDS / 2), pick(0), pick(ROUNDS - 1))
    });
    for (what, (median, least, most)) in ["bare handler", "with a session"].into_iter().zip(medians) {
        println!("  {what:<20} {median:>9.0} requests/s  ({least:.0} .. {most:.0})");
    }
    let [(bare, ..), (with, ..)] = medians;
    println!("  {:<20} {:>9.3}", "ratio", with / bare);
}

fn cookie_name(sessions: &dwell::Sessions) -> String {
    dwell::web::Site::development(sessions.clone()).cookie_name().to_owned()
}

fn serve(runtime: &tokio::runtime::Runtime, app: Router) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<Connection>()).await.unwrap();
    });
    address
}

/// Requests a second, of all clients together.
fn measure(server: SocketAddr, cookie: &str, tokens: &[String], run: Duration) -> f64 {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || done.fetch_add(ask(server, cookie, tokens, client, stop), Ordering::Relaxed));
        }
        std::thread::sleep(run);
        stop.store(true, Ordering::Relaxed);
    });
    done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

fn ask(server: SocketAddr, cookie: &str, tokens: &[String], client: usize, stop: &AtomicBool) -> u64 {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = [0; 1024];
    let mut requests = 0;
    for token in tokens.iter().cycle().skip(client * tokens.len() / CLIENTS) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {server}\r\nUser-Agent: bench\r\nAccept: */*\r\nCookie: theme=dark; {cookie}={token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let read = stream.read(&mut answer).unwrap();
        assert!(answer.get(..read).is_some_and(|answer| answer.ends_with(b"\r\n\r\n7")), "every answer is whole");
        requests += 1;
    }
    requests
}
