//! Sockets and signals: accepts connections, bounds what they may send, and stops in time.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use dwell::axum::Connection;
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
/// The most header lines: an attacker's many small ones cost more than few long ones.
const HEADERS_MAX: usize = 256;
/// How long a client may take to send a head.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long requests may go on after the signal to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(3);
/// How long what they left behind may take to end.
pub(super) const LAST_MOMENT: Duration = Duration::from_millis(500);

/// A socket that is listened on.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) address: SocketAddr,
}

/// Binds the address. One that other machines reach is refused where only this one should.
pub(super) async fn listen(address: SocketAddr, is_local: bool) -> Result<Listener, Failure> {
    if is_local && !address.ip().is_loopback() {
        return Err(Failure::Usage(format!(
            "`--listen {address}` is reached by other machines, and this profile is for one machine; use `--profile \
             lan` or `--profile https`"
        )));
    }
    let socket = TcpListener::bind(address).await;
    let socket = socket.map_err(|error| Failure::Failed(format!("failed to listen on {address}: {error}")))?;
    let address = socket.local_addr().map_err(|error| Failure::Failed(format!("failed to listen: {error}")))?;
    Ok(Listener { socket, address })
}

/// Serves until a signal comes, then lets requests end.
pub(super) async fn serve(listener: Listener, app: Router) {
    let connections = GracefulShutdown::new();
    let mut stop = std::pin::pin!(signal());
    loop {
        tokio::select! {
            accepted = listener.socket.accept() => match accepted {
                Ok((stream, peer)) => connect(stream, peer, app.clone(), &connections),
                Err(error) => {
                    log(&format!("failed to accept a connection: {error}"));
                    // Out of file descriptors, most likely: some come free as others end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            () = &mut stop => break,
        }
    }
    drop(listener);
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
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let served = connections.watch(served);
    tokio::spawn(async move {
        // Clients hang up and send nonsense; hyper has answered what can be answered.
        let _ = served.await;
    });
}

/// Waits for Ctrl-C or, on Unix, SIGTERM.
async fn signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending::<()>().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
