//! A browser with a user of its own.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Instant;

use fantoccini::cookies::Cookie;
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::wd::{WebDriverCompatibleCommand, WindowHandle};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Duration, interval};
use url::{ParseError, Url};

use crate::needs;
use crate::process::PATIENCE;

/// How often it is looked whether what is waited for is there.
const PACE: Duration = Duration::from_millis(40);

/// Only this machine, whatever a page or the browser itself would like to reach.
const HOSTS: &str = "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost";

/// A Chromium without a window, with a profile of its own.
pub struct Browser {
    runtime: Runtime,
    client: Client,
    /// The start of its screenshots' names.
    pub(crate) shots: PathBuf,
}

impl Browser {
    pub(crate) fn start(driver: &str, chromium: &Path, user: &Path, shots: &Path, scripts: bool) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        let mut arguments = vec![
            format!("--user-data-dir={}", user.display()),
            HOSTS.to_owned(),
            "--headless=new".to_owned(),
            "--window-size=1280,900".to_owned(),
            // The proxy's certificate is one that it made itself.
            "--ignore-certificate-errors".to_owned(),
        ];
        arguments.extend(
            [
                "disable-gpu",
                "disable-quic",
                "no-first-run",
                "disable-background-networking",
                "disable-component-update",
                "disable-sync",
                "disable-dev-shm-usage",
            ]
            .map(|flag| format!("--{flag}")),
        );
        if needs::is_root() {
            arguments.push("--no-sandbox".to_owned());
        }
        let preferences = if scripts {
            json!({})
        } else {
            // 2 is "block"; "managed" is what an administrator decided, so that no page asks.
            json!({ "profile.managed_default_content_settings.javascript": 2 })
        };
        let capabilities = json!({
            "goog:chromeOptions": { "binary": chromium, "args": arguments, "prefs": preferences },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("it is an object") };
        let client = runtime.block_on(async {
            // It is bound to the runtime that it is made in.
            ClientBuilder::new(HttpConnector::new()).capabilities(capabilities).connect(driver).await
        });
        let client = client.unwrap_or_else(|error| panic!("failed to start a browser: {error}"));
        Self { runtime, client, shots: shots.to_owned() }
    }

    /// Types an address.
    pub fn open(&self, url: &str) {
        self.runtime.block_on(self.client.goto(url)).unwrap_or_else(|error| panic!("failed to open {url}: {error}"));
    }

    /// Presses "reload".
    pub fn reload(&self) {
        self.runtime.block_on(self.client.refresh()).expect("a page can be loaded again");
    }

    /// Presses "back".
    pub fn back(&self) {
        self.runtime.block_on(self.client.back()).expect("there is a page to go back to");
    }

    /// Opens a tab, goes there, and says which tab it came from.
    pub fn open_in_new_tab(&self, url: &str) -> WindowHandle {
        let before = self.runtime.block_on(async {
            let before = self.client.window().await?;
            let tab = self.client.new_window(true).await?;
            self.client.switch_to_window(tab.handle).await?;
            Ok::<_, CmdError>(before)
        });
        let before = before.expect("a tab can be opened");
        self.open(url);
        before
    }

    /// Goes to another tab, and says which it came from.
    pub fn go_to_tab(&self, tab: WindowHandle) -> WindowHandle {
        let before = self.runtime.block_on(async {
            let before = self.client.window().await?;
            self.client.switch_to_window(tab).await?;
            Ok::<_, CmdError>(before)
        });
        before.expect("the tab is there")
    }

    /// Goes to the tab of this number, in the order in which they were opened.
    pub fn go_to_tab_number(&self, number: usize) {
        let tabs = self.runtime.block_on(self.client.windows()).expect("there are tabs");
        let tab = tabs.into_iter().nth(number).expect("there are as many tabs");
        self.go_to_tab(tab);
    }

    /// The address that is shown.
    #[must_use]
    pub fn address(&self) -> String {
        self.runtime.block_on(self.client.current_url()).expect("there is an address").to_string()
    }

    /// Presses what this CSS selector finds.
    pub fn press(&self, selector: &str) {
        self.wait(format_args!("`{selector}` to press"), async |client| {
            let element = client.find(Locator::Css(selector)).await?;
            element.click().await.map(Some)
        });
    }

    /// Fills in a field.
    pub fn fill(&self, selector: &str, text: &str) {
        self.wait(format_args!("`{selector}` to fill in"), async |client| {
            let element = client.find(Locator::Css(selector)).await?;
            element.clear().await?;
            element.send_keys(text).await.map(Some)
        });
    }

    /// Waits until this selector finds something whose text passes.
    pub fn wait_for_text(&self, selector: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait(format_args!("the right text in `{selector}`"), async |client| {
            let text = client.find(Locator::Css(selector)).await?.text().await?;
            Ok(Some(text).filter(|text| wanted(text)))
        })
    }

    /// Waits until this selector finds something with this text.
    pub fn expect(&self, selector: &str, text: &str) {
        self.wait_for_text(selector, |shown| shown == text);
    }

    /// Waits until this selector finds as many elements.
    pub fn expect_count(&self, selector: &str, count: usize) {
        self.wait(format_args!("{count} of `{selector}`"), async |client| {
            let found = client.find_all(Locator::Css(selector)).await?.len();
            Ok((found == count).then_some(()))
        });
    }

    /// The texts of what this selector finds now.
    #[must_use]
    pub fn texts(&self, selector: &str) -> Vec<String> {
        self.of_all(selector, async |element| element.text().await)
    }

    /// An attribute of what this selector finds now.
    #[must_use]
    pub fn attributes(&self, selector: &str, name: &str) -> Vec<String> {
        self.of_all(selector, async |element| Ok(element.attr(name).await?.unwrap_or_default()))
    }

    fn of_all(&self, selector: &str, what: impl AsyncFn(Element) -> Result<String, CmdError>) -> Vec<String> {
        self.wait(format_args!("`{selector}`, all at once"), async |client| {
            let mut found = Vec::new();
            for element in client.find_all(Locator::Css(selector)).await? {
                found.push(what(element).await?);
            }
            Ok(Some(found))
        })
    }

    /// The page's HTML as it is now.
    #[must_use]
    pub fn source(&self) -> String {
        self.runtime.block_on(self.client.source()).expect("a page has a source")
    }

    /// Runs a script in the page; it returns a value or a promise of one.
    pub fn run(&self, script: &str) -> Value {
        let wrapped = format!(
            "const tell = arguments[0]; (async () => {{ {script} }})().then(tell, (error) => tell(String(error)));"
        );
        self.runtime.block_on(self.client.execute_async(&wrapped, Vec::new())).expect("a script can be run")
    }

    /// The cookies that go to the page's address.
    #[must_use]
    pub fn cookies(&self) -> Vec<Cookie<'static>> {
        self.runtime.block_on(self.client.get_all_cookies()).expect("the browser shows its cookies")
    }

    /// The session's cookie, which is the only one that the demo ever sets.
    #[must_use]
    pub fn cookie(&self) -> Option<Cookie<'static>> {
        let mut cookies = self.cookies();
        assert!(cookies.len() <= 1, "{cookies:?}");
        cookies.pop()
    }

    /// The session's cookie as the demo in this browser's page names it, where other programs of the host have theirs too.
    #[must_use]
    pub fn cookie_named(&self, name: &str) -> Option<Cookie<'static>> {
        let mut found = self.cookies().into_iter().filter(|cookie| cookie.name() == name);
        let cookie = found.next();
        assert!(found.next().is_none(), "there are two of {name}");
        cookie
    }

    /// Waits until the session's cookie is another one than this.
    #[must_use]
    pub fn expect_other_cookie(&self, old: &Cookie<'_>) -> Cookie<'static> {
        self.wait("another cookie", async |client| {
            let mut cookies = client.get_all_cookies().await?;
            Ok(cookies.pop().filter(|cookie| cookie.value() != old.value()))
        })
    }

    /// What the browser's console complains about, but for refused requests, which stories are about.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.command(http::Method::POST, "se/log", json!({ "type": "browser" }));
        let entries = log.as_array().cloned().unwrap_or_default();
        let bad = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        let texts = bad.filter_map(|entry| entry["message"].as_str().map(str::to_owned));
        texts.filter(|text| !text.contains("Failed to load resource")).collect()
    }

    /// Talks to the browser's developer tools.
    pub(crate) fn tools(&self, method: &str, parameters: Value) -> Value {
        self.command(http::Method::POST, "goog/cdp/execute", json!({ "cmd": method, "params": parameters }))
    }

    fn command(&self, method: http::Method, path: &'static str, body: Value) -> Value {
        let command = Command { method, path, body };
        self.runtime.block_on(self.client.issue_cmd(command)).unwrap_or_else(|error| panic!("{path} failed: {error}"))
    }

    /// Looks again and again until there is something. What fails may be there next time: pages change under the hand.
    fn wait<T>(&self, what: impl Display, mut look: impl AsyncFnMut(&Client) -> Result<Option<T>, CmdError>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let found = self.runtime.block_on(async {
            let mut pace = interval(PACE);
            loop {
                pace.tick().await;
                let last = match look(&self.client).await {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => String::new(),
                    Err(error) => error.to_string(),
                };
                if Instant::now() >= deadline {
                    return Err(last);
                }
            }
        });
        found.unwrap_or_else(|error| {
            self.shot("failed");
            let (page, complaints) = (self.texts("body"), self.complaints());
            panic!("waited in vain for {what}: {error}\nat {}: {page:?}\ncomplaints: {complaints:?}", self.address())
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends those that cannot be closed.
        let _ = self.runtime.block_on(self.client.clone().close());
    }
}

/// What Chromium's driver understands beyond the standard.
#[derive(Debug)]
struct Command {
    method: http::Method,
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Command {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (self.method.clone(), Some(self.body.to_string()))
    }
}
