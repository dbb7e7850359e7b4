//! Sealing: fingerprints, derived keys, tags and encryption. The only file that names cryptography crates.
//!
//! It knows bytes and keys, not sessions or files. Invariants: inputs of every hash, tag and derivation carry
//! a label and delimited parts, so two uses cannot be mistaken for one another; plaintext is handed out only
//! after its tag was checked; keys are wiped when dropped and never printed.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use sha2::block_api::compress256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::Result;
use crate::token::Entropy;

/// 32 secret bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key([u8; Self::BYTES]);

impl Key {
    pub(crate) const BYTES: usize = 32;

    pub(crate) const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut key = Self([0; Self::BYTES]);
        entropy.fill(&mut key.0)?;
        Ok(key)
    }

    pub(crate) const fn bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// HKDF-SHA-256 (RFC 5869): `salt` binds the result to a second secret, `label` and `parts` to a purpose.
    pub(crate) fn derive(&self, salt: Option<&Self>, label: &str, parts: &[&[u8]]) -> Self {
        let mut info = Vec::with_capacity(64);
        delimit(label.as_bytes(), |bytes| info.extend_from_slice(bytes));
        for part in parts {
            delimit(part, |bytes| info.extend_from_slice(bytes));
        }
        let mut derived = Self([0; Self::BYTES]);
        Hkdf::<Sha256>::new(salt.map(|key| key.0.as_slice()), &self.0)
            .expand(&info, &mut derived.0)
            .expect("32 bytes is within HKDF-SHA-256's output limit of 8160");
        derived
    }
}

/// In constant time, as for everything secret.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What the store knows a token by: the first 16 bytes of SHA-256 over a label and the token.
///
/// The token has 256 random bits, so a plain, unkeyed hash cannot be turned back; the label, the key id and
/// the secret fit one block, so it costs one compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(pub(crate) [u8; 16]);

impl Fingerprint {
    /// No token's.
    pub(crate) const NONE: Self = Self([0; 16]);

    pub(crate) fn of(label: &[u8; 16], key_id: u8, secret: &[u8; 32]) -> Self {
        // The message is 49 bytes, so with its padding (FIPS 180-4, 5.1.1) it is one block, laid out here so that
        // nothing but the compression is paid for. Whole parts are copied: byte by byte it took longer than the hash.
        let mut block = [0_u8; 64];
        let (to, rest) = block.split_at_mut(label.len());
        to.copy_from_slice(label);
        let (to, rest) = rest.split_at_mut(1);
        to.copy_from_slice(&[key_id]);
        let (to, rest) = rest.split_at_mut(secret.len());
        to.copy_from_slice(secret);
        rest.copy_from_slice(&PADDING);
        let mut state = INITIAL;
        compress256(&mut state, &[block]);
        // The rest of the block is no secret.
        if let Some(copy) = block.get_mut(label.len() + 1..).and_then(|rest| rest.first_chunk_mut::<32>()) {
            copy.zeroize();
        }
        let [a, b, c, d, ..] = state.map(u128::from);
        Self((a << 96 | b << 64 | c << 32 | d).to_be_bytes())
    }

    /// The shard of the index that it belongs to: the last byte, which tables within a shard do not look at.
    pub(crate) fn shard(self) -> u32 {
        let [.., last] = self.0;
        u32::from(last)
    }

    /// The leading 8 bytes as a number, for placing it in tables: the bytes are uniformly random already.
    pub(crate) const fn hash(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// What follows a message of 49 bytes in its block: a one bit, zeros, and its length of 392 bits.
const PADDING: [u8; 15] = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x88];
/// SHA-256's initial hash value (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19];

/// A keyed tag maker: HMAC-SHA-256 with its key schedule done once.
#[derive(Clone)]
pub(crate) struct Tagger(Hmac<Sha256>);

impl Tagger {
    pub(crate) fn new(key: &Key) -> Self {
        Self(<Hmac<Sha256> as KeyInit>::new_from_slice(&key.0).expect("HMAC takes keys of any length"))
    }

    fn digest(&self, label: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        delimit(label.as_bytes(), |bytes| mac.update(bytes));
        for part in parts {
            delimit(part, |bytes| mac.update(bytes));
        }
        mac.finalize().into_bytes().into()
    }

    pub(crate) fn tag16(&self, label: &str, parts: &[&[u8]]) -> [u8; 16] {
        first(&self.digest(label, parts))
    }

    /// 32 secret bytes that follow from the parts.
    pub(crate) fn key(&self, label: &str, parts: &[&[u8]]) -> Key {
        Key(self.digest(label, parts))
    }

    pub(crate) fn tag8(&self, label: &str, parts: &[&[u8]]) -> [u8; 8] {
        first(&self.digest(label, parts))
    }

    /// Whether `tag` is the one for these parts, compared in constant time.
    pub(crate) fn verify<const N: usize>(&self, label: &str, parts: &[&[u8]], tag: &[u8; N]) -> bool {
        const { assert!(N >= 8, "a shorter tag could be guessed, an empty one would always fit") };
        bool::from(first::<N>(&self.digest(label, parts)).ct_eq(tag))
    }
}

impl fmt::Debug for Tagger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tagger(..)")
    }
}

/// Whether two secrets are the same, compared in constant time.
pub(crate) fn same<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    bool::from(one.ct_eq(other))
}

/// What sealing adds to a plaintext: a random nonce in front, a tag behind.
pub(crate) const SEAL_OVERHEAD: usize = NONCE + TAG;
const NONCE: usize = 24;
const TAG: usize = 16;

/// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under a random 192-bit nonce: nonce, ciphertext, tag.
pub(crate) fn seal(key: &Key, bound: &[u8], plaintext: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>> {
    let mut nonce = [0_u8; NONCE];
    entropy.fill(&mut nonce)?;
    let sealed = XChaCha20Poly1305::new(&key.0.into())
        .encrypt(&nonce.into(), Payload { msg: plaintext, aad: bound })
        .expect("sealing fails only over 256 GiB");
    let mut out = Vec::with_capacity(NONCE + sealed.len());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Opens what [`seal`] made for the same key and bound bytes; `None` if anything differs.
pub(crate) fn open(key: &Key, bound: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, message) = sealed.split_first_chunk::<NONCE>()?;
    XChaCha20Poly1305::new(&key.0.into()).decrypt(&(*nonce).into(), Payload { msg: message, aad: bound }).ok()
}

/// A wrapped key: ciphertext and tag. `by` must be used for one wrapping only, which is why there is no nonce.
pub(crate) type Wrap = [u8; Key::BYTES + TAG];

/// Encrypts `key` under the one-time key `by` (ChaCha20-Poly1305, RFC 8439).
pub(crate) fn wrap(by: &Key, bound: &[u8], key: &Key) -> Wrap {
    let sealed = ChaCha20Poly1305::new(&by.0.into())
        .encrypt(&[0_u8; 12].into(), Payload { msg: &key.0, aad: bound })
        .expect("sealing fails only over 256 GiB");
    sealed.try_into().expect("a sealed key is as long as a wrap")
}

/// Opens what [`wrap`] made; `None` if anything differs.
pub(crate) fn unwrap(by: &Key, bound: &[u8], wrapped: &Wrap) -> Option<Key> {
    let mut plain =
        ChaCha20Poly1305::new(&by.0.into()).decrypt(&[0_u8; 12].into(), Payload { msg: wrapped, aad: bound }).ok()?;
    let key = <[u8; Key::BYTES]>::try_from(plain.as_slice()).ok().map(Key);
    plain.zeroize();
    key
}

/// Feeds one part with its length in front, so that no two lists of parts give the same bytes.
fn delimit(part: &[u8], mut feed: impl FnMut(&[u8])) {
    feed(&(part.len() as u64).to_le_bytes());
    feed(part);
}

fn first<const N: usize>(digest: &[u8]) -> [u8; N] {
    *digest.first_chunk().expect("a SHA-256 digest is longer than any tag we take from it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::OsEntropy;

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32])
    }

    #[test]
    fn sealed_bytes_open_only_under_the_same_key_and_binding() {
        let sealed = seal(&key(1), b"row 7", b"secret", &OsEntropy).unwrap();
        assert_eq!(sealed.len(), 6 + SEAL_OVERHEAD);
        assert_eq!(open(&key(1), b"row 7", &sealed).unwrap(), b"secret");
        assert!(open(&key(2), b"row 7", &sealed).is_none());
        assert!(open(&key(1), b"row 8", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&key(1), b"row 7", &changed).is_none());
        }
        assert!(open(&key(1), b"row 7", &sealed[..20]).is_none());
    }

    #[test]
    fn keys_are_wiped_when_dropped() {
        const fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Key>();
        wiped::<crate::token::Token>();
        // What a tagger is made of.
        wiped::<Sha256>();
    }

    #[test]
    fn nonces_do_not_repeat() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            assert!(seen.insert(seal(&key(1), b"", b"", &OsEntropy).unwrap()[..NONCE].to_vec()));
        }
    }

    #[test]
    fn wraps_round_trip_and_bind() {
        let wrapped = wrap(&key(1), b"bound", &key(9));
        assert_eq!(unwrap(&key(1), b"bound", &wrapped), Some(key(9)));
        assert_eq!(unwrap(&key(1), b"other", &wrapped), None);
        assert_eq!(unwrap(&key(2), b"bound", &wrapped), None);
    }

    #[test]
    fn parts_are_delimited() {
        let tagger = Tagger::new(&key(3));
        assert_ne!(tagger.tag16("l", &[b"ab", b"c"]), tagger.tag16("l", &[b"a", b"bc"]));
        assert_ne!(tagger.tag16("la", &[b"b"]), tagger.tag16("l", &[b"ab"]));
        assert_ne!(key(1).derive(None, "a", &[b"bc"]), key(1).derive(None, "ab", &[b"c"]));
        assert_ne!(key(1).derive(Some(&key(2)), "a", &[]), key(1).derive(Some(&key(3)), "a", &[]));
        let tag = tagger.tag16("l", &[b"x"]);
        assert!(tagger.verify("l", &[b"x"], &tag));
        assert!(!tagger.verify("l", &[b"y"], &tag));
        let short = tagger.tag8("l", &[b"x"]);
        assert!(tagger.verify("l", &[b"x"], &short));
        assert!(!tagger.verify("l", &[b"y"], &short));
    }

    #[test]
    fn a_fingerprint_is_the_head_of_plain_sha_256() {
        use sha2::Digest;
        let message = [&b"dwell/session/s1"[..], &[7], &[9; 32]].concat();
        let digest = Sha256::digest(message);
        assert_eq!(Fingerprint::of(b"dwell/session/s1", 7, &[9; 32]).0[..], digest[..16]);
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", key(0xAB)), "Key(..)");
    }
}
