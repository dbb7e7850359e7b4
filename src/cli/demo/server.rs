//! Sockets and signals: accepts connections, bounds what they may send, and stops in time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use dwell::axum::Connection;
use dwell::web::Site;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service as _;

use super::super::Failure;
use super::log;

/// The longest head of a request, in bytes: room for what proxies and sibling sites add, not for a flood.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most that is read of one that is too long, in bytes. Whoever is still writing when the connection is closed may
/// not get to see why it was.
const BUFFER_BYTES_MAX: usize = 4 * HEAD_BYTES_MAX;
/// The most header lines: an attacker's many small ones cost more than few long ones.
const HEADERS_MAX: usize = 256;
/// How long a client may take to send a head.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long requests may go on after the signal to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(3);
/// How long what they left behind may take to end.
pub(super) const LAST_MOMENT: Duration = Duration::from_millis(500);

/// A socket that is listened on, until a signal comes.
pub(super) struct Listener {
    socket: TcpListener,
    stop: Stop,
    pub(super) address: SocketAddr,
}

/// Listens on the address, if the site's profile is for it.
pub(super) async fn listen(site: &Site, address: SocketAddr) -> Result<Listener, Failure> {
    // First of all: whoever is told that we listen may tell us to stop at once.
    let stop = Stop::watch().map_err(|error| Failure::Failed(format!("failed to watch for signals: {error}")))?;
    let failed = |error: io::Error| {
        let taken = error.kind() == io::ErrorKind::AddrInUse;
        let hint = if taken { "; name another with `--listen`" } else { "" };
        Failure::Failed(format!("failed to listen on {address}: {error}{hint}"))
    };
    let socket = site.listen(address).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(Listener { socket: TcpListener::from_std(socket).map_err(failed)?, stop, address })
}

/// Serves until a signal comes, says so, then lets requests end.
pub(super) async fn serve(listener: Listener, app: Router, stopping: impl FnOnce()) {
    let Listener { socket, mut stop, .. } = listener;
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => connect(stream, peer, app.clone(), &connections),
                Err(error) => {
                    log(&format!("failed to accept a connection: {error}"));
                    // Out of file descriptors, most likely: some come free as others end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = stop.wait() => break,
        }
    }
    drop(socket);
    stopping();
    let _some_may_not_end_in_time = tokio::time::timeout(LAST_REQUESTS, connections.shutdown()).await;
}

fn connect(stream: TcpStream, peer: SocketAddr, app: Router, connections: &GracefulShutdown) {
    let Ok(local) = stream.local_addr() else { return };
    // Answers are small and written at once; waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let connection = Connection::new(local, peer);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(connection);
        let mut app = app.clone();
        async move { app.call(request).await }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let served = connections.watch(served);
    tokio::spawn(async move {
        // Clients hang up and send nonsense; hyper has answered what can be answered.
        let _ = served.await;
    });
}

/// Ctrl-C or, on Unix, SIGTERM. From when it is made, they do not end the process on the spot.
struct Stop {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 2],
    #[cfg(windows)]
    signal: tokio::signal::windows::CtrlC,
}

impl Stop {
    #[cfg(unix)]
    fn watch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { signals: [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?] })
    }

    #[cfg(windows)]
    fn watch() -> io::Result<Self> {
        Ok(Self { signal: tokio::signal::windows::ctrl_c()? })
    }

    #[cfg(unix)]
    async fn wait(&mut self) {
        let [interrupt, terminate] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }

    #[cfg(windows)]
    async fn wait(&mut self) {
        self.signal.recv().await;
    }
}
