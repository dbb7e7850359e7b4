//! Another program of the same host that serves pages: cookies know no ports, so browsers send it ours.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use crate::process::PATIENCE;

/// A site on another port whose pages send its visitors' requests to the demo.
pub struct Stranger {
    address: SocketAddr,
    cookies: Receiver<String>,
}

impl Stranger {
    pub(crate) fn start(victim: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let page = PAGE.replace("VICTIM", victim);
        let (sender, cookies) = mpsc::channel();
        // Ends with the test's process: accepting cannot be interrupted.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                for cookie in serve(stream, &page).unwrap_or_default() {
                    let _ = sender.send(cookie);
                }
            }
        });
        Self { address, cookies }
    }

    /// The address of its page.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Waits for a `Cookie` line that a visitor's browser brings.
    #[must_use]
    pub fn stolen_cookie(&self) -> String {
        self.cookies.recv_timeout(PATIENCE).expect("a browser sends cookies to every port of their host")
    }
}

/// Answers one request with the page; the cookies that came with it.
fn serve(mut stream: TcpStream, page: &str) -> std::io::Result<Vec<String>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let length = page.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    )?;
    Ok(head.iter().filter_map(|line| line.strip_prefix("Cookie: ").map(str::to_owned)).collect())
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
