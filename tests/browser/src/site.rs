//! The demo where its visitors find it, which differs between profiles: on this machine, under a name of the local
//! network, or behind a proxy that speaks TLS.

use crate::http::{Answer, request};
use crate::proxy::Proxy;
use crate::server::Server;

/// A running demo and the address that its visitors know: `http://127.0.0.1:P` for one machine; `http://lan.test:P`, which
/// browsers trust no more than any plain name, so that they send no `Sec-Fetch-Site`; or `https://app.test:P` behind
/// nginx.
pub struct Site {
    server: Server,
    name: String,
    origin: String,
    proxy: Option<Proxy>,
}

impl Site {
    pub(crate) fn start(
        profile: &str,
        options: &[&str],
        mut proxy: Option<Proxy>,
        serve: impl FnOnce(&str, &[&str]) -> Server,
    ) -> Self {
        const LAN: &str = "lan.test";
        let host = proxy.as_ref().map(Proxy::host);
        let more: &[&str] = match &host {
            Some(host) => &["--allow-host", host, "--trusted-proxy", "127.0.0.1"],
            None if profile == "lan" => &["--allow-host", LAN],
            None => &[],
        };
        let server = serve(profile, &[more, options].concat());
        if let Some(proxy) = &mut proxy {
            proxy.start(server.address());
        }
        let name = match &host {
            Some(host) => host.split(':').next().unwrap_or_default().to_owned(),
            None if profile == "lan" => LAN.to_owned(),
            None => server.address().ip().to_string(),
        };
        let origin = match &host {
            Some(host) => format!("https://{host}"),
            None => format!("http://{name}:{}", server.address().port()),
        };
        Self { server, name, origin, proxy }
    }

    /// The origin of its pages.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The name or address of its host, without the port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of one of its pages.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// The demo itself.
    #[must_use]
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// `kill -9`, and starts it again on the same data.
    pub fn restart(&mut self) {
        self.server.kill();
        self.server.start_again();
    }

    pub(crate) const fn is_behind_proxy(&self) -> bool {
        self.proxy.is_some()
    }

    /// Sends a request that no browser would, past any proxy.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let host = self.origin.split_once("://").map_or("", |(_, host)| host);
        request(self.server.address(), method, path, &[&[("Host", host)], headers].concat(), body)
    }
}
