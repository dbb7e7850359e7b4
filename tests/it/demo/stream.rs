//! An answer that goes on: server-sent events, read as they come.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::answer::Answer;
use super::browser::Browser;
use super::http::{Connection, Request};

/// Far longer than anything here takes. Comments keep a stream from being silent, so single reads do not time out.
const PATIENCE: Duration = Duration::from_secs(60);

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Value,
}

/// What `/live` sends.
#[derive(Debug)]
pub(super) struct Stream {
    connection: Connection,
    head: Answer,
    unread: String,
}

impl Stream {
    /// Opens one with everything that a page's script sends, and waits until it is open.
    #[track_caller]
    pub(super) fn open(browser: &Browser) -> Self {
        Self::ask(browser.address(), &request(browser))
    }

    #[track_caller]
    pub(super) fn ask(address: &str, request: &Request) -> Self {
        let mut connection = Connection::open(address);
        connection.send(&request.bytes()).unwrap();
        let head = connection.head().unwrap_or_else(|error| panic!("no answer to {request:?}: {error}"));
        let mut stream = Self { connection, head, unread: String::new() };
        stream.head = stream.head.expect(200).sets_no_cookie();
        stream.head.is_private();
        assert_eq!(stream.head.header("Content-Type"), Some("text/event-stream"));
        assert_eq!(stream.head.header("Cache-Control"), Some("no-store"));
        assert_eq!(stream.head.header("X-Accel-Buffering"), Some("no"));
        assert_eq!(stream.head.header("Transfer-Encoding"), Some("chunked"));
        // It says at once that it is open, so that whoever waits in between passes it on.
        stream.more().expect("it ended before it began");
        stream
    }

    /// The next event; `None` at the end. Comments are skipped.
    #[track_caller]
    pub(super) fn next(&mut self) -> Option<Event> {
        let start = Instant::now();
        loop {
            while let Some((block, rest)) = self.unread.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.unread = rest;
                if let Some(event) = event(&block) {
                    return Some(event);
                }
            }
            assert!(start.elapsed() < PATIENCE, "nothing happens");
            self.more()?;
        }
    }

    /// Why it ended, after which there is nothing more.
    #[track_caller]
    pub(super) fn reason(&mut self) -> String {
        let last = self.next().expect("it ended without a word");
        assert_eq!(last.name, "ended", "{last:?}");
        assert_eq!(self.next(), None);
        last.data["reason"].as_str().unwrap_or_else(|| panic!("{last:?}")).to_owned()
    }

    fn more(&mut self) -> Option<()> {
        let chunk = self.connection.chunk().unwrap_or_else(|error| panic!("the stream broke off: {error}"))?;
        self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
        Some(())
    }

    /// Whether the connection ends within the stream.
    pub(super) fn is_cut_off(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.connection.chunk() {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
        false
    }
}

/// What the page's script sends.
pub(super) fn request(browser: &Browser) -> Request {
    browser.request("GET", "/live").with("Accept", "text/event-stream").with("X-Passive", "1")
}

fn event(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let mut values = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let value = values.next();
        assert_eq!(values.next(), None, "{block}");
        value
    };
    let known =
        |line: &str| line.starts_with(':') || ["event: ", "data: ", "retry: "].iter().any(|f| line.starts_with(f));
    assert!(block.lines().all(known), "{block:?}");
    let name = field("event")?.to_owned();
    Some(Event { name, data: serde_json::from_str(field("data").expect("an event has data")).unwrap() })
}
