//! A small HTTP/1.1 client that sends exactly what it is told and is strict about what it gets.
//!
//! It repairs nothing: a status line, header or body length that RFC 9112 does not allow is an error, and nothing is
//! waited for longer than [`PATIENCE`].

use std::fmt;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::answer::Answer;

/// How long a single read or write may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);
const LONGEST_ANSWER: usize = 16 << 20;

/// A request, as it will be written: nothing is added but the length of the body.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
    chunk: Option<usize>,
}

/// As it goes out, as far as somebody wants to read it.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes();
        f.write_str(&String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]))
    }
}

impl Request {
    pub(super) fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), headers: Vec::new(), body: None, chunk: None }
    }

    /// One more header line, whatever is there already.
    pub(super) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().into()));
        self
    }

    /// The only header line of this name.
    pub(super) fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).with(name, value)
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    pub(super) fn target(mut self, target: &str) -> Self {
        self.target = target.into();
        self
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub(super) fn form(self, fields: &[(&str, &str)]) -> Self {
        self.body("application/x-www-form-urlencoded", form(fields))
    }

    pub(super) fn body(self, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let mut request = self.set("Content-Type", content_type);
        request.body = Some(body.as_ref().into());
        request
    }

    /// Sends the body in chunks of this many bytes.
    pub(super) fn chunked(mut self, size: usize) -> Self {
        self.chunk = Some(size);
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut line = |name: &str, value: &[u8]| {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        };
        self.headers.iter().for_each(|(name, value)| line(name, value));
        match (&self.body, self.chunk) {
            (Some(_), Some(_)) => line("Transfer-Encoding", b"chunked"),
            (Some(body), None) => line("Content-Length", body.len().to_string().as_bytes()),
            (None, _) if !["GET", "HEAD", "OPTIONS", "TRACE"].contains(&&*self.method) => line("Content-Length", b"0"),
            (None, _) => {}
        }
        bytes.extend_from_slice(b"\r\n");
        match (&self.body, self.chunk) {
            (Some(body), Some(size)) => {
                for chunk in body.chunks(size) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            (Some(body), None) => bytes.extend_from_slice(body),
            (None, _) => {}
        }
        bytes
    }
}

/// Fields of a form, percent-encoded.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", percent(name), percent(value))).collect();
    fields.join("&")
}

pub(super) fn percent(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// A connection and what it sent that nobody has read yet.
#[derive(Debug)]
pub(super) struct Connection<S = TcpStream> {
    stream: S,
    unread: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: &str) -> Self {
        Self::try_open(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub(super) fn try_open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::over(stream))
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and reads the answer, which must be a good one.
    #[track_caller]
    pub(super) fn ask(&mut self, request: &Request) -> Answer {
        let answer = self.try_ask(request).unwrap_or_else(|error| panic!("no answer to {request:?}: {error}"));
        answer.hold(&request.method);
        answer
    }

    /// `InvalidData` is an answer that breaks the protocol; every other error a connection that ended.
    pub(super) fn try_ask(&mut self, request: &Request) -> Result<Answer> {
        // A server may refuse before it has read everything, so a failed write says nothing yet.
        let sent = self.send(&request.bytes());
        self.receive(request.method == "HEAD").map_err(|error| sent.err().unwrap_or(error))
    }

    /// Whether the server closes the connection without a further byte.
    pub(super) fn is_closed(&mut self) -> bool {
        // A reset says it as well as an end.
        self.unread.is_empty() && !matches!(self.stream.read(&mut [0]), Ok(1..))
    }
}

impl<S: Read> Connection<S> {
    pub(super) const fn over(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub(super) fn receive(&mut self, to_head: bool) -> Result<Answer> {
        loop {
            let mut answer = self.head()?;
            if (100..200).contains(&answer.status) {
                continue;
            }
            let coding = answer.strict_header("transfer-encoding")?.map(str::to_owned);
            let length = answer.strict_header("content-length")?.map(str::to_owned);
            answer.body = match (coding.as_deref(), length) {
                (Some(_), Some(_)) => return Err(broken("both Content-Length and Transfer-Encoding")),
                (None, None) if answer.status == 204 => Vec::new(),
                _ if answer.status == 204 => return Err(broken("a 204 that announces a body")),
                _ if to_head || answer.status == 304 => Vec::new(),
                (Some("chunked"), None) => self.chunks()?,
                (Some(other), None) => return Err(broken(&format!("Transfer-Encoding: {other}"))),
                (None, Some(length)) if length.bytes().all(|digit| digit.is_ascii_digit()) => {
                    self.exactly(length.parse().map_err(|_| broken("Content-Length"))?)?
                }
                (None, Some(length)) => return Err(broken(&format!("Content-Length: {length}"))),
                (None, None) => return Err(broken("a body without a length")),
            };
            return Ok(answer);
        }
    }

    /// An answer up to where its body begins.
    pub(super) fn head(&mut self) -> Result<Answer> {
        let status = self.line()?;
        let malformed = || broken(&format!("status line {status:?}"));
        let rest = status.strip_prefix("HTTP/1.1 ").ok_or_else(malformed)?;
        let (code, _reason) = rest.split_once(' ').ok_or_else(malformed)?;
        if code.len() != 3 || !code.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(malformed());
        }
        let mut answer = Answer { status: code.parse().map_err(|_| malformed())?, ..Answer::default() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(answer);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken(&format!("header line {line:?}")))?;
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) || value.bytes().any(|byte| byte < b' ' && byte != b'\t')
            {
                return Err(broken(&format!("header line {line:?}")));
            }
            answer.headers.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        // One that says something now and then would otherwise be read for ever.
        let start = Instant::now();
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk()? {
            body.extend(chunk);
            if start.elapsed() > PATIENCE {
                return Err(broken("an answer that does not end"));
            }
        }
        Ok(body)
    }

    /// The next piece of a body that comes in chunks; `None` at its end.
    pub(super) fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let size = self.line()?;
        let size = usize::from_str_radix(&size, 16).map_err(|_| broken(&format!("chunk size {size:?}")))?;
        let chunk = self.exactly(size)?;
        if !self.line()?.is_empty() {
            return Err(broken(if size == 0 { "a trailer" } else { "a chunk longer than it said" }));
        }
        Ok((size > 0).then_some(chunk))
    }

    /// A line without its CRLF.
    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n").ok_or_else(|| broken("a line that ends without CR"))?;
                return String::from_utf8(line.to_vec()).map_err(|_| broken("a line that is not UTF-8"));
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, bytes: usize) -> Result<Vec<u8>> {
        while self.unread.len() < bytes {
            self.more()?;
        }
        Ok(self.unread.drain(..bytes).collect())
    }

    fn more(&mut self) -> Result<()> {
        let mut bytes = [0; 16 << 10];
        let read = self.stream.read(&mut bytes)?;
        if read == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the connection ended within an answer or before it"));
        }
        self.unread.extend_from_slice(&bytes[..read]);
        if self.unread.len() > LONGEST_ANSWER { Err(broken("an endless answer")) } else { Ok(()) }
    }
}

pub(super) fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("the answer breaks the protocol: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &str) -> Result<Answer> {
        Connection::over(bytes.as_bytes()).receive(false)
    }

    #[test]
    fn answers_are_read_one_after_the_other() {
        let bytes = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie:b=2 \r\n\
                     Content-Length: 5\r\n\r\nhelloHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 404 Not Found\r\n\
                     transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n";
        let mut connection = Connection::over(bytes.as_bytes());
        let first = connection.receive(false).unwrap();
        assert_eq!((first.status, &*first.body), (200, &b"hello"[..]));
        assert_eq!(first.all("Set-Cookie"), ["a=1", "b=2"]);
        assert_eq!(connection.receive(false).unwrap().status, 204);
        let third = connection.receive(false).unwrap();
        assert_eq!((third.status, &*third.body), (404, &b"abc0123456789"[..]));
        assert_eq!(connection.receive(false).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_answer_to_head_has_a_length_and_no_body() {
        let mut connection = Connection::over(&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..]);
        assert!(connection.receive(true).unwrap().body.is_empty());
    }

    #[test]
    fn a_broken_answer_is_told_from_one_that_was_cut_off() {
        for bytes in [
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nName : x\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert_eq!(read(bytes).unwrap_err().kind(), ErrorKind::InvalidData, "{bytes}");
        }
        for bytes in ["", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"] {
            assert_eq!(read(bytes).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{bytes}");
        }
    }

    #[test]
    fn a_request_says_what_it_was_told() {
        let request = Request::new("POST", "/x").with("Host", "h").form(&[("a b", "é&"), ("c", "")]);
        let text = String::from_utf8(request.bytes()).unwrap();
        let head = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        assert_eq!(text, format!("{head}Content-Length: 18\r\n\r\na%20b=%C3%A9%26&c="));
        let chunked = String::from_utf8(request.chunked(10).bytes()).unwrap();
        let body = "a\r\na%20b=%C3%\r\n8\r\nA9%26&c=\r\n0\r\n\r\n";
        assert_eq!(chunked, format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}"));
    }
}
