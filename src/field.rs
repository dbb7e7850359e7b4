//! Typed names of the entries of a session.
//!
//! What lives here: [`Field`], the constant an application defines for each thing it keeps in a session;
//! [`Old`], what its migration sees of a value of another version; [`View`], which says how a stored type is
//! read without copying it.
//!
//! What it may know: the codec and the error. A field is a description; it holds no value and touches no
//! session.
//!
//! Invariants: a `Field<T>` is `Copy`, `Send` and `Sync` whatever `T` is. What it says about a value is
//! written next to the value (version, codec, kept, relaxed), so that a program with other fields, or none,
//! can still copy the session.
//!
//! On a crash or panic: nothing to lose. A panic in a migration passes through to the caller that read.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Codec};
use crate::error::{Error, Result};

/// A typed, versioned name of an entry in a session. Define one constant for each thing a session keeps.
///
/// Every field is stored and read on its own: adding one, dropping one or changing the type of one leaves the
/// other entries, and the session, as they are. A stored value that does not decode as `T` reads as absent
/// and is counted; see [`strict`](Self::strict) to be told instead.
///
/// The name is what is stored: two constants with one name are one entry. It is 1 to 64 bytes long and is
/// checked when it is first used. Renaming the constant changes nothing, renaming the field starts afresh.
///
/// Values are stored in a compact format that has no names and no types in it. **Changing `T` means raising
/// the version**, as [`version`](Self::version) shows; changed types without it may decode to nonsense.
///
/// Cost: none. A field is a few words, made at compile time.
///
/// ```
/// use dwell::Field;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Cart {
///     items: Vec<(u64, u32)>,
/// }
///
/// const VISITS: Field<u32> = Field::new("visits");
/// const CART: Field<Cart> = Field::new("cart").keep_on_sign_in();
/// const NOTICE: Field<String> = Field::new("notice").relaxed();
/// ```
pub struct Field<T> {
    name: &'static str,
    version: u8,
    codec: Codec,
    strict: bool,
    kept: bool,
    relaxed: bool,
    /// An entry of this crate's own.
    ours: bool,
    migration: Option<fn(&Old<'_>) -> Option<T>>,
}

impl<T> Field<T> {
    /// A field of version 1 with nothing special about it.
    ///
    /// The name is 1 to 64 bytes and does not begin with a zero byte; any other is refused with
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) by whatever uses the field first.
    ///
    /// ```
    /// use dwell::Field;
    ///
    /// const THEME: Field<String> = Field::new("theme");
    /// ```
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        let codec = Codec::Bincode;
        Self { name, version: 1, codec, strict: false, kept: false, relaxed: false, ours: false, migration: None }
    }

    /// Sets the version of the type `T`. It is 1 unless said otherwise; raise it whenever `T` changes.
    ///
    /// A value that was stored under another version, older or newer, goes through
    /// [`migrate`](Self::migrate); without a migration it reads as absent.
    ///
    /// ```
    /// use dwell::Field;
    ///
    /// // Version 1 was a `u32`. Whoever had one starts again at nothing.
    /// const VISITS: Field<u64> = Field::new("visits").version(2);
    /// ```
    #[must_use]
    pub const fn version(mut self, version: u8) -> Self {
        self.version = version;
        self
    }

    /// Makes a `T` out of a value that was stored under another version.
    ///
    /// The migration runs when such a value is read, each time until a value of this version is set; reading
    /// stores nothing. With `None` the value counts as one that does not decode. It should be quick and must
    /// not depend on anything but its argument.
    ///
    /// ```
    /// use dwell::Field;
    ///
    /// const VISITS: Field<u64> = Field::new("visits").version(3).migrate(|old| match old.version() {
    ///     1 => old.decode::<u32>().map(u64::from),
    ///     2 => old.decode::<String>().and_then(|text| text.parse().ok()),
    ///     _ => None,
    /// });
    /// ```
    #[must_use]
    pub const fn migrate(mut self, migration: fn(&Old<'_>) -> Option<T>) -> Self {
        self.migration = Some(migration);
        self
    }

    /// Makes a stored value that does not decode as `T` an error of kind
    /// [`Decode`](crate::ErrorKind::Decode), where it would read as absent.
    ///
    /// For values whose absence would be read as a permission, or that must not be overwritten by a default.
    ///
    /// ```
    /// use dwell::Field;
    ///
    /// const SPENDING_LIMIT: Field<u64> = Field::new("spending_limit").strict();
    /// ```
    #[must_use]
    pub const fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Stores the value as JSON: larger and slower, but it carries every type that JSON can.
    ///
    /// The default format is not self-describing, so it cannot carry types that find out their shape while
    /// they are read: `#[serde(flatten)]`, `#[serde(untagged)]`, `#[serde(tag = "…")]`, skipped fields,
    /// `serde_json::Value`. A debug build checks every value as it is set and says so. Values that were
    /// stored in the other format stay readable; the version need not change.
    ///
    /// ```
    /// use dwell::Field;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// #[serde(untagged)]
    /// enum Setting {
    ///     Switch(bool),
    ///     Level(u8),
    /// }
    ///
    /// const SETTING: Field<Setting> = Field::new("setting").json();
    /// ```
    #[cfg(feature = "json")]
    #[must_use]
    pub const fn json(mut self) -> Self {
        self.codec = Codec::Json;
        self
    }

    /// Moves the value along when a visitor who was not signed in signs in. All other fields are left behind.
    ///
    /// For what the visitor did before signing in and expects to find again, such as a cart. Not for anything
    /// that decides what somebody may do: a value planted before the sign-in would be believed after it.
    ///
    /// ```
    /// use dwell::Field;
    ///
    /// const CART: Field<Vec<u64>> = Field::new("cart").keep_on_sign_in();
    /// ```
    #[must_use]
    pub const fn keep_on_sign_in(mut self) -> Self {
        self.kept = true;
        self
    }

    /// Writes the value behind: changes reach the disk within a second or with the next change that is
    /// waited for, and a response is not held for them.
    ///
    /// For what may be lost in a power cut without harm, such as a message that is shown once.
    ///
    /// ```
    /// use dwell::Field;
    ///
    /// const NOTICE: Field<String> = Field::new("notice").relaxed();
    /// ```
    #[must_use]
    pub const fn relaxed(mut self) -> Self {
        self.relaxed = true;
        self
    }

    /// The name that it was made with.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The version that new values are stored under.
    pub(crate) const fn stored_version(&self) -> u8 {
        self.version
    }

    pub(crate) const fn codec(&self) -> Codec {
        self.codec
    }

    pub(crate) const fn is_strict(&self) -> bool {
        self.strict
    }

    pub(crate) const fn is_kept(&self) -> bool {
        self.kept
    }

    pub(crate) const fn is_relaxed(&self) -> bool {
        self.relaxed
    }

    pub(crate) const fn migration(&self) -> Option<fn(&Old<'_>) -> Option<T>> {
        self.migration
    }

    /// An entry of this crate's own. Its name begins with a zero byte, and no application's may.
    pub(crate) const fn ours(name: &'static str) -> Self {
        let mut field = Self::new(name);
        field.ours = true;
        field
    }

    /// Refuses a name that cannot be stored.
    pub(crate) fn check(&self) -> Result<()> {
        if self.name.starts_with('\0') && !self.ours {
            return Err(Error::invalid(
                "the name of a field does not begin with a zero byte: those names are dwell's own",
            ));
        }
        if (1..=FIELD_NAME_BYTES_MAX).contains(&self.name.len()) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the name of a field is 1 to {FIELD_NAME_BYTES_MAX} bytes long, but {:?} has {}",
            self.name,
            self.name.len()
        )))
    }
}

// Derived, the three would ask the same of `T`.
impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Field<T> {}

impl<T> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("codec", &self.codec)
            .field("strict", &self.strict)
            .field("keep_on_sign_in", &self.kept)
            .field("relaxed", &self.relaxed)
            .field("migrates", &self.migration.is_some())
            .finish()
    }
}

/// A stored value of another version, as a migration sees it.
///
/// ```
/// use dwell::{Field, Old};
///
/// fn seconds_to_millis(old: &Old<'_>) -> Option<u64> {
///     if old.version() == 1 { old.decode::<u64>()?.checked_mul(1_000) } else { None }
/// }
///
/// const WAIT: Field<u64> = Field::new("wait").version(2).migrate(seconds_to_millis);
/// ```
pub struct Old<'a> {
    version: u8,
    codec: Codec,
    bytes: &'a [u8],
}

impl<'a> Old<'a> {
    pub(crate) const fn new(version: u8, codec: Codec, bytes: &'a [u8]) -> Self {
        Self { version, codec, bytes }
    }

    /// The version that the value was stored under.
    ///
    /// ```
    /// use dwell::Field;
    ///
    /// // Only version 1 is worth keeping.
    /// const NAME: Field<String> =
    ///     Field::new("name").version(3).migrate(|old| if old.version() == 1 { old.decode() } else { None });
    /// ```
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The value as the type it was stored as, or `None` if it is not of that type.
    ///
    /// ```
    /// use dwell::Field;
    ///
    /// const TAGS: Field<Vec<String>> =
    ///     Field::new("tags").version(2).migrate(|old| Some(vec![old.decode::<String>()?]));
    /// ```
    #[must_use]
    pub fn decode<U: DeserializeOwned>(&self) -> Option<U> {
        codec::decode(self.codec, self.bytes).ok()
    }
}

impl fmt::Debug for Old<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the value.
        f.debug_struct("Old").field("version", &self.version).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// A stored type that can be read in place, without copying its text and bytes.
///
/// Most applications do not need this. Implement it for the stored type, and name a twin that borrows: the
/// same parts in the same order, with `&str` for `String` and `&[u8]` for `Vec<u8>`. It is there already for
/// `String`, `Vec<u8>`, numbers, `bool`, `char`, and `Option` of those.
///
/// Nothing checks that the twin has the layout of the stored type, so write a test that reads one through the
/// other. Fields stored as JSON cannot lend everything: a text with escapes in it, such as a line break, and
/// any `Vec<u8>` have to be built and do not decode as borrowed. For those, write the twin with
/// `Cow<'a, str>` under `#[serde(borrow)]`, or with owned parts.
///
/// ```
/// use dwell::{Field, View};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Profile {
///     name: String,
///     age: u8,
///     tags: Vec<String>,
/// }
///
/// #[derive(Deserialize)]
/// struct ProfileView<'a> {
///     name: &'a str,
///     age: u8,
///     #[serde(borrow)]
///     tags: Vec<&'a str>,
/// }
///
/// impl View for Profile {
///     type Of<'a> = ProfileView<'a>;
/// }
///
/// const PROFILE: Field<Profile> = Field::new("profile");
/// ```
pub trait View {
    /// What a reader is lent for the time of the call.
    type Of<'a>: Deserialize<'a>;
}

impl View for String {
    type Of<'a> = &'a str;
}

impl View for Vec<u8> {
    type Of<'a> = &'a [u8];
}

impl<T: View> View for Option<T> {
    type Of<'a> = Option<T::Of<'a>>;
}

macro_rules! by_value {
    ($($type:ty)*) => {
        $(impl View for $type {
            type Of<'a> = $type;
        })*
    };
}

by_value!(bool char u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);

/// The longest name of a field, in bytes: a name is stored with every value and compared on every read.
pub(crate) const FIELD_NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// Neither `Copy` nor `Send`, to show that a field of it is both.
    struct Awkward(#[expect(dead_code, reason = "only its traits count")] std::rc::Rc<String>);

    #[test]
    fn a_field_is_copy_and_shared_whatever_it_names() {
        fn shared<T: Copy + Send + Sync + 'static>(value: T) -> (T, T) {
            (value, value)
        }
        const FIELD: Field<Awkward> = Field::new("awkward").strict();
        let (one, other) = shared(FIELD);
        assert_eq!(one.name(), other.name());
    }

    #[test]
    fn a_field_says_what_it_was_told() {
        const PLAIN: Field<u8> = Field::new("a");
        assert_eq!((PLAIN.name(), PLAIN.stored_version(), PLAIN.codec()), ("a", 1, Codec::Bincode));
        assert!(!PLAIN.is_strict() && !PLAIN.is_kept() && !PLAIN.is_relaxed() && PLAIN.migration().is_none());

        const FULL: Field<u8> =
            Field::new("b").version(9).migrate(|old| old.decode()).strict().keep_on_sign_in().relaxed();
        assert_eq!((FULL.name(), FULL.stored_version()), ("b", 9));
        assert!(FULL.is_strict() && FULL.is_kept() && FULL.is_relaxed() && FULL.migration().is_some());
        assert_eq!(
            format!("{FULL:?}"),
            "Field { name: \"b\", version: 9, codec: Bincode, strict: true, keep_on_sign_in: true, relaxed: true, \
             migrates: true }"
        );
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_chooses_the_codec() {
        assert_eq!(Field::<u8>::new("a").json().codec(), Codec::Json);
    }

    #[test]
    fn names_are_1_to_64_bytes() {
        const LONGEST: &str = "0123456789012345678901234567890123456789012345678901234567890123";
        const TOO_LONG: &str = "01234567890123456789012345678901234567890123456789012345678901234";
        assert_eq!(LONGEST.len(), FIELD_NAME_BYTES_MAX);
        assert!(Field::<u8>::new("a").check().is_ok());
        assert!(Field::<u8>::new(LONGEST).check().is_ok());
        for name in ["", TOO_LONG] {
            let error = Field::<u8>::new(name).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("1 to 64 bytes"), "{error}");
        }
    }

    #[test]
    fn a_migration_reads_the_old_type_only() {
        const FIELD: Field<u64> = Field::new("n").version(2).migrate(|old| match old.version() {
            1 => old.decode::<u32>().map(u64::from),
            _ => None,
        });
        let migrate = FIELD.migration().unwrap();
        let bytes = codec::encode(Codec::Bincode, &300_u32).unwrap();
        assert_eq!(migrate(&Old::new(1, Codec::Bincode, &bytes)), Some(300));
        assert_eq!(migrate(&Old::new(3, Codec::Bincode, &bytes)), None);
        assert_eq!(migrate(&Old::new(1, Codec::Bincode, b"no number")), None);
    }

    #[test]
    fn old_never_shows_the_value() {
        assert_eq!(format!("{:?}", Old::new(1, Codec::Bincode, b"secret")), "Old { version: 1, bytes: 6, .. }");
    }

    fn through<T: View + serde::Serialize>(value: &T, check: impl FnOnce(T::Of<'_>)) {
        let bytes = codec::encode(Codec::Bincode, value).unwrap();
        check(codec::decode(Codec::Bincode, &bytes).unwrap());
    }

    #[test]
    fn views_read_what_was_stored() {
        through(&"ada".to_owned(), |text| assert_eq!(text, "ada"));
        through(&vec![1_u8, 255], |bytes| assert_eq!(bytes, [1, 255]));
        through(&Some("ada".to_owned()), |text| assert_eq!(text, Some("ada")));
        through(&None::<u32>, |number| assert_eq!(number, None));
        through(&-7_i64, |number| assert_eq!(number, -7));
        through(&true, |switch| assert!(switch));
        through(&'é', |letter| assert_eq!(letter, 'é'));
    }

    #[test]
    fn a_twin_that_borrows_reads_its_type() {
        #[derive(serde::Serialize)]
        struct Profile {
            name: String,
            tags: Vec<String>,
        }
        #[derive(Deserialize)]
        struct ProfileView<'a> {
            name: &'a str,
            #[serde(borrow)]
            tags: Vec<&'a str>,
        }
        impl View for Profile {
            type Of<'a> = ProfileView<'a>;
        }
        through(&Profile { name: "ada".into(), tags: vec!["x".into(), "y".into()] }, |view| {
            assert_eq!((view.name, view.tags), ("ada", vec!["x", "y"]));
        });
    }
}
