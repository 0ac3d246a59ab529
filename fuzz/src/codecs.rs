//! What the codecs make of bytes that nobody encoded: a value or an error, no panic, and no memory that the bytes
//! do not justify. What they accept comes back the same when it is encoded and decoded again.

use std::{collections::BTreeMap, fmt::Debug, ops::Range, sync::Arc};

use embercache::{Bincode, Codec, Postcard};
use serde::{Deserialize, Serialize};

use crate::allocation;

/// Whether a type's values have one encoding each, so that the bytes themselves come back. serde's formats
/// write lengths and numbers in one way and read them in several.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Canonical,
    Lenient,
}

/// What an allocation may be beside the bytes: a serde type may reserve as much for a length that it was told.
const RESERVED_BYTES_MAX: usize = 1 << 20;
/// How much larger a value may be than its bytes: an element of one byte that takes 48 in memory, in a
/// vector that has just grown.
const EXPANSION_MAX: usize = 128;

/// Something of everything that serde has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shape {
    name: String,
    size: Size,
    flags: (bool, char, i16, u128),
    parts: Vec<Option<Box<str>>>,
    by_name: BTreeMap<String, Vec<u64>>,
    rows: Vec<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Size {
    None,
    Number(u64),
    Range { from: i32, to: i32 },
}

macro_rules! codecs {
    ($($form:ident $type:ty = $value:expr;)*) => {
        /// How they treat bytes; and one value's bytes each, for the seeds.
        const CODECS: &[(fn(&[u8]), fn() -> Vec<u8>)] = &[
            $((check::<$type, { Form::$form as u8 }>, || encode::<$type>(&$value)),)*
        ];
    };
}

codecs! {
    Canonical Vec<u8> = b"bytes".to_vec();
    Canonical Box<[u8]> = b"bytes".to_vec().into();
    Canonical Arc<[u8]> = b"bytes".to_vec().into();
    Canonical bytes::Bytes = bytes::Bytes::from_static(b"bytes");
    Canonical [u8; 20] = [7; 20];
    Canonical String = "r\u{e9}sum\u{e9}".into();
    Canonical Box<str> = "\u{65e5}\u{672c}".into();
    Canonical Arc<str> = "text".into();
    Canonical () = ();
    Canonical u8 = 1;
    Canonical u16 = 1;
    Canonical u32 = 1;
    Canonical u64 = 1;
    Canonical u128 = 1;
    Canonical i8 = -1;
    Canonical i16 = -1;
    Canonical i32 = -1;
    Canonical i64 = -1;
    Canonical i128 = -1;
    Canonical Arc<u64> = Arc::new(1);
    Canonical Arc<Vec<u8>> = Arc::new(vec![1, 2]);
    Lenient Bincode<Shape> = Bincode(shape());
    Lenient Postcard<Shape> = Postcard(shape());
    Lenient Bincode<Vec<u128>> = Bincode(vec![0, 300, u128::MAX]);
    Lenient Postcard<Vec<u128>> = Postcard(vec![0, 300, u128::MAX]);
    Lenient Bincode<Vec<String>> = Bincode(vec!["a".into(), String::new()]);
    Lenient Postcard<Vec<String>> = Postcard(vec!["a".into(), String::new()]);
    Lenient Arc<Bincode<(String, Option<u64>)>> = Arc::new(Bincode(("a".into(), Some(1))));
    Lenient Arc<Postcard<(String, Option<u64>)>> = Arc::new(Postcard(("a".into(), Some(1))));
    Canonical bool = true;
    Canonical char = '\u{e9}';
    Canonical (u64, String) = (1, "en".into());
    Canonical (String, Vec<u8>, char) = ("a".into(), vec![1, 2], 'x');
    Canonical (bool, (), (u8, Arc<str>), [u8; 3]) = (true, (), (1, "a".into()), [7; 3]);
    Canonical Option<Option<bool>> = Some(Some(true));
    Canonical (Option<String>, Option<(u16, String)>) = (Some("a".into()), Some((1, "b".into())));
    Lenient (Postcard<Vec<String>>, Option<Bincode<Shape>>) = (Postcard(vec!["a".into()]), Some(Bincode(shape())));
}

/// Those of them that are serde's alone, by turns of bincode and postcard, and those that begin with a length.
const SERDE: Range<u8> = 21..29;
const TUPLES: Range<u8> = 31..34;

/// Runs the codec that the first byte names on the rest.
///
/// # Panics
///
/// If it does not keep to what this module says.
pub fn run(input: &[u8]) {
    let Some((&kind, bytes)) = input.split_first() else { return };
    let (check, _) = CODECS[usize::from(kind) % CODECS.len()];
    check(bytes);
}

/// Inputs to begin with: of each codec a value, the same cut short, and lengths that are not there.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (kind, (_, example)) in (0_u8..).zip(CODECS) {
        let input = |bytes: &[u8]| [&[kind], bytes].concat();
        let whole = example();
        seeds.push((format!("{kind:02}-whole"), input(&whole)));
        if whole.len() > 1 {
            seeds.push((format!("{kind:02}-cut"), input(&whole[..whole.len() / 2])));
        }
    }
    // A length of 2^60: bincode's eight bytes behind their mark, postcard's by sevens.
    let bincode = [&[253], &(1_u64 << 60).to_le_bytes()[..]].concat();
    let postcard = [&[0x80; 8][..], &[0x10]].concat();
    for kind in SERDE {
        let bomb = if kind % 2 == 1 { &bincode } else { &postcard };
        seeds.push((format!("{kind:02}-bomb"), [&[kind], &bomb[..]].concat()));
    }
    for kind in TUPLES {
        seeds.push((format!("{kind:02}-bomb"), vec![kind, 0xff, 0xff, 0xff, 0xff, 0]));
    }
    seeds
}

fn check<T: Codec + Eq + Debug, const FORM: u8>(bytes: &[u8]) {
    let given = bytes.to_vec();
    let (decoded, largest) = allocation::largest(|| T::decode(given));
    let justified = bytes.len() * EXPANSION_MAX + RESERVED_BYTES_MAX;
    assert!(largest <= justified, "{largest} bytes at once for {}", bytes.len());
    let Ok(value) = decoded else { return };
    let encoded = encode(&value);
    assert!(FORM != Form::Canonical as u8 || encoded == bytes, "{value:?} has two encodings");
    assert!(value.with_bytes(|lent| lent == encoded).expect("encoded before"), "{value:?} lends other bytes");
    let again = T::decode(encoded).expect("what was encoded decodes");
    assert_eq!(again, value);
}

fn encode<T: Codec>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out).expect("what was decoded encodes");
    out
}

fn shape() -> Shape {
    Shape {
        name: "Runner".into(),
        size: Size::Range { from: -40, to: 46 },
        flags: (true, 'x', -300, 1 << 100),
        parts: vec![None, Some("lace".into())],
        by_name: BTreeMap::from([("a".into(), vec![1, 70_000]), ("b".into(), vec![])]),
        rows: vec![vec![1, 2, 3], vec![]],
    }
}
