//! serde types, by bincode or postcard.

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
    use ::bincode::{
        config::{self, Configuration, Limit, LittleEndian, Varint},
        enc::write::SizeWriter,
        serde::{decode_from_slice, encode_into_std_write, encode_into_writer},
    };
    use serde::{Serialize, de::DeserializeOwned};

    use super::super::{Codec, CodecError, CodecId};

    const CONFIG: Configuration = config::standard();

    /// As [`CONFIG`], and a length that would take the value beyond so many bytes is refused before anything
    /// is allocated for it.
    const fn limited<const BYTES_MAX: usize>() -> Configuration<LittleEndian, Varint, Limit<BYTES_MAX>> {
        config::standard().with_limit::<BYTES_MAX>()
    }

    pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        encode_into_std_write(value, out, CONFIG).map(drop).map_err(CodecError::new)
    }

    pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        // A number counts as wide as it is in memory, which is up to sixteen times its encoding: of each step's
        // longest, the limit is sixteen times the length. No record is as long as the last allows.
        let decoded = match bytes.len() {
            ..=0x1_0000 => decode_from_slice(bytes, limited::<{ 1 << 20 }>()),
            0x1_0001..=0x10_0000 => decode_from_slice(bytes, limited::<{ 1 << 24 }>()),
            _ => decode_from_slice(bytes, limited::<{ 1 << 30 }>()),
        };
        match decoded {
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
    use serde::{Deserialize, Serialize};

    use crate::codec::Codec;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Shoe {
        name: String,
        sizes: Vec<u16>,
    }

    fn round_trip<T: Codec + PartialEq + std::fmt::Debug>(value: &T) {
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

    #[cfg(feature = "bincode")]
    #[test]
    fn a_length_bomb_is_refused() {
        let refused = |len: u64| {
            let mut bomb = vec![253]; // bincode: a u64 length follows
            bomb.extend(len.to_le_bytes());
            super::Bincode::<String>::decode(bomb).unwrap_err().to_string()
        };
        assert_eq!(refused(1 << 60), "LimitExceeded");
        assert_eq!(refused(1 << 20), "LimitExceeded", "a mebibyte was allocated for nine bytes");
    }

    /// Numbers that are sixteen times as wide in memory, around where the limit changes.
    #[cfg(feature = "bincode")]
    #[test]
    fn no_value_is_taken_for_a_length_bomb() {
        for len in [0xfffd, 0xfffe, 0x1_0000, 0xf_fffb, 0xf_fffc, 0x10_0000] {
            round_trip(&super::Bincode(vec![1_u128; len]));
        }
    }
}
