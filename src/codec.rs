//! Values of the application to bytes and back.
//!
//! What lives here: [`Codec`] and the two functions [`encode`] and [`decode`]. This is the only file that
//! names the foreign formats; each stored value carries its codec as one byte, so a format can be added, or
//! given up, without touching the values that are already stored. bincode writes; `compact.rs` reads what it wrote.
//!
//! What it may know: serde, the two formats and [`Error`]. It knows no names, versions, records or keys.
//!
//! Invariants:
//!
//! - [`decode`] takes bytes that were authenticated before. It is total nevertheless: any input gives a value
//!   or an error, and a value has used every byte of its input.
//! - An encoded value is at most [`VALUE_BYTES_MAX`] long, and every value that [`encode`] accepts is inside
//!   the limits of [`decode`].
//! - An error of [`decode`] has no cause: serde's messages quote what they read, and an error never carries a
//!   value of a session. An error of [`encode`] does carry it, for it speaks of the caller's own argument.
//!
//! What is bounded: the input; the memory that one length prefix can ask for (a text or byte string is copied only
//! once its bytes are there, any other collection grows with what is really there); the nesting of JSON (128, the
//! default of its parser). What is not: a collection of zero-sized elements takes no input for each element,
//! so its count is only bounded by the prefix, and a type that holds itself nests in bincode as deep as the
//! input is long. The application chose both types and wrote the bytes; they can only meet bytes of another
//! type when a field changes its type and not its version.
//!
//! On a crash or panic: nothing is kept here. A panic in the application's `Serialize` or `Deserialize`
//! passes through.

mod compact;

use bincode::config::{Configuration, LittleEndian, Varint};
use bincode::error::EncodeError;
use serde::{Deserialize, Serialize};

use self::compact::Compact;
use crate::error::{Error, ErrorKind, Result};

/// The format of one stored value. The numbers are on disk: never change or reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Compact and fast, for types whose shape is known in advance.
    Bincode = 1,
    /// Self-describing, for types that find out their shape while they are read.
    Json = 2,
}

impl Codec {
    /// The codec of a stored value, or `None` for one that this version does not know.
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Bincode),
            2 => Some(Self::Json),
            _ => None,
        }
    }

    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Bincode => 1,
            Self::Json => 2,
        }
    }
}

/// Encodes one value.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] as soon as the result passes [`VALUE_BYTES_MAX`], [`ErrorKind::Invalid`] when the
/// codec cannot carry the type or is not part of this build.
pub(crate) fn encode<T: Serialize + ?Sized>(codec: Codec, value: &T) -> Result<Vec<u8>> {
    let mut sink = Sink { bytes: Vec::with_capacity(SINK_BYTES), full: false };
    let outcome = match codec {
        Codec::Bincode => bincode_into(&mut sink, value),
        Codec::Json => json_into(&mut sink, value),
    };
    match outcome {
        Ok(()) => Ok(sink.bytes),
        Err(_) if sink.full => {
            Err(Error::new(ErrorKind::TooLarge, format!("the encoded value is over {VALUE_BYTES_MAX} bytes")))
        }
        Err(error) => Err(error),
    }
}

/// Decodes one value from all of `bytes`; it may borrow from them.
///
/// # Errors
///
/// [`ErrorKind::Decode`] when the bytes are not exactly one value of this type in this codec, or when the
/// codec is not part of this build.
pub(crate) fn decode<'a, T: Deserialize<'a>>(codec: Codec, bytes: &'a [u8]) -> Result<T> {
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(refused("failed to decode a value: it is over the size limit"));
    }
    match codec {
        Codec::Bincode => bincode_from(bytes),
        Codec::Json => json_from(bytes),
    }
}

fn bincode_into<T: Serialize + ?Sized>(sink: &mut Sink, value: &T) -> Result<()> {
    bincode::serde::encode_into_writer(value, sink, CONFIG).map_err(|error| unencodable().because(error))
}

fn bincode_from<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    let mut input = Compact::new(bytes);
    match T::deserialize(&mut input) {
        Ok(value) if input.is_at_end() => Ok(value),
        Ok(_) => Err(refused("failed to decode a value: bytes follow its end")),
        Err(fault) => Err(refused(fault.message())),
    }
}

#[cfg(feature = "json")]
fn json_into<T: Serialize + ?Sized>(sink: &mut Sink, value: &T) -> Result<()> {
    serde_json::to_writer(sink, value).map_err(|error| unencodable().because(error))
}

#[cfg(feature = "json")]
fn json_from<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    use serde_json::error::Category;

    // `from_slice` refuses what follows the value, and keeps the default limit of the nesting.
    serde_json::from_slice(bytes).map_err(|error| {
        refused(match error.classify() {
            Category::Eof => "failed to decode a JSON value: it ends early",
            Category::Data => "failed to decode a JSON value: it is not of this type",
            Category::Io | Category::Syntax => "failed to decode a JSON value: it is not JSON",
        })
    })
}

#[cfg(not(feature = "json"))]
fn json_into<T: Serialize + ?Sized>(_sink: &mut Sink, _value: &T) -> Result<()> {
    Err(Error::invalid("failed to encode a value: JSON needs the crate feature `json`"))
}

#[cfg(not(feature = "json"))]
fn json_from<'a, T: Deserialize<'a>>(_bytes: &'a [u8]) -> Result<T> {
    Err(refused("failed to decode a value: it is JSON, which needs the crate feature `json`"))
}

fn unencodable() -> Error {
    Error::invalid("failed to encode a value: the codec of its field cannot carry it")
}

fn refused(message: &'static str) -> Error {
    Error::new(ErrorKind::Decode, message)
}

/// Where encoders write: bytes that stop at the limit, so that a huge value is refused before it is built.
struct Sink {
    bytes: Vec<u8>,
    full: bool,
}

impl Sink {
    /// Takes all of `bytes`, or none and is full.
    #[inline]
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.full |= bytes.len() > VALUE_BYTES_MAX.saturating_sub(self.bytes.len());
        match bytes {
            _ if self.full => return false,
            // A list of bytes comes one by one.
            [byte] => self.bytes.push(*byte),
            bytes => self.bytes.extend_from_slice(bytes),
        }
        true
    }
}

impl bincode::enc::write::Writer for Sink {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if self.take(bytes) { Ok(()) } else { Err(EncodeError::Other("the value is over the size limit")) }
    }
}

#[cfg(feature = "json")]
impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.take(bytes) { Ok(bytes.len()) } else { Err(std::io::ErrorKind::WriteZero.into()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The longest encoded value. A session is small; anything larger belongs in the application's own storage.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;

/// Room for an ordinary value, so that encoding it does not grow its buffer.
const SINK_BYTES: usize = 256;

/// Little-endian, variable-width integers. It is part of the format on disk.
const CONFIG: Configuration<LittleEndian, Varint> = bincode::config::standard();

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::de::DeserializeOwned;
    use wincode::{SchemaRead, SchemaWrite};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, SchemaRead, SchemaWrite)]
    enum Role {
        Guest,
        Member(u32, String),
        Staff { level: u8, areas: Vec<String> },
        Owner(Box<Option<i64>>),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, SchemaRead, SchemaWrite)]
    struct Address {
        street: String,
        position: Option<(f64, f64)>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, SchemaRead, SchemaWrite)]
    struct Profile {
        id: u64,
        wide: u128,
        small: (u8, u16, u32),
        signed: (i8, i16, i32, i64, i128),
        ratio: (f32, f64),
        active: bool,
        initial: char,
        name: String,
        avatar: Vec<u8>,
        tags: Vec<String>,
        pin: [u8; 4],
        roles: Vec<Role>,
        address: Option<Address>,
        unit: (),
        counts: BTreeMap<String, u64>,
    }

    fn profile() -> Profile {
        Profile {
            id: 1_000_000_000_000,
            wide: u128::MAX,
            small: (255, 251, 65_536),
            signed: (-1, -300, i32::MIN, i64::MAX, -2),
            ratio: (0.5, -2.0),
            active: true,
            initial: 'é',
            name: "ada".into(),
            avatar: vec![0, 255],
            tags: vec![String::new(), "x".into()],
            pin: [1, 2, 3, 4],
            roles: vec![
                Role::Guest,
                Role::Member(250, "m".into()),
                Role::Staff { level: 7, areas: vec!["a".into()] },
                Role::Owner(Box::new(Some(-3))),
            ],
            address: Some(Address { street: "s".into(), position: None }),
            unit: (),
            counts: BTreeMap::from([("k".into(), 300)]),
        }
    }

    /// Frozen: these bytes are in users' files.
    #[rustfmt::skip]
    const PROFILE: &[u8] = &[
        253, 0, 16, 165, 212, 232, 0, 0, 0, // id
        254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, // wide
        255, 251, 251, 0, 252, 0, 0, 1, 0, // small
        255, 251, 87, 2, 252, 255, 255, 255, 255, 253, 254, 255, 255, 255, 255, 255, 255, 255, 3, // signed
        0, 0, 0, 63, 0, 0, 0, 0, 0, 0, 0, 192, // ratio
        1, 195, 169, // active, initial
        3, 97, 100, 97, // name
        2, 0, 255, // avatar
        2, 0, 1, 120, // tags
        1, 2, 3, 4, // pin
        4, 0, 1, 250, 1, 109, 2, 7, 1, 1, 97, 3, 1, 5, // roles
        1, 1, 115, 0, // address
        1, 1, 107, 251, 44, 1, // counts; the unit before them takes nothing
    ];

    #[track_caller]
    fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, bytes: &[u8]) {
        assert_eq!(encode(Codec::Bincode, &value).unwrap(), bytes, "{value:?}");
        assert_eq!(decode::<T>(Codec::Bincode, bytes).unwrap(), value);
    }

    #[test]
    fn the_bytes_of_a_struct_are_frozen() {
        golden(profile(), PROFILE);
    }

    #[test]
    fn the_bytes_of_integers_are_frozen() {
        golden(200_u8, &[200]);
        golden(-1_i8, &[255]);
        golden(250_u16, &[250]);
        golden(251_u16, &[251, 251, 0]);
        golden(65_536_u32, &[252, 0, 0, 1, 0]);
        golden(1_u64 << 32, &[253, 0, 0, 0, 0, 1, 0, 0, 0]);
        golden(1_u128 << 64, &[254, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        golden(7_usize, &[7]);
        golden(-1_i16, &[1]);
        golden(1_i32, &[2]);
        golden(-126_i64, &[251, 251, 0]);
        golden(-1_i128, &[1]);
        golden(-1_isize, &[1]);
    }

    #[test]
    fn the_bytes_of_other_kinds_are_frozen() {
        golden(1.5_f32, &[0, 0, 192, 63]);
        golden(-2.0_f64, &[0, 0, 0, 0, 0, 0, 0, 192]);
        golden(true, &[1]);
        golden('a', b"a");
        golden('€', "€".as_bytes());
        golden("ab".to_owned(), &[2, b'a', b'b']);
        golden(vec![9_u8, 8], &[2, 9, 8]);
        golden([9_u8, 8], &[9, 8]);
        golden(vec![1_u32, 300], &[2, 1, 251, 44, 1]);
        golden(None::<u8>, &[0]);
        golden(Some(5_u8), &[1, 5]);
        golden((1_u8, true), &[1, 1]);
        golden((), &[]);
        golden(Role::Guest, &[0]);
        golden(Role::Member(1, "a".into()), &[1, 1, 1, b'a']);
        golden(BTreeMap::from([(1_u8, 2_u8)]), &[1, 1, 2]);
        golden(Ok::<u8, u8>(3), &[0, 3]);
        golden(std::time::Duration::from_millis(1_500), &[1, 252, 0, 101, 205, 29]);
    }

    #[test]
    fn codec_bytes_are_frozen() {
        for (codec, byte) in [(Codec::Bincode, 1), (Codec::Json, 2)] {
            assert_eq!(codec.byte(), byte);
            assert_eq!(codec as u8, byte);
            assert_eq!(Codec::from_byte(byte), Some(codec));
        }
        assert!((0..=255).filter(|byte| Codec::from_byte(*byte).is_some()).eq([1, 2]));
    }

    #[track_caller]
    fn refuses<'a, T: Deserialize<'a> + Debug>(codec: Codec, bytes: &'a [u8]) -> String {
        let error = decode::<T>(codec, bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert!(std::error::Error::source(&error).is_none());
        error.to_string()
    }

    #[test]
    fn a_value_ends_where_its_bytes_end() {
        for end in 0..PROFILE.len() {
            refuses::<Profile>(Codec::Bincode, &PROFILE[..end]);
        }
        let longer = [PROFILE, &[0]].concat();
        assert!(refuses::<Profile>(Codec::Bincode, &longer).contains("bytes follow"));
        refuses::<()>(Codec::Bincode, &[0]);
        refuses::<u32>(Codec::Bincode, &[]);
    }

    #[test]
    fn a_length_prefix_alone_allocates_nothing_large() {
        let huge = [253, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(refuses::<String>(Codec::Bincode, &huge).contains("over the limit"));
        refuses::<&str>(Codec::Bincode, &huge);
        refuses::<&[u8]>(Codec::Bincode, &huge);
        refuses::<Vec<u8>>(Codec::Bincode, &huge);
        refuses::<Vec<u128>>(Codec::Bincode, &huge);
        refuses::<Vec<String>>(Codec::Bincode, &huge);
        refuses::<BTreeMap<u8, u8>>(Codec::Bincode, &huge);
        refuses::<String>(Codec::Bincode, &vec![0; VALUE_BYTES_MAX + 1]);
    }

    #[test]
    fn a_value_over_the_limit_is_refused() {
        for (codec, around) in [(Codec::Bincode, 5), (Codec::Json, 2)] {
            if codec == Codec::Json && !cfg!(feature = "json") {
                continue;
            }
            let most = "x".repeat(VALUE_BYTES_MAX - around);
            assert_eq!(encode(codec, &most).unwrap().len(), VALUE_BYTES_MAX);
            assert_eq!(encode(codec, &format!("{most}x")).unwrap_err().kind(), ErrorKind::TooLarge);
        }
    }

    #[test]
    fn whatever_encodes_decodes() {
        let count = VALUE_BYTES_MAX - 5;
        golden_length(vec![1_u128; count]);
        golden_length(vec![-1_i128; count]);
        golden_length(vec![1_u64; count]);
        golden_length(vec![Vec::<u8>::new(); count]);
        golden_length(vec![Role::Guest; count]);
        golden_length(vec![false; count]);
    }

    #[track_caller]
    fn golden_length<T: Serialize + DeserializeOwned + PartialEq>(value: T) {
        let bytes = encode(Codec::Bincode, &value).unwrap();
        assert_eq!(bytes.len(), VALUE_BYTES_MAX);
        assert!(decode::<T>(Codec::Bincode, &bytes).unwrap() == value);
    }

    #[test]
    fn text_and_bytes_are_borrowed() {
        let text = encode(Codec::Bincode, "grace").unwrap();
        assert_eq!(decode::<&str>(Codec::Bincode, &text).unwrap().as_ptr(), text[1..].as_ptr());
        let data = encode(Codec::Bincode, &vec![1_u8, 2]).unwrap();
        assert_eq!(decode::<&[u8]>(Codec::Bincode, &data).unwrap().as_ptr(), data[1..].as_ptr());
    }

    #[test]
    fn an_error_never_quotes_the_value() {
        #[derive(Debug, Deserialize)]
        enum Word {
            #[serde(rename = "yes")]
            _Yes,
        }
        let mut said = Vec::new();
        said.push(refuses::<std::num::NonZeroU8>(Codec::Bincode, &[0]));
        said.push(refuses::<Word>(Codec::Bincode, &[77]));
        said.push(refuses::<Word>(Codec::Json, br#""secret""#));
        said.push(refuses::<u8>(Codec::Json, b"4242"));
        for message in said {
            assert!(!["secret", "77", "4242"].iter().any(|value| message.contains(value)), "{message}");
        }
    }

    #[test]
    fn bincode_says_which_types_need_the_other_codec() {
        #[derive(Debug, Deserialize)]
        #[serde(untagged)]
        enum Either {
            A(#[expect(dead_code, reason = "only that it does not decode is tested")] u8),
        }
        assert!(refuses::<Either>(Codec::Bincode, &[1]).contains("self-describing"));
    }

    #[cfg(feature = "json")]
    mod json {
        use std::borrow::Cow;

        use super::*;

        #[test]
        fn the_bytes_are_frozen() {
            let value = Role::Staff { level: 1, areas: vec!["a\n".into()] };
            let bytes = br#"{"Staff":{"level":1,"areas":["a\n"]}}"#;
            assert_eq!(encode(Codec::Json, &value).unwrap(), bytes);
            assert_eq!(decode::<Role>(Codec::Json, bytes).unwrap(), value);
        }

        #[test]
        fn a_value_ends_where_its_bytes_end() {
            let bytes = encode(Codec::Json, &profile()).unwrap();
            assert_eq!(decode::<Profile>(Codec::Json, &bytes).unwrap(), profile());
            for end in 0..bytes.len() {
                refuses::<Profile>(Codec::Json, &bytes[..end]);
            }
            assert!(refuses::<Profile>(Codec::Json, &[&bytes[..], b"1"].concat()).contains("not JSON"));
        }

        #[test]
        fn deep_nesting_is_refused_and_not_followed() {
            let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
            assert!(decode::<serde_json::Value>(Codec::Json, nested(100).as_bytes()).is_ok());
            refuses::<serde_json::Value>(Codec::Json, nested(200_000).as_bytes());
        }

        #[test]
        fn text_is_borrowed_unless_it_was_escaped() {
            assert_eq!(decode::<&str>(Codec::Json, br#""ada""#).unwrap(), "ada");
            refuses::<&str>(Codec::Json, br#""a\nb""#);
            assert_eq!(decode::<Cow<'_, str>>(Codec::Json, br#""a\nb""#).unwrap(), "a\nb");
        }

        #[test]
        fn what_it_cannot_carry_says_why() {
            let error = encode(Codec::Json, &BTreeMap::from([((1, 2), 3)])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(format!("{error:#}").contains("key must be a string"));
        }
    }

    #[cfg(not(feature = "json"))]
    #[test]
    fn json_says_which_feature_is_missing() {
        assert!(encode(Codec::Json, &1).unwrap_err().to_string().contains("feature `json`"));
        assert!(refuses::<u8>(Codec::Json, b"1").contains("feature `json`"));
    }

    /// bincode is no longer maintained. This is the proof that its bytes are not a dead end: an independent,
    /// maintained reader takes the same bytes and writes them again unchanged.
    mod exit {
        use wincode::config::{Configuration, Deserialize, Serialize};

        use super::*;

        fn standard() -> impl wincode::config::Config + Copy {
            Configuration::default().with_varint_encoding()
        }

        #[test]
        fn wincode_reads_and_writes_the_same_bytes() {
            let read = <Profile as Deserialize<'_, _>>::deserialize(PROFILE, standard()).unwrap();
            assert_eq!(read, profile());
            assert_eq!(<Profile as Serialize<_>>::serialize(&read, standard()).unwrap(), PROFILE);
        }

        proptest! {
            #[test]
            fn wincode_agrees_on_any_values(
                unsigned: (u8, u16, u32, u64, u128, usize),
                signed: (i8, i16, i32, i64, i128, isize),
                text: (char, String, Vec<String>),
                other: (bool, Option<u32>, Vec<u8>, [i16; 3], Vec<(u64, i64)>),
            ) {
                let value = (unsigned, signed, text, other);
                let ours = encode(Codec::Bincode, &value).unwrap();
                prop_assert_eq!(&wincode::config::serialize(&value, standard()).unwrap(), &ours);
                let theirs: Value = wincode::config::deserialize(&ours, standard()).unwrap();
                prop_assert_eq!(theirs, value);
            }
        }

        type Value = (
            (u8, u16, u32, u64, u128, usize),
            (i8, i16, i32, i64, i128, isize),
            (char, String, Vec<String>),
            (bool, Option<u32>, Vec<u8>, [i16; 3], Vec<(u64, i64)>),
        );
    }

    /// What bincode itself makes of the bytes. Its limit counts the width of each number in memory, at most 16 times
    /// its encoded width.
    fn by_bincode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
        let config = CONFIG.with_limit::<{ VALUE_BYTES_MAX * size_of::<u128>() }>();
        let (value, used) = bincode::serde::borrow_decode_from_slice(bytes, config).ok()?;
        (used == bytes.len()).then_some(value)
    }

    #[track_caller]
    fn agree<'a, T: Deserialize<'a> + PartialEq + Debug>(bytes: &'a [u8]) {
        assert_eq!(decode::<T>(Codec::Bincode, bytes).ok(), by_bincode::<T>(bytes), "{bytes:?}");
    }

    fn agree_on_all_types(bytes: &[u8]) {
        agree::<(u8, u16, u32, u64, u128, usize)>(bytes);
        agree::<(i8, i16, i32, i64, i128, isize)>(bytes);
        agree::<(u16, i16)>(bytes);
        agree::<(u32, i32)>(bytes);
        agree::<(u64, i64)>(bytes);
        agree::<(u128, i128)>(bytes);
        agree::<(bool, char, Option<char>)>(bytes);
        agree::<Vec<char>>(bytes);
        agree::<(String, Vec<u16>)>(bytes);
        agree::<(&str, &[u8])>(bytes);
        agree::<BTreeMap<u8, Option<String>>>(bytes);
        agree::<Vec<Role>>(bytes);
        agree::<Profile>(bytes);
    }

    #[test]
    fn it_reads_what_bincode_reads_and_nothing_else() {
        for first in 0..=255 {
            for rest in [&[][..], &[0], &[1, 0], &[0xFF; 3], &[7, 0, 0, 0], &[0x80; 8], &[0; 9], &[1; 16], &[250; 17]] {
                agree_on_all_types(&[&[first], rest].concat());
            }
        }
        for character in ['\0', '\x7F', 'é', '€', '😀'] {
            let bytes = encode(Codec::Bincode, &character).unwrap();
            agree::<char>(&bytes);
            agree::<char>(&bytes[..bytes.len() - 1]);
        }
        for at in 0..PROFILE.len() {
            for changed in [0, 1, 2, 127, 128, 250, 251, 252, 253, 254, 255] {
                let mut bytes = PROFILE.to_vec();
                bytes[at] = changed;
                // Compared encoded, because a number that is none does not equal itself.
                let encoded = |value: Profile| encode(Codec::Bincode, &value).unwrap();
                let ours = decode::<Profile>(Codec::Bincode, &bytes).ok();
                assert_eq!(ours.map(encoded), by_bincode::<Profile>(&bytes).map(encoded), "{bytes:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_bincode_on_any_bytes(bytes: Vec<u8>) {
            agree_on_all_types(&bytes);
        }

        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes: Vec<u8>) {
            let _ = decode::<Profile>(Codec::Bincode, &bytes);
            let _ = decode::<Vec<Role>>(Codec::Bincode, &bytes);
            let _ = decode::<&str>(Codec::Bincode, &bytes);
            let _ = decode::<Profile>(Codec::Json, &bytes);
        }
    }
}
