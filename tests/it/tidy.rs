//! The rules of the source tree that neither the compiler nor a lint can hold.
//!
//! Three of them, over the files of `src/`: a file names its own ring and those below it, never one above; a
//! foreign crate is named only where it is at home; files and functions stay short, and nothing unfinished,
//! unsafe or sleeping gets in. The text is cut into tokens first, so that comments, strings and the tests
//! inside a file do not count. The rules are tables at the end of the checker; the tests of the checker itself
//! plant one violation of each kind.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_source_tree_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let exports = exports(&fs::read_to_string(root.join("lib.rs")).unwrap());
    let mut found = Vec::new();
    for path in rust_files(&root) {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        found.extend(check(&name, &fs::read_to_string(&path).unwrap(), &exports));
    }
    let unused = ALLOWED.iter().filter(|allowed| !found.iter().any(|violation| allowed.covers(violation)));
    let unused: Vec<_> =
        unused.map(|allowed| format!("src/{}: nothing to allow: {}", allowed.file, allowed.reason)).collect();
    found.retain(|violation| !ALLOWED.iter().any(|allowed| allowed.covers(violation)));
    let lines: Vec<_> = found.iter().map(ToString::to_string).chain(unused).collect();
    assert!(lines.is_empty(), "the source tree breaks its rules:\n{}", lines.join("\n"));
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let files = |path: PathBuf| if path.is_dir() { rust_files(&path) } else { vec![path] };
    entries.into_iter().flat_map(files).filter(|path| path.extension().is_some_and(|ext| ext == "rs")).collect()
}

// The rules.

/// Exceptions. Each says why, and fails the test when there is nothing left to allow.
const ALLOWED: &[Allowed] = &[
    Allowed {
        file: "storage/directory.rs",
        rule: Rule::Banned,
        reason: "waiting for another process to let go of the lock is polling; nothing rings a bell for it",
    },
    Allowed {
        file: "cli/demo/mod.rs",
        rule: Rule::Home,
        reason: "the demo says how long its start took, which nothing depends on",
    },
];

struct Allowed {
    file: &'static str,
    rule: Rule,
    reason: &'static str,
}

impl Allowed {
    fn covers(&self, violation: &Violation) -> bool {
        self.file == violation.file && self.rule == violation.rule && !self.reason.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Ring,
    Home,
    FileLines,
    FunctionLines,
    Banned,
}

/// Top-level modules and how far out they are. A module knows its own ring and those with smaller numbers.
const RINGS: &[(u8, &[&str])] = &[
    (0, &["error", "time", "token", "seal", "field", "codec", "options", "guide"]),
    (1, &["storage"]),
    (2, &["engine"]),
    (3, &["sessions", "session", "events", "admin", "receipt", "sign_in", "stats", "sim"]),
    (4, &["web"]),
    (5, &["main", "cli"]),
];

/// Foreign crates and the files and folders that may name them.
const HOMES: &[(&[&str], &[&str])] = &[
    (&["redb"], &["storage/"]),
    (&["bincode"], &["codec.rs"]),
    (&["serde_json"], &["codec.rs", "web/axum/", "cli/"]),
    (&["rand"], &["token.rs"]),
    (&["governor"], &["web/flood.rs"]),
    (&["futures_core"], &["events.rs", "cli/"]),
    (&["sha2", "hmac", "hkdf", "chacha20poly1305", "subtle"], &["seal.rs"]),
    (&["tokio", "tower_layer", "tower_service", "http_body_util", "form_urlencoded"], &["web/axum/", "cli/"]),
    (&["clap", "humantime", "hyper", "hyper_util", "maud", "quick_xml"], &["cli/"]),
];

/// Parts of paths that read a real clock, and where that is done.
const CLOCKS: &[&[&str]] = &[&["Instant"], &["SystemTime"], &["rustix", "time"]];
const CLOCK_HOME: &str = "time.rs";

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;

#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    rule: Rule,
    message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {:?}: {}", self.file, self.line, self.rule, self.message)
    }
}

/// Everything that is wrong with one file. `file` is its path below `src/`.
fn check(file: &str, text: &str, exports: &BTreeMap<String, String>) -> Vec<Violation> {
    let all = tokens(text);
    let (code, test_lines) = without_tests(&all);
    let is_test =
        Path::new(file).components().any(|part| ["tests", "tests.rs"].map(AsRef::as_ref).contains(&part.as_os_str()));
    let mut found = banned(&all);
    if !is_test {
        let paths = paths(&code);
        found.extend(rings(file, &paths, exports));
        found.extend(homes(file, &paths));
        found.extend(function_lines(&code));
        let lines = text.lines().count() - test_lines;
        if lines > FILE_LINES_MAX {
            found.push((1, Rule::FileLines, format!("{lines} lines without tests, {FILE_LINES_MAX} are allowed")));
        }
    }
    let violation = |(line, rule, message)| Violation { file: file.into(), line, rule, message };
    found.into_iter().map(violation).collect()
}

type Found = (usize, Rule, String);

fn rings(file: &str, paths: &[Named], exports: &BTreeMap<String, String>) -> Vec<Found> {
    let own = file.split('/').next().unwrap().trim_end_matches(".rs");
    if own == "lib" {
        return Vec::new();
    }
    let unknown = |module: &str| format!("`{module}` has no ring: assign one in RINGS of tests/it/tidy.rs");
    let Some(ring) = ring_of(own) else {
        return vec![(1, Rule::Ring, unknown(own))];
    };
    let mut found = Vec::new();
    for path in paths {
        let Some(name) = path.below_root(file) else {
            continue;
        };
        let module = exports.get(name).map_or(name, String::as_str);
        match ring_of(module) {
            None => found.push((path.line, Rule::Ring, unknown(module))),
            Some(other) if other > ring => {
                let message = format!("`{own}` is in ring {ring} and names `{module}` in ring {other}");
                found.push((path.line, Rule::Ring, message));
            }
            Some(_) => {}
        }
    }
    found
}

fn ring_of(module: &str) -> Option<u8> {
    RINGS.iter().find(|(_, modules)| modules.contains(&module)).map(|(ring, _)| *ring)
}

fn homes(file: &str, paths: &[Named]) -> Vec<Found> {
    let at_home = |home: &str| if home.ends_with('/') { file.starts_with(home) } else { file == home };
    let mut found = Vec::new();
    for path in paths {
        let first = path.parts.first().map_or("", String::as_str);
        let foreign = path.parts.len() > 1 || path.imported;
        for (names, homes) in HOMES {
            if foreign && names.contains(&first) && !homes.iter().any(|home| at_home(home)) {
                let homes = homes.join(" and src/");
                found.push((path.line, Rule::Home, format!("`{first}` is named outside of src/{homes}")));
            }
        }
        if CLOCKS.iter().any(|clock| path.contains(clock)) && !at_home(CLOCK_HOME) {
            let message =
                format!("`{}` is a real clock, which is read in src/{CLOCK_HOME} only", path.parts.join("::"));
            found.push((path.line, Rule::Home, message));
        }
    }
    found
}

fn function_lines(code: &[Token]) -> Vec<Found> {
    let mut found = Vec::new();
    for (index, pair) in code.windows(2).enumerate() {
        let [keyword, name] = pair else { continue };
        // `fn(` is a type.
        if keyword.text != "fn" || !name.is_word() {
            continue;
        }
        let last = item_end(code, index).and_then(|end| code.get(end)).map_or(keyword.line, |token| token.line);
        let lines = last - keyword.line + 1;
        if lines > FUNCTION_LINES_MAX {
            let message = format!("`{}` has {lines} lines, {FUNCTION_LINES_MAX} are allowed", name.text);
            found.push((keyword.line, Rule::FunctionLines, message));
        }
    }
    found
}

/// What may be nowhere, tests included.
fn banned(all: &[Token]) -> Vec<Found> {
    let mut found = Vec::new();
    for (index, token) in all.iter().enumerate() {
        let next = |ahead: usize| all.get(index + ahead).map_or("", |token| token.text.as_str());
        let what = match token.text.as_str() {
            "todo" | "unimplemented" | "dbg" if next(1) == "!" => "unfinished code",
            "#" if next(1) == "[" && next(2) == "ignore" => "an ignored test",
            "unsafe" => "unsafe code",
            _ => continue,
        };
        found.push((token.line, Rule::Banned, format!("{what} does not belong here")));
    }
    for path in paths(all).iter().filter(|path| path.contains(&["thread", "sleep"])) {
        found.push((path.line, Rule::Banned, "nothing here sleeps: wait for an event, with a deadline".into()));
    }
    found
}

/// The names that `lib.rs` re-exports at the root, with the module each one comes from.
fn exports(lib: &str) -> BTreeMap<String, String> {
    let all = tokens(lib);
    let imported = paths(&all).into_iter().filter(|path| path.imported && path.parts.len() > 1);
    imported
        .map(|mut path| {
            path.parts.retain(|part| part != "crate" && part != "self");
            (path.parts.last().cloned().unwrap_or_default(), path.parts.first().cloned().unwrap_or_default())
        })
        .collect()
}

// From text to tokens, from tokens to code without tests and to paths.

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    /// A word, `::`, one sign, or `"` in place of any literal.
    text: String,
    line: usize,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// The tokens of a text, without comments and without what literals say.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < chars.len() {
        let (length, token) = token_at(&chars[at..]);
        if let Some(text) = token {
            found.push(Token { text, line });
        }
        let end = (at + length).min(chars.len());
        line += chars[at..end].iter().filter(|char| **char == '\n').count();
        at = end;
    }
    found
}

/// The length of what stands at the start of `rest`, and its token if it is one.
fn token_at(rest: &[char]) -> (usize, Option<String>) {
    let next = |ahead: usize| rest.get(ahead).copied().unwrap_or('\0');
    let is_word = |char: &char| char.is_alphanumeric() || *char == '_';
    let literal = Some("\"".to_owned());
    match (next(0), next(1)) {
        ('/', '/') => (rest.iter().take_while(|char| **char != '\n').count(), None),
        ('/', '*') => (block_comment(rest), None),
        (':', ':') => (2, Some("::".to_owned())),
        ('"', _) => (quoted(rest, '"'), literal),
        ('\'', '\\') => (quoted(rest, '\''), literal),
        ('\'', _) if next(2) == '\'' => (3, literal),
        // A lifetime.
        ('\'', _) => (1 + rest[1..].iter().take_while(|char| is_word(char)).count(), None),
        (first, _) if first.is_whitespace() => (1, None),
        (first, _) if is_word(&first) => {
            let length = rest.iter().take_while(|char| is_word(char)).count();
            let word: String = rest[..length].iter().collect();
            let after = &rest[length..];
            let hashes = after.iter().take_while(|char| **char == '#').count();
            match (word.as_str(), after.get(hashes)) {
                ("r" | "br" | "cr", Some('"')) => (length + raw(after, hashes), literal),
                ("b" | "c", Some(quote @ ('"' | '\''))) if hashes == 0 => (length + quoted(after, *quote), literal),
                // A raw identifier: the word itself follows.
                ("r", Some(_)) if hashes == 1 => (length + 1, None),
                _ => (length, Some(word)),
            }
        }
        (first, _) => (1, Some(first.to_string())),
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw(rest: &[char], hashes: usize) -> usize {
    let mut at = hashes + 1;
    while at < rest.len()
        && !(rest[at] == '"' && rest[at + 1..].iter().take_while(|char| **char == '#').count() >= hashes)
    {
        at += 1;
    }
    at + 1 + hashes
}

/// The tokens outside of `#[cfg(test)]` items, and the number of lines that those items take.
fn without_tests(all: &[Token]) -> (Vec<Token>, usize) {
    let (mut code, mut lines, mut at) = (Vec::new(), 0, 0);
    while at < all.len() {
        match test_attribute(&all[at..]) {
            Some(_) if all[at + 1].text == "!" => return (Vec::new(), all.last().map_or(0, |last| last.line)),
            Some(length) => {
                let end = item_end(all, at + length).unwrap_or(all.len() - 1);
                lines += all[end].line - all[at].line + 1;
                at = end + 1;
            }
            None => {
                code.push(all[at].clone());
                at += 1;
            }
        }
    }
    (code, lines)
}

/// The length of the attribute at the start if it keeps its item for tests: `cfg(test)`, `cfg(all(test, …))`.
fn test_attribute(rest: &[Token]) -> Option<usize> {
    let text = |at: usize| rest.get(at).map_or("", |token| token.text.as_str());
    if text(0) != "#" {
        return None;
    }
    let open = if text(1) == "!" { 2 } else { 1 };
    if text(open) != "[" || text(open + 1) != "cfg" {
        return None;
    }
    let end = closing(rest, open)?;
    let first = if text(open + 3) == "all" { open + 5 } else { open + 3 };
    let (mut depth, mut for_tests) = (0, false);
    for token in &rest[first..end] {
        match token.text.as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            "test" if depth == 0 => for_tests = true,
            _ => {}
        }
    }
    for_tests.then_some(end + 1)
}

/// The index of the bracket that closes the one at `open`.
fn closing(tokens: &[Token], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(index);
        }
    }
    None
}

/// The index of the last token of the item at `start`: its semicolon or the end of its braces.
fn item_end(tokens: &[Token], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match tokens.get(at)?.text.as_str() {
            ";" => return Some(at),
            "{" => return closing(tokens, at),
            "(" | "[" => at = closing(tokens, at)? + 1,
            // The item was the last one of what is around it.
            "}" => return Some(at - 1),
            _ => at += 1,
        }
    }
}

/// A path as it stands in the code, with the groups of a `use` written out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    parts: Vec<String>,
    line: usize,
    imported: bool,
}

impl Named {
    fn contains(&self, run: &[&str]) -> bool {
        self.parts.windows(run.len()).any(|window| window == run)
    }

    /// The name below the root of the crate that the path goes through, if it starts at the root.
    fn below_root(&self, file: &str) -> Option<&str> {
        // `storage/mod.rs` and `error.rs` are one level below the root, `storage/schema.rs` is two.
        let depth = file.split('/').count() - usize::from(file.contains('/') && file.ends_with("/mod.rs"));
        let up = self.parts.iter().take_while(|part| *part == "super").count();
        let skipped = if self.parts.first().is_some_and(|first| first == "crate") { 1 } else { up };
        let at_root = skipped > up || (up > 0 && up >= depth);
        self.parts.get(skipped).filter(|_| at_root).map(String::as_str)
    }
}

/// Words that may stand before a path that begins with `::`.
const KEYWORDS: &[&str] = &["as", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "use", "while"];

fn paths(code: &[Token]) -> Vec<Named> {
    let (mut found, mut at, mut imported) = (Vec::new(), 0, false);
    while at < code.len() {
        match code[at].text.as_str() {
            "use" => imported = true,
            ";" => imported = false,
            _ => {}
        }
        // What is called on something, and the name that an alias or an associated type gets, are no paths.
        let named = at > 0 && [".", "type"].contains(&code[at - 1].text.as_str());
        let starts = code[at].is_word() && !named && !KEYWORDS.contains(&code[at].text.as_str());
        at = if starts { path(code, at, &[], imported, &mut found) } else { at + 1 };
    }
    found
}

/// Collects the path at `at`, after `prefix`, and gives the index after it.
fn path(code: &[Token], mut at: usize, prefix: &[String], imported: bool, found: &mut Vec<Named>) -> usize {
    let mut parts = prefix.to_vec();
    let line = code.get(at).map_or(0, |token| token.line);
    let text = |at: usize| code.get(at).map_or("", |token| token.text.as_str());
    while code.get(at).is_some_and(Token::is_word) {
        parts.push(text(at).to_owned());
        at += 1;
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    if text(at) != "{" || at == 0 || (text(at - 1) != "::" && prefix.is_empty()) {
        if text(at) == "as" {
            found.push(Named { parts: parts.clone(), line, imported });
            // Also under its new name, for the re-exports.
            parts.push(text(at + 1).to_owned());
            at += 2;
        }
        found.push(Named { parts, line, imported });
        return at;
    }
    at += 1;
    while !matches!(text(at), "}" | "") {
        let word = code.get(at).is_some_and(Token::is_word);
        at = if word { path(code, at, &parts, imported, found) } else { at + 1 };
    }
    at + 1
}

mod the_checker {
    use super::*;

    fn rules(file: &str, text: &str) -> Vec<Rule> {
        let exports = exports("pub use sessions::{Sessions, Token as Other}; pub use error::Error;");
        check(file, text, &exports).into_iter().map(|violation| violation.rule).collect()
    }

    #[track_caller]
    fn finds(rule: Rule, file: &str, text: &str) {
        assert!(rules(file, text).contains(&rule), "{rule:?} was not found in {file}: {text}");
    }

    #[track_caller]
    fn passes(file: &str, text: &str) {
        assert_eq!(rules(file, text), [], "in {file}: {text}");
    }

    #[test]
    fn a_higher_ring_is_found() {
        finds(Rule::Ring, "error.rs", "use crate::engine::Engine;");
        finds(Rule::Ring, "error.rs", "use crate::{codec, engine::Engine};");
        finds(Rule::Ring, "error.rs", "fn f() { crate::storage::open() }");
        finds(Rule::Ring, "error.rs", "use super::storage;");
        finds(Rule::Ring, "storage/mod.rs", "use super::engine::Engine;");
        finds(Rule::Ring, "storage/disk/real.rs", "use super::super::super::engine::Engine;");
        finds(Rule::Ring, "storage/mod.rs", "use crate::{error::{Error, Result}, web};");
        finds(Rule::Ring, "engine/mod.rs", "use crate::Sessions;");
        finds(Rule::Ring, "engine/mod.rs", "use crate::Other;");
        finds(Rule::Ring, "engine/mod.rs", "macro_rules! m { () => { $crate::session::x() } }");
        finds(Rule::Ring, "guide/mod.rs", "use crate::sessions::Sessions;");
    }

    #[test]
    fn a_module_without_a_ring_is_found() {
        finds(Rule::Ring, "utils.rs", "");
        finds(Rule::Ring, "engine/mod.rs", "use crate::utils::helper;");
        let message = &check("utils.rs", "", &BTreeMap::new())[0].message;
        assert!(message.contains("assign one"), "{message}");
    }

    #[test]
    fn lower_rings_and_siblings_pass() {
        passes("engine/mod.rs", "use crate::storage::{self, Batch}; use crate::error::Result;");
        passes("engine/mod.rs", "use crate::Error; use super::error::Error;");
        passes("engine/wheel.rs", "use super::slot::Slot; pub(crate) use crate::engine::index;");
        passes("storage/disk/real.rs", "use super::super::schema; use super::Disk;");
        passes("lib.rs", "mod web; pub use crate::web::Exchange;");
        passes("main.rs", "use dwell::Sessions; mod cli; fn main() { crate::cli::run() }");
    }

    #[test]
    fn comments_strings_and_tests_do_not_count() {
        passes("error.rs", "//! [`crate::engine`]\n/* crate::web /* nested */ redb::x */ fn f() {}");
        passes("error.rs", r###"const A: &str = "crate::web \" redb::x"; const B: &str = r#"crate::web " "#;"###);
        passes("error.rs", "const A: [char; 2] = ['\"', '\\'']; fn f<'a>(x: &'a str) -> &'a str { x }");
        passes("error.rs", "#[cfg(test)]\nmod tests { use crate::engine::Engine; use std::time::Instant; }");
        passes("error.rs", "#[cfg(all(test, unix))] #[inline] fn f(a: [u8; 2]) { crate::web::x() } fn g() {}");
        passes("error.rs", "#![cfg(test)] use crate::engine::Engine;");
        passes("engine/tests.rs", "use crate::sessions::Sessions;");
    }

    #[test]
    fn code_after_and_beside_tests_counts() {
        finds(Rule::Ring, "error.rs", "#[cfg(test)] mod tests { fn f() {} } use crate::web::x;");
        finds(Rule::Ring, "error.rs", "#[cfg(test)] use crate::web::y; use crate::web::x;");
        finds(Rule::Ring, "error.rs", "#[cfg(not(test))] use crate::web::x;");
        finds(Rule::Ring, "error.rs", "#[cfg(any(test, feature = \"sim\"))] use crate::web::x;");
        finds(Rule::Ring, "error.rs", "const A: char = '\"'; use crate::web::x; const B: char = '\"';");
        finds(Rule::Ring, "error.rs", "const A: &str = r#\"a\"#; use crate::web::x;");
    }

    #[test]
    fn a_foreign_name_away_from_home_is_found() {
        for (file, text) in [
            ("engine/writer.rs", "fn f(x: redb::Database) {}"),
            ("engine/mod.rs", "use redb::Database;"),
            ("field.rs", "use ::bincode::config;"),
            ("field.rs", "fn f() -> ::redb::Error { return ::redb::Error::X; }"),
            ("codec/other.rs", "use serde_json::Value;"),
            ("engine/mod.rs", "use {rand::Rng, std::fmt};"),
            ("seal.rs", "fn f() { rand::rng() }"),
            ("token.rs", "use sha2::{Digest, Sha256};"),
            ("token.rs", "use hmac::Mac;"),
            ("token.rs", "use hkdf;"),
            ("storage/record.rs", "use chacha20poly1305::aead::Aead;"),
            ("token.rs", "use subtle::ConstantTimeEq as _;"),
        ] {
            finds(Rule::Home, file, text);
        }
    }

    #[test]
    fn a_foreign_name_at_home_passes() {
        passes("storage/disk/backend.rs", "use redb::StorageBackend;");
        passes("codec.rs", "use bincode::config; use serde_json::Value;");
        passes("token.rs", "use rand::TryRng; fn f() { let rand = 1; rand.max(2); }");
        passes("seal.rs", "use sha2::Sha256; use subtle::ConstantTimeEq;");
        passes("engine/mod.rs", "fn f(rand: u64) -> u64 { self.rand + rand + self::rand::next() }");
    }

    #[test]
    fn a_real_clock_away_from_home_is_found() {
        finds(Rule::Home, "engine/mod.rs", "use std::time::Instant;");
        finds(Rule::Home, "engine/mod.rs", "use std::time::{Duration, SystemTime};");
        finds(Rule::Home, "engine/mod.rs", "use std::time; fn f() { time::Instant::now() }");
        finds(Rule::Home, "engine/mod.rs", "use rustix::{fs, time::clock_gettime};");
        passes("engine/mod.rs", "use std::time::Duration; use crate::time::Timestamp;");
        passes("time.rs", "use std::time::{Instant, SystemTime}; use rustix::time;");
        passes("engine/mod.rs", "impl Clock for Mine { type Instant = u64; }");
        finds(Rule::Home, "engine/mod.rs", "impl Clock for Mine { type Instant = std::time::Instant; }");
    }

    #[test]
    fn a_sleep_is_found_even_in_tests() {
        finds(Rule::Banned, "engine/mod.rs", "fn f() { std::thread::sleep(x) }");
        finds(Rule::Banned, "engine/mod.rs", "use std::thread::{spawn, sleep};");
        finds(Rule::Banned, "engine/mod.rs", "#[cfg(test)] mod tests { fn f() { thread::sleep(x) } }");
    }

    #[test]
    fn unfinished_and_unsafe_code_is_found() {
        for text in ["todo!()", "unimplemented!(\"x\")", "dbg!(1)", "unsafe { f() }"] {
            finds(Rule::Banned, "error.rs", &format!("fn f() {{ {text} }}"));
            finds(Rule::Banned, "error.rs", &format!("#[cfg(test)] mod tests {{ fn f() {{ {text} }} }}"));
        }
        finds(Rule::Banned, "error.rs", "#[cfg(test)] mod tests { #[test] #[ignore = \"slow\"] fn f() {} }");
        passes("error.rs", "#![forbid(unsafe_code)] // todo!()\nfn todo(ignore: u8) -> u8 { ignore }");
    }

    #[test]
    fn long_files_are_found_but_not_for_their_tests() {
        let code = "const A: u8 = 1;\n".repeat(FILE_LINES_MAX);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        passes("error.rs", &format!("{code}{tests}"));
        finds(Rule::FileLines, "error.rs", &format!("{code}\n{tests}"));
    }

    #[test]
    fn long_functions_are_found() {
        let function =
            |lines: usize| format!("fn f() where [u8; 1]: Sized {{\n{}}}\n", "g('{', \"}\");\n".repeat(lines));
        passes("error.rs", &function(FUNCTION_LINES_MAX - 2));
        finds(Rule::FunctionLines, "error.rs", &function(FUNCTION_LINES_MAX - 1));
        finds(Rule::FunctionLines, "error.rs", &format!("impl A {{ {} }}", function(FUNCTION_LINES_MAX)));
        passes("error.rs", &format!("#[cfg(test)] mod tests {{ {} }}", function(FUNCTION_LINES_MAX)));
        passes("error.rs", &format!("type A = fn(u8) -> u8; trait B {{ fn c(&self); }}{}", "\n".repeat(100)));
    }

    #[test]
    fn violations_say_where() {
        let violations = check("error.rs", "\n\"a\nb\";\nuse crate::web::x;\n", &BTreeMap::new());
        assert_eq!(violations[0].to_string(), "src/error.rs:4: Ring: `error` is in ring 0 and names `web` in ring 4");
    }

    #[test]
    fn an_exception_covers_one_rule_in_one_file() {
        let allowed = Allowed { file: "error.rs", rule: Rule::Ring, reason: "a test" };
        let covered = |file, text| check(file, text, &BTreeMap::new()).iter().all(|found| allowed.covers(found));
        assert!(covered("error.rs", "use crate::web::x;"));
        assert!(!covered("codec.rs", "use crate::web::x;"));
        assert!(!covered("error.rs", "use redb::x;"));
        assert!(
            !Allowed { reason: "", ..allowed }.covers(&check("error.rs", "use crate::web::x;", &BTreeMap::new())[0])
        );
    }
}
