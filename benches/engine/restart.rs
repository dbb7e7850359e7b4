//! Restarts: after a clean stop, and after the process was killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use dwell::Token;

use crate::report::{self, RUNS};
use crate::store::{VISITS, options};

/// Every start is one of a fresh process, as it would be.
pub(crate) fn all(path: &Path, tokens: &[Token]) {
    let clean: Vec<Opened> = (0..RUNS).map(|_| opened(path)).collect();
    assert!(clean.iter().all(|opened| opened.restored == tokens.len()), "sessions got lost");
    seconds("open after a clean stop", clean.iter().map(|opened| opened.seconds).collect());
    let (middle, least, most) = report::median(clean.iter().map(|opened| opened.grown_bytes).collect());
    let each = tokens.len() as f64;
    let text = format!("{:.0} B a session  ({:.0} .. {:.0})", middle / each, least / each, most / each);
    report::note("the process grows by, pages of the file included", &text);
    let killed = (0..RUNS).map(|_| {
        write_and_be_killed(path);
        opened(path).seconds
    });
    seconds("open after kill -9 in the middle of writing", killed.collect());
}

/// What a process found that opened the store.
struct Opened {
    seconds: f64,
    grown_bytes: f64,
    restored: usize,
}

fn opened(path: &Path) -> Opened {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).arg(OPEN_CHILD).arg(path).stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut parts = text.split_whitespace();
    let mut next = || parts.next().expect("the child process failed to open the store");
    Opened { seconds: next().parse().unwrap(), grown_bytes: next().parse().unwrap(), restored: next().parse().unwrap() }
}

fn open_and_report(path: &Path) {
    let before = report::resident_bytes().unwrap_or_default();
    let begun = Instant::now();
    let sessions = options().open(path).unwrap();
    let time = begun.elapsed().as_secs_f64();
    let after = report::resident_bytes().unwrap_or_default();
    println!("{time} {} {}", after.saturating_sub(before), sessions.stats().restored);
    sessions.close().unwrap();
}

fn seconds(what: &str, times: Vec<f64>) {
    let (middle, least, most) = report::median(times);
    report::note(what, &format!("{middle:.2} s  ({least:.2} .. {most:.2})"));
}

const OPEN_CHILD: &str = "--open-and-report";
const CRASH_CHILD: &str = "--write-until-killed";

/// Starts another process that opens the store and writes, and kills it while it does.
fn write_and_be_killed(path: &Path) {
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program).arg(CRASH_CHILD).arg(path).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line.trim(), "writing", "the child process failed to open the store");
}

/// Does what a child process is started for. `false` if this is none.
pub(crate) fn is_child() -> bool {
    let mut args = std::env::args_os().skip(1);
    let (what, path) = (args.next(), args.next().map(PathBuf::from));
    match (what.as_ref().and_then(|what| what.to_str()), path) {
        (Some(OPEN_CHILD), Some(path)) => open_and_report(&path),
        (Some(CRASH_CHILD), Some(path)) => write_until_killed(&path),
        _ => return false,
    }
    true
}

fn write_until_killed(path: &Path) {
    let sessions = options().open(path).unwrap();
    let session = sessions.start();
    for number in 0.. {
        session.set(VISITS, &number).unwrap();
        session.save().unwrap().blocking_wait().unwrap();
        if number == 10 {
            println!("writing");
        }
    }
}
