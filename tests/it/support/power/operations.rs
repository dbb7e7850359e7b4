//! What the simulated visitors do, each operation with its effect on the model. The effect goes into the model first:
//! when the power fails on the way, it is what may be there.

use dwell::{ErrorKind, Result, Session, Sessions, SignIn, Token};

use super::{Done, KEPT, NUMBER, PER_PRINCIPAL, PRINCIPALS, Power, Run, TEXT, Visitor, text_of};

impl Run {
    /// Drops the sessions of a principal whose time is over, in the engine and in the model.
    fn settle(&mut self, sessions: &Sessions, principal: usize) -> Result<Power> {
        sessions.run_pending();
        self.note_commits(sessions);
        if sessions.stats().trouble.is_some() {
            return Ok(Power::Lost);
        }
        for name in self.pending.of(principal) {
            let Some(visitor) = self.pending.live.get(&name) else { continue };
            let token = visitor.token.and_then(|token| self.tokens.get(token));
            let over = match token {
                Some(token) => sessions.load_without_touch(token)?.is_none(),
                None => visitor.surely_dead(self.now),
            };
            if over {
                assert!(!visitor.surely_lives(self.now), "session {name} is lost: {visitor:?} at {}", self.now);
                self.forget(name);
            }
        }
        Ok(Power::On)
    }

    pub(super) fn sign_in(&mut self, sessions: &Sessions, over: Option<u32>) -> Result<Done> {
        let principal = self.principal();
        if self.settle(sessions, principal)? == Power::Lost {
            return Ok(Done::Nothing);
        }
        let session = match over {
            None => sessions.start(),
            Some(name) => match self.load(sessions, name)? {
                Some(session) => session,
                None => return Ok(Done::Nothing),
            },
        };
        let name = self.next_name;
        self.next_name += 1;
        let before = self.pending.clone();
        let mut visitor = Visitor::new(Some(principal), self.now);
        if let Some(old) = over.and_then(|over| self.pending.live.remove(&over)) {
            let same = old.principal == Some(principal);
            visitor.number = old.number.filter(|_| same);
            visitor.kept = old.kept.filter(|_| same || old.principal.is_none());
        }
        let others = self.pending.of(principal);
        let evicted = &others[..(others.len() + 1).saturating_sub(PER_PRINCIPAL)];
        self.pending.end(evicted);
        self.pending.live.insert(name, visitor);
        let who = PRINCIPALS[principal];
        self.log.push(format!("session {name}: {who} signs in over {over:?}, ending {evicted:?}"));
        let mut touched: Vec<u32> = evicted.iter().copied().chain(over).collect();
        touched.push(name);
        let known = !self.unsure.contains(&principal);
        match session.sign_in(SignIn::new(who).device(name.to_string())) {
            Err(error) if error.kind() == ErrorKind::Refused => {
                self.pending = before;
                assert!(!known || self.pending.disabled.contains(&principal), "{who} is not disabled");
                self.know(principal, true);
                Ok(Done::Nothing)
            }
            Err(error) => Err(error),
            Ok(receipt) => {
                assert!(!known || !self.pending.disabled.contains(&principal), "{who} is disabled");
                self.know(principal, false);
                let token = receipt.blocking_wait()?;
                self.hand_out(name, token);
                let id = session.id().expect("it is signed in");
                assert!(self.ids.values().all(|other| *other != id), "session {name} is named like one before");
                self.ids.insert(name, id);
                Ok(Done::Acknowledged(touched))
            }
        }
    }

    fn know(&mut self, principal: usize, disabled: bool) {
        if self.unsure.remove(&principal) {
            for world in [&mut self.durable, &mut self.pending] {
                world.disabled.remove(&principal);
                world.disabled.extend(disabled.then_some(principal));
            }
        }
    }

    fn hand_out(&mut self, name: u32, token: Token) {
        if let Some(visitor) = self.pending.live.get_mut(&name) {
            visitor.token = Some(self.tokens.len());
        }
        self.tokens.push(token);
    }

    /// Somebody without a session writes something, which is not waited for.
    pub(super) fn begin(&mut self, sessions: &Sessions) -> Result<Done> {
        let session = sessions.start();
        let (name, number) = (self.next_name, self.number());
        self.next_name += 1;
        self.log.push(format!("session {name}: begins with {number}"));
        let visitor = Visitor { number: Some(number), kept: Some(number), ..Visitor::new(None, self.now) };
        set(&session, number)?;
        self.pending.live.insert(name, visitor);
        self.hand_out(name, session.token().expect("a first write makes a token"));
        Ok(Done::InMemory)
    }

    pub(super) fn write(&mut self, sessions: &Sessions, wait: bool) -> Result<Done> {
        let Some(name) = self.any() else { return Ok(Done::Nothing) };
        let Some(session) = self.load(sessions, name)? else { return Ok(Done::Nothing) };
        let number = self.number();
        self.log.push(format!("session {name}: {number}, waited for: {wait}"));
        set(&session, number)?;
        if let Some(visitor) = self.pending.live.get_mut(&name) {
            (visitor.number, visitor.kept) = (Some(number), Some(number));
        }
        if !wait {
            return Ok(Done::InMemory);
        }
        session.save()?.blocking_wait()?;
        Ok(Done::Acknowledged(vec![name]))
    }

    pub(super) fn destroy(&mut self, sessions: &Sessions, wait: bool) -> Result<Done> {
        let Some(name) = self.any() else { return Ok(Done::Nothing) };
        let Some(session) = self.load(sessions, name)? else { return Ok(Done::Nothing) };
        self.log.push(format!("session {name}: signs out, waited for: {wait}"));
        self.ghosts.push(session.clone());
        self.pending.end(&[name]);
        let receipt = session.destroy()?;
        if !wait {
            return Ok(Done::InMemory);
        }
        receipt.blocking_wait()?;
        Ok(Done::Acknowledged(vec![name]))
    }

    pub(super) fn revoke(&mut self, sessions: &Sessions) -> Result<Done> {
        let principal = self.principal();
        let listed = sessions.of(PRINCIPALS[principal])?;
        let place = usize::try_from(self.random.up_to(7)).unwrap_or(0);
        let Some(info) = listed.get(place) else { return Ok(Done::Nothing) };
        let name = info.device.parse().expect("devices are numbers");
        self.log.push(format!("session {name}: is revoked"));
        self.pending.end(&[name]);
        sessions.revoke(info.id)?.expect("it was listed").blocking_wait()?;
        Ok(Done::Acknowledged(vec![name]))
    }

    pub(super) fn end_many(&mut self, sessions: &Sessions) -> Result<Done> {
        let principal = self.principal();
        if self.settle(sessions, principal)? == Power::Lost {
            return Ok(Done::Nothing);
        }
        let (who, mut names) = (PRINCIPALS[principal], self.pending.of(principal));
        let wait = self.unsure.contains(&principal) || !self.random.one_in(4);
        let spared = names.iter().copied().find(|name| self.pending.live[name].token.is_some());
        let choice = self.random.up_to(5);
        let receipt = match (choice, spared) {
            (0, _) => {
                self.log.push(format!("{who} is disabled ({names:?}), waited for: {wait}"));
                self.pending.disabled.insert(principal);
                self.pending.end(&names);
                sessions.disable(who)?
            }
            (1..=2, _) => return self.enable(sessions, principal),
            (3, Some(spared)) => {
                let Some(session) = self.load(sessions, spared)? else { return Ok(Done::Nothing) };
                names.retain(|name| *name != spared);
                self.log.push(format!("session {spared} stays, {who}'s others end ({names:?}), waited for: {wait}"));
                self.pending.end(&names);
                sessions.revoke_others(&session)?
            }
            _ => {
                self.log.push(format!("{who} is signed out everywhere ({names:?}), waited for: {wait}"));
                self.pending.end(&names);
                sessions.revoke_all(who)?
            }
        };
        if !wait {
            return Ok(Done::InMemory);
        }
        let count = receipt.blocking_wait()?;
        assert_eq!(count, names.len(), "sessions of {who} that ended");
        if choice == 0 {
            self.know(principal, true);
        }
        Ok(Done::Acknowledged(names))
    }

    fn enable(&mut self, sessions: &Sessions, principal: usize) -> Result<Done> {
        let (who, was) = (PRINCIPALS[principal], self.pending.disabled.remove(&principal));
        self.log.push(format!("{who} is enabled"));
        let changed = sessions.enable(who)?.blocking_wait()?;
        assert!(self.unsure.contains(&principal) || changed == was, "{who} was disabled: {was}, not {changed}");
        self.know(principal, false);
        Ok(Done::Acknowledged(Vec::new()))
    }

    pub(super) fn rotate(&mut self, sessions: &Sessions) -> Result<Done> {
        let Some(name) = self.any() else { return Ok(Done::Nothing) };
        let Some(session) = self.load(sessions, name)? else { return Ok(Done::Nothing) };
        self.log.push(format!("session {name}: gets another token"));
        let (now, older) = (self.now, sessions.load(&self.tokens[self.pending.live[&name].token.unwrap()])?.unwrap());
        if let Some(visitor) = self.pending.live.get_mut(&name) {
            (visitor.token, visitor.seen_on_disk) = (None, now);
            (visitor.offered, visitor.left) = (None, None);
        }
        let token = session.rotate()?.blocking_wait()?;
        self.hand_out(name, token);
        assert!(self.ids.get(&name).is_none_or(|id| Some(*id) == session.id()), "session {name} is named otherwise");
        assert_eq!(older.set(NUMBER, &0).unwrap_err().kind(), ErrorKind::Gone, "a handle of the old token writes");
        Ok(Done::Acknowledged(vec![name]))
    }

    /// Another server key, or one less of those that nobody goes with: nobody notices either.
    pub(super) fn change_keys(&mut self, sessions: &Sessions) -> Result<Done> {
        let left = |visitor: &Visitor| visitor.left.map(|(token, _)| key_of(&self.tokens[token]));
        let in_use: Vec<u8> = self.pending.live.values().filter_map(left).collect();
        let unused = sessions.keys()?.into_iter().find(|key| !key.active && key.sessions == 0);
        let unused = unused.map(|key| key.id).filter(|id| !in_use.contains(id));
        let changed = match unused.filter(|_| self.random.one_in(2)) {
            Some(id) => {
                self.log.push(format!("server key {id} is dropped"));
                sessions.drop_key(id)?.blocking_wait().map(|count| assert_eq!(count, 0, "sessions of an unused key"))
            }
            None => {
                self.log.push("another server key".into());
                sessions.rotate_key()?.blocking_wait().map(drop)
            }
        };
        if changed.is_err() && self.armed {
            // A key file that cannot be written is no trouble by itself; without power, this is.
            sessions.disable("nobody")?.blocking_wait()?;
        }
        changed.map(|()| Done::Acknowledged(Vec::new()))
    }

    /// What was written through the handle of a session that has ended goes nowhere.
    pub(super) fn haunt(&mut self) -> Result<Done> {
        for ghost in &self.ghosts {
            let refused = set(ghost, 0).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Gone, "{refused}");
            assert_eq!(ghost.save().unwrap_err().kind(), ErrorKind::Gone);
        }
        Ok(Done::Nothing)
    }

    fn principal(&mut self) -> usize {
        usize::try_from(self.random.up_to(PRINCIPALS.len() as u64 - 1)).unwrap_or(0)
    }

    fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }
}

fn set(session: &Session, number: u32) -> Result<()> {
    session.set(NUMBER, &number)?;
    session.set(TEXT, &text_of(number))?;
    session.set(KEPT, &number)
}

/// The character of a token that says which server key it goes with, as a number.
fn key_of(token: &Token) -> u8 {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = ALPHABET.iter().position(|known| *known == token.expose().as_bytes()[6]);
    place.and_then(|place| u8::try_from(place).ok()).expect("a token has a key")
}
