//! Deserializing without belief in a length: nothing is allocated for more than the bytes that are there.
//!
//! bincode makes an owned string or byte buffer of the length it is told, before it looks whether so many bytes
//! follow; and tells containers how many elements come, which some of them reserve room for at once.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// A format's deserializer, or any part of what goes on between it and a type: strings and byte buffers are asked
/// for in their borrowed forms, which are compared with what is left, and a container is told of no more
/// elements than there are bytes.
pub(super) struct Bounded<T> {
    inner: T,
    bytes: usize,
}

impl<T> Bounded<T> {
    /// Around whatever reads so many bytes.
    pub(super) fn new(inner: T, bytes: usize) -> Bounded<T> {
        Bounded { inner, bytes }
    }
}

/// What has no parts is passed on as it is.
macro_rules! leaves {
    ($($call:ident as $inner:ident ($($arg:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $call<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$inner($($arg,)* visitor)
        }
    )*};
}

/// What has parts: these are bounded, too.
macro_rules! nodes {
    ($($call:ident($($arg:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $call<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$call($($arg,)* Bounded::new(visitor, self.bytes))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<D> {
    type Error = D::Error;

    leaves! {
        deserialize_string as deserialize_str();
        deserialize_byte_buf as deserialize_bytes();
        deserialize_str as deserialize_str();
        deserialize_bytes as deserialize_bytes();
        deserialize_bool as deserialize_bool();
        deserialize_i8 as deserialize_i8();
        deserialize_i16 as deserialize_i16();
        deserialize_i32 as deserialize_i32();
        deserialize_i64 as deserialize_i64();
        deserialize_i128 as deserialize_i128();
        deserialize_u8 as deserialize_u8();
        deserialize_u16 as deserialize_u16();
        deserialize_u32 as deserialize_u32();
        deserialize_u64 as deserialize_u64();
        deserialize_u128 as deserialize_u128();
        deserialize_f32 as deserialize_f32();
        deserialize_f64 as deserialize_f64();
        deserialize_char as deserialize_char();
        deserialize_unit as deserialize_unit();
        deserialize_unit_struct as deserialize_unit_struct(name: &'static str);
        deserialize_any as deserialize_any();
        deserialize_identifier as deserialize_identifier();
        deserialize_ignored_any as deserialize_ignored_any();
    }

    nodes! {
        deserialize_option();
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Who waits for something that has parts.
impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<V> {
    type Value = V::Value;

    #[inline]
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, some: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Bounded::new(some, self.bytes))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, only: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Bounded::new(only, self.bytes))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Bounded::new(elements, self.bytes))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Bounded::new(entries, self.bytes))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Bounded::new(variant, self.bytes))
    }
}

/// What a part is made by.
impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, part: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Bounded::new(part, self.bytes))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Bounded::new(seed, self.bytes))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.inner.size_hint()?.min(self.bytes))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Bounded::new(seed, self.bytes))
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Bounded::new(seed, self.bytes))
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.inner.size_hint()?.min(self.bytes))
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<A> {
    type Error = A::Error;
    type Variant = Bounded<A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Bounded<A::Variant>), A::Error> {
        let (name, content) = self.inner.variant_seed(seed)?;
        Ok((name, Bounded::new(content, self.bytes)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Bounded::new(seed, self.bytes))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Bounded::new(visitor, self.bytes))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Bounded::new(visitor, self.bytes))
    }
}
