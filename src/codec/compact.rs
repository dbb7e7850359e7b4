//! Reading the compact format: the bytes that bincode's standard configuration writes.
//!
//! What lives here: [`Compact`], a serde deserializer over a byte slice. Decoding is most of what a session's data
//! costs to read, and bincode's own reader counts every number against a limit and looks at each variable-width one
//! twice; this one needs no limit, because it makes nothing of a length before the bytes are there. It knows serde
//! and nothing else. Invariants: it takes what bincode takes and refuses what bincode refuses; it never panics; it
//! copies no text or bytes; an error says what is wrong and never quotes a value.
//!
//! | Value | Bytes |
//! |---|---|
//! | `u8`, `i8`, `bool` | one |
//! | wider integers, lengths, enum variants | below 251: one; otherwise 251, 252, 253 or 254, then 2, 4, 8 or 16 |
//! | signed ones | zigzag: 0, -1, 1, -2 are 0, 1, 2, 3 |
//! | `f32`, `f64` | 4, 8 |
//! | `char` | its UTF-8 |
//! | text, bytes, sequences, maps | a length, then the parts |
//! | `Option` | 0, or 1 and the value |
//! | structs, tuples, arrays, units | their parts, without a length |
//! | enums | the variant's number, then its parts |
//!
//! All little-endian.

use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::VALUE_BYTES_MAX;

/// What has not been read yet.
pub(super) struct Compact<'de>(&'de [u8]);

/// Why bytes are not a value of the type that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    EndsEarly,
    OverTheLimit,
    NotOfThisType,
    NeedsNames,
}

impl Fault {
    pub(super) const fn message(self) -> &'static str {
        match self {
            Self::EndsEarly => "failed to decode a value: it ends early",
            Self::OverTheLimit => "failed to decode a value: a length in it is over the limit",
            Self::NotOfThisType => "failed to decode a value: it is not of this type",
            Self::NeedsNames => "failed to decode a value: its type needs the self-describing codec",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    /// The message is dropped: serde's quote what they read.
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self::NotOfThisType
    }
}

type Read<T> = Result<T, Fault>;

/// Lengths and numbers from here on take more than one byte, and the first says how many.
const TWO: u8 = 251;
const FOUR: u8 = 252;
const EIGHT: u8 = 253;
const SIXTEEN: u8 = 254;

impl<'de> Compact<'de> {
    pub(super) const fn new(bytes: &'de [u8]) -> Self {
        Self(bytes)
    }

    /// Whether every byte was used.
    pub(super) const fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    fn byte(&mut self) -> Read<u8> {
        let (&byte, rest) = self.0.split_first().ok_or(Fault::EndsEarly)?;
        self.0 = rest;
        Ok(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (&bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Fault::EndsEarly)?;
        self.0 = rest;
        Ok(bytes)
    }

    #[inline]
    fn slice(&mut self, length: usize) -> Read<&'de [u8]> {
        let Some((bytes, rest)) = self.0.split_at_checked(length) else {
            return Err(if length > VALUE_BYTES_MAX { Fault::OverTheLimit } else { Fault::EndsEarly });
        };
        self.0 = rest;
        Ok(bytes)
    }

    /// A number of at most 8 bytes.
    #[inline]
    fn number(&mut self) -> Read<u64> {
        match self.byte()? {
            small @ 0..TWO => Ok(small.into()),
            width => self.wide(width),
        }
    }

    #[inline]
    fn wide(&mut self, width: u8) -> Read<u64> {
        match width {
            TWO => Ok(u16::from_le_bytes(self.array()?).into()),
            FOUR => Ok(u32::from_le_bytes(self.array()?).into()),
            EIGHT => Ok(u64::from_le_bytes(self.array()?)),
            _ => Err(Fault::NotOfThisType),
        }
    }

    /// A number of 2 or 4 bytes. A width that the type does not have is refused, whatever the value, as bincode
    /// does.
    #[inline]
    fn narrow<T: TryFrom<u64>>(&mut self) -> Read<T> {
        let width = self.byte()?;
        if width < TWO {
            return T::try_from(width.into()).map_err(|_| Fault::NotOfThisType);
        }
        let fits = match width {
            TWO => size_of::<T>() >= 2,
            FOUR => size_of::<T>() >= 4,
            _ => false,
        };
        if !fits {
            return Err(Fault::NotOfThisType);
        }
        T::try_from(self.wide(width)?).map_err(|_| Fault::NotOfThisType)
    }

    fn widest(&mut self) -> Read<u128> {
        match self.byte()? {
            small @ 0..TWO => Ok(small.into()),
            SIXTEEN => Ok(u128::from_le_bytes(self.array()?)),
            width => Ok(self.wide(width)?.into()),
        }
    }

    #[inline]
    fn length(&mut self) -> Read<usize> {
        usize::try_from(self.number()?).map_err(|_| Fault::OverTheLimit)
    }

    #[inline]
    fn bytes(&mut self) -> Read<&'de [u8]> {
        let length = self.length()?;
        self.slice(length)
    }

    #[inline]
    fn text(&mut self) -> Read<&'de str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Fault::NotOfThisType)
    }

    fn character(&mut self) -> Read<char> {
        let &first = self.0.first().ok_or(Fault::EndsEarly)?;
        let width = match first {
            0..0x80 => 1,
            0x80..0xE0 => 2,
            0xE0..0xF0 => 3,
            _ => 4,
        };
        let mut text = std::str::from_utf8(self.slice(width)?).map_err(|_| Fault::NotOfThisType)?.chars();
        text.next().filter(|_| text.next().is_none()).ok_or(Fault::NotOfThisType)
    }

    /// 0 or 1.
    #[inline]
    fn bit(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Fault::NotOfThisType),
        }
    }
}

/// Undoes zigzag.
macro_rules! signed {
    ($number:expr, $signed:ty) => {{
        let number = $number;
        (number >> 1) as $signed ^ -((number & 1) as $signed)
    }};
}

impl<'de> Deserializer<'de> for &mut Compact<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Read<V::Value> {
        Err(Fault::NeedsNames)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_bool(self.bit()?)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_i8(i8::from_le_bytes(self.array()?))
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_i16(signed!(self.narrow::<u16>()?, i16))
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_i32(signed!(self.narrow::<u32>()?, i32))
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_i64(signed!(self.number()?, i64))
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_i128(signed!(self.widest()?, i128))
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_u8(self.byte()?)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_u16(self.narrow()?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_u32(self.narrow()?)
    }

    #[inline]
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_u64(self.number()?)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_u128(self.widest()?)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_f32(f32::from_le_bytes(self.array()?))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_f64(f64::from_le_bytes(self.array()?))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_char(self.character()?)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        if self.bit()? { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let left = self.length()?;
        visitor.visit_seq(Parts { input: self, left })
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Read<V::Value> {
        visitor.visit_seq(Parts { input: self, left: len })
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _name: &'static str, len: usize, visitor: V) -> Read<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let left = self.length()?;
        visitor.visit_map(Parts { input: self, left })
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Read<V::Value> {
        Err(Fault::NeedsNames)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _visitor: V) -> Read<V::Value> {
        Err(Fault::NeedsNames)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The parts of a sequence or map that are still to come.
struct Parts<'a, 'de> {
    input: &'a mut Compact<'de>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_, 'de> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Read<Option<T::Value>> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.input).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Parts<'_, 'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Read<Option<K::Value>> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Read<V::Value> {
        seed.deserialize(&mut *self.input)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> EnumAccess<'de> for &mut Compact<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Read<(V::Value, Self)> {
        let variant: U32Deserializer<Fault> = self.narrow::<u32>()?.into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Compact<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Read<()> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Read<T::Value> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Read<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Read<V::Value> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}
