//! The program under test: a process of its own on a free port of 127.0.0.1, with a directory that outlives it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::answer::{Answer, TOKEN};
use super::http::{Connection, Request};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    Localhost,
    Lan,
    Https,
    Development,
}

impl Profile {
    pub(super) const ALL: [Self; 4] = [Self::Localhost, Self::Lan, Self::Https, Self::Development];

    const fn name(self) -> &'static str {
        match self {
            Self::Localhost => "localhost",
            Self::Lan => "lan",
            Self::Https => "https",
            Self::Development => "development",
        }
    }
}

/// The name under which browsers reach the server of profile `https`, through a proxy that ends TLS.
pub(super) const PUBLIC_HOST: &str = "app.example";
/// A machine that also builds and runs other tests is slow to start a process.
const START: Duration = Duration::from_secs(60);
/// The contract.
pub(super) const STOP: Duration = Duration::from_secs(5);

/// A directory for data, and beside it for what servers wrote to standard error.
#[derive(Debug)]
pub(super) struct Home {
    directory: tempfile::TempDir,
    starts: AtomicU32,
}

impl Home {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { directory: tempfile::tempdir().unwrap(), starts: AtomicU32::new(0) })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        self.directory.path().join(format!("standard-error-{start}"))
    }

    /// Every file of the data directory and what is in it.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }
}

/// How a process ended that did not begin to listen.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) status: ExitStatus,
    pub(super) errors: String,
}

/// What it said about the sessions it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Restored {
    pub(super) sessions: u64,
    pub(super) expired: u64,
}

impl Restored {
    /// The numbers come in this order; the words around them are free.
    #[track_caller]
    fn parse(line: &str) -> Self {
        let numbers: Vec<u64> = line
            .split(|character: char| !character.is_ascii_digit() && character != '.')
            .filter_map(|word| word.split('.').next()?.parse().ok())
            .collect();
        let words = ["restored", "expired", "ms"].iter().all(|word| line.contains(word));
        let &[sessions, expired, _] = &*numbers else { panic!("three numbers are due: {line:?}") };
        assert!(words, "{line:?}");
        Self { sessions, expired }
    }
}

/// A running server. It is killed by its own handle when the test is done with it, in whatever way.
#[derive(Debug)]
pub(super) struct Site {
    process: Child,
    log: PathBuf,
    arguments: Vec<String>,
    pub(super) home: Arc<Home>,
    pub(super) profile: Profile,
    pub(super) restored: Restored,
    /// `127.0.0.1:PORT`.
    pub(super) address: String,
}

impl Site {
    pub(super) fn new(profile: Profile) -> Self {
        Self::with(profile, &[])
    }

    pub(super) fn with(profile: Profile, arguments: &[&str]) -> Self {
        Self::on(Home::new(), profile, arguments)
    }

    #[track_caller]
    pub(super) fn on(home: Arc<Home>, profile: Profile, arguments: &[&str]) -> Self {
        Self::try_on(home, profile, arguments).unwrap_or_else(|failed| panic!("it does not start: {failed:?}"))
    }

    #[track_caller]
    pub(super) fn try_on(home: Arc<Home>, profile: Profile, arguments: &[&str]) -> Result<Self, Failed> {
        let mut all: Vec<String> = arguments.iter().map(|&argument| argument.into()).collect();
        if profile == Profile::Https && !arguments.contains(&"--allow-host") {
            all.extend(["--allow-host".into(), PUBLIC_HOST.into()]);
        }
        Self::launch(home, profile, all)
    }

    #[track_caller]
    fn launch(home: Arc<Home>, profile: Profile, arguments: Vec<String>) -> Result<Self, Failed> {
        let log = home.log();
        let process = Command::new(env!("CARGO_BIN_EXE_dwell"))
            .args(["demo", "--listen", "127.0.0.1:0", "--profile", profile.name(), "--data"])
            .arg(home.data())
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let restored = Restored { sessions: 0, expired: 0 };
        let mut site = Self { process, log, arguments, home, profile, restored, address: String::new() };
        let lines = lines_of(&mut site.process);
        let next = || lines.recv_timeout(START).ok();
        let (Some(first), Some(second)) = (next(), next()) else {
            let status = site.wait(START);
            return Err(Failed { status, errors: site.errors() });
        };
        site.restored = Restored::parse(&first);
        let address = second.strip_prefix("listening on http://");
        site.address = address.unwrap_or_else(|| panic!("{second:?}")).to_owned();
        assert!(site.address.starts_with("127.0.0.1:"), "{second:?}");
        Ok(site)
    }

    pub(super) fn port(&self) -> &str {
        self.address.rsplit_once(':').unwrap().1
    }

    /// What browsers send as Host.
    pub(super) fn host(&self) -> &str {
        if self.profile == Profile::Https { PUBLIC_HOST } else { &self.address }
    }

    /// What browsers send as Origin.
    pub(super) fn origin(&self) -> String {
        format!("{}://{}", if self.profile == Profile::Https { "https" } else { "http" }, self.host())
    }

    /// A request with the right Host and nothing else.
    pub(super) fn request(&self, method: &str, target: &str) -> Request {
        Request::new(method, target).with("Host", self.host())
    }

    /// Asks on a connection of its own.
    #[track_caller]
    pub(super) fn ask(&self, request: &Request) -> Answer {
        Connection::open(&self.address).ask(request)
    }

    pub(super) fn errors(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, and the same command once more on the same directory. The port is another one.
    #[track_caller]
    pub(super) fn killed_and_started(mut self) -> Self {
        self.process.kill().unwrap();
        self.started_again()
    }

    /// The same command once more, after this process ended by itself or is about to.
    #[track_caller]
    pub(super) fn started_again(mut self) -> Self {
        self.wait(START);
        let again = Self::launch(Arc::clone(&self.home), self.profile, self.arguments.clone());
        again.unwrap_or_else(|failed| panic!("it does not start again: {failed:?}"))
    }

    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to stop, and returns how it did.
    #[cfg(unix)]
    #[track_caller]
    pub(super) fn stop(&mut self, signal: rustix::process::Signal) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
        self.wait(STOP)
    }

    #[track_caller]
    fn wait(&mut self, patience: Duration) -> ExitStatus {
        let status = eventually(patience, || self.process.try_wait().unwrap());
        status.unwrap_or_else(|| panic!("still running after {patience:?}"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            let errors = self.errors();
            assert!(!errors.contains("panicked at"), "the server panicked:\n{errors}");
            assert!(!errors.contains(TOKEN), "the log shows a token:\n{errors}");
        }
    }
}

/// Standard output line by line, read on a thread so that a server which says nothing can be given up.
fn lines_of(process: &mut Child) -> mpsc::Receiver<String> {
    let (lines, received) = mpsc::channel();
    let output = BufReader::new(process.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in output.lines() {
            // It is read to its end, so that the server never meets a full or closed pipe.
            let _ = line.map(|line| lines.send(line));
        }
    });
    received
}

/// Asks for a state again and again until it is there, at most this long.
pub(super) fn eventually<T>(patience: Duration, mut state: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = state() {
            return Some(found);
        }
        if start.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Replaces a file by junk of the same length.
pub(super) fn damage(file: &Path) {
    let length = std::fs::metadata(file).unwrap().len();
    std::fs::write(file, vec![0x5A; usize::try_from(length).unwrap()]).unwrap();
}
