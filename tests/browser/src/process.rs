//! Programs that run beside a test and end with it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long any program may take to say or do what is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again, until it is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
    }
}

/// A running program; killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// What it writes to standard output, until it ends.
    lines: Receiver<String>,
    name: String,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("failed to start {name}: {error}"));
        let output = child.stdout.take().expect("it was piped");
        let (sender, lines) = mpsc::channel();
        // Reads on when nobody listens any more, so that the program never waits for room in the pipe.
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, name }
    }

    /// Waits for a line of its output.
    pub(crate) fn hear<T>(&self, what: impl FnMut(&str) -> Option<T>) -> T {
        self.hear_or_end(what).unwrap_or_else(|| panic!("{} ended and did not say what it should", self.name))
    }

    /// Waits for a line of its output; `None` if it ends without one.
    pub(crate) fn hear_or_end<T>(&self, mut what: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(found) = what(&line) {
                        return Some(found);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("{} did not say what it should", self.name),
            }
        }
    }

    /// Waits until it has closed its standard output, as at its end; whether it did.
    pub(crate) fn falls_silent(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// `kill -9`, and waits for the end.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
