//! How keys and values become bytes and come back.
//!
//! A type is stored by its [`Codec`]. Raw bytes, strings and numbers have one that is a copy of
//! their bytes, and tuples and options one of their parts'; a serde type gets one by a line of [`bincode_codec!`](crate::bincode_codec) or
//! [`postcard_codec!`](crate::postcard_codec), or by the wrappers [`Bincode`](crate::Bincode) and
//! [`Postcard`](crate::Postcard) where the type is not yours.

mod compound;
mod plain;
#[cfg(any(feature = "bincode", feature = "postcard"))]
#[doc(hidden)]
pub mod serde_codecs;

use std::{cell::Cell, error, fmt};

/// Names an encoding. The directory remembers those of its keys and values, and is not read with others
/// ([`OnMismatch`](crate::OnMismatch)).
///
/// Numbers below 65,536 and from 2^31 on belong to embercache; take one between them for a codec of your own,
/// and another whenever its bytes change their meaning.
///
/// # Examples
///
/// ```
/// use embercache::{Codec, CodecId};
///
/// assert_eq!(<String as Codec>::ID, CodecId::UTF8);
/// assert_ne!(<u64 as Codec>::ID, <i64 as Codec>::ID);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodecId(pub u32);

impl CodecId {
    /// The bytes themselves: `Vec<u8>`, `Bytes`, `[u8; N]`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(<Vec<u8> as embercache::Codec>::ID, embercache::CodecId::RAW);
    /// ```
    pub const RAW: CodecId = CodecId(1);
    /// UTF-8: `String`, `Box<str>`, `Arc<str>`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(<String as embercache::Codec>::ID, embercache::CodecId::UTF8);
    /// ```
    pub const UTF8: CodecId = CodecId(2);
    /// bincode 2, its standard configuration.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "bincode")]
    /// assert_eq!(<embercache::Bincode<f64> as embercache::Codec>::ID, embercache::CodecId::BINCODE);
    /// ```
    pub const BINCODE: CodecId = CodecId(3);
    /// postcard 1.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "postcard")]
    /// assert_eq!(<embercache::Postcard<f64> as embercache::Codec>::ID, embercache::CodecId::POSTCARD);
    /// ```
    pub const POSTCARD: CodecId = CodecId(4);
    /// No bytes: `()`.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(<() as embercache::Codec>::ID, embercache::CodecId::UNIT);
    /// ```
    pub const UNIT: CodecId = CodecId(5);

    /// How a compound is made of its parts; beside these, in the name's upper half.
    const TUPLE: u64 = 1 << 32;
    const OPTION: u64 = 2 << 32;

    /// The name of what is made of others, by their names in order. It has 31 bits and is drawn from all of
    /// these: that two have the same is possible, and as rare as one in two thousand million.
    const fn compound(kind: u64, parts: &[CodecId]) -> CodecId {
        let mut state = kind;
        let mut at = 0;
        while at < parts.len() {
            // A step of SplitMix64, which is a bijection: nothing of what came before is lost.
            state = (state ^ parts[at].0 as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
            state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            state ^= state >> 31;
            at += 1;
        }
        CodecId(1 << 31 | (state >> 33) as u32)
    }
}

/// Why bytes could not be made of a value, or a value of bytes.
///
/// # Examples
///
/// ```
/// use embercache::Codec;
///
/// assert!(String::decode(vec![0xff]).unwrap_err().to_string().contains("invalid utf-8"));
/// ```
#[derive(Debug)]
pub struct CodecError(Box<dyn error::Error + Send + Sync>);

impl CodecError {
    /// An error with a cause or a message.
    ///
    /// # Examples
    ///
    /// ```
    /// use embercache::CodecError;
    ///
    /// assert_eq!(CodecError::new("six bytes make a SKU").to_string(), "six bytes make a SKU");
    /// ```
    pub fn new(cause: impl Into<Box<dyn error::Error + Send + Sync>>) -> CodecError {
        CodecError(cause.into())
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for CodecError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source()
    }
}

/// A type whose values can be written to the log and read back.
///
/// These have a codec without any line of yours:
///
/// - bytes: `Vec<u8>`, `[u8; N]`, `Box<[u8]>`, `Arc<[u8]>`, with feature `bytes` also `bytes::Bytes`;
/// - text: `String`, `Box<str>`, `Arc<str>`;
/// - integers of 8 to 128 bits, `bool`, `char`, `()`; as values `f32` and `f64`, too;
/// - tuples of two to four of all these, and `Option` and `Arc` of one.
///
/// Serde types have one by the macro [`bincode_codec!`](crate::bincode_codec) or the wrapper
/// [`Bincode`](crate::Bincode); `postcard_codec!` and `Postcard` are the same for postcard. One can be written by
/// hand, as in the example: `decode` sees only bytes whose checksum was verified, so it meets what `encode` wrote, unless
/// the code has changed in between. Raise the builder's [`schema_version`](crate::Builder::schema_version) then.
///
/// # Examples
///
/// ```
/// use embercache::{Codec, CodecError, CodecId};
///
/// #[derive(Clone, PartialEq, Eq)]
/// struct Sku { brand: u16, number: u32 }
///
/// impl Codec for Sku {
///     const ID: CodecId = CodecId(70_001);
///
///     fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
///         out.extend(self.brand.to_le_bytes());
///         out.extend(self.number.to_le_bytes());
///         Ok(())
///     }
///
///     fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
///         let bytes: [u8; 6] = bytes.try_into().map_err(|_| CodecError::new("six bytes make a SKU"))?;
///         let [a, b, number @ ..] = bytes;
///         Ok(Sku { brand: u16::from_le_bytes([a, b]), number: u32::from_le_bytes(number) })
///     }
///
///     fn heap_bytes(&self) -> usize { 0 }
/// }
/// # let sku = Sku { brand: 7, number: 9 };
/// # let mut out = Vec::new();
/// # sku.encode(&mut out).unwrap();
/// # assert!(Sku::decode(out).unwrap() == sku);
/// ```
pub trait Codec: Sized {
    /// The encoding's name in the directory.
    ///
    /// # Examples
    ///
    /// ```
    /// use embercache::{Codec, CodecId};
    ///
    /// assert_eq!(<[u8; 20] as Codec>::ID, CodecId::RAW);
    /// ```
    const ID: CodecId;

    /// Appends this value's bytes to `out`, and leaves those that are there. Two keys that are equal must have the
    /// same bytes, and two that are not must have different ones. A key may have 65,535 bytes.
    ///
    /// # Errors
    ///
    /// What cannot be encoded is refused as a key, and as a value stays in RAM until it is forgotten.
    ///
    /// # Examples
    ///
    /// ```
    /// use embercache::Codec;
    ///
    /// let mut out = vec![9];
    /// 0x0102_u16.encode(&mut out).unwrap();
    /// assert_eq!(out, [9, 2, 1]);
    /// ```
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Makes a value of what `encode` wrote.
    ///
    /// # Errors
    ///
    /// Bytes that make no value. The look-up is a miss, and the copy on disk is forgotten.
    ///
    /// # Examples
    ///
    /// ```
    /// use embercache::Codec;
    ///
    /// assert_eq!(u16::decode(vec![2, 1]).unwrap(), 0x0102);
    /// assert!(u16::decode(vec![2]).is_err());
    /// ```
    fn decode(bytes: Vec<u8>) -> Result<Self, CodecError>;

    /// About how many bytes the value owns on the heap: what it costs the RAM budget beyond
    /// `size_of::<Self>()`. Asked at each insert, so it should be cheap. By default it is the length of the encoding,
    /// which is found by encoding the value.
    ///
    /// # Examples
    ///
    /// ```
    /// use embercache::Codec;
    ///
    /// assert_eq!("runner".to_owned().heap_bytes(), 6);
    /// assert_eq!(7_u64.heap_bytes(), 0);
    /// ```
    fn heap_bytes(&self) -> usize {
        with_scratch(|scratch| self.encode(scratch).map_or(0, |()| scratch.len()))
    }

    /// Lends the value's bytes, the same that `encode` appends: to hash a key at each look-up, and to write
    /// keys and values to disk. By default they are encoded into a buffer that the thread keeps; a type that has its
    /// bytes at hand should lend them instead.
    ///
    /// # Errors
    ///
    /// As `encode`.
    ///
    /// # Examples
    ///
    /// ```
    /// use embercache::Codec;
    ///
    /// assert_eq!("runner".to_owned().with_bytes(|bytes| bytes.len()).unwrap(), 6);
    /// ```
    fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
        with_scratch(|scratch| {
            self.encode(scratch)?;
            Ok(read(scratch))
        })
    }
}

/// Lends an empty buffer that the thread keeps; a nested call gets a fresh one, and so does one of a thread that
/// is ending and can keep nothing any more.
fn with_scratch<R>(use_it: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    /// A buffer that once held a large value is not kept.
    const KEPT_BYTES_MAX: usize = 64 * 1024;
    thread_local!(static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    let result = use_it(&mut scratch);
    if scratch.capacity() <= KEPT_BYTES_MAX {
        let _ = SCRATCH.try_with(|place| place.set(scratch));
    }
    result
}

/// The bytes of a key, or of its borrowed form: what a look-up hashes and compares on disk.
///
/// Every [`Codec`] type with `Eq` has it, and so have `str` and `[u8]`. For a `K: Borrow<Q>` both
/// must lend the same bytes, just as [`Borrow`](std::borrow::Borrow) asks of their hashes. A tuple is looked up
/// by a tuple of the same type: as in the standard library's maps, `&(7, "en")` does not stand for
/// `&(7, "en".to_owned())`.
///
/// # Examples
///
/// ```
/// use embercache::KeyBytes;
///
/// let bytes_of = |key: &str| key.with_key_bytes(<[u8]>::to_vec).unwrap();
/// assert_eq!(bytes_of("sku"), "sku".to_owned().with_key_bytes(<[u8]>::to_vec).unwrap());
/// ```
pub trait KeyBytes: Eq {
    /// Lends the bytes.
    ///
    /// # Errors
    ///
    /// As [`Codec::encode`].
    ///
    /// # Examples
    ///
    /// ```
    /// use embercache::KeyBytes;
    ///
    /// assert_eq!([1_u8, 2].with_key_bytes(|bytes| bytes.len()).unwrap(), 2);
    /// ```
    fn with_key_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError>;
}

impl<T: Codec + Eq> KeyBytes for T {
    #[inline]
    fn with_key_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
        self.with_bytes(read)
    }
}

impl KeyBytes for str {
    #[inline]
    fn with_key_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
        Ok(read(self.as_bytes()))
    }
}

impl KeyBytes for [u8] {
    #[inline]
    fn with_key_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> Result<R, CodecError> {
        Ok(read(self))
    }
}

/// What a key type must be. There is nothing to implement: every type that fits is one.
///
/// A key's encoding has 65,535 bytes at most; a longer one is refused with
/// [`Error::TooLarge`](crate::Error::TooLarge).
///
/// # Examples
///
/// ```
/// fn is_key<K: embercache::Key>() {}
/// is_key::<String>();
/// is_key::<[u8; 20]>();
/// is_key::<(u64, String)>();
/// ```
pub trait Key: Codec + Eq + Send + Sync + 'static {}
impl<T: Codec + Eq + Send + Sync + 'static> Key for T {}

/// What a value type must be. There is nothing to implement: every type that fits is one.
///
/// A hit clones the value: for large ones, `Arc` or `Bytes` makes that cheap, or
/// [`get_with`](crate::Cache::get_with) avoids it.
///
/// # Examples
///
/// ```
/// fn is_value<V: embercache::Value>() {}
/// is_value::<std::sync::Arc<String>>();
/// is_value::<Vec<u8>>();
/// is_value::<Option<(f64, f64)>>(); // `None`: known not to be there
/// ```
pub trait Value: Codec + Clone + Send + Sync + 'static {}
impl<T: Codec + Clone + Send + Sync + 'static> Value for T {}
