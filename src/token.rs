//! Tokens and handles: what the visitor's client holds, and what names a session to everybody else.
//!
//! What lives here: [`Token`] (the secret), [`SessionId`] (safe to show and to log), their text forms, and the
//! only sources of randomness in the crate. It knows nothing of cookies or storage. Invariants: a token has
//! exactly one spelling; it is never shown by `Debug` and wiped when dropped; an error of the operating
//! system's random source is an error here, never a weaker source.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
#[cfg(any(test, feature = "sim"))]
use rand::SeedableRng;
use rand::{TryRng, rngs};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::{Error, ErrorKind, Result};
use crate::seal::{self, Fingerprint, Key};

/// The secret that a visitor's client holds: 256 random bits and the id of the server key they go with.
///
/// Its text is 57 characters of the URL-safe base64 alphabet: a fixed prefix that names the kind, one
/// character for the server key, 43 for the secret and 6 for a checksum, so that a secret scanner can find a
/// leaked one and a mistyped one costs nothing. Neither the token nor anything it can be computed from is
/// stored.
///
/// ```
/// use dwell::{Options, Token};
/// let sessions = Options::new().in_memory()?;
/// let session = sessions.start();
/// session.set(dwell::Field::<u32>::new("visits"), &1)?;
/// let text = session.token().expect("a first write makes a token").expose();
/// assert!(sessions.load(&Token::parse(&text).expect("our own spelling"))?.is_some());
/// assert!(Token::parse("sid_s1A_junk").is_none());
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token {
    key_id: u8,
    secret: [u8; Self::SECRET_BYTES],
}

/// Text of every session token up to its key character: brand, then `s1` for "session, first format".
const PREFIX: &str = "sid_s1";
/// The id of a server key is one character of the base64 alphabet.
pub(crate) const KEY_IDS: u8 = 64;
const ALPHABET: &[u8; KEY_IDS as usize] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Token {
    const SECRET_BYTES: usize = 32;
    /// Length of the text form, in bytes.
    pub const TEXT_BYTES: usize = PREFIX.len() + 2 + 43 + 6;

    pub(crate) fn random(key_id: u8, entropy: &dyn Entropy) -> Result<Self> {
        debug_assert!(key_id < KEY_IDS, "key id {key_id} has no character");
        let mut token = Self { key_id, secret: [0; Self::SECRET_BYTES] };
        entropy.fill(&mut token.secret)?;
        Ok(token)
    }

    /// The first token from `start` on, counting up, whose fingerprint belongs to the same shard of the index as `like`;
    /// about one in 256 does. `start` is as good as random, and so is what comes out.
    pub(crate) fn near(key_id: u8, start: &Key, like: Fingerprint) -> Self {
        let mut token = Self { key_id, secret: *start.bytes() };
        while token.fingerprint().shard() != like.shard() {
            if let Some(count) = token.secret.first_chunk_mut::<8>() {
                *count = u64::from_le_bytes(*count).wrapping_add(1).to_le_bytes();
            }
        }
        token
    }

    /// Reads the text form. `None` for everything but the one spelling that [`expose`](Self::expose) writes:
    /// costs no lookup and no allocation beyond the stack.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::TEXT_BYTES {
            return None;
        }
        let (body, checksum) = text.split_at_checked(Self::TEXT_BYTES - 6)?;
        let rest = body.strip_prefix(PREFIX)?;
        let (head, secret_text) = rest.split_at_checked(2)?;
        let &[key_character, b'_'] = head.as_bytes() else { return None };
        let key_id = ALPHABET.iter().position(|&character| character == key_character)?;
        let mut expected = [0; 6];
        if encode_checksum(body, &mut expected)? != checksum {
            return None;
        }
        let mut token = Self { key_id: u8::try_from(key_id).ok()?, secret: [0; Self::SECRET_BYTES] };
        let decoded = Base64UrlUnpadded::decode(secret_text, &mut token.secret).ok()?.len();
        (decoded == Self::SECRET_BYTES).then_some(token)
    }

    /// The text to send to the client. Whoever has it is the visitor: never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        let mut text = String::with_capacity(Self::TEXT_BYTES);
        text.push_str(PREFIX);
        text.push(ALPHABET.get(usize::from(self.key_id)).copied().unwrap_or(b'A').into());
        text.push('_');
        let mut secret = [0; 43];
        text.push_str(Base64UrlUnpadded::encode(&self.secret, &mut secret).expect("32 bytes make 43 characters"));
        secret.zeroize();
        let mut checksum = [0; 6];
        let checksum = encode_checksum(&text, &mut checksum).expect("4 bytes make 6 characters");
        text.push_str(checksum);
        text
    }

    pub(crate) const fn key_id(&self) -> u8 {
        self.key_id
    }

    pub(crate) const fn secret(&self) -> &[u8; Self::SECRET_BYTES] {
        &self.secret
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.key_id == other.key_id && seal::same(&self.secret, &other.secret)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(b"dwell/session/s1", self.key_id, &self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

fn encode_checksum<'a>(body: &str, out: &'a mut [u8; 6]) -> Option<&'a str> {
    Base64UrlUnpadded::encode(&crc32fast::hash(body.as_bytes()).to_be_bytes(), out).ok()
}

/// The public name of a session, the same from sign-in to sign-out whatever happens to its token.
///
/// It is no secret: it opens nothing, so it may be shown in a list of devices and written to logs. Its text is
/// 24 characters; a made-up one is told from a real one without asking the disk.
///
/// ```
/// # let sessions = dwell::Options::new().in_memory()?;
/// # let session = sessions.start();
/// session.set(dwell::Field::<u32>::new("visits"), &1)?;
/// let id = session.id().expect("a first write makes a session");
/// assert_eq!(dwell::SessionId::parse(&id.to_string()), Some(id));
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    pub(crate) row: u64,
    pub(crate) tag: [u8; 8],
}

const ID_PREFIX: &str = "h1";

impl SessionId {
    /// Reads the text form; `None` for anything that [`Display`](fmt::Display) does not write.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let decoded = Base64UrlUnpadded::decode(text.strip_prefix(ID_PREFIX)?, &mut bytes).ok()?.len();
        let (row, tag) = bytes.split_at(8);
        (decoded == bytes.len())
            .then_some(Self { row: u64::from_be_bytes(row.try_into().ok()?), tag: tag.try_into().ok()? })
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 16];
        let (row, tag) = bytes.split_at_mut(8);
        row.copy_from_slice(&self.row.to_be_bytes());
        tag.copy_from_slice(&self.tag);
        let mut text = [0; 22];
        let text = Base64UrlUnpadded::encode(&bytes, &mut text).map_err(|_| fmt::Error)?;
        write!(f, "{ID_PREFIX}{text}")
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Where random bytes come from.
pub(crate) trait Entropy: fmt::Debug + Send + Sync + 'static {
    /// Fills the buffer or fails; a failure is never papered over.
    fn fill(&self, buffer: &mut [u8]) -> Result<()>;
}

/// The operating system's source.
#[derive(Debug)]
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        rngs::SysRng
            .try_fill_bytes(buffer)
            .map_err(|cause| Error::new(ErrorKind::Storage, "failed to read the system's random source").because(cause))
    }
}

/// A repeatable source for the simulator and for tests, which fails when it is told to.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug)]
pub(crate) struct SeededEntropy {
    random: parking_lot::Mutex<rngs::ChaCha8Rng>,
    draws: std::sync::Arc<Draws>,
}

/// How often sources were asked, and which askings fail.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug, Default)]
pub(crate) struct Draws(parking_lot::Mutex<(u64, std::ops::Range<u64>)>);

#[cfg(feature = "sim")]
impl Draws {
    pub(crate) fn made(&self) -> u64 {
        self.0.lock().0
    }

    /// From this one on, so many fail.
    pub(crate) fn fail_from(&self, draw: u64, times: u64) {
        self.0.lock().1 = draw..draw.saturating_add(times);
    }
}

#[cfg(any(test, feature = "sim"))]
impl SeededEntropy {
    #[cfg(test)]
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, std::sync::Arc::default())
    }

    pub(crate) fn with(seed: u64, draws: std::sync::Arc<Draws>) -> Self {
        Self { random: parking_lot::Mutex::new(rngs::ChaCha8Rng::seed_from_u64(seed)), draws }
    }
}

#[cfg(any(test, feature = "sim"))]
impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) -> Result<()> {
        let fails = {
            let mut draws = self.draws.0.lock();
            draws.0 += 1;
            draws.1.contains(&(draws.0 - 1))
        };
        if fails {
            return Err(Error::new(ErrorKind::Storage, "failed to read the random source, as it was told to"));
        }
        self.random.lock().try_fill_bytes(buffer).map_err(|never| match never {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(seed: u64) -> Token {
        Token::random(5, &SeededEntropy::new(seed)).unwrap()
    }

    /// Does not compile if there is a `==`, which takes the longer the more of two tokens is the same.
    #[test]
    fn tokens_are_not_compared_with_an_operator() {
        trait Compared<Which> {
            const IS_ONE: () = ();
        }
        impl<T> Compared<()> for T {}
        impl<T: PartialEq> Compared<u8> for T {}
        const { <Token as Compared<_>>::IS_ONE };
    }

    #[test]
    fn text_round_trips() {
        let text = token(1).expose();
        assert_eq!(text.len(), Token::TEXT_BYTES);
        assert!(text.starts_with("sid_s1F_"));
        let back = Token::parse(&text).unwrap();
        assert_eq!(back.fingerprint(), token(1).fingerprint());
        assert_eq!(back.key_id(), 5);
    }

    #[test]
    fn only_one_spelling_is_read() {
        let text = token(2).expose();
        for at in 0..text.len() {
            for replacement in ["A", "b", "0", "_", "=", " ", "é", ""] {
                let mut other = String::from(&text[..at]);
                other.push_str(replacement);
                other.push_str(&text[at + 1..]);
                if other != text {
                    assert!(Token::parse(&other).is_none(), "{other}");
                }
            }
        }
        for other in [format!("{text}="), format!(" {text}"), text.to_uppercase(), text.to_lowercase(), String::new()] {
            assert!(Token::parse(&other).is_none(), "{other}");
        }
    }

    /// The checksum is no secret, so a respelled body can carry a right one: the decoder itself must refuse.
    #[test]
    fn trailing_bits_with_a_right_checksum_are_refused() {
        let text = token(3).expose();
        let body = &text[..Token::TEXT_BYTES - 6];
        let last = body.as_bytes()[body.len() - 1];
        let at = ALPHABET.iter().position(|&c| c == last).unwrap();
        for bits in 1..4 {
            let respelled = format!("{}{}", &body[..body.len() - 1], char::from(ALPHABET[at ^ bits]));
            let mut checksum = [0; 6];
            let checksum = encode_checksum(&respelled, &mut checksum).unwrap();
            assert!(Token::parse(&format!("{respelled}{checksum}")).is_none());
        }
    }

    #[test]
    fn the_key_id_is_part_of_the_fingerprint() {
        let token = token(4);
        let other = Token { key_id: 6, secret: token.secret };
        assert_ne!(token.fingerprint(), other.fingerprint());
    }

    #[test]
    fn handles_round_trip_and_are_not_tokens() {
        let id = SessionId { row: 77, tag: [1, 2, 3, 4, 5, 6, 7, 8] };
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        assert!(Token::parse(&id.to_string()).is_none());
        assert!(SessionId::parse(&token(1).expose()).is_none());
        assert!(SessionId::parse("h1").is_none());
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", token(1)), "Token(..)");
    }
}
