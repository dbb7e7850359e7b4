//! The demo application: a page, an API, and everything the library has for a web site.
//!
//! It is built on the library's public API only. What lives where: `args` (what was asked for), `app` (routes and what
//! all answers have), `handlers` (what each route does), `body` and `posted` (what requests bring), `streams` (who waits for the end
//! of a session), `server` (sockets and signals), `page` (HTML).

mod app;
mod args;
mod body;
mod handlers;
mod page;
mod posted;
mod server;
mod streams;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

pub(super) use self::args::Args;
use super::Failure;

/// Runs the application until it is told to stop.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    args.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("failed to start threads: {error}")))?;
    let begun = Instant::now();
    let data = args.data.display();
    let sessions = quietly(|| args.options().open(&args.data)).map_err(|error| match error.kind() {
        dwell::ErrorKind::Invalid => Failure::Usage(format!("{error:#}")),
        _ => Failure::Failed(format!("failed to open the sessions in `{data}`: {error:#}")),
    })?;
    let took = begun.elapsed().as_millis();
    let site = args.site(sessions.clone()).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let listener = runtime.block_on(server::listen(&site, args.listen))?;
    if args.tracking == args::Tracking::Url {
        log(
            "warning: sessions are tracked by addresses, which get into histories, logs and messages, and each gives its \
             session away; OWASP ASVS 5.0 forbids that on every level (14.2.1)",
        );
    }
    let found = sessions.stats();
    say(&format!("{} sessions restored, {} expired while down, {took} ms", found.restored, found.expired));
    say(&format!("listening on http://{}", listener.address));
    let app = app::router(site, args.profile, args.tracking);
    // Whoever waits for the end of a session is told that the server goes, and their streams end.
    runtime.block_on(server::serve(listener, app, || sessions.announce_close()));
    // Requests that outlived their time are let go; what they changed is written by the close.
    runtime.shutdown_timeout(server::LAST_MOMENT);
    sessions.close().map_err(|error| Failure::Failed(format!("failed to close the sessions in `{data}`: {error:#}")))
}

/// Runs what contains the panics of the B-tree, as opening a damaged file does: what comes of them is told as an error, and
/// their own text would only hide it.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let usual = Arc::new(std::panic::take_hook());
    let loud = Arc::clone(&usual);
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|location| location.file().contains("redb")) {
            loud(panic);
        }
    }));
    let done = work();
    drop(std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| usual(panic)));
    done
}

/// A line on standard output, for whoever started us; nobody may be listening.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A line on standard error.
fn log(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
