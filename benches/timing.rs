//! Whether time tells a token that is nearly right from one that is made up: `cargo bench --bench timing --features axum`.
//!
//! Requests with one kind of token and the other go over one loopback connection in random order, and Welch's t-test
//! compares how long their answers take, whole and without the slowest tenth, as in "Dude, is my code constant time?"
//! (Reparaz, Balasch and Verbauwhede, 2017), from where the bound of 4.5 is. A million samples for each comparison take
//! half a minute; `-- --quick` takes 50,000. The first line and the last are controls: tokens of the same kind are not to be
//! told apart, and live ones, which do take longer, have to be, or the method sees nothing. It fails if a control does, or if
//! tokens next to live ones are told apart.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "it prints a table and stops at the first failure"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Instant;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use base64ct::{Base64UrlUnpadded, Encoding};
use dwell::axum::SessionLayer;
use dwell::web::Site;
use dwell::{Options, Session, Sessions};
use rand::rngs::ChaCha12Rng;
use rand::{Rng, SeedableRng};

/// Tokens of each kind.
const POOL: usize = 10_000;
/// Above this the two kinds are told apart.
const BOUND: f64 = 4.5;

fn main() -> ExitCode {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let samples = if quick { 50_000 } else { 1_000_000 };
    let home = tempfile::tempdir().unwrap();
    let options = Options::new().sessions_per_principal(u32::MAX, dwell::AtLimit::EndOldest);
    let sessions = options.open(home.path().join("sessions")).unwrap();
    let live = sign_in(&sessions, "ada");
    let dead = sign_in(&sessions, "eve");
    sessions.revoke_all("eve").unwrap().blocking_wait().unwrap();
    let site = Site::development(sessions);
    let cookie = cookie_name(&site);
    let address = serve(site);
    let mut random = ChaCha12Rng::seed_from_u64(1);
    let near: Vec<String> = live.iter().map(|token| one_bit_off(token, &mut random)).collect();
    let made_up: Vec<String> = live.iter().map(|_| spelled(&secret(&mut random))).collect();
    println!("{samples} samples; |t| under {BOUND} tells nothing apart");
    let others: Vec<String> = live.iter().map(|_| spelled(&secret(&mut random))).collect();
    let mut told_apart = false;
    for (name, tokens, counts) in [
        ("other made up ones", &others, true),
        ("one bit off a live token", &near, true),
        // Whoever has such a token knows already that it was one.
        ("signed out", &dead, false),
    ] {
        told_apart |= counts & compare(name, (address, &cookie), [tokens, &made_up], samples, &mut random);
    }
    let control = compare("live (control)", (address, &cookie), [&live, &made_up], samples, &mut random);
    ExitCode::from(u8::from(told_apart || !control))
}

fn sign_in(sessions: &Sessions, name: &str) -> Vec<String> {
    let receipts: Vec<_> = (0..POOL).map(|_| sessions.start().sign_in(name).unwrap()).collect();
    receipts.into_iter().map(|receipt| receipt.blocking_wait().unwrap().expose()).collect()
}

fn secret(random: &mut ChaCha12Rng) -> [u8; 32] {
    let mut secret = [0; 32];
    random.fill_bytes(&mut secret);
    secret
}

/// The spelling of a token of key 0, checksum and all.
fn spelled(secret: &[u8; 32]) -> String {
    let body = format!("sid_s1A_{}", Base64UrlUnpadded::encode_string(secret));
    let checksum = crc32fast::hash(body.as_bytes()).to_be_bytes();
    body + &Base64UrlUnpadded::encode_string(&checksum)
}

fn one_bit_off(token: &str, random: &mut ChaCha12Rng) -> String {
    let mut secret: [u8; 32] = Base64UrlUnpadded::decode_vec(&token[8..51]).unwrap().try_into().unwrap();
    assert_eq!(spelled(&secret), token);
    secret[random.next_u32() as usize % 32] ^= 1 << (random.next_u32() % 8);
    spelled(&secret)
}

/// What the site calls its cookie: it is in the name of the store.
fn cookie_name(site: &Site) -> String {
    let request = dwell::web::Request::new("GET").headers([("Host", &b"localhost:3000"[..])]);
    let exchange = site.admit(&request).unwrap().open().unwrap();
    exchange.session_for_sign_in().sign_in("bob").unwrap().blocking_wait().unwrap();
    let headers = exchange.headers().unwrap();
    let (_, line) = headers.iter().find(|(name, _)| *name == "set-cookie").unwrap();
    line.split('=').next().unwrap().to_owned()
}

fn serve(site: Site) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let who = get(|session: Option<Session>| async move {
        if session.is_some() { StatusCode::OK } else { StatusCode::NO_CONTENT }
    });
    let app = Router::new().route("/", who).layer(SessionLayer::new(site));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await.unwrap();
        });
    });
    address
}

/// Prints how far the answers to two kinds of tokens are told apart; `true` if they are.
fn compare(
    name: &str,
    (address, cookie): (SocketAddr, &str),
    kinds: [&Vec<String>; 2],
    samples: usize,
    random: &mut ChaCha12Rng,
) -> bool {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_nodelay(true).unwrap();
    let request =
        |token: &String| format!("GET / HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}={token}\r\n\r\n").into_bytes();
    let requests = kinds.map(|tokens| tokens.iter().map(request).collect::<Vec<_>>());
    let mut times = [Vec::with_capacity(samples), Vec::with_capacity(samples)];
    let warm_up = samples / 10;
    for sample in 0..samples + warm_up {
        let kind = (random.next_u32() & 1) as usize;
        let request = &requests[kind][random.next_u32() as usize % POOL];
        let begun = Instant::now();
        connection.write_all(request).unwrap();
        read_answer(&mut connection);
        let nanoseconds = begun.elapsed().as_nanos() as f64;
        if sample >= warm_up {
            times[kind].push(nanoseconds);
        }
    }
    let whole = welch(&times);
    let mut all = times.concat();
    all.sort_unstable_by(f64::total_cmp);
    let slow = all[all.len() / 10 * 9];
    times.iter_mut().for_each(|times| times.retain(|&time| time < slow));
    let cropped = welch(&times);
    let [one, other] = times.each_ref().map(|times| moments(times).0);
    println!(
        "{name:>26} against made up: t {whole:6.2}, without the slowest tenth {cropped:6.2} (means {one:.0} and {other:.0} ns)"
    );
    whole.abs().max(cropped.abs()) > BOUND
}

fn read_answer(connection: &mut TcpStream) {
    let (mut answer, mut length) = ([0; 1024], 0);
    while !answer[..length].ends_with(b"\r\n\r\n") {
        length += connection.read(&mut answer[length..]).unwrap();
    }
}

fn moments(times: &[f64]) -> (f64, f64) {
    let count = times.len() as f64;
    let mean = times.iter().sum::<f64>() / count;
    (mean, times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0))
}

/// Welch's t (Biometrika 34, 1947).
fn welch(times: &[Vec<f64>; 2]) -> f64 {
    let [(one, spread), (other, other_spread)] = times.each_ref().map(|times| moments(times));
    (one - other) / (spread / times[0].len() as f64 + other_spread / times[1].len() as f64).sqrt()
}
