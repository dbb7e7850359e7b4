//! The store that everything is measured on, and what its sessions hold.

use std::path::Path;

use dwell::{AtLimit, Field, Options, Sessions, Token, View};
use serde::{Deserialize, Serialize};

use crate::expiry::Whose;

/// What a real application keeps: a few short texts.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) account: String,
    pub(crate) display_name: String,
    pub(crate) email: String,
    pub(crate) avatar: String,
    pub(crate) locale: String,
    pub(crate) time_zone: String,
    pub(crate) last_page: String,
    pub(crate) cart: Vec<u64>,
    pub(crate) csrf: String,
}

/// The same, lent.
#[derive(Deserialize)]
pub(crate) struct ProfileView<'a> {
    pub(crate) account: &'a str,
    pub(crate) display_name: &'a str,
    pub(crate) email: &'a str,
    pub(crate) avatar: &'a str,
    pub(crate) locale: &'a str,
    pub(crate) time_zone: &'a str,
    pub(crate) last_page: &'a str,
    pub(crate) cart: Vec<u64>,
    pub(crate) csrf: &'a str,
}

impl View for Profile {
    type Of<'a> = ProfileView<'a>;
}

pub(crate) const PROFILE: Field<Profile> = Field::new("profile").keep_on_sign_in();
pub(crate) const VISITS: Field<u32> = Field::new("visits");

pub(crate) fn profile(number: usize) -> Profile {
    Profile {
        account: format!("account-{number:012}"),
        display_name: "Augusta Ada King, Countess of Lovelace".into(),
        email: format!("ada.{number:012}@analytical-engine.example"),
        avatar: "/static/avatars/6f1ed002ab5595859014ebf0.png".into(),
        locale: "en-GB".into(),
        time_zone: "Europe/London".into(),
        last_page: "/projects/4711/notes/on-the-calculation-of-the-bernoulli-numbers".into(),
        cart: vec![1001, 2002, 3003, 4004],
        csrf: "9fQ2rXw7Jc5tV1bN8mKz4LhG6dSaPyEoUiT3qRsWxYv0".into(),
    }
}

/// Bytes of one profile as it is stored: lengths and numbers below 251 take one byte, larger ones three.
pub(crate) fn payload_bytes() -> usize {
    let Profile { account, display_name, email, avatar, locale, time_zone, last_page, cart, csrf } = profile(0);
    let texts = [account, display_name, email, avatar, locale, time_zone, last_page, csrf];
    texts.iter().map(|text| 1 + text.len()).sum::<usize>() + 1 + 3 * cart.len()
}

pub(crate) fn options() -> Options {
    Options::new()
        .sessions_max(8_000_000)
        .sessions_per_principal(u32::MAX, AtLimit::Refuse)
        // Room for the data of all sessions: what is measured here is memory, not the disk's read cache.
        .cache_bytes(3 << 30)
}

pub(crate) fn open(path: &Path) -> Sessions {
    options().open(path).unwrap()
}

/// Signs in `count` people and saves their data, some thousand at a time.
pub(crate) fn fill(sessions: &Sessions, count: usize) -> Vec<Token> {
    fill_by(sessions, count, Whose::People(1))
}

/// Makes `count` sessions and saves their data, some thousand at a time.
pub(crate) fn fill_by(sessions: &Sessions, count: usize, whose: Whose) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(count);
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(CHUNK) {
        let started: Vec<_> = chunk
            .iter()
            .map(|number| {
                let session = sessions.start();
                let receipt = match whose {
                    Whose::People(each) => Some(session.sign_in(format!("person-{}", number / each)).unwrap()),
                    Whose::Nobodys => None,
                };
                (session, receipt)
            })
            .collect();
        let receipts: Vec<_> = started
            .into_iter()
            .zip(chunk)
            .map(|((session, receipt), &number)| {
                let token = receipt.map(|receipt| receipt.blocking_wait().unwrap());
                session.set(PROFILE, &profile(number)).unwrap();
                session.set(VISITS, &7).unwrap();
                tokens.push(token.or_else(|| session.token()).unwrap());
                session.save().unwrap()
            })
            .collect();
        receipts.into_iter().for_each(|receipt| receipt.blocking_wait().unwrap());
    }
    tokens
}

/// Below the limit of changes that may wait for the disk.
const CHUNK: usize = 10_000;
