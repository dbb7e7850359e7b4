//! Where a story takes place.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::browser::Browser;
use crate::driver::Driver;
use crate::needs;
use crate::proxy::Proxy;
use crate::server::Server;
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
    let Some(chromium) = needs::needed("chromium", "chromium") else { return };
    let Some(driver) = needs::needed("chromedriver", "chromium") else { return };
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

    /// Starts a proxy that speaks TLS, or says that there is none.
    #[must_use]
    pub fn proxy(&self) -> Option<Proxy> {
        let nginx = needs::needed("nginx", "nginx")?;
        let openssl = needs::needed("openssl", "nginx")?;
        Some(Proxy::prepare(nginx, &openssl, self.fresh("proxy")))
    }

    /// Serves pages that mean the visitors of this server no good, from another port of the same host.
    #[must_use]
    pub fn stranger(&self, victim: &Server) -> Stranger {
        Stranger::start(&victim.origin())
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
