//! Another program that serves pages which mean a site's visitors no good: on another port of the same host, where
//! browsers send it the site's cookie because cookies know no ports, and on another host.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::process::PATIENCE;
use crate::proxy::Proxy;
use crate::site::Site;

/// A server whose pages send its visitors' requests to a site.
pub struct Stranger {
    near: String,
    far: String,
    cookies: Receiver<String>,
    /// Ends with it.
    _proxy: Option<Proxy>,
}

/// A host that has nothing in common with any site's.
const ELSEWHERE: &str = "stranger.test";

impl Stranger {
    pub(crate) fn start(victim: &Site, mut proxy: Option<Proxy>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        if let Some(proxy) = &mut proxy {
            proxy.start(address);
        }
        let origin = |name: &str| match &proxy {
            Some(proxy) => proxy.origin_as(name),
            None => format!("http://{name}:{}", address.port()),
        };
        let (near, far) = (origin(victim.name()), origin(ELSEWHERE));
        let site = Pages { page: PAGE.replace("VICTIM", victim.origin()), is_secure: proxy.is_some() };
        let (sender, cookies) = mpsc::channel();
        // Ends with the test's process: accepting cannot be interrupted.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                for cookie in site.serve(stream).unwrap_or_default() {
                    let _ = sender.send(cookie);
                }
            }
        });
        Self { near, far, cookies, _proxy: proxy }
    }

    /// The address of its page on another port of the site's host.
    #[must_use]
    pub fn near(&self) -> String {
        format!("{}/", self.near)
    }

    /// The address of its page on another host.
    #[must_use]
    pub fn far(&self) -> String {
        format!("{}/", self.far)
    }

    /// The address of a page on another port of the site's host that comes with a cookie, as good as the site's own.
    #[must_use]
    pub fn planting(&self, name: &str, value: &str) -> String {
        format!("{}{PLANT}{name}={value}", self.near)
    }

    /// Waits for a `Cookie` line that a visitor's browser brings.
    #[must_use]
    pub fn stolen_cookie(&self) -> String {
        self.cookies.recv_timeout(PATIENCE).expect("a browser sends cookies to every port of their host")
    }
}

/// What paths of pages with a cookie begin with.
const PLANT: &str = "/plant/";

struct Pages {
    page: String,
    is_secure: bool,
}

impl Pages {
    /// Answers one request with the page; the cookies that came with it.
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<Vec<String>> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let secure = if self.is_secure { "; Secure" } else { "" };
        let planted = path
            .strip_prefix(PLANT)
            .map_or_else(String::new, |pair| format!("Set-Cookie: {pair}; Path=/; HttpOnly; SameSite=Lax{secure}\r\n"));
        let (page, length) = (&self.page, self.page.len());
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n{planted}Connection: \
             close\r\n\r\n{page}"
        )?;
        Ok(head.iter().filter_map(|line| line.strip_prefix("Cookie: ").map(str::to_owned)).collect())
    }
}

const PAGE: &str = r#"<!doctype html><title>Free prizes</title>
<form method="post" action="VICTIM/logout"><button id="logout">A prize</button></form>
<form method="post" action="VICTIM/visit"><button id="visit">Another prize</button></form>
<form method="post" action="VICTIM/set"><input name="key" value="cart"><input name="value" value="Stolen">
<button id="set">A third</button></form>
<form method="post" action="VICTIM/login"><input name="user" value="mallory"><input name="password" value="dwell">
<button id="login">A fourth</button></form>
<a id="link" href="VICTIM/">The shop</a> <a id="made-up" href="VICTIM/#companion=sid_k1_made-up">The other shop</a>
"#;
