//! Everything that can be seen of a store, compared with the model.

use std::time::Duration;

use dwell::{SessionId, Sessions, Token};

use super::client::{FIELD_NAMES, FIELDS, NAMES, World};
use super::plain::{Fields, Found, Kept};

impl World {
    pub(super) fn learn(&mut self, token: Token, session: usize, generation: u32) {
        self.say(format!("  token of session {session} generation {generation}"));
        self.tokens.push((token, session, generation));
        self.identify();
    }

    /// Learns the handles of sessions that can be loaded; those known must be the same as ever.
    pub(super) fn identify(&mut self) {
        for (token, session, _) in &self.tokens {
            let Some(handle) = self.sessions().load_without_touch(token).unwrap() else { continue };
            let id = handle.id().unwrap();
            match self.ids.iter().find(|(_, other)| other == session) {
                Some(&(known, _)) => assert_eq!(known, id, "the handle of session {session}"),
                None => self.ids.push((id, *session)),
            }
        }
    }

    /// Everything that can be seen without changing anything.
    pub(super) fn check(&mut self) {
        self.run_pending();
        let stats = self.sessions().stats();
        assert_eq!(stats.sessions, self.plain.filed(), "sessions in memory");
        assert_eq!(stats.anonymous, self.plain.anonymous(), "anonymous ones");
        assert_eq!(stats.trouble, None);
        for (token, session, generation) in &self.tokens {
            let live = self.plain.is_live(*session) && self.plain.sessions[*session].generation == *generation;
            let handle = self.sessions().load_without_touch(token).unwrap();
            assert_eq!(handle.is_some(), live, "session {session} of generation {generation}");
            let Some(handle) = handle else { continue };
            let want = &self.plain.sessions[*session];
            assert_eq!(fields_of(&handle), want.fields, "fields of session {session}");
            let seconds = |span: Option<Duration>| span.unwrap().as_secs();
            assert_eq!(
                seconds(handle.life_left().unwrap()),
                want.absolute - self.plain.now,
                "life of session {session}"
            );
            assert_eq!(
                seconds(handle.idle_left().unwrap()),
                want.deadline() - self.plain.now,
                "idle of session {session}"
            );
        }
        for (who, name) in NAMES.into_iter().enumerate() {
            let listed: Vec<SessionId> = self.sessions().of(name).unwrap().iter().map(|info| info.id).collect();
            let want = self.plain.of(who);
            assert_eq!(listed.len(), want.len(), "sessions of {name}");
            for (id, session) in listed.iter().zip(want) {
                let known = self.ids.iter().find(|(_, other)| *other == session);
                assert!(known.is_none_or(|(known, _)| known == id), "session {session} in the list of {name}");
            }
        }
    }
}

fn fields_of(handle: &dwell::Session) -> Fields {
    let named = FIELD_NAMES.into_iter().zip(FIELDS);
    named.filter_map(|(name, field)| Some((name, handle.get(field).unwrap()?))).collect()
}

pub(super) fn found_on_disk(sessions: &Sessions, tokens: &[(Token, usize, u32)], session: usize) -> Option<Found> {
    let mut opening = tokens.iter().filter(|(_, other, _)| *other == session).filter_map(|(token, _, generation)| {
        let handle = sessions.load_without_touch(token).unwrap()?;
        let kept = Kept { generation: *generation, fields: fields_of(&handle) };
        Some(Found { kept, left: handle.idle_left().unwrap().unwrap().as_secs() })
    });
    let found = opening.next();
    assert!(opening.next().is_none(), "two tokens open session {session}");
    found
}
