//! Values: between a field's type and the bytes of its entry.
//!
//! It knows the codec, fields and the map of entries. Invariants: runs outside every lock; a value that does not decode
//! is counted by its name and version, never shown.

use std::borrow::Borrow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{self, Codec};
use crate::engine::Handle;
use crate::engine::fields::{self, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::field::{Field, Old};

pub(super) fn read<T: DeserializeOwned>(
    session: &Handle,
    field: Field<T>,
    entry: Option<Entry<'_>>,
) -> Result<Option<T>> {
    let Some(entry) = entry else { return Ok(None) };
    let codec = Codec::from_byte(entry.codec);
    let value = codec.and_then(|codec| {
        if entry.version == field.stored_version() {
            codec::decode(codec, entry.value).ok()
        } else {
            field.migration()?(&Old::new(entry.version, codec, entry.value))
        }
    });
    if value.is_none() {
        undecodable(session, field, entry)?;
    }
    Ok(value)
}

/// Counts a value that does not decode, and makes it an error where the field wants that.
pub(super) fn undecodable<T>(session: &Handle, field: Field<T>, entry: Entry<'_>) -> Result<()> {
    session.engine().counters.note_undecodable(field.name(), entry.version);
    if field.is_strict() {
        let message = format!(
            "the stored value of field `{}` (version {}) does not decode as version {}",
            field.name(),
            entry.version,
            field.stored_version()
        );
        return Err(Error::new(ErrorKind::Decode, message));
    }
    Ok(())
}

pub(super) fn encode<T, Q>(field: Field<T>, value: &Q) -> Result<Vec<u8>>
where
    T: Borrow<Q> + Serialize + DeserializeOwned,
    Q: Serialize + ?Sized,
{
    let bytes = codec::encode(field.codec(), value)?;
    if cfg!(debug_assertions) {
        let back = codec::decode::<T>(field.codec(), &bytes).and_then(|back| codec::encode(field.codec(), &back));
        if !back.is_ok_and(|back| back == bytes) {
            return Err(Error::invalid(format!(
                "a value of field `{}` does not come back from its encoding as it was; use `.json()` for types whose \
                 shape depends on the data",
                field.name()
            )));
        }
    }
    Ok(bytes)
}

pub(super) fn entry<T>(field: Field<T>, value: &[u8]) -> Entry<'_> {
    Entry {
        name: field.name(),
        version: field.stored_version(),
        codec: field.codec().byte(),
        flags: (u8::from(field.is_kept()) * fields::FLAG_KEPT) | (u8::from(field.is_relaxed()) * fields::FLAG_RELAXED),
        value,
    }
}
