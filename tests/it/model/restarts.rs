//! Clean restarts and power cuts.

use dwell::{ErrorKind, Sessions};

use super::checks::found_on_disk;
use super::client::{Awaited, FIELDS, NAMES, World};

impl World {
    pub(super) fn restart(&mut self) {
        self.say("restart".into());
        let sessions = self.sessions.take().unwrap();
        sessions.clone().close().unwrap();
        self.plain.stop();
        for receipt in std::mem::take(&mut self.receipts) {
            self.receive_after_close(receipt, &sessions);
        }
        self.drop_handles();
        drop(sessions);
        self.sessions = Some(self.directory.open(&self.options).unwrap());
        self.plain.start();
        self.check();
    }

    /// Old handles of a closed engine say so, whatever they were.
    fn drop_handles(&mut self) {
        for (handle, _) in self.handles.drain(..) {
            assert_eq!(handle.set(FIELDS[0], &1).unwrap_err().kind(), ErrorKind::Closed);
        }
    }

    /// Closing wrote what was left, so every receipt is decided.
    fn receive_after_close(&mut self, receipt: Awaited, closed: &Sessions) {
        match receipt {
            Awaited::Token(receipt, group) => {
                let want = self.plain.outcome(group).expect("flushed");
                let got = receipt.blocking_wait();
                let token = self.agree("a token", got, want.as_ref().map(|_| ()).map_err(std::slice::from_ref));
                if let (Some(token), Ok((session, generation))) = (token, want) {
                    self.tokens.push((token, session, generation));
                }
            }
            Awaited::End(receipt, _) => receipt.blocking_wait().unwrap(),
            Awaited::Count(receipt, count) => assert_eq!(receipt.blocking_wait().unwrap(), count),
            Awaited::Flag(receipt, flag) => assert_eq!(receipt.blocking_wait().unwrap(), flag),
            Awaited::Save(receipt, _) => drop(receipt.blocking_wait()),
        }
        assert_eq!(closed.revoke_all(NAMES[0]).unwrap_err().kind(), ErrorKind::Closed);
    }

    /// A power cut. What was flushed is there; of what was not, whatever the disk says.
    pub(super) fn crash(&mut self) {
        if self.plain.flags_changed {
            self.run_pending();
        }
        self.say("power cut".into());
        self.directory.restore_power();
        let flushes = self.plain.flushes;
        for receipt in std::mem::take(&mut self.receipts) {
            match receipt {
                Awaited::Token(receipt, group) => match (receipt.blocking_wait(), self.plain.outcome(group)) {
                    (Ok(token), Some(Ok((session, generation)))) => self.tokens.push((token, session, generation)),
                    (Err(_), Some(Err(_)) | None) => {}
                    (got, want) => panic!("a token after a power cut: {:?} for {want:?}", got.err()),
                },
                Awaited::End(receipt, since) => {
                    assert_eq!(
                        receipt.blocking_wait().is_ok(),
                        since < flushes,
                        "an end is acknowledged if it was written"
                    );
                }
                Awaited::Save(receipt, mark) => {
                    if receipt.blocking_wait().is_ok() {
                        self.plain.saved(mark);
                    }
                }
                Awaited::Count(..) | Awaited::Flag(..) => {}
            }
        }
        self.handles.clear();
        self.sessions = None;
        if self.rng.one_in(2) {
            self.clock.reboot();
        }
        let sessions = self.directory.open(&self.options).unwrap();
        let tokens = &self.tokens;
        self.plain.crash(|session| found_on_disk(&sessions, tokens, session));
        self.sessions = Some(sessions);
        let plain = &self.plain;
        self.ids.retain(|&(_, session)| !plain.sessions[session].nameless);
        self.bury_ghosts();
        self.check();
    }

    /// Rows of sign-ins that failed after they were written may have come back: nobody has their tokens.
    fn bury_ghosts(&mut self) {
        self.identify();
        for (who, most) in std::mem::take(&mut self.plain.ghosts) {
            let known = self.plain.of(who).len();
            let listed = self.sessions().of(NAMES[who]).unwrap();
            assert!(listed.len() <= known + most, "{} sessions of {}", listed.len(), NAMES[who]);
            for info in listed {
                if !self.ids.iter().any(|&(id, _)| id == info.id) {
                    self.sessions().revoke(info.id).unwrap().unwrap().blocking_wait().unwrap();
                }
            }
        }
    }
}
