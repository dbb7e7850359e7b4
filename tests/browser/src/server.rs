//! The demo, as its user starts and kills it.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::process::Process;

/// `dwell demo` on a port of its own, and its data.
pub struct Server {
    profile: String,
    options: Vec<String>,
    data: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl Server {
    pub(crate) fn start(profile: &str, options: &[&str], data: PathBuf) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { profile: profile.to_owned(), options, data, address, process: None };
        server.start_again();
        server
    }

    /// Starts it on the data, and after the first time on the port, that it had.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it is running");
        let mut command = Command::new(dwell());
        command.args(["demo", "--profile", &self.profile, "--listen", &self.address.to_string(), "--data"]);
        let process = Process::start(command.arg(&self.data).args(&self.options));
        let address = process.hear(|line| line.strip_prefix("listening on http://").map(str::to_owned));
        self.address = address.parse().expect("it says where it listens");
        self.process = Some(process);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().expect("it is running").kill();
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The origin of its pages.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of one of its pages.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// The binary under test: the one named in the environment, or else the one that the sources beside this package make.
fn dwell() -> &'static Path {
    static DWELL: OnceLock<PathBuf> = OnceLock::new();
    DWELL.get_or_init(|| env::var_os("DWELL_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--features", "cli", "--bin", "dwell"]);
    command.arg("--message-format=json-render-diagnostics").arg("--manifest-path").arg(manifest);
    let built = command.stderr(Stdio::inherit()).output().expect("cargo can be started");
    assert!(built.status.success(), "dwell does not build");
    let messages = String::from_utf8(built.stdout).expect("cargo writes text");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut made = messages.filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from));
    made.next().expect("cargo says what it made")
}
