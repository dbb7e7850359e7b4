//! The demo's page, as its user sees it.

use crate::browser::Browser;

/// What the page tells somebody signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who one is.
    pub principal: String,
    /// The counter.
    pub visits: String,
    /// The cart, one entry for each kind.
    pub cart: Vec<String>,
    /// How long the session lives on, in seconds.
    pub life_left_s: u64,
    /// The handles of one's sessions.
    pub devices: Vec<String>,
    /// The handle of this session.
    pub this_device: Vec<String>,
}

impl Browser {
    /// Fills in the form and waits to be greeted.
    pub fn sign_in(&self, user: &str) {
        self.try_to_sign_in(user, "dwell");
        self.expect("#principal", user);
    }

    /// Fills in the form.
    pub fn try_to_sign_in(&self, user: &str, password: &str) {
        self.fill("#login #user", user);
        self.fill("#login #password", password);
        self.press("#sign-in");
    }

    /// Presses the button and waits for the form to sign in with.
    pub fn sign_out(&self) {
        self.press("#sign-out");
        self.expect_class("none");
    }

    /// Counts a visit and waits for this result.
    pub fn count_to(&self, visits: u32) {
        self.press("#add-visit");
        self.expect("#visits", &visits.to_string());
    }

    /// Puts something into the cart and waits until so many kinds are in it.
    pub fn add_to_cart(&self, button: &str, kinds: usize) {
        self.press(button);
        self.expect_count("#cart li", kinds);
    }

    /// Waits until the page takes its visitor for this: `none`, `anonymous`, `authenticated`.
    pub fn expect_class(&self, class: &str) {
        self.expect_count(&format!("main[data-class={class}]"), 1);
    }

    /// Everything about somebody signed in.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.expect_class("authenticated");
        let one = |texts: Vec<String>| <[String; 1]>::try_from(texts).map(|[text]| text).expect("it is there once");
        Seen {
            principal: one(self.texts("#principal")),
            visits: one(self.texts("#visits")),
            cart: self.texts("#cart li"),
            life_left_s: one(self.attributes("#life-left", "data-seconds")).parse().expect("it is a number"),
            devices: self.attributes("#devices tbody tr", "data-session"),
            this_device: self.attributes("#devices tbody tr[data-current]", "data-session"),
        }
    }

    /// Asserts that nothing about this person is on the page, shown or not.
    pub fn expect_nothing_about(&self, person: &str) {
        self.expect_class("none");
        let source = self.source();
        assert!(!source.contains(person), "{person} is still on the page: {source}");
    }
}
