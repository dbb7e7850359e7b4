//! Soft rotation under power cuts: clients that take up successors now or later, and thieves who come too late.
//!
//! What a client was handed is on disk, so it holds in either world. That somebody used it may be forgotten once, and then
//! it is used again.

use std::time::Duration;

use dwell::{ErrorKind, Options, Result, Session, Sessions};

use super::{Done, Run, World};

const EVERY: u32 = 5;
const OVERLAP: u32 = 3;

pub(super) fn rotating(options: Options) -> Options {
    options.rotate_every(Duration::from_secs(EVERY.into())).rotation_overlap(Duration::from_secs(OVERLAP.into()))
}

impl Run {
    /// The token that a client of this one has by now.
    pub(super) fn newest(&self, token: Option<usize>) -> Option<usize> {
        let mut token = token?;
        while let Some(next) = self.moved.get(&token) {
            token = *next;
        }
        Some(token)
    }

    /// Tokens that are not looked at in passing, because that confirms a successor, or ends a session as replayed.
    pub(super) fn is_delicate(&self, number: usize) -> bool {
        let visitors = self.durable.live.values().chain(self.pending.live.values());
        let of = |token: Option<usize>| token.is_some_and(|token| self.moved.contains_key(&token));
        visitors.into_iter().any(|visitor| {
            let left = visitor.left.is_some_and(|(token, _)| token == number);
            left || visitor.offered == Some(number) && !of(visitor.token)
                || visitor.token == Some(number) && of(visitor.token)
        })
    }

    /// Looking at sessions used their newest tokens.
    pub(super) fn catch_up(&self, world: &mut World) {
        for visitor in world.live.values_mut() {
            if let (Some(token), newest) = (visitor.token, self.newest(visitor.token))
                && newest != Some(token)
            {
                (visitor.token, visitor.offered) = (newest, None);
                visitor.left = Some((token, (self.now, self.now)));
            }
            if let Some((_, (_, latest))) = &mut visitor.left {
                *latest = (*latest).max(self.now + OVERLAP);
            }
        }
    }

    /// Notes the successor that a session's client is handed.
    pub(super) fn learn_successor(&mut self, name: u32, session: &Session) {
        let Some(successor) = session.token() else { return };
        let Some(visitor) = self.pending.live.get_mut(&name) else { return };
        if let Some(known) = visitor.offered {
            assert_eq!(self.tokens[known].expose(), successor.expose(), "session {name} has two successors");
            return;
        }
        let number = self.tokens.len();
        (visitor.offered, visitor.left) = (Some(number), None);
        let token = visitor.token;
        let durable = self.durable.live.get_mut(&name).expect("what is handed out is on disk");
        assert_eq!(durable.token, token, "session {name}: what is handed out is on disk");
        (durable.offered, durable.left) = (Some(number), None);
        self.tokens.push(successor);
        self.log.push(format!("session {name}: is offered another token"));
    }

    fn which(&mut self, fits: impl Fn(&super::Visitor) -> bool) -> Option<u32> {
        let fitting: Vec<u32> =
            self.pending.live.iter().filter(|(_, visitor)| fits(visitor)).map(|(name, _)| *name).collect();
        let place = usize::try_from(self.random.up_to(fitting.len().max(1) as u64 - 1)).ok()?;
        fitting.get(place).copied()
    }

    /// A client uses the successor that it was handed.
    pub(super) fn take_up(&mut self, sessions: &Sessions) -> Result<Done> {
        let Some(name) = self.which(|visitor| visitor.offered.is_some()) else { return Ok(Done::Nothing) };
        let now = self.now;
        let visitor = self.pending.live.get_mut(&name).expect("it was chosen among them");
        let (Some(before), Some(after)) = (visitor.token, visitor.offered) else { return Ok(Done::Nothing) };
        self.log.push(format!("session {name}: uses its other token"));
        // Into the model first: the engine knows it from now on, or will have to take it again.
        self.moved.insert(before, after);
        (visitor.token, visitor.offered) = (Some(after), None);
        visitor.left = Some((before, (now + OVERLAP, now + OVERLAP)));
        self.load(sessions, name)?;
        Ok(Done::InMemory)
    }

    /// A request that was under way comes with the token before.
    pub(super) fn use_the_one_before(&mut self, sessions: &Sessions) -> Result<Done> {
        let now = self.now;
        let early = |visitor: &super::Visitor| visitor.left.is_some_and(|(_, (earliest, _))| now < earliest);
        let Some(name) = self.which(early) else { return Ok(Done::Nothing) };
        let visitor = self.pending.live.get_mut(&name).expect("it was chosen among them");
        let Some((before, _)) = visitor.left else { return Ok(Done::Nothing) };
        self.log.push(format!("session {name}: the token before is used"));
        match sessions.load(&self.tokens[before])? {
            Some(session) => {
                visitor.seen = (now, now);
                assert!(session.token().is_none(), "session {name}: the token before is told something");
                let refused = session.rotate().unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Gone, "session {name}: the token before rotates");
            }
            None => {
                assert!(!visitor.surely_lives(now), "session {name} is lost by the token before: {visitor:?} at {now}");
                self.forget(name);
            }
        }
        Ok(Done::InMemory)
    }

    /// Somebody shows the token before when its overlap is over.
    pub(super) fn replay(&mut self, sessions: &Sessions) -> Result<Done> {
        let now = self.now;
        let late = |visitor: &super::Visitor| visitor.left.is_some_and(|(_, (_, latest))| now >= latest);
        let Some(name) = self.which(late) else { return Ok(Done::Nothing) };
        let Some((before, _)) = self.pending.live[&name].left else { return Ok(Done::Nothing) };
        self.log.push(format!("session {name}: the token before is replayed"));
        let after = self.pending.live[&name].token;
        self.pending.end(&[name]);
        assert!(sessions.load(&self.tokens[before])?.is_none(), "session {name} opens by a token that was replaced");
        // Forgotten if there is another successor by now, which is still to be handed out.
        let after = &self.tokens[after.expect("it was used")];
        if sessions.load_without_touch(after)?.is_some_and(|session| session.destroy().is_ok()) {
            self.log.push(format!("session {name}: it had been forgotten; ends another way"));
        }
        Ok(Done::InMemory)
    }
}
