//! The journal and the tables of different moments, of different stores, or damaged, as backups, people and disks leave them.
//! Whatever there is: what was acknowledged is there to the last session, or everything is over, or opening is refused and
//! changes nothing. Nobody who signed out comes back.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use dwell::sim::Directory;
use dwell::{Error, ErrorKind, Field, Options, Receipt, Sessions, Token};

use crate::rng::Rng;
use crate::support::journal_file::{self, JOURNAL};
use crate::support::store_file::NAME;
use crate::support::{manual, sign_in, whose};

const NUMBER: Field<u32> = Field::new("number");
const BLOB: Field<Vec<u8>> = Field::new("blob");
const BOTH: &[&str] = &[NAME, JOURNAL];

/// What comes of files that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All that was acknowledged, and nothing else.
    Whole,
    /// Nobody is signed in.
    Ended,
    /// An error that names this file.
    Refused(ErrorKind, &'static str),
}

use Outcome::{Ended, Refused, Whole};

/// How a store goes on after Bob and Cyd have signed out, Eve has signed in and Ada has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Eve writes.
    Write,
    /// Dan, who was there first, signs out.
    SignOut,
    RotateKey,
    /// Eve writes so often that there is a checkpoint.
    Fill,
    /// Eve writes more than a frame takes.
    LargeWrite,
    /// The same, and in the same batch Dan signs out.
    LargeSignOut,
    /// Without it, the process is gone and leaves its frames.
    Close,
}

use Step::{Close, Fill, LargeSignOut, LargeWrite, RotateKey, SignOut, Write};

/// A store as its process left it, and a copy of it from when it was closed before.
struct Store {
    directory: Directory,
    options: Options,
    older: Directory,
    /// Each with the number in the session.
    live: Vec<(Token, Option<u32>)>,
    gone: Vec<Token>,
}

impl Store {
    fn new(seed: u64, steps: &[Step]) -> Self {
        let (options, _clock) = manual();
        let directory = Directory::new(seed);
        let sessions = directory.open(&options).unwrap();
        let [ada, bob, cyd, dan] = ["ada", "bob", "cyd", "dan"].map(|who| sign_in(&sessions, who));
        write(&sessions, &ada, 1);
        sessions.close().unwrap();
        let older = directory.copy();
        let sessions = directory.open(&options).unwrap();
        sign_out(&sessions, &bob);
        let eve = sign_in(&sessions, "eve");
        write(&sessions, &ada, 2);
        sign_out(&sessions, &cyd);
        let mut store = Self { directory, options, older, live: Vec::new(), gone: vec![bob, cyd] };
        for step in steps {
            match step {
                Write => write(&sessions, &eve, 3),
                SignOut => sign_out(&sessions, &dan),
                RotateKey => assert_eq!(sessions.rotate_key().unwrap().blocking_wait().unwrap(), 1),
                Fill => (0..10).for_each(|_| write(&sessions, &eve, 3)),
                LargeWrite => large_write(&sessions, &eve).blocking_wait().unwrap(),
                LargeSignOut => {
                    let saved = large_write(&sessions, &eve);
                    let ended = sessions.load(&dan).unwrap().unwrap().destroy().unwrap();
                    saved.blocking_wait().unwrap();
                    ended.blocking_wait().unwrap();
                }
                Close => sessions.clone().close().unwrap(),
            }
        }
        // Whoever has it open still does not reach the copy.
        store.directory = store.directory.copy();
        store.live = vec![
            (ada, Some(2)),
            (eve, steps.iter().any(|step| matches!(step, Write | Fill | LargeWrite | LargeSignOut)).then_some(3)),
        ];
        if steps.iter().any(|step| matches!(step, SignOut | LargeSignOut)) {
            store.gone.push(dan)
        } else {
            store.live.push((dan, None))
        }
        store
    }

    /// With files that come from elsewhere, or from nowhere.
    fn with(&self, names: &[&str], from: Option<&Directory>) -> Directory {
        let copy = self.directory.copy();
        for name in names {
            match from {
                Some(from) => copy.overwrite(name, |bytes| *bytes = file(from, name)),
                None => copy.remove(name),
            }
        }
        copy
    }

    fn open(&self, directory: &Directory) -> Result<Sessions, Error> {
        let before = directory.contents();
        directory.open(&self.options).inspect_err(|error| {
            assert!(directory.contents() == before, "a refusal changed the files: {error:#}");
        })
    }

    /// The number in each session that lives.
    fn numbers(&self, sessions: &Sessions) -> Vec<Option<Option<u32>>> {
        assert!(self.gone.iter().all(|token| sessions.load(token).unwrap().is_none()), "signed out, and back");
        let number = |token| Some(sessions.load(token).unwrap()?.get(NUMBER).unwrap());
        self.live.iter().map(|(token, _)| number(token)).collect()
    }

    fn seen(&self, sessions: &Sessions) -> Outcome {
        let found = self.numbers(sessions);
        if found.iter().all(Option::is_none) {
            return Ended;
        }
        assert!(found.into_iter().eq(self.live.iter().map(|(_, number)| Some(*number))), "lost, and nobody was told");
        Whole
    }

    /// Opens it and goes on from there.
    fn outcome(&self, directory: &Directory) -> Outcome {
        let sessions = match self.open(directory) {
            Ok(sessions) => sessions,
            Err(error) => return Refused(error.kind(), named(&error)),
        };
        let outcome = self.seen(&sessions);
        let new = sign_in(&sessions, "fay");
        sessions.close().unwrap();
        let sessions = directory.open(&self.options).unwrap();
        assert_eq!((whose(&sessions, &new).as_deref(), self.seen(&sessions)), (Some("fay"), outcome));
        outcome
    }
}

fn write(sessions: &Sessions, token: &Token, number: u32) {
    let session = sessions.load(token).unwrap().unwrap();
    session.set(NUMBER, &number).unwrap();
    session.save().unwrap().blocking_wait().unwrap();
}

fn large_write(sessions: &Sessions, token: &Token) -> Receipt {
    let session = sessions.load(token).unwrap().unwrap();
    session.set(NUMBER, &3).unwrap();
    session.set(BLOB, &vec![1; 20_000]).unwrap();
    session.save().unwrap()
}

fn sign_out(sessions: &Sessions, token: &Token) {
    sessions.load(token).unwrap().unwrap().destroy().unwrap().blocking_wait().unwrap();
}

fn file(directory: &Directory, name: &str) -> Vec<u8> {
    directory.contents().into_iter().find(|(other, _)| other == name).unwrap().1
}

/// The first file that a message names.
fn named(error: &Error) -> &'static str {
    let text = error.to_string();
    let places = [JOURNAL, NAME, "server.key"].map(|name| (text.find(&format!("`{name}`")), name));
    places.into_iter().filter(|(place, _)| place.is_some()).min().map_or("", |(_, name)| name)
}

const NOT_OF_ONE_MOMENT: Outcome = Refused(ErrorKind::Corrupt, JOURNAL);

/// Everything that was put back is of a store that was closed before Bob signed out.
#[test]
fn files_of_an_earlier_moment_are_made_good_or_refused_or_end_everything() {
    for (steps, older_store, older_journal) in [
        // The ring still has all that is not in the older tables; and nothing that is not in the newer.
        (&[SignOut, Write, Close][..], Whole, Whole),
        (&[SignOut, Write], Whole, Ended),
        // Changing the key went to the tables at once, and the mark after it counts it.
        (&[RotateKey, SignOut, Write, Close], NOT_OF_ONE_MOMENT, Whole),
        (&[RotateKey], NOT_OF_ONE_MOMENT, Whole),
        (&[RotateKey, Write, Close], NOT_OF_ONE_MOMENT, Whole),
    ] {
        let store = Store::new(1, steps);
        assert_eq!(store.outcome(&store.directory.copy()), Whole, "{steps:?}");
        let older = |names: &[&str]| store.outcome(&store.with(names, Some(&store.older)));
        assert_eq!(older(&[NAME]), older_store, "{steps:?}");
        assert_eq!(older(&[JOURNAL]), older_journal, "{steps:?}");
        assert_eq!(older(BOTH), Ended, "{steps:?}");
    }
    let store = Store::new(1, &[RotateKey, SignOut, Write]);
    assert_eq!(store.outcome(&store.with(&[NAME], Some(&store.older))), NOT_OF_ONE_MOMENT);
    assert_eq!(store.outcome(&store.with(BOTH, Some(&store.older))), Ended);
}

#[test]
fn files_that_are_missing_or_of_another_store_are_refused_by_name() {
    for steps in [&[SignOut, Write, Close][..], &[SignOut, Write], &[RotateKey, SignOut, Write], &[RotateKey, Close]] {
        let (store, other) = (Store::new(1, steps), Store::new(2, steps).directory);
        for (names, kind, name) in [
            (&[NAME][..], ErrorKind::Corrupt, NAME),
            (&[JOURNAL], ErrorKind::Corrupt, JOURNAL),
            (BOTH, ErrorKind::Corrupt, NAME),
        ] {
            assert_eq!(store.outcome(&store.with(names, None)), Refused(kind, name), "{steps:?}");
        }
        for (names, kind, name) in [
            (&[NAME][..], ErrorKind::Key, "server.key"),
            (&[JOURNAL], ErrorKind::Corrupt, JOURNAL),
            (BOTH, ErrorKind::Key, "server.key"),
        ] {
            assert_eq!(store.outcome(&store.with(names, Some(&other))), Refused(kind, name), "{steps:?}");
        }
    }
}

/// What a flipped bit in the journal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flip {
    Nothing,
    IsRefused,
    /// The last frame is taken for one that was on its way when the power failed: nobody can tell the two apart. What it
    /// held was acknowledged and is lost without an error, and had it been a sign-out, only the epoch could have told.
    Tears,
}

fn flips(frames: &[journal_file::Frame], at: usize) -> Flip {
    let frame = frames.iter().find(|frame| (frame.place..frame.place + 72 + frame.payload.len()).contains(&at));
    match frame {
        None if at < 72 => Flip::IsRefused,
        None => Flip::Nothing,
        Some(frame) if frame.sequence == frames.last().unwrap().sequence => Flip::Tears,
        Some(_) => Flip::IsRefused,
    }
}

#[test]
fn a_flipped_bit_in_the_journal_loses_no_more_than_the_last_frame_without_an_error() {
    let store = Store::new(1, &[SignOut, Write]);
    let journal = file(&store.directory, JOURNAL);
    let frames = journal_file::live(&file(&store.directory, NAME), &journal);
    assert!(frames.len() > 5, "{} frames", frames.len());
    let mut rng = Rng::new(7);
    let heads = frames.iter().flat_map(|frame| frame.place..frame.place + 72);
    let elsewhere = std::iter::repeat_with(|| match rng.below(3) {
        0 => rng.below(journal.len()),
        1 => rng.below(100),
        _ => rng.pick(&frames).place + 72 + rng.below(600),
    });
    let places: Vec<usize> = heads.chain(elsewhere.take(500)).collect();
    let mut counts = [0; 3];
    for at in places {
        let flip = flips(&frames, at);
        counts[flip as usize] += 1;
        let copy = store.directory.copy();
        copy.overwrite(JOURNAL, |bytes| bytes[at] ^= 1 << (at % 8));
        let found = store.open(&copy).map(|sessions| store.numbers(&sessions));
        match (flip, found) {
            (Flip::IsRefused, Err(error)) => {
                assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Format), "byte {at}: {error:#}");
                assert_eq!(named(&error), JOURNAL, "byte {at}: {error:#}");
            }
            (Flip::Nothing, Ok(found)) => assert_eq!(found, [Some(Some(2)), Some(Some(3))], "byte {at}"),
            (Flip::Tears, Ok(found)) => assert_eq!(found, [Some(Some(2)), Some(None)], "byte {at}"),
            (flip, found) => panic!("byte {at}: {flip:?}, and yet {found:?}"),
        }
    }
    assert!(counts.into_iter().all(|count| count > 50), "{counts:?}");
}

/// A checkpoint or a change of the key brought the run's epoch into the tables, and Dan's end is in the ring only. An older
/// ring in its place has nothing behind the position in the tables; it is the epoch, raised again since, that tells.
#[test]
fn an_older_journal_alone_brings_nobody_back_who_signed_out_after_a_checkpoint() {
    for steps in [&[Fill, SignOut][..], &[RotateKey, SignOut]] {
        let store = Store::new(1, steps);
        assert_ne!(store.outcome(&store.with(&[JOURNAL], Some(&store.older))), Whole, "{steps:?}");
    }
}

// What fits no frame goes to the tables at once, with all that is in its batch. The mark that follows it in the ring is what
// older tables lack.

#[test]
fn older_tables_alone_bring_nobody_back_who_signed_out_in_a_batch_too_large_for_a_frame() {
    let store = Store::new(1, &[LargeSignOut]);
    assert_ne!(store.outcome(&store.with(&[NAME], Some(&store.older))), Whole);
}

#[test]
fn older_tables_alone_lose_nothing_too_large_for_a_frame_without_an_error() {
    let store = Store::new(1, &[SignOut, LargeWrite]);
    assert_ne!(store.outcome(&store.with(&[NAME], Some(&store.older))), Whole);
}
