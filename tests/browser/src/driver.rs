//! The program between the tests and the browsers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::http::request;
use crate::process::Process;

/// `chromedriver`, which starts the browsers and ends them.
pub(crate) struct Driver {
    process: Process,
    address: SocketAddr,
}

/// Tries to start it: it is unlucky now and then, but not so often in a row.
const STARTS: usize = 5;
/// How long all its browsers may take to end.
const LAST_WORDS: Duration = Duration::from_secs(10);

impl Driver {
    /// Starts it; what it and its browsers leave behind is in this directory.
    pub(crate) fn start(program: &Path, temporary: &Path) -> Self {
        let start = || {
            let mut command = Command::new(program);
            // What they complain about is a headless machine's want of a desktop.
            let process = Process::start(command.arg("--port=0").env("TMPDIR", temporary).stderr(Stdio::null()));
            let port = |line: &str| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok();
            Some((process.hear_or_end(port)?, process))
        };
        // The port that it picked for the one kind of addresses may be taken for the other, and then it ends.
        let started = (0..STARTS).find_map(|_| start());
        let (port, process) = started.unwrap_or_else(|| panic!("{} does not start", program.display()));
        Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Driver {
    /// Asks it to end first, because browsers outlive a driver that is killed.
    fn drop(&mut self) {
        let host = self.address.to_string();
        let asked = std::panic::catch_unwind(|| request(self.address, "GET", "/shutdown", &[("Host", &host)], ""));
        let _ = asked.is_ok() && self.process.falls_silent(LAST_WORDS);
    }
}
