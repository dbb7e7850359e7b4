//! The journal from outside: what comes of copies of single files, and of bytes that change in it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use dwell::sim::Directory;
use dwell::{ErrorKind, Options, Sessions, Token};

use crate::support::journal_file::JOURNAL;
use crate::support::store_file::NAME;
use crate::support::{manual, sign_in, whose};

fn file(directory: &Directory, name: &str) -> Vec<u8> {
    directory.contents().into_iter().find(|(other, _)| other == name).unwrap().1
}

fn put_back(directory: &Directory, copy: &Directory, names: &[&str]) {
    for name in names {
        directory.overwrite(name, |bytes| *bytes = file(copy, name));
    }
}

fn who(sessions: &Sessions, tokens: &[Token]) -> Vec<String> {
    tokens.iter().filter_map(|token| whose(sessions, token)).collect()
}

/// Ada and bob are signed in and the store is closed. What happens then, and how it ends.
struct Story {
    directory: Directory,
    options: Options,
    copy: Directory,
    tokens: Vec<Token>,
}

impl Story {
    /// Ada signs out and cyd signs in, and then `more`; the store is closed, or its process dies.
    fn new(closes: bool, more: impl FnOnce(&Sessions)) -> Self {
        let (options, _) = manual();
        let directory = Directory::new(3);
        let sessions = directory.open(&options).unwrap();
        let mut tokens = vec![sign_in(&sessions, "ada"), sign_in(&sessions, "bob")];
        sessions.close().unwrap();
        let copy = directory.copy();
        let sessions = directory.open(&options).unwrap();
        sessions.load(&tokens[0]).unwrap().unwrap().destroy().unwrap().blocking_wait().unwrap();
        tokens.push(sign_in(&sessions, "cyd"));
        more(&sessions);
        if closes {
            sessions.close().unwrap();
        } else {
            directory.restore_power();
        }
        Self { directory, options, copy, tokens }
    }

    /// Who is signed in once these files are put back, or why it does not open; a refusal changes nothing.
    fn after(&self, names: &[&str]) -> Result<Vec<String>, ErrorKind> {
        let directory = self.directory.copy();
        put_back(&directory, &self.copy, names);
        let before = directory.contents();
        match directory.open(&self.options) {
            Ok(sessions) => Ok(who(&sessions, &self.tokens)),
            Err(error) => {
                assert!(error.to_string().contains("`journal`"), "{error}");
                assert!(directory.contents() == before, "a refusal changes nothing");
                Err(error.kind())
            }
        }
    }
}

fn names(names: &[&str]) -> Result<Vec<String>, ErrorKind> {
    Ok(names.iter().map(|&name| name.to_owned()).collect())
}

#[test]
fn copies_of_single_files_lose_nothing_or_are_refused() {
    for closes in [true, false] {
        let story = Story::new(closes, |_| {});
        assert_eq!(story.after(&[]), names(&["bob", "cyd"]));
        assert_eq!(story.after(&[NAME]), names(&["bob", "cyd"]), "what was written since is in the journal");
        assert_eq!(story.after(&[NAME, JOURNAL]), names(&[]), "an older copy, and somebody signed out since");
        assert_eq!(story.after(&[NAME, JOURNAL, "epoch"]), names(&["ada", "bob"]), "nobody can know");
    }
    // Once the ring went round, the journal lacks what came between.
    let long = Story::new(true, |sessions| (0..40).for_each(|_| drop(sign_in(sessions, "dan"))));
    assert_eq!(long.after(&[]), names(&["bob", "cyd"]));
    assert_eq!(long.after(&[NAME]), Err(ErrorKind::Corrupt));
    assert_eq!(long.after(&[NAME, JOURNAL]), names(&[]));
    // A change of the keys is in the tables only.
    let rotated = Story::new(true, |sessions| {
        sessions.rotate_key().unwrap().blocking_wait().unwrap();
        drop(sign_in(sessions, "dan"));
    });
    assert_eq!(rotated.after(&[]), names(&["bob", "cyd"]));
    assert_eq!(rotated.after(&[NAME]), Err(ErrorKind::Corrupt));
}

#[test]
fn a_missing_or_foreign_half_is_refused_and_never_made_again() {
    for closes in [true, false] {
        let story = Story::new(closes, |_| {});
        for name in [NAME, JOURNAL] {
            let directory = story.directory.copy();
            directory.remove(name);
            let before = directory.contents();
            let error = directory.open(&story.options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(name) && error.to_string().contains("put it back"), "{error}");
            assert!(directory.contents() == before);
        }
        let other = Directory::new(4);
        other.open(&story.options).unwrap().close().unwrap();
        let directory = story.directory.copy();
        put_back(&directory, &other, &[JOURNAL]);
        assert_eq!(directory.open(&story.options).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// A store whose last frame, bob's sign-out, can be read and is not on the disk, because its flush failed; the process has
/// started again.
fn failed_flush() -> (Directory, Options, Sessions, Token) {
    let directory = Directory::new(3);
    directory.forget_failed_flushes();
    let (options, _clock) = manual();
    let sessions = directory.open(&options).unwrap();
    let (cyd, bob) = (sign_in(&sessions, "cyd"), sign_in(&sessions, "bob"));
    // The epoch is raised with this one, so that opening has no reason of its own to flush anything.
    sessions.load(&cyd).unwrap().unwrap().destroy().unwrap().blocking_wait().unwrap();
    let receipt = sessions.load(&bob).unwrap().unwrap().destroy().unwrap();
    directory.fail_at(directory.operations() + 1, 1, std::io::ErrorKind::Other);
    assert_eq!(receipt.blocking_wait().unwrap_err().kind(), ErrorKind::Unknown);
    drop(sessions);
    let sessions = directory.open(&options).unwrap();
    assert!(sessions.load(&bob).unwrap().is_none(), "it was read");
    (directory, options, sessions, bob)
}

#[test]
fn what_follows_a_frame_whose_flush_failed_is_there_after_a_power_cut() {
    let (directory, options, sessions, bob) = failed_flush();
    let eve = sign_in(&sessions, "eve");
    directory.restore_power();
    let sessions = directory.open(&options).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(sessions.load(&eve).unwrap().is_some() && sessions.load(&bob).unwrap().is_none());
}

#[test]
fn an_end_whose_flush_failed_is_on_disk_before_anybody_is_told_so() {
    let (directory, options, sessions, bob) = failed_flush();
    assert_eq!(sessions.revoke_all("bob").unwrap().blocking_wait().unwrap(), 0);
    directory.restore_power();
    let sessions = directory.open(&options).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(sessions.load(&bob).unwrap().is_none(), "told that nobody was there");
}
