//! The pages of the example as text. Whatever a visitor typed goes through `escape`.

use std::time::Duration;

use dwell::{SessionId, SessionInfo, Timestamp};

pub(crate) const STYLE: &str = include_str!("style.css");

/// What everybody else sees.
pub(crate) fn sign_in(notice: &str, token_field: &str) -> String {
    format!(
        "<h1>Who are you?</h1>{notice}<form class=\"sign-in\" method=\"post\" action=\"/sign-in\">{token_field}\
         <label>Name <input name=\"name\" required autofocus maxlength=\"60\" autocomplete=\"username\"></label>\
         <label>Password <input name=\"password\" type=\"password\" required autocomplete=\"current-password\"></label>\
         <button>Sign in</button><small>Any name will do; the password is <code>dwell</code>.</small></form>"
    )
}

/// Why a request was refused.
pub(crate) fn refusal(reason: &str) -> String {
    format!("<p class=\"wrong\">That did not work: {}.</p><p><a href=\"/\">Go on</a></p>", escape(reason))
}

/// A field of a form that nobody sees.
pub(crate) fn hidden(name: &str, value: &str) -> String {
    format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value))
}

/// What a signed-in visitor sees.
pub(crate) struct Home {
    pub(crate) name: String,
    pub(crate) visits: u32,
    pub(crate) token_field: String,
    pub(crate) created: Option<Timestamp>,
    pub(crate) idle_left: Option<Duration>,
    pub(crate) life_left: Option<Duration>,
    pub(crate) devices: Vec<SessionInfo>,
    pub(crate) this_one: Option<SessionId>,
    pub(crate) now: Duration,
}

impl Home {
    pub(crate) fn body(&self) -> String {
        format!(
            "<h1>Hello, {}</h1><p class=\"count\">Visit number <b>{}</b></p><dl>\
             <dt>Signed in</dt><dd>{}</dd><dt>Ends without a visit</dt><dd>{}</dd><dt>Ends in any case</dt><dd>{}</dd>\
             </dl><h2>Your devices</h2><ul>{}</ul><div class=\"row\">{}{}</div>",
            escape(&self.name),
            self.visits,
            self.created.map(shown).unwrap_or_default(),
            self.deadline(self.idle_left),
            self.deadline(self.life_left),
            self.devices.iter().map(|device| self.device(device)).collect::<String>(),
            self.button("/end-others", "", "Sign out everywhere else"),
            self.button("/sign-out", "", "Sign out"),
        )
    }

    fn device(&self, device: &SessionInfo) -> String {
        format!(
            "<li><span>{}{}</span><small>{}, last seen {}</small>{}</li>",
            escape(&device.device),
            if Some(device.id) == self.this_one { " <strong>(this one)</strong>" } else { "" },
            escape(&device.address),
            shown(device.last_seen),
            self.button("/end", &device.id.to_string(), "Sign out"),
        )
    }

    fn button(&self, action: &str, id: &str, label: &str) -> String {
        let fields = self.token_field.clone() + &hidden("id", id);
        format!("<form method=\"post\" action=\"{action}\">{fields}<button>{label}</button></form>")
    }

    fn deadline(&self, left: Option<Duration>) -> String {
        let left = left.unwrap_or_default();
        let at = Timestamp::from_unix_ms(u64::try_from((self.now + left).as_millis()).unwrap_or(u64::MAX));
        let (minutes, seconds) = (left.as_secs() / 60, left.as_secs() % 60);
        format!("{} <small>in {} h {} min {seconds} s</small>", shown(at), minutes / 60, minutes % 60)
    }
}

/// A moment as text that may break between day and time.
fn shown(moment: Timestamp) -> String {
    moment.to_string().replace('T', " ")
}

/// A whole page around a body.
pub(crate) fn document(body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>dwell</title><link rel=\"icon\" href=\"data:,\">\
         <link rel=\"stylesheet\" href=\"/style.css\"><main>{body}</main></html>"
    )
}

/// Text as HTML text or attribute value.
fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' | '<' | '>' | '"' | '\'' => html.push_str(&format!("&#{};", u32::from(character))),
            other => html.push(other),
        }
    }
    html
}
