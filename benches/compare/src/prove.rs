//! Each store has to work before it is timed: the right data back, nothing after its end, and where it promises to be
//! durable everything that was acknowledged before a `kill -9`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::adapters::{self, Adapter};
use crate::store::{Key, data};

/// Names the adapter and the directory for a process that is to be killed.
const CHILD: &str = "COMPARE_CHILD";
const CHILD_HOME: &str = "COMPARE_HOME";
/// Sessions that are acknowledged before the process is killed.
const ACKNOWLEDGED: usize = 50;

pub(crate) fn works(adapter: &Adapter, home: &Path) -> Result<(), String> {
    if !adapter.keeps {
        return Ok(());
    }
    let failed = |what: &str| Err(format!("{} does not work: {what}", adapter.name));
    let place = tempfile::tempdir_in(home).map_err(|error| error.to_string())?;
    let store = (adapter.open)(place.path());
    let keys = store.fill(3);
    let made = store.create(&data(7));
    if store.load(&made) != Some(data(7)) || store.load(&keys[1]) != Some(data(1)) {
        return failed("what was created is not there");
    }
    store.save(&made, &data(8));
    if store.load(&made) != Some(data(8)) {
        return failed("what was saved is not there");
    }
    store.destroy(&made);
    if store.load(&made).is_some() || store.load(&keys[0]).is_none() {
        return failed("the one that ended is there, or another is not");
    }
    drop(store);
    if adapter.durable { outlives_a_kill(adapter, home) } else { Ok(()) }
}

fn outlives_a_kill(adapter: &Adapter, home: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let place = tempfile::tempdir_in(home).map_err(text)?;
    let mut command = Command::new(std::env::current_exe().map_err(text)?);
    command.env(CHILD, adapter.name).env(CHILD_HOME, place.path()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(text)?;
    let output = child.stdout.take().ok_or("no output")?;
    let lines = BufReader::new(output).lines().take(ACKNOWLEDGED).map_while(Result::ok);
    let keys: Vec<Key> = lines.map(|line| from_hex(&line)).collect();
    child.kill().and_then(|()| child.wait()).map_err(text)?;
    let store = (adapter.open)(place.path());
    let left = keys.iter().enumerate().filter(|(number, key)| store.load(key) == Some(data(*number))).count();
    if keys.len() == ACKNOWLEDGED && left == ACKNOWLEDGED {
        return Ok(());
    }
    Err(format!("{} does not work: {left} of {} are there after a kill -9", adapter.name, keys.len()))
}

/// In the process that is to be killed: creates sessions and tells of them, until it is. `false` in any other.
pub(crate) fn is_child() -> bool {
    let (Ok(name), Ok(home)) = (std::env::var(CHILD), std::env::var(CHILD_HOME)) else { return false };
    let Ok(chosen) = adapters::choose(&[name]) else { return true };
    let Some(adapter) = chosen.first() else { return true };
    let store = (adapter.open)(Path::new(&home));
    for number in 0.. {
        let key = store.create(&data(number));
        if writeln!(std::io::stdout(), "{}", hex(&key)).is_err() {
            break;
        }
    }
    true
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Key {
    let digits = text.as_bytes().chunks(2).filter_map(|two| std::str::from_utf8(two).ok());
    digits.filter_map(|two| u8::from_str_radix(two, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_travel_as_text() {
        assert_eq!(from_hex(&hex(&[0, 1, 0xAB, 0xFF])), [0, 1, 0xAB, 0xFF]);
    }
}
