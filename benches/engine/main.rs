//! What the engine costs, in sessions a second, bytes and seconds.
//!
//! `cargo bench --bench engine` takes about a minute and three quarters. Options, after `--`: `--quick` runs everything small, to see
//! that it works; `--full` adds a million sessions and restarts with them (about two minutes more and 2 GiB of
//! memory); `--expiry` measures nothing but what others notice when a million sessions expire in the same second (about
//! five minutes); `--dir DIR` puts the store on another disk than that of temporary files.
//!
//! Every figure is the median of three runs with the smallest and the largest beside it. The disk's bare rate is
//! measured in the same run, because durable rates mean little without it. Memory is `cargo bench --bench memory`.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it prints a table and stops at the first failure")]

mod disk;
mod durable;
mod expiry;
mod loads;
mod mix;
mod renewals;
mod report;
mod restart;
mod store;

use std::path::PathBuf;
use std::time::Duration;

/// How much to do.
#[derive(Debug)]
struct Plan {
    sessions: usize,
    sessions_full: usize,
    full: bool,
    expiry: bool,
    run: Duration,
    directory: PathBuf,
}

impl Plan {
    fn from_args() -> Self {
        let mut plan = Self {
            sessions: 100_000,
            sessions_full: 1_000_000,
            full: false,
            expiry: false,
            run: Duration::from_secs(1),
            directory: std::env::temp_dir(),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => {
                    plan.sessions = 2_000;
                    plan.sessions_full = 20_000;
                    plan.run = Duration::from_millis(20);
                }
                "--full" => plan.full = true,
                "--expiry" => plan.expiry = true,
                "--dir" => plan.directory = args.next().expect("`--dir` takes a directory").into(),
                // What cargo passes to every benchmark.
                "--bench" => {}
                other => panic!("unknown option `{other}`; there are --quick, --full, --expiry and --dir DIR"),
            }
        }
        plan
    }
}

fn main() {
    if restart::is_child() {
        return;
    }
    let plan = Plan::from_args();
    let home = tempfile::tempdir_in(&plan.directory).unwrap();
    report::environment(home.path());

    if plan.expiry {
        return expiry::all(home.path(), plan.sessions_full);
    }

    report::heading("disk");
    let bare = disk::overwrite_and_sync(home.path(), plan.run);
    report::row("4 KiB overwrite + fdatasync, one thread", &bare);

    report::heading(&format!("{} live sessions, {} bytes of data in each", plan.sessions, store::payload_bytes()));
    let path = home.path().join("live");
    let sessions = store::open(&path);
    let mut tokens = store::fill(&sessions, plan.sessions);
    report::stats(&sessions);
    loads::all(&sessions, &tokens, plan.run);

    report::heading("durable: one commit at least for each, unless clients share one");
    for clients in [1, 16, 64] {
        durable::sign_ins(&sessions, clients, plan.run);
    }
    for clients in [1, 16, 64] {
        durable::anonymous(&sessions, clients, plan.run);
    }

    report::heading("web mix: all load, 5 % change and save, 0.5 % sign in, 0.2 % sign out");
    mix::run(&sessions, &mut tokens, plan.run);
    sessions.close().unwrap();

    report::heading(&format!("renewals: {} sessions, each loaded in random order", plan.sessions));
    renewals::all(home.path(), plan.sessions);

    if plan.full {
        report::heading(&format!("{} sessions", plan.sessions_full));
        let path = home.path().join("full");
        let sessions = store::open(&path);
        let tokens = store::fill(&sessions, plan.sessions_full);
        report::stats(&sessions);
        loads::small_field(&sessions, &tokens, plan.run);
        sessions.close().unwrap();
        restart::all(&path, &tokens);
    }
}
