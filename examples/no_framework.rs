//! A small site whose visitors stay signed in, on a plain synchronous HTTP server: no framework, no async, no script.
//!
//! `cargo run --release --example no_framework`, then open the address it prints. Any name signs in, with the password
//! `dwell`. Kill it with `kill -9`, start it again, and reload the page: still signed in, the count goes on.
//!
//! The cookie, the form token and the checks of `Host` and `Origin` are done here by hand, to show what there is to
//! do. The order of an answer is the point: first durable, then sent.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its operator")]

#[path = "no_framework/html.rs"]
mod html;

use std::io::{Cursor, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dwell::{ErrorKind, Field, Receipt, Session, SessionId, Sessions, SignIn, Token};
use html::{Home, SIGN_IN, STYLE};
use rand::{TryRng, rngs::SysRng};
use tiny_http::{Header, Method, Request, Response, Server};

const VISITS: Field<u32> = Field::new("visits");
/// What every form of a signed-in visitor carries, and nobody else's page can know.
const FORM_TOKEN: Field<String> = Field::new("form_token");
const PASSWORD: &str = "dwell";
const WORKERS: usize = 8;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<Cursor<Vec<u8>>>;

fn main() -> Result<(), Failure> {
    let (data, listen) = arguments()?;
    if !listen.ip().is_loopback() {
        return Err("this example speaks plain HTTP, so it listens on loopback addresses only".into());
    }
    let begun = Instant::now();
    let sessions = Sessions::open(&data)?;
    println!("{} sessions restored from {} in {:.1?}", sessions.stats().restored, data.display(), begun.elapsed());
    let server = Arc::new(Server::http(listen)?);
    let address = server.server_addr().to_ip().ok_or("no address to listen on")?;
    let site = Site { sessions, hosts: [address.to_string(), format!("localhost:{}", address.port())] };
    let stopped = Arc::clone(&server);
    ctrlc::set_handler(move || (0..WORKERS).for_each(|_| stopped.unblock()))?;
    println!("listening on http://{address}");
    std::thread::scope(|scope| (0..WORKERS).for_each(|_| drop(scope.spawn(|| site.serve(&server)))));
    // Interrupted politely: closing writes when each session was last used, which a crash forgets.
    Ok(site.sessions.close()?)
}

fn arguments() -> Result<(PathBuf, SocketAddr), Failure> {
    let (mut data, mut listen) = (PathBuf::from("dwell-data"), "127.0.0.1:3000".to_owned());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--data", Some(directory)) => data = directory.into(),
            ("--listen", Some(address)) => listen = address,
            _ => return Err("usage: no_framework [--data DIRECTORY] [--listen 127.0.0.1:3000]".into()),
        }
    }
    Ok((data, listen.parse()?))
}

struct Site {
    sessions: Sessions,
    /// The only names that we answer to, so that a foreign name pointed at our address is not our origin.
    hosts: [String; 2],
}

impl Site {
    fn serve(&self, server: &Server) {
        for mut request in server.incoming_requests() {
            let answer = self.answer(&mut request).unwrap_or_else(|error| failed(&error));
            let _a_client_that_went_away_is_no_problem = request.respond(answer);
        }
    }

    fn answer(&self, request: &mut Request) -> dwell::Result<Answer> {
        if !self.is_same_origin(request) {
            return Ok(page(403, "<p>This request is meant for another site, or comes from one.</p>"));
        }
        let token = cookie(request);
        // An error here is not "signed out": it is answered as what it is.
        let session = token.as_ref().map_or(Ok(None), |token| self.sessions.load(token))?;
        let (method, path) = (request.method().clone(), request.url().to_owned());
        match (method, path.as_str(), session) {
            (Method::Get, "/", Some(session)) => self.home(&session),
            (Method::Get, "/", None) => {
                let forget = token.map(|_| forget_cookie());
                Ok(forget.into_iter().fold(page(200, SIGN_IN), Answer::with_header))
            }
            (Method::Get, "/style.css", _) => Ok(with(Response::from_string(STYLE), "Content-Type", "text/css")),
            (Method::Post, "/sign-in", session) => self.sign_in(request, session),
            (Method::Post, action, Some(session)) => self.act(action, &form(request), session),
            (Method::Post, _, None) => Ok(see_home()),
            _ => Ok(page(404, "<p>There is nothing here. <a href=\"/\">Go on</a></p>")),
        }
    }

    /// One `Host`, ours, for everything; what changes something has no foreign `Origin` and is not sent by a foreign
    /// page. Browsers always say so; programs such as curl say nothing, and carry nobody else's cookie.
    fn is_same_origin(&self, request: &Request) -> bool {
        let mut hosts = values(request, "Host");
        let Some(host) = hosts.next().filter(|host| self.hosts.iter().any(|ours| ours == host)) else { return false };
        let origin = format!("http://{host}");
        let from_us = || {
            values(request, "Origin").all(|value| value == origin)
                && values(request, "Sec-Fetch-Site").all(|value| value == "same-origin")
        };
        hosts.next().is_none() && (*request.method() == Method::Get || from_us())
    }

    fn sign_in(&self, request: &mut Request, session: Option<Session>) -> dwell::Result<Answer> {
        let form = form(request);
        let name = value(&form, "name").trim();
        if value(&form, "password") != PASSWORD || name.is_empty() || name.len() > SignIn::PRINCIPAL_BYTES_MAX {
            return Ok(page(403, &format!("<p class=\"wrong\">That did not work.</p>{SIGN_IN}")));
        }
        let device = values(request, "User-Agent").next().unwrap_or("an unnamed program");
        let address = request.remote_addr().map(|address| address.ip().to_string()).unwrap_or_default();
        // Whoever was signed in here before is not any more: it is one commit.
        let session = session.unwrap_or_else(|| self.sessions.start());
        let token = session.sign_in(SignIn::new(name).device(device).address(address))?.blocking_wait()?;
        session.set(FORM_TOKEN, &random_text())?;
        session.save()?.blocking_wait()?;
        // HttpOnly: no script reads it. SameSite=Strict: no other site's request carries it. No Domain: no other
        // host gets it. There is no Secure, because this is plain HTTP on one machine.
        let cookie = format!("{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict", token.expose());
        Ok(see_home().with_header(header("Set-Cookie", &cookie)))
    }

    fn home(&self, session: &Session) -> dwell::Result<Answer> {
        let Some(name) = session.principal()? else { return Ok(page(200, SIGN_IN)) };
        session.update(VISITS, |visits| *visits += 1)?;
        session.save()?.blocking_wait()?;
        let home = Home {
            name: name.to_string(),
            visits: session.get(VISITS)?.unwrap_or_default(),
            form_token: session.get(FORM_TOKEN)?.unwrap_or_default(),
            created: session.created()?,
            idle_left: session.idle_left()?,
            life_left: session.life_left()?,
            devices: self.sessions.of(&name)?,
            this_one: session.id(),
            now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        Ok(page(200, &home.body()))
    }

    /// What a signed-in visitor's forms ask for. Each is durable before it is answered.
    fn act(&self, action: &str, form: &Form, session: Session) -> dwell::Result<Answer> {
        let expected = session.get(FORM_TOKEN)?;
        if expected.is_none_or(|expected| expected != value(form, "form_token")) {
            return Ok(page(403, "<p>This form is out of date. <a href=\"/\">Go on</a></p>"));
        }
        match action {
            "/sign-out" => {
                session.destroy()?.blocking_wait()?;
                return Ok(see_home().with_header(forget_cookie()));
            }
            "/end-others" => drop(self.sessions.revoke_others(&session)?.blocking_wait()?),
            "/end" => {
                // Anybody's handle can be written into a form; only one's own sessions are ended.
                let own = self.sessions.of(&session.principal()?.unwrap_or_default())?;
                let asked = own.iter().find(|own| SessionId::parse(value(form, "id")) == Some(own.id));
                let receipt = asked.map_or(Ok(None), |asked| self.sessions.revoke(asked.id))?;
                receipt.map_or(Ok(()), Receipt::blocking_wait)?;
            }
            _ => return Ok(page(404, "<p>There is no such action.</p>")),
        }
        Ok(see_home())
    }
}

/// Cookies know no ports, so the name says whose it is.
const COOKIE: &str = "dwell-example";

/// The token in the one cookie of our name. With two of them somebody else put one there, and none is taken.
fn cookie(request: &Request) -> Option<Token> {
    let pairs = values(request, "Cookie").flat_map(|header| header.split("; "));
    let mut ours = pairs.filter_map(|pair| pair.split_once('=')).filter(|(name, _)| *name == COOKIE);
    let (_, text) = ours.next()?;
    if ours.next().is_some() { None } else { Token::parse(text) }
}

fn forget_cookie() -> Header {
    header("Set-Cookie", &format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"))
}

fn values<'a>(request: &'a Request, name: &'static str) -> impl Iterator<Item = &'a str> {
    request.headers().iter().filter(move |header| header.field.equiv(name)).map(|header| header.value.as_str())
}

type Form = Vec<(String, String)>;

/// The fields of a posted form; none if it is longer than any of ours, or no text.
fn form(request: &mut Request) -> Form {
    let mut body = Vec::new();
    let read = request.as_reader().take(FORM_BYTES_MAX + 1).read_to_end(&mut body);
    let whole = read.is_ok_and(|bytes| bytes as u64 <= FORM_BYTES_MAX);
    form_urlencoded::parse(if whole { &body } else { &[] }).into_owned().collect()
}

const FORM_BYTES_MAX: u64 = 4096;
fn value<'a>(form: &'a Form, name: &str) -> &'a str {
    form.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
}

/// 128 bits that nobody can guess, as text.
fn random_text() -> String {
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes).expect("the engine just had random bytes from the same source");
    format!("{:032x}", u128::from_ne_bytes(bytes))
}

fn failed(error: &dwell::Error) -> Answer {
    eprintln!("{error:#}");
    match error.kind() {
        // Signed out from another device a moment ago.
        ErrorKind::Gone => see_home().with_header(forget_cookie()),
        ErrorKind::Refused => page(403, "<p>Signing in is not possible right now.</p>"),
        ErrorKind::Busy => page(503, "<p>Much is going on. Please try again in a moment.</p>"),
        _ => page(500, "<p>Something is wrong with this site. Nothing was lost that was confirmed.</p>"),
    }
}

fn page(status: u16, body: &str) -> Answer {
    let html = Response::from_string(html::document(body)).with_status_code(status);
    with(html, "Content-Type", "text/html; charset=utf-8")
}

fn see_home() -> Answer {
    with(Response::from_string("").with_status_code(303), "Location", "/")
}

/// Adds a header, and those that every answer has.
fn with(answer: Answer, name: &str, value: &str) -> Answer {
    const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; \
                          frame-ancestors 'none'; base-uri 'none'";
    let common =
        [("Content-Security-Policy", POLICY), ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-store")];
    let all = common.into_iter().chain([(name, value)]);
    all.fold(answer, |answer, (name, value)| answer.with_header(header(name, value)))
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("our headers are plain text")
}
