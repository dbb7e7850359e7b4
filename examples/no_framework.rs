//! A small site whose visitors stay signed in, on a plain synchronous HTTP server: no framework, no async, no script.
//!
//! `cargo run --release --example no_framework`, then open the address it prints. Any name signs in, with the password
//! `dwell`. Kill it with `kill -9`, start it again, and reload the page: still signed in, the count goes on.
//!
//! What belongs to every request is in `App::exchange`: facts in, checks, the application, first durable and then sent.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks to its operator")]

#[path = "no_framework/html.rs"]
mod html;

use std::io::{Cursor, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dwell::web::{self, Exchange, Refusal, Site};
use dwell::{Field, Receipt, Session, SessionId, Sessions};
use html::{Home, STYLE};
use tiny_http::{Header, Method, Request, Response, Server};

const VISITS: Field<u32> = Field::new("visits");
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
    let app = App { site: Site::development(sessions.clone()), address };
    let stopped = Arc::clone(&server);
    ctrlc::set_handler(move || (0..WORKERS).for_each(|_| stopped.unblock()))?;
    println!("listening on http://{address}");
    std::thread::scope(|scope| (0..WORKERS).for_each(|_| drop(scope.spawn(|| app.serve(&server)))));
    // Interrupted politely: closing writes when each session was last used, which a crash forgets.
    Ok(sessions.close()?)
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

struct App {
    site: Site,
    /// What the server listens on.
    address: SocketAddr,
}

impl App {
    fn serve(&self, server: &Server) {
        for mut request in server.incoming_requests() {
            let answer = self.exchange(&mut request).unwrap_or_else(|refusal| refused(&refusal));
            let _a_client_that_went_away_is_no_problem = request.respond(answer);
        }
    }

    fn exchange(&self, request: &mut Request) -> Result<Answer, Refusal> {
        let exchange = self.site.admit(&self.facts(request))?.open()?;
        let form = form(request);
        let answer = match exchange.check_token(Some(value(&form, self.site.token_field()))) {
            Ok(()) => self.answer(&exchange, request, &form).unwrap_or_else(|error| refused(&error.into())),
            Err(refusal) => refused(&refusal),
        };
        let ours = exchange.finish_blocking()?;
        Ok(ours.iter().fold(answer, |answer, (name, value)| answer.with_header(header(name, value))))
    }

    /// What of a request matters to sessions.
    fn facts<'a>(&self, request: &'a Request) -> web::Request<'a> {
        let headers = request.headers().iter().map(|line| (line.field.as_str().as_str(), line.value.as_bytes()));
        let facts = web::Request::new(request.method().as_str()).headers(headers).local_address(self.address);
        request.remote_addr().into_iter().fold(facts, |facts, peer| facts.peer_address(*peer))
    }

    fn answer(&self, exchange: &Exchange, request: &Request, form: &Form) -> dwell::Result<Answer> {
        match (request.method(), request.url()) {
            (Method::Get, "/style.css") => Ok(with(Response::from_string(STYLE), "Content-Type", "text/css")),
            (Method::Get, "/") => match exchange.session() {
                Some(session) => self.home(exchange, &session),
                None => self.welcome(exchange, 200, ""),
            },
            (Method::Post, "/sign-in") => self.sign_in(exchange, form),
            (Method::Post, action) => match exchange.session() {
                Some(session) => self.act(exchange, action, form, session),
                None => Ok(see_home()),
            },
            _ => Ok(page(404, "<p>There is nothing here. <a href=\"/\">Go on</a></p>")),
        }
    }

    fn sign_in(&self, exchange: &Exchange, form: &Form) -> dwell::Result<Answer> {
        if value(form, "password") != PASSWORD {
            return self.welcome(exchange, 403, "<p class=\"wrong\">That did not work.</p>");
        }
        // Whoever was signed in here before is not any more: it is one commit.
        exchange.session_for_sign_in().sign_in(value(form, "name").trim())?.blocking_wait()?;
        Ok(see_home())
    }

    fn welcome(&self, exchange: &Exchange, status: u16, notice: &str) -> dwell::Result<Answer> {
        Ok(page(status, &html::sign_in(notice, &self.token_field(exchange)?)))
    }

    fn home(&self, exchange: &Exchange, session: &Session) -> dwell::Result<Answer> {
        let Some(name) = session.principal()? else { return self.welcome(exchange, 200, "") };
        let home = Home {
            name: name.to_string(),
            visits: session.update(VISITS, |visits| {
                *visits += 1;
                *visits
            })?,
            token_field: self.token_field(exchange)?,
            created: session.created()?,
            idle_left: session.idle_left()?,
            life_left: session.life_left()?,
            devices: self.site.sessions().of(&name)?,
            this_one: session.id(),
            now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        Ok(page(200, &home.body()))
    }

    /// What every form carries, and nobody else's page can know.
    fn token_field(&self, exchange: &Exchange) -> dwell::Result<String> {
        Ok(html::hidden(self.site.token_field(), &exchange.csrf_token()?))
    }

    /// What a signed-in visitor's forms ask for. Each is durable before it is answered.
    fn act(&self, exchange: &Exchange, action: &str, form: &Form, session: Session) -> dwell::Result<Answer> {
        match action {
            "/sign-out" => session.destroy()?.blocking_wait()?,
            "/end-others" => drop(self.site.sessions().revoke_others(&session)?.blocking_wait()?),
            "/end" => {
                // Anybody's handle can be written into a form; only one's own sessions are ended.
                let own = self.site.sessions().of(&session.principal()?.unwrap_or_default())?;
                let asked = SessionId::parse(value(form, "id")).filter(|asked| own.iter().any(|own| own.id == *asked));
                let receipt = asked.map_or(Ok(None), |asked| self.site.sessions().revoke(asked))?;
                receipt.map_or(Ok(()), Receipt::blocking_wait)?;
                if asked.is_some() && asked == session.id() {
                    exchange.forget();
                }
            }
            _ => return Ok(page(404, "<p>There is no such action.</p>")),
        }
        Ok(see_home())
    }
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

/// A client is told what to do about it; the operator is told the cause.
fn refused(refusal: &Refusal) -> Answer {
    if let Some(cause) = refusal.cause().filter(|_| refusal.status() >= 500) {
        eprintln!("{cause:#}");
    }
    let answer = page(refusal.status(), &html::refusal(refusal.reason()));
    let retry = refusal.retry_after().map(|seconds| header("Retry-After", &seconds.to_string()));
    retry.into_iter().fold(answer, Answer::with_header)
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
    let all = [("Content-Security-Policy", POLICY), ("X-Content-Type-Options", "nosniff"), (name, value)];
    all.into_iter().fold(answer, |answer, (name, value)| answer.with_header(header(name, value)))
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("our headers are plain text")
}
