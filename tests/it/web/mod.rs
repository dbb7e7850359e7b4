//! Sessions on the web: the pure exchange, and the axum layer around routers.

mod codes;
mod exchange;
#[cfg(feature = "axum")]
mod layer;
#[cfg(feature = "axum")]
mod routers;
mod soft;
mod told;
#[cfg(feature = "test-util")]
mod visitor;

use dwell::web::{Exchange, Request, Site};
use dwell::{Field, Options, Sessions};

const VISITS: Field<u32> = Field::new("visits");
const HOST: &str = "localhost:3000";

fn sessions() -> Sessions {
    Options::new().in_memory().unwrap()
}

/// What a client sends besides the host.
type Lines<'a> = &'a [(&'a str, &'a str)];

fn request<'a>(method: &str, lines: Lines<'a>) -> Request<'a> {
    let all = [("Host", HOST)].into_iter().chain(lines.iter().copied());
    Request::new(method).headers(all.map(|(name, value)| (name, value.as_bytes())))
}

fn open(site: &Site, method: &str, lines: Lines<'_>) -> Exchange {
    site.admit(&request(method, lines)).unwrap().open().unwrap()
}

/// The `name=value` of the cookie that an exchange sets.
fn cookie_of(exchange: &Exchange) -> Option<String> {
    let headers = exchange.headers().unwrap();
    let mut cookies = headers.iter().filter(|(name, _)| *name == "set-cookie").map(|(_, value)| value);
    let cookie = cookies.next()?;
    assert!(cookies.next().is_none(), "one cookie is enough");
    Some(cookie.split(';').next().unwrap().to_owned())
}

/// A browser signed in as `who`: its cookie.
fn signed_in(site: &Site, who: &str) -> String {
    let exchange = open(site, "GET", &[]);
    exchange.session_for_sign_in().sign_in(who).unwrap().blocking_wait().unwrap();
    cookie_of(&exchange).unwrap()
}
