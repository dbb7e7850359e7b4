//! Who is connected to whom.

use std::net::SocketAddr;

use ::axum::extract::ConnectInfo;
use ::axum::extract::connect_info::Connected;
use ::axum::http::Extensions;
use ::axum::serve::IncomingStream;
use tokio::net::TcpListener;

/// Both ends of a request's connection. With it the layer knows the port it is reached on, a device on a local network
/// its own address, and the list of devices where somebody signed in from.
///
/// ```no_run
/// # async fn run(app: axum::Router) -> std::io::Result<()> {
/// use dwell::axum::Connection;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// axum::serve(listener, app.into_make_service_with_connect_info::<Connection>()).await
/// # }
/// ```
///
/// A server with an accept loop of its own puts one into each request's extensions. Where only
/// `ConnectInfo<SocketAddr>` is there, the layer takes the peer's address from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

impl Connection {
    /// A connection from `peer` to the server's own address `local`.
    #[must_use]
    pub const fn new(local: SocketAddr, peer: SocketAddr) -> Self {
        Self { local: Some(local), peer: Some(peer) }
    }

    /// The server's end.
    #[must_use]
    pub const fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// The client's end, or a proxy's.
    #[must_use]
    pub const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// What a request's extensions tell.
    pub(super) fn of(extensions: &Extensions) -> Self {
        if let Some(connection) = extensions.get::<Self>() {
            return *connection;
        }
        if let Some(ConnectInfo(connection)) = extensions.get::<ConnectInfo<Self>>() {
            return *connection;
        }
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
        Self { local: None, peer }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { local: stream.io().local_addr().ok(), peer: Some(*stream.remote_addr()) }
    }
}
