//! The codecs that cost nothing: bytes, strings, numbers.

use std::sync::Arc;

use super::{Codec, CodecError, CodecId};

/// A number is its little-endian bytes, and has their number in its name.
macro_rules! number {
    ($($kind:literal: $($number:ty),+;)*) => {$($(
        impl Codec for $number {
            const ID: CodecId = CodecId($kind + size_of::<$number>() as u32);

            fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.extend_from_slice(&self.to_le_bytes());
                Ok(())
            }

            fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
                let bytes = bytes.as_slice().try_into().map_err(CodecError::new)?;
                Ok(<$number>::from_le_bytes(bytes))
            }

            fn heap_bytes(&self) -> usize {
                0
            }

            #[inline]
            fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
                Ok(read(&self.to_le_bytes()))
            }
        }
    )+)*};
}

number! {
    0x100: u8, u16, u32, u64, u128;
    0x200: i8, i16, i32, i64, i128;
    0x300: f32, f64;
}

/// A type that is written as a number, if not each makes a value of it.
macro_rules! written_as {
    ($($value:ty, $number:ty, $id:literal, $make:expr;)*) => {$(
        impl Codec for $value {
            const ID: CodecId = CodecId($id);

            fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                <$number>::from(*self).encode(out)
            }

            fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
                let number = <$number>::decode(bytes)?;
                let refuse = || CodecError::new(format!("{number} is no `{}`", stringify!($value)));
                $make(number).ok_or_else(refuse)
            }

            fn heap_bytes(&self) -> usize {
                0
            }

            #[inline]
            fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
                <$number>::from(*self).with_bytes(read)
            }
        }
    )*};
}

written_as! {
    bool, u8, 6, |byte| (byte < 2).then_some(byte == 1);
    char, u32, 7, char::from_u32;
}

/// A type that derefs to its bytes or text and can be made of an owned copy of the bytes.
macro_rules! lends_bytes {
    ($($owned:ty, $id:ident, $overhead:literal, $make:expr;)*) => {$(
        impl Codec for $owned {
            const ID: CodecId = CodecId::$id;

            fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                out.extend_from_slice(AsRef::<[u8]>::as_ref(&**self));
                Ok(())
            }

            fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
                $make(bytes)
            }

            fn heap_bytes(&self) -> usize {
                self.len() + $overhead
            }

            #[inline]
            fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
                Ok(read(AsRef::<[u8]>::as_ref(&**self)))
            }
        }
    )*};
}

fn utf8(bytes: Vec<u8>) -> Result<String, CodecError> {
    String::from_utf8(bytes).map_err(CodecError::new)
}

// An `Arc` has two counters in front of its bytes.
lends_bytes! {
    Vec<u8>, RAW, 0, Ok;
    Box<[u8]>, RAW, 0, |bytes: Vec<u8>| Ok(bytes.into());
    Arc<[u8]>, RAW, 16, |bytes: Vec<u8>| Ok(bytes.into());
    String, UTF8, 0, utf8;
    Box<str>, UTF8, 0, |bytes| utf8(bytes).map(Into::into);
    Arc<str>, UTF8, 16, |bytes| utf8(bytes).map(Into::into);
}

#[cfg(feature = "bytes")]
lends_bytes! {
    bytes::Bytes, RAW, 0, |bytes: Vec<u8>| Ok(bytes.into());
}

impl<const N: usize> Codec for [u8; N] {
    const ID: CodecId = CodecId::RAW;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(self);
        Ok(())
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
        bytes.as_slice().try_into().map_err(CodecError::new)
    }

    fn heap_bytes(&self) -> usize {
        0
    }

    #[inline]
    fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
        Ok(read(self))
    }
}

/// For a set of keys.
impl Codec for () {
    const ID: CodecId = CodecId::UNIT;

    fn encode(&self, _out: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
        if bytes.is_empty() { Ok(()) } else { Err(CodecError::new("`()` has no bytes")) }
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

/// Shared values: a hit clones the `Arc`, not what it holds.
impl<T: Codec> Codec for Arc<T> {
    const ID: CodecId = T::ID;

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        T::encode(self, out)
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
        T::decode(bytes).map(Arc::new)
    }

    fn heap_bytes(&self) -> usize {
        2 * size_of::<usize>() + size_of::<T>() + T::heap_bytes(self)
    }

    #[inline]
    fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
        T::with_bytes(self, read)
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Borrow, fmt::Debug};

    use super::super::KeyBytes;
    use super::*;

    fn round_trip<T: Codec + PartialEq + Debug>(value: T, bytes: &[u8]) {
        let mut out = Vec::new();
        value.encode(&mut out).unwrap();
        assert_eq!(out, bytes);
        assert!(value.with_bytes(|lent| lent == bytes).unwrap());
        assert_eq!(T::decode(out).unwrap(), value);
    }

    #[test]
    fn plain_types_are_their_bytes() {
        round_trip(0x0102_0304_u32, &[4, 3, 2, 1]);
        round_trip(-2_i16, &[0xfe, 0xff]);
        round_trip(1.5_f32, &[0, 0, 0xc0, 0x3f]);
        round_trip(-0.0_f64, &[0, 0, 0, 0, 0, 0, 0, 0x80]);
        round_trip(true, &[1]);
        round_trip('\u{e9}', &[0xe9, 0, 0, 0]);
        round_trip(vec![1_u8, 2], &[1, 2]);
        round_trip(Arc::<[u8]>::from([7_u8]), &[7]);
        round_trip("é".to_owned(), "é".as_bytes());
        round_trip(Arc::<str>::from("ab"), b"ab");
        round_trip(Arc::new(5_u8), &[5]);
        round_trip([1_u8, 2, 3], &[1, 2, 3]);
        round_trip((), &[]);
        #[cfg(feature = "bytes")]
        round_trip(bytes::Bytes::from_static(b"xyz"), b"xyz");
    }

    #[test]
    fn bytes_that_make_no_value_are_an_error() {
        assert!(u64::decode(vec![0; 7]).is_err());
        assert!(String::decode(vec![0xff]).is_err());
        assert!(<[u8; 2]>::decode(vec![0; 3]).is_err());
        assert!(<()>::decode(vec![0]).is_err());
        assert!(bool::decode(vec![2]).is_err() && bool::decode(vec![]).is_err());
        assert!(char::decode(0xd800_u32.to_le_bytes().to_vec()).is_err(), "half of a surrogate pair");
        assert!(char::decode(0x11_0000_u32.to_le_bytes().to_vec()).is_err());
    }

    #[test]
    fn a_borrowed_key_has_the_owned_keys_bytes() {
        fn same<K: KeyBytes + Borrow<Q>, Q: KeyBytes + ?Sized>(key: &K) {
            let owned = key.with_key_bytes(<[u8]>::to_vec).unwrap();
            assert_eq!(key.borrow().with_key_bytes(<[u8]>::to_vec).unwrap(), owned);
        }
        same::<String, str>(&"key".to_owned());
        same::<Arc<str>, str>(&"key".into());
        same::<Vec<u8>, [u8]>(&vec![1, 2]);
        same::<[u8; 3], [u8]>(&[1, 2, 3]);
        same::<Arc<u64>, u64>(&Arc::new(9));
    }
}
