//! Listening: which addresses a profile is for, and a port that stays the same.
//!
//! It knows the standard library's sockets and the site. Invariants: nothing is bound that the profile is not for; a port
//! that was chosen by the system is chosen again if it is free, because what a page keeps for its origin, and what a
//! person has bookmarked, is lost with the port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};

use super::site::{Profile, Site};
use crate::error::{Error, Result};

impl Site {
    /// Whether the profile is for this address. [`localhost`](Self::localhost) and [`development`](Self::development) are
    /// for addresses that only this machine reaches, [`lan`](Self::lan) for all but public IPv4 addresses, where what
    /// it sends in the clear crosses the internet. IPv6 addresses are public on local networks too, so they are let pass.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with what to do instead.
    ///
    /// ```
    /// # use dwell::web::Site;
    /// let site = Site::localhost(dwell::Options::new().in_memory()?);
    /// assert!(site.check_address("127.0.0.1:3000".parse().unwrap()).is_ok());
    /// assert!(site.check_address("0.0.0.0:3000".parse().unwrap()).is_err());
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub fn check_address(&self, address: SocketAddr) -> Result<()> {
        if self.get().reachable {
            return Ok(());
        }
        let ip = address.ip().to_canonical();
        match self.get().profile {
            Profile::Development | Profile::Localhost if !ip.is_loopback() => Err(Error::invalid(format!(
                "`{address}` is reached by other machines, and the profile `{}` is for one machine; use `127.0.0.1`, \
                 or the profile `lan` or `https`",
                self.get().profile.name()
            ))),
            Profile::Lan if is_public(ip) => Err(Error::invalid(format!(
                "`{address}` is a public address, and in the profile `lan` cookies travel in the clear; use `https`"
            ))),
            _ => Ok(()),
        }
    }

    /// Listens on this address, if the profile is for it. With port 0 the system picks a port; the store remembers it,
    /// and the next time the same one is taken if it is free: browsers keep a page's storage, with the companion secret
    /// in it, by port. The socket blocks; for an async runtime set
    /// [`set_nonblocking`](TcpListener::set_nonblocking) and hand it over.
    ///
    /// Writes and syncs a small file when the port is another one than the last; a store in memory remembers nothing.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the profile is not for that address; what binding fails with. A
    /// port that cannot be remembered is no error.
    ///
    /// ```
    /// # use dwell::web::Site;
    /// let site = Site::localhost(dwell::Options::new().in_memory()?);
    /// let listener = site.listen("127.0.0.1:0")?;
    /// println!("http://{}", listener.local_addr()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn listen(&self, address: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        for &address in &addresses {
            self.check_address(address).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        }
        let picks = !addresses.is_empty() && addresses.iter().all(|address| address.port() == 0);
        let last = self.sessions().last_port().filter(|_| picks);
        if let Some(last) = last {
            let same = addresses.iter().map(|address| SocketAddr::new(address.ip(), last)).collect::<Vec<_>>();
            if let Ok(listener) = TcpListener::bind(&*same) {
                return Ok(listener);
            }
        }
        let listener = TcpListener::bind(&*addresses)?;
        if picks {
            self.sessions().remember_port(listener.local_addr()?.port());
        }
        Ok(listener)
    }
}

/// Whether packets to it cross the internet.
fn is_public(ip: IpAddr) -> bool {
    let IpAddr::V4(ip) = ip else { return false };
    // Between a provider and its customers (RFC 6598).
    let is_shared = (u32::from(ip) ^ u32::from(Ipv4Addr::new(100, 64, 0, 0))) >> 22 == 0;
    !(is_shared
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_unspecified()
        || ip.is_broadcast()
        || ip.is_multicast()
        || ip.is_documentation())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn sessions() -> crate::Sessions {
        Options::new().in_memory().unwrap()
    }

    #[test]
    fn a_profile_is_for_its_own_addresses() {
        let [here, lan, any, public, six] =
            ["127.0.0.1:0", "192.168.1.5:80", "0.0.0.0:80", "8.8.8.8:80", "[2001:db8::1]:80"];
        let takes = |site: &Site, address: &str| site.check_address(address.parse().unwrap()).is_ok();
        let is = |site: &Site| [here, lan, any, public, six].map(|address| takes(site, address));
        assert_eq!(is(&Site::localhost(sessions())), [true, false, false, false, false]);
        assert_eq!(is(&Site::development(sessions())), [true, false, false, false, false]);
        assert_eq!(is(&Site::lan(sessions())), [true, true, true, false, true]);
        assert_eq!(is(&Site::https(sessions(), "app.example").unwrap()), [true; 5]);
        assert_eq!(is(&Site::localhost(sessions()).dangerous().reachable_by_other_machines()), [true; 5]);
        assert!(takes(&Site::localhost(sessions()), "[::1]:80"));
        assert!(takes(&Site::localhost(sessions()), "[::ffff:127.0.0.1]:80"));
        assert!(!takes(&Site::localhost(sessions()), "[::]:80"));
        for private in ["10.0.0.1:1", "172.31.255.255:1", "169.254.1.1:1", "100.64.0.1:1", "100.127.255.255:1"] {
            assert!(takes(&Site::lan(sessions()), private), "{private}");
        }
        for public in ["172.32.0.1:1", "100.63.255.255:1", "100.128.0.0:1", "[::ffff:8.8.8.8]:1", "1.1.1.1:1"] {
            assert!(!takes(&Site::lan(sessions()), public), "{public}");
        }
    }

    #[test]
    fn a_foreign_address_is_not_bound() {
        let error = Site::localhost(sessions()).listen("0.0.0.0:0").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("for one machine"), "{error}");
    }

    #[test]
    fn a_port_that_was_picked_is_picked_again_if_it_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sessions");
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let site = Site::localhost(Options::new().open(&path).unwrap());
        let first = site.listen("127.0.0.1:0").unwrap();
        let picked = port(&first);
        let other = site.listen("127.0.0.1:0").unwrap();
        assert_ne!(port(&other), picked, "it is taken");
        drop((first, other));
        site.sessions().remember_port(picked);
        drop(site);
        let site = Site::localhost(Options::new().open(&path).unwrap());
        let again = site.listen("127.0.0.1:0").unwrap();
        assert_eq!(port(&again), picked);
        drop(again);
        std::fs::write(path.join("port"), "nonsense").unwrap();
        assert!(site.listen("127.0.0.1:0").is_ok(), "what makes no sense is no port");
    }
}
