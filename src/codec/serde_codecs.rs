//! serde types, by bincode or postcard.

#[cfg(feature = "bincode")]
mod bounded;

#[cfg(feature = "bincode")]
pub use self::bincode::Bincode;
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;

/// The wrapper that gives a serde type the codec of one format, whose module has `encode`,
/// `decode` and `encoded_len`.
macro_rules! wrapper {
    ($(#[$doc:meta])* $wrapper:ident, $id:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $wrapper<T>(pub T);

        impl<T> std::ops::Deref for $wrapper<T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.0
            }
        }

        impl<T: Serialize + DeserializeOwned> Codec for $wrapper<T> {
            const ID: CodecId = $id;

            fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                encode(&self.0, out)
            }

            fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
                decode(&bytes).map($wrapper)
            }

            fn heap_bytes(&self) -> usize {
                encoded_len(&self.0)
            }
        }
    };
}

/// The body of the exported macros: `Codec` for a serde type by one format's functions.
#[doc(hidden)]
#[macro_export]
macro_rules! __serde_codec {
    ($format:ident, $id:ident, $($type:ty),+) => {$(
        impl $crate::Codec for $type {
            const ID: $crate::CodecId = $crate::CodecId::$id;

            fn encode(&self, out: &mut ::std::vec::Vec<u8>) -> ::std::result::Result<(), $crate::CodecError> {
                $crate::__codec::$format::encode(self, out)
            }

            fn decode(bytes: ::std::vec::Vec<u8>) -> ::std::result::Result<Self, $crate::CodecError> {
                $crate::__codec::$format::decode(&bytes)
            }

            fn heap_bytes(&self) -> usize {
                $crate::__codec::$format::encoded_len(self)
            }
        }
    )+};
}

/// Gives serde types of your own the codec of bincode, which makes them values, and with `Eq` keys.
///
/// bincode writes no names of types or fields: when a type changes, change
/// [`schema_version`](crate::Builder::schema_version), too.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// use embercache::{Cache, MIB};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Product { name: String, cents: u32 }
///
/// embercache::bincode_codec!(Product);
///
/// let products: Cache<u64, Product> = Cache::in_memory().ram(8 * MIB).open()?;
/// products.insert(1, Product { name: "Runner".into(), cents: 9_900 })?;
/// assert_eq!(products.get(&1).unwrap().cents, 9_900);
/// # Ok(()) }
/// ```
#[cfg(feature = "bincode")]
#[macro_export]
macro_rules! bincode_codec {
    ($($type:ty),+ $(,)?) => { $crate::__serde_codec!(bincode, BINCODE, $($type),+); };
}

/// Gives serde types of your own the codec of postcard, which makes them values, and with `Eq` keys.
///
/// postcard writes no names of types or fields: when a type changes, change
/// [`schema_version`](crate::Builder::schema_version), too.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), embercache::Error> {
/// use embercache::{Cache, MIB};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(PartialEq, Eq, Serialize, Deserialize)]
/// struct Page { product: u64, language: String }
///
/// embercache::postcard_codec!(Page);
///
/// let pages: Cache<Page, String> = Cache::in_memory().ram(8 * MIB).open()?;
/// pages.insert(Page { product: 1, language: "en".into() }, "<html>".into())?;
/// assert!(pages.contains_key(&Page { product: 1, language: "en".into() }));
/// # Ok(()) }
/// ```
#[cfg(feature = "postcard")]
#[macro_export]
macro_rules! postcard_codec {
    ($($type:ty),+ $(,)?) => { $crate::__serde_codec!(postcard, POSTCARD, $($type),+); };
}

#[cfg(feature = "bincode")]
#[doc(hidden)]
pub mod bincode {
    use std::marker::PhantomData;

    use ::bincode::{
        config::{self, Configuration},
        enc::write::SizeWriter,
        serde::{encode_into_std_write, encode_into_writer, seed_decode_from_slice},
    };
    use serde::{Serialize, de::DeserializeOwned};

    use super::{
        super::{Codec, CodecError, CodecId},
        bounded::Bounded,
    };

    const CONFIG: Configuration = config::standard();

    pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        encode_into_std_write(value, out, CONFIG).map(drop).map_err(CodecError::new)
    }

    pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        // Not by bincode's own limit on what is decoded: there a number counts as wide as it is in memory, up to
        // sixteen times its encoding, so one that refuses no right value lets through lengths that are not there.
        let value = Bounded::new(PhantomData, bytes.len());
        match seed_decode_from_slice(value, bytes, CONFIG) {
            Ok((value, used)) if used == bytes.len() => Ok(value),
            Ok((_, used)) => Err(CodecError::new(format!("{used} of {} bytes used", bytes.len()))),
            Err(error) => Err(CodecError::new(error)),
        }
    }

    pub fn encoded_len<T: Serialize>(value: &T) -> usize {
        let mut size = SizeWriter::default();
        encode_into_writer(value, &mut size, CONFIG).map_or(0, |()| size.bytes_written)
    }

    wrapper! {
        /// A serde value, encoded by bincode: for types that are not yours. For your own, a line of
        /// [`bincode_codec!`](crate::bincode_codec) saves the wrapper; what is said there holds here.
        ///
        /// # Examples
        ///
        /// ```
        /// # fn main() -> Result<(), embercache::Error> {
        /// use embercache::{Bincode, Cache, MIB};
        ///
        /// let sizes: Cache<u64, Bincode<Vec<f32>>> = Cache::in_memory().ram(8 * MIB).open()?;
        /// sizes.insert(7, Bincode(vec![42.0, 42.5]))?;
        /// assert_eq!(sizes.get(&7).unwrap().len(), 2);
        /// # Ok(()) }
        /// ```
        Bincode, CodecId::BINCODE
    }
}

#[cfg(feature = "postcard")]
#[doc(hidden)]
pub mod postcard {
    use ::postcard::{experimental::serialized_size, take_from_bytes, to_io};
    use serde::{Serialize, de::DeserializeOwned};

    use super::super::{Codec, CodecError, CodecId};

    pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        to_io(value, out).map(drop).map_err(CodecError::new)
    }

    pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        match take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(CodecError::new(format!("{} bytes left over", rest.len()))),
            Err(error) => Err(CodecError::new(error)),
        }
    }

    pub fn encoded_len<T: Serialize>(value: &T) -> usize {
        serialized_size(value).unwrap_or(0)
    }

    wrapper! {
        /// A serde value, encoded by postcard: for types that are not yours. For your own, a line of
        /// [`postcard_codec!`](crate::postcard_codec) saves the wrapper; what is said there holds here.
        ///
        /// # Examples
        ///
        /// ```
        /// # fn main() -> Result<(), embercache::Error> {
        /// use embercache::{Cache, MIB, Postcard};
        ///
        /// let sizes: Cache<u64, Postcard<Vec<f32>>> = Cache::in_memory().ram(8 * MIB).open()?;
        /// sizes.insert(7, Postcard(vec![42.0, 42.5]))?;
        /// assert_eq!(sizes.get(&7).unwrap().len(), 2);
        /// # Ok(()) }
        /// ```
        Postcard, CodecId::POSTCARD
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt};

    #[cfg(feature = "bincode")]
    use serde::de::{DeserializeOwned, SeqAccess};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

    use crate::codec::Codec;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Shoe {
        name: String,
        sizes: Vec<u16>,
    }

    fn round_trip<T: Codec + PartialEq + fmt::Debug>(value: &T) {
        let mut out = Vec::new();
        value.encode(&mut out).unwrap();
        assert_eq!(value.heap_bytes(), out.len());
        assert_eq!(&T::decode(out.clone()).unwrap(), value);
        out.push(0);
        assert!(T::decode(out).is_err(), "a byte too many went unnoticed");
    }

    #[test]
    fn serde_types_come_back() {
        let shoe = Shoe { name: "Runner".into(), sizes: vec![40, 41] };
        #[cfg(feature = "bincode")]
        round_trip(&super::Bincode(shoe.clone()));
        #[cfg(feature = "postcard")]
        round_trip(&super::Postcard(shoe));
    }

    /// Everything that serde knows, one in the other.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct All {
        unit: (),
        unit_struct: Unit,
        newtype: Newtype,
        tuple: (bool, char, String, Option<Box<All>>),
        signed: (i8, i16, i32, i64, i128),
        unsigned: (u8, u16, u32, u64, u128),
        floats: [f32; 2],
        double: f64,
        choices: Vec<Choice>,
        map: BTreeMap<String, Vec<All>>,
        bytes: Bytes,
        nothing: Vec<()>,
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Unit;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Newtype(String);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Choice {
        Unit,
        Newtype(String),
        Tuple(u8, Vec<u8>),
        Struct { name: String, more: Option<Box<Choice>> },
    }

    /// A byte buffer as serde has it, which is not `Vec<u8>`.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Bytes(Vec<u8>);

    impl Serialize for Bytes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }

    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
            struct AnyBytes;

            impl Visitor<'_> for AnyBytes {
                type Value = Bytes;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("bytes")
                }

                fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                    Ok(Bytes(bytes.to_vec()))
                }
            }

            assert!(!deserializer.is_human_readable());
            deserializer.deserialize_byte_buf(AnyBytes)
        }
    }

    #[test]
    fn whatever_serde_knows_comes_back() {
        let more = Some(Box::new(Choice::Tuple(7, vec![1; 300])));
        let inner = All {
            newtype: Newtype("new".into()),
            tuple: (true, 'é', "text".repeat(100), None),
            signed: (-1, -300, i32::MIN, i64::MIN, i128::MIN),
            unsigned: (1, 300, u32::MAX, u64::MAX, u128::MAX),
            floats: [1.5, -0.0],
            double: f64::MAX,
            choices: vec![
                Choice::Unit,
                Choice::Newtype("n".into()),
                Choice::Struct { name: "s".into(), more },
            ],
            bytes: Bytes(vec![9; 1000]),
            nothing: vec![(); 5000],
            ..All::default()
        };
        let map =
            BTreeMap::from([(String::new(), vec![]), ("all".into(), vec![inner.clone(), All::default()])]);
        let all = All { tuple: (false, '\0', String::new(), Some(Box::new(inner))), map, ..All::default() };
        #[cfg(feature = "bincode")]
        round_trip(&super::Bincode(all.clone()));
        #[cfg(feature = "postcard")]
        round_trip(&super::Postcard(all));
    }

    #[cfg(feature = "bincode")]
    #[test]
    fn a_length_bomb_is_refused() {
        fn refused<T: Serialize + DeserializeOwned + fmt::Debug>(len: u64) -> String {
            let mut bomb = vec![253]; // bincode: a u64 length follows
            bomb.extend(len.to_le_bytes());
            super::Bincode::<T>::decode(bomb).unwrap_err().to_string()
        }
        for len in [1, 1 << 20, 1 << 60] {
            assert!(refused::<String>(len).starts_with("UnexpectedEnd"));
            assert!(refused::<Bytes>(len).starts_with("UnexpectedEnd"));
            assert!(refused::<Vec<String>>(len).starts_with("UnexpectedEnd"));
        }
    }

    /// A container that reserves what it is told, as some do.
    #[cfg(feature = "bincode")]
    #[test]
    fn a_container_is_told_of_no_more_than_there_is() {
        #[derive(Debug, PartialEq)]
        struct Told(usize);

        impl Serialize for Told {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                vec![7_u8; self.0].serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for Told {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Told, D::Error> {
                struct Elements;

                impl<'de> Visitor<'de> for Elements {
                    type Value = Told;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("elements")
                    }

                    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Told, A::Error> {
                        let told = elements.size_hint().unwrap();
                        assert!(told < 200, "told of {told}");
                        while elements.next_element::<u8>()?.is_some() {}
                        Ok(Told(told))
                    }
                }

                deserializer.deserialize_seq(Elements)
            }
        }

        let mut bytes = Vec::new();
        super::Bincode(Told(100)).encode(&mut bytes).unwrap();
        assert_eq!(super::Bincode::<Told>::decode(bytes.clone()).unwrap().0, Told(100));
        bytes.splice(..1, [&[253], &(1_u64 << 40).to_le_bytes()[..]].concat());
        assert!(super::Bincode::<Told>::decode(bytes).is_err());
    }

    /// Numbers that are sixteen times as wide in memory.
    #[test]
    fn no_value_is_taken_for_a_length_bomb() {
        for len in [0xfffe, 0x10_0000] {
            #[cfg(feature = "bincode")]
            round_trip(&super::Bincode(vec![1_u128; len]));
            #[cfg(feature = "postcard")]
            round_trip(&super::Postcard(vec![1_u128; len]));
        }
    }
}
