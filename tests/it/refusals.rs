//! What is refused: directories, files, other openers, options, names and values. Each with the kind that says what to
//! do next and a message that names the thing, and nothing is lost or changed by it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dwell::{AtLimit, Error, ErrorKind, Field, Options, Sessions, SignIn, Token};

use crate::support::store_file::{FORMAT, NAME, Table, foreign, read, write};
use crate::support::{sign_in, whose};

/// A place for a directory, and the directory of a store in it that holds a session.
fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    set_mode(home.path(), 0o700);
    let path = fs::canonicalize(home.path()).unwrap().join("sessions");
    (home, path)
}

fn store() -> (tempfile::TempDir, PathBuf, Token) {
    let (home, path) = home();
    let sessions = Sessions::open(&path).unwrap();
    let token = sign_in(&sessions, "ada");
    sessions.close().unwrap();
    (home, path, token)
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) {}

/// Every file with its content; the lock has none.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries
        .filter(|path| !path.ends_with("lock"))
        .map(|path| (name(&path), fs::read(&path).unwrap_or_default()))
        .collect()
}

/// Opening fails like this, says these words, and changes nothing.
fn refused(path: &Path, kind: ErrorKind, words: &[&str]) -> Error {
    let before = files(path);
    let error = Sessions::open(path).unwrap_err();
    assert_eq!(error.kind(), kind, "{error:#}");
    for word in words {
        assert!(format!("{error:#}").contains(word), "no {word:?} in: {error:#}");
    }
    assert!(files(path) == before, "a refusal changed the files: {error:#}");
    error
}

fn opens(path: &Path, token: &Token) {
    assert_eq!(whose(&Sessions::open(path).unwrap(), token).as_deref(), Some("ada"));
}

#[test]
fn a_missing_parent_is_named_and_not_made() {
    let (home, _path) = home();
    let error = Sessions::open(home.path().join("missing/sessions")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Directory);
    assert!(error.to_string().contains("parent directory") && error.to_string().contains("missing"), "{error}");
    assert!(!home.path().join("missing").exists());
}

#[test]
fn a_place_that_takes_no_directory_is_named() {
    let (home, _path) = home();
    let file = home.path().join("file");
    fs::write(&file, "mine").unwrap();
    for path in [file.clone(), file.join("sessions"), PathBuf::new()] {
        assert_eq!(Sessions::open(&path).unwrap_err().kind(), ErrorKind::Directory, "{path:?}");
    }
    assert_eq!(fs::read(file).unwrap(), b"mine");
    if cfg!(target_os = "linux") {
        let error = Sessions::open("/proc/dwell-sessions").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Directory);
        assert!(error.to_string().contains("/proc/dwell-sessions"), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn modes_that_let_others_in_are_refused_with_the_command_to_run() {
    let (_home, path, token) = store();
    for mode in [0o755, 0o750, 0o770, 0o777, 0o701] {
        set_mode(&path, mode);
        refused(&path, ErrorKind::Directory, &["chmod 700 '", "sessions'"]);
    }
    set_mode(&path, 0o700);
    for name in [NAME, "server.key", "epoch", "lock"] {
        for mode in [0o644, 0o660, 0o606] {
            set_mode(&path.join(name), mode);
            refused(&path, ErrorKind::Directory, &["chmod 600 '", name]);
        }
        set_mode(&path.join(name), 0o600);
    }
    opens(&path, &token);
}

#[cfg(unix)]
#[test]
fn what_belongs_to_somebody_else_is_refused() {
    use std::os::unix::fs::{MetadataExt, chown};
    const NOBODY: u32 = 65534;
    let (_home, path, token) = store();
    if fs::metadata(&path).unwrap().uid() != 0 {
        println!("not root: cannot give a file to another user, nothing tested");
        return;
    }
    for what in [path.clone(), path.join(NAME), path.join("server.key"), path.join("epoch"), path.join("lock")] {
        chown(&what, Some(NOBODY), None).unwrap();
        refused(&path, ErrorKind::Directory, &["belongs to user 65534", "chown 0 '", what.to_str().unwrap()]);
        chown(&what, Some(0), None).unwrap();
    }
    opens(&path, &token);
}

#[cfg(unix)]
#[test]
fn links_are_refused() {
    use std::os::unix::fs::symlink;
    let (home, path, token) = store();
    let link = home.path().join("link");
    symlink(&path, &link).unwrap();
    refused(&link, ErrorKind::Directory, &["symbolic link", "link'"]);
    for name in [NAME, "server.key", "epoch", "lock"] {
        let elsewhere = home.path().join("elsewhere");
        fs::rename(path.join(name), &elsewhere).unwrap();
        symlink(&elsewhere, path.join(name)).unwrap();
        refused(&path, ErrorKind::Directory, &["symbolic link", name]);
        fs::remove_file(path.join(name)).unwrap();
        fs::hard_link(&elsewhere, path.join(name)).unwrap();
        refused(&path, ErrorKind::Directory, &["hard links", name]);
        fs::remove_file(&elsewhere).unwrap();
    }
    opens(&path, &token);
}

#[test]
fn a_directory_of_other_files_is_refused() {
    let (_home, path) = home();
    fs::create_dir(&path).unwrap();
    set_mode(&path, 0o700);
    fs::write(path.join("holiday.jpg"), "picture").unwrap();
    refused(&path, ErrorKind::Directory, &["holiday.jpg", "a directory of its own"]);
    assert!(!path.join("lock").exists());
}

#[test]
fn a_file_that_is_no_store_of_ours_is_left_alone() {
    let (_home, path, token) = store();
    let ours = fs::read(path.join(NAME)).unwrap();
    let noise: Vec<u8> = (0..ours.len()).map(|at| u8::try_from((at * at + at / 7) % 251).unwrap()).collect();
    let cases = [
        ("empty", Vec::new(), ErrorKind::Corrupt),
        ("a byte", vec![b'r'], ErrorKind::Corrupt),
        ("noise", noise, ErrorKind::Corrupt),
        ("zeros", vec![0; ours.len()], ErrorKind::Corrupt),
        ("text", b"Dear diary, ".repeat(1000), ErrorKind::Corrupt),
        ("of another program", foreign(), ErrorKind::Format),
    ];
    for (what, bytes, kind) in cases {
        fs::write(path.join(NAME), bytes).unwrap();
        let error = refused(&path, kind, &["`store.redb`"]);
        assert!(error.to_string().len() > 20, "{what}: {error}");
    }
    fs::write(path.join(NAME), &ours).unwrap();
    opens(&path, &token);
    // Without a key file it is even less ours.
    for bytes in [Vec::new(), foreign()] {
        fs::write(path.join(NAME), bytes).unwrap();
        fs::rename(path.join("server.key"), path.join("../server.key")).unwrap();
        refused(&path, ErrorKind::Key, &["`server.key`", "missing"]);
        fs::rename(path.join("../server.key"), path.join("server.key")).unwrap();
    }
}

#[test]
fn another_format_is_refused_and_named() {
    let (_home, path, token) = store();
    let ours = fs::read(path.join(NAME)).unwrap();
    let record = read(&ours, Table::Meta)[&FORMAT].clone();
    for (number, name) in [(7_u32, "format 7"), (1 << 31 | 99, "format draft 99"), (0, "format 0"), (u32::MAX, "draft")]
    {
        let mut changed = record.clone();
        changed[8..12].copy_from_slice(&number.to_le_bytes());
        let mut file = ours.clone();
        write(&mut file, Table::Meta, FORMAT, Some(&changed));
        fs::write(path.join(NAME), file).unwrap();
        refused(&path, ErrorKind::Format, &[name, "use the version that wrote it"]);
    }
    fs::write(path.join(NAME), ours).unwrap();
    opens(&path, &token);
}

#[test]
fn a_truncated_store_is_refused_or_whole() {
    let (_home, path) = home();
    let sessions = Sessions::open(&path).unwrap();
    let tokens: Vec<Token> = (0..200).map(|number| sign_in(&sessions, &format!("user {number}"))).collect();
    sessions.close().unwrap();
    let ours = fs::read(path.join(NAME)).unwrap();
    let step = ours.len() / 100;
    let lengths = (0..ours.len()).step_by(step).chain((0..40).map(|at| at * 16)).chain(ours.len() - 20..ours.len());
    for length in lengths {
        fs::write(path.join(NAME), &ours[..length]).unwrap();
        match Sessions::open(&path) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{length} of {} bytes: {error:#}", ours.len());
                assert!(error.to_string().contains("`store.redb`"), "{error}");
                assert!(fs::read(path.join(NAME)).unwrap() == ours[..length], "a refusal changed the file");
            }
            Ok(sessions) => {
                let live = tokens.iter().filter(|token| whose(&sessions, token).is_some()).count();
                assert_eq!(live, tokens.len(), "{length} of {} bytes opened", ours.len());
            }
        }
    }
    fs::write(path.join(NAME), ours).unwrap();
    let sessions = Sessions::open(&path).unwrap();
    assert!(tokens.iter().all(|token| whose(&sessions, token).is_some()));
}

const SECOND: &str = "DWELL_TEST_SECOND_OPENER";

/// Not a test by itself: the other process that opens the directory.
#[test]
fn second_opener() {
    let Ok(path) = std::env::var(SECOND) else { return };
    let error = Sessions::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    println!("\nrefused: {error}");
}

#[test]
fn a_second_opener_is_refused_here_and_in_another_process() {
    let (_home, path, token) = store();
    let first = Sessions::open(&path).unwrap();
    let shown = path.to_str().unwrap();
    refused(&path, ErrorKind::Locked, &[shown, "already open"]);
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "refusals::second_opener", "--nocapture"])
        .env(SECOND, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&other.stdout);
    assert!(other.status.success() && said.contains("refused: ") && said.contains(shown), "{said}");
    assert_eq!(whose(&first, &token).as_deref(), Some("ada"));
    sign_in(&first, "bob");
    first.close().unwrap();
    opens(&path, &token);
    // A session that somebody still holds does not keep the directory.
    let sessions = Sessions::open(&path).unwrap();
    let session = sessions.load(&token).unwrap().unwrap();
    drop(sessions);
    opens(&path, &token);
    assert_eq!(session.get(Field::<u32>::new("n")).unwrap_err().kind(), ErrorKind::Closed);
}

/// Lock files look left over, and people remove what looks left over.
#[test]
#[cfg(unix)]
fn a_second_opener_is_refused_even_if_somebody_removed_the_lock_file() {
    let (_home, path, token) = store();
    let sessions = Sessions::open(&path).unwrap();
    for _ in 0..2 {
        std::fs::remove_file(path.join("lock")).unwrap();
        refused(&path, ErrorKind::Directory, &["store.redb", "in use", "never remove `lock`"]);
    }
    sessions.start().sign_in("bob").unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    opens(&path, &token);
}

#[test]
fn a_missing_or_foreign_key_is_refused_and_never_made_again() {
    let (_home, path, token) = store();
    let (_other_home, other, _) = store();
    let key = fs::read(path.join("server.key")).unwrap();
    fs::remove_file(path.join("server.key")).unwrap();
    refused(&path, ErrorKind::Key, &["`server.key`", "missing", "put it back"]);
    fs::copy(other.join("server.key"), path.join("server.key")).unwrap();
    refused(&path, ErrorKind::Key, &["`server.key`", "another store", "put the right one back"]);
    fs::write(path.join("server.key"), &key[..key.len() - 1]).unwrap();
    refused(&path, ErrorKind::Key, &["`server.key`", "damaged"]);
    fs::write(path.join("server.key"), key).unwrap();
    opens(&path, &token);
}

#[test]
fn options_that_make_no_sense_are_named_before_anything_is_touched() {
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    let cases = [
        (Options::new().idle_timeout(Duration::ZERO), "idle timeout"),
        (Options::new().idle_timeout(Duration::from_millis(999)), "idle timeout"),
        (Options::new().lifetime(Duration::ZERO), "lifetime"),
        (Options::new().idle_timeout(2 * hour).lifetime(hour), "longer"),
        (Options::new().remembered(Duration::ZERO, hour), "remembered"),
        (Options::new().remembered(2 * hour, hour), "longer"),
        (Options::new().anonymous_lifetime(Duration::ZERO), "anonymous"),
        (Options::new().lifetime(Options::LIFETIME_MAX + second), "10 years"),
        (Options::new().lifetime(Duration::MAX), "lifetime"),
        (Options::new().sessions_max(0), "sessions_max"),
        (Options::new().sessions_max(u32::MAX), "sessions_max"),
        (Options::new().sessions_per_principal(0, AtLimit::EndOldest), "sessions_per_principal"),
        (Options::new().session_bytes_max(0), "session_bytes_max"),
        (Options::new().session_bytes_max(usize::MAX), "session_bytes_max"),
    ];
    for (options, word) in cases {
        let (_home, path) = home();
        for error in [options.open(&path).unwrap_err(), options.in_memory().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(word), "no {word:?} in: {error}");
        }
        assert!(!path.exists());
    }
}

#[test]
fn names_that_cannot_be_stored_are_refused() {
    const LONG: &str = "0123456789012345678901234567890123456789012345678901234567890123+";
    let sessions = Options::new().in_memory().unwrap();
    let invalid = |error: Error, word: &str| {
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(word), "no {word:?} in: {error}");
    };
    let session = sessions.start();
    for name in [String::new(), "x".repeat(256), "é".repeat(128)] {
        invalid(session.sign_in(name.as_str()).unwrap_err(), "1 to 255 bytes");
        invalid(sessions.of(&name).unwrap_err(), "1 to 255 bytes");
        invalid(sessions.revoke_all(&name).unwrap_err(), "1 to 255 bytes");
        invalid(sessions.disable(&name).unwrap_err(), "1 to 255 bytes");
        invalid(sessions.enable(&name).unwrap_err(), "1 to 255 bytes");
    }
    for name in ["", LONG] {
        let field = Field::<u32>::new(name);
        invalid(session.set(field, &1).unwrap_err(), "1 to 64 bytes");
        invalid(session.get(field).unwrap_err(), "1 to 64 bytes");
        invalid(session.with(field, |_| ()).unwrap_err(), "1 to 64 bytes");
        invalid(session.update(field, |_| ()).unwrap_err(), "1 to 64 bytes");
        invalid(session.take(field).unwrap_err(), "1 to 64 bytes");
        invalid(session.remove(field).unwrap_err(), "1 to 64 bytes");
    }
    let (zero, hour) = (Duration::ZERO, Duration::from_secs(3600));
    invalid(session.sign_in(SignIn::new("ada").limits(zero, hour)).unwrap_err(), "idle timeout");
    invalid(session.sign_in(SignIn::new("ada").limits(hour, zero)).unwrap_err(), "lifetime");
    assert!(session.id().is_none() && sessions.stats().sessions == 0, "what was refused made a session");
    session.set(Field::<u32>::new(&LONG[..64]), &1).unwrap();
    session.sign_in("é".repeat(127)).unwrap().blocking_wait().unwrap();
    assert_eq!(sessions.of(&"é".repeat(127)).unwrap().len(), 1);
}

#[test]
fn a_value_over_the_limit_is_refused_and_the_old_one_stays() {
    const BLOB: Field<String> = Field::new("blob");
    const OTHER: Field<String> = Field::new("other");
    let (_home, path) = home();
    let sessions = Sessions::open(&path).unwrap();
    let session = sessions.start();
    // 64 KiB with names and everything; the overhead is small.
    assert_eq!(session.set(BLOB, &"x".repeat(64 * 1024)).unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(session.id().is_none(), "what was refused made a session");
    let fits = "y".repeat(64 * 1024 - 100);
    session.set(BLOB, &fits).unwrap();
    let token = session.token().unwrap();
    session.save().unwrap().blocking_wait().unwrap();
    for error in [
        session.set(BLOB, &"x".repeat(64 * 1024)).unwrap_err(),
        session.set(OTHER, &"x".repeat(200)).unwrap_err(),
        session.update(BLOB, |text| text.push_str(&"x".repeat(200))).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("65536 are allowed"), "{error}");
        assert_eq!((session.get(BLOB).unwrap().as_deref(), session.get(OTHER).unwrap()), (Some(&*fits), None));
    }
    session.save().unwrap().blocking_wait().unwrap();
    sessions.close().unwrap();
    let session = Sessions::open(&path).unwrap().load(&token).unwrap();
    drop(session);
    let sessions = Sessions::open(&path).unwrap();
    assert_eq!(sessions.load(&token).unwrap().unwrap().get(BLOB).unwrap(), Some(fits));
}
