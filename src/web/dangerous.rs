//! What a site can be told to give up.
//!
//! It knows the site's rules. Invariant: each method is named after what is given up, and changes nothing else.

use super::cookie::SameSite;
use super::host::{Authority, Host};
use super::site::{Site, Tracking};
use crate::error::{Error, Result};

/// A site that is about to give something up: made by [`Site::dangerous`].
///
/// ```
/// use dwell::web::Site;
/// let site = Site::https(dwell::Options::new().in_memory()?, "app.example")?;
/// let site = site.dangerous().shared_domain("app.example")?;
/// assert_eq!(site.cookie_name(), "__Secure-id");
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Dangerous(pub(super) Site);

impl Dangerous {
    /// Shares the cookie with all hosts below this domain: each of them is sent everybody's token, can sign visitors out
    /// and can put its own session in place of theirs. One that is taken over takes the others with it. The cookie is
    /// called `__Secure-id` then, because a `__Host-` cookie is never shared.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) but in the profile `https`, and unless the domain has two labels or more
    /// and all the site's hosts are in it.
    pub fn shared_domain(self, domain: &str) -> Result<Site> {
        let Self(mut site) = self;
        let name = match Authority::parse(domain.as_bytes()) {
            Some(Authority { host: Host::Name(name), port: None }) if name.trim_matches('.').contains('.') => name,
            _ => {
                let message = "is no domain to share a cookie in; write `app.example`, without a port";
                return Err(Error::invalid(format!("`{domain}` {message}")));
            }
        };
        let rules = site.rules();
        "__Secure-id".clone_into(&mut rules.cookie.name);
        rules.cookie.domain = Some(name);
        site.check_domain()?;
        site.checked()
    }

    /// Lets pages of other sites embed this one and have its sessions there: their requests carry the cookie
    /// (`SameSite=None`), which then protects against forged requests no more, so only the checks of origin and token do.
    /// Each embedding site gets a cookie of its own (`Partitioned`), so nobody is signed in there who signed in here.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) but in the profile `https`: browsers drop such a cookie on plain HTTP.
    pub fn embedded(self) -> Result<Site> {
        let Self(mut site) = self;
        let rules = site.rules();
        rules.cookie.same_site = SameSite::None;
        rules.cookie.partitioned = true;
        site.checked()
    }

    /// Lets requests through that may be forged, because they come from a page of another site or do not show the page's
    /// token, and only tells of them ([`What::RequestsRefused`](crate::What::RequestsRefused)): for seeing what would be
    /// refused before it is. Until then every site that a visitor opens can act in their name. Hosts and companions are
    /// checked all the same.
    pub fn log_only(self) -> Site {
        let Self(mut site) = self;
        site.rules().log_only = true;
        site
    }

    /// Tracks sessions by the parameter `session` of each address instead of a cookie, for clients that can do nothing else.
    /// Addresses get into histories, bookmarks, logs of servers and proxies, screenshots and messages, and each gives the
    /// session away (OWASP ASVS 5.0, 14.2.1, forbids it on every level); and whoever sends a link sends their session
    /// along, so that the next to follow it works in that. Give such sessions few rights and short lives.
    ///
    /// A new token is [`Exchange::token`](super::Exchange::token), for the application to put into its links and redirects.
    /// Answers keep their address to themselves (`Referrer-Policy: same-origin`). No cookie and no header with a token
    /// counts here, and none of these tokens counts as one; no page's token is asked for, because no browser sends these by
    /// itself. To open a session in another browser once, use [`Exchange::hand_off`](super::Exchange::hand_off) instead.
    pub fn by_address(self) -> Site {
        let Self(mut site) = self;
        let rules = site.rules();
        rules.tracking = Tracking::Url;
        rules.companion = false;
        site
    }

    /// Lets [`Site::listen`] and [`Site::check_address`] take any address. In the profiles for one machine every other
    /// machine then reaches the sign-in, as far as host names let it; in `lan` cookies cross the internet in the clear.
    pub fn reachable_by_other_machines(self) -> Site {
        let Self(mut site) = self;
        site.rules().reachable = true;
        site
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn https() -> Site {
        Site::https(Options::new().in_memory().unwrap(), "www.app.example").unwrap()
    }

    #[test]
    fn a_cookie_is_shared_only_within_a_domain_of_the_site() {
        let site = https().dangerous().shared_domain("App.Example").unwrap();
        assert_eq!(site.get().cookie.domain.as_deref(), Some("app.example"));
        assert!(site.clone().allow_host("api.app.example").is_ok());
        assert!(site.allow_host("app.other").is_err(), "browsers would drop its cookie");
        for bad in ["example", "other.example", "app.example:80", "10.0.0.1", "", ".", "pp.example", "*.app.example"] {
            assert!(https().dangerous().shared_domain(bad).is_err(), "{bad}");
        }
        let lan = Site::lan(Options::new().in_memory().unwrap());
        assert!(lan.dangerous().shared_domain("app.example").is_err(), "its name could not be protected");
    }

    #[test]
    fn only_https_can_be_embedded() {
        let site = https().dangerous().embedded().unwrap();
        assert!(site.get().cookie.removal().ends_with("; SameSite=None; Partitioned; Max-Age=0"));
        let local = Site::localhost(Options::new().in_memory().unwrap());
        assert!(local.dangerous().embedded().is_err());
    }

    #[test]
    fn one_relaxation_leaves_the_others_alone() {
        let both = https().dangerous().embedded().unwrap().dangerous().shared_domain("app.example").unwrap();
        let removal = both.get().cookie.removal();
        let expected =
            "__Secure-id=; Path=/; Domain=app.example; Secure; HttpOnly; SameSite=None; Partitioned; Max-Age=0";
        assert_eq!(removal, expected);
    }
}
