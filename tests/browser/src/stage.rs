//! Where a story takes place.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::browser::Browser;
use crate::driver::Driver;
use crate::needs;
use crate::proxy::{NAME, Proxy};
use crate::server::Server;
use crate::site::Site;
use crate::stranger::Stranger;

/// What a story is told with. Whatever it started ends with it.
pub struct Stage {
    name: String,
    chromium: PathBuf,
    driver: Driver,
    directory: TempDir,
    /// How many names of directories were handed out.
    made: Cell<usize>,
}

/// Tells a story, or says that it cannot be told here. The name is the first part of its screenshots' names.
pub fn story(name: &str, tell: impl FnOnce(&Stage)) {
    let Some(chromium) = needs::needed("chromium", "chromium", name) else { return };
    let Some(driver) = needs::needed("chromedriver", "chromium", name) else { return };
    let directory = tempfile::tempdir().expect("a directory can be made");
    let driver = Driver::start(&driver, directory.path());
    tell(&Stage { name: name.to_owned(), chromium, driver, directory, made: Cell::new(0) });
}

impl Stage {
    /// Starts the demo in this profile, on data of its own.
    #[must_use]
    pub fn serve(&self, profile: &str, options: &[&str]) -> Server {
        Server::start(profile, options, self.fresh("data"))
    }

    /// Opens a browser that has never been used.
    #[must_use]
    pub fn browser(&self) -> Browser {
        Browser::start(&self.driver.url(), &self.chromium, &self.fresh("browser"), &self.shots(), true)
    }

    /// Opens a browser that has never been used and whose user allows no scripts.
    #[must_use]
    pub fn browser_without_scripts(&self) -> Browser {
        Browser::start(&self.driver.url(), &self.chromium, &self.fresh("browser"), &self.shots(), false)
    }

    /// Prepares a proxy that speaks TLS, or says that there is none.
    #[must_use]
    pub fn proxy(&self) -> Option<Proxy> {
        self.proxy_named(NAME)
    }

    fn proxy_named(&self, name: &str) -> Option<Proxy> {
        let nginx = needs::needed("nginx", "nginx", &self.name)?;
        let openssl = needs::needed("openssl", "nginx", &self.name)?;
        Some(Proxy::prepare(nginx, &openssl, self.fresh("proxy"), name))
    }

    /// Starts the demo in this profile, where its visitors would find it: see [`Site`]. Says so if there is no proxy for
    /// a profile that wants one.
    #[must_use]
    pub fn site(&self, profile: &str, options: &[&str]) -> Option<Site> {
        self.site_named(profile, NAME, options)
    }

    /// The same; if it is behind a proxy, then under this name, which ends in `.test`.
    #[must_use]
    pub fn site_named(&self, profile: &str, name: &str, options: &[&str]) -> Option<Site> {
        let proxy = if profile == "https" { Some(self.proxy_named(name)?) } else { None };
        Some(self.site_behind(profile, proxy, options))
    }

    /// The same behind this proxy, if any.
    #[must_use]
    pub fn site_behind(&self, profile: &str, proxy: Option<Proxy>, options: &[&str]) -> Site {
        Site::start(profile, options, proxy, |profile, options| self.serve(profile, options))
    }

    /// Serves pages that mean the visitors of this site no good.
    #[must_use]
    pub fn stranger(&self, victim: &Site) -> Stranger {
        // Only a site behind a proxy has strangers behind one, so there is one.
        let proxy = victim.is_behind_proxy().then(|| self.proxy_named(NAME).expect("there is nginx"));
        Stranger::start(victim, proxy)
    }

    /// Where a directory can be made that nothing has been in.
    fn fresh(&self, kind: &str) -> PathBuf {
        self.made.set(self.made.get() + 1);
        self.directory.path().join(format!("{kind}-{}", self.made.get()))
    }

    /// The screenshots' directory and the first part of their names.
    fn shots(&self) -> PathBuf {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/browser-shots");
        fs::create_dir_all(&directory).expect("a directory can be made");
        directory.join(&self.name)
    }
}
