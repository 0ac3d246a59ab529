//! The codecs of what is made of others: tuples and `Option`.

use super::{Codec, CodecError, CodecId};

/// What stands in front of every part of a tuple but the last: how many bytes it has.
const LEN_BYTES: usize = size_of::<u32>();

/// A tuple is its parts, each but the last behind its length: whatever the parts' bytes are, no two tuples
/// have the same.
macro_rules! tuple {
    ($(($($part:ident $at:tt),+; $last:ident $last_at:tt))*) => {$(
        impl<$($part: Codec,)+ $last: Codec> Codec for ($($part,)+ $last) {
            const ID: CodecId = CodecId::compound(CodecId::TUPLE, &[$($part::ID,)+ $last::ID]);

            fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
                $(put_part(&self.$at, out)?;)+
                self.$last_at.encode(out)
            }

            fn decode(bytes: Vec<u8>) -> Result<Self, CodecError> {
                let mut rest = bytes.as_slice();
                Ok(($($part::decode(take_part(&mut rest)?)?,)+ $last::decode(rest.to_vec())?))
            }

            fn heap_bytes(&self) -> usize {
                self.$last_at.heap_bytes()$(.saturating_add(self.$at.heap_bytes()))+
            }
        }
    )*};
}

tuple! {
    (A 0; B 1)
    (A 0, B 1; C 2)
    (A 0, B 1, C 2; D 3)
}

fn put_part<T: Codec>(part: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len() + LEN_BYTES;
    out.resize(start, 0);
    part.encode(out)?;
    let len = u32::try_from(out.len() - start).map_err(CodecError::new)?;
    out[start - LEN_BYTES..start].copy_from_slice(&len.to_le_bytes());
    Ok(())
}

/// Takes the length and the bytes of a part off `rest`. A length beyond that is refused before anything is
/// allocated for it.
fn take_part(rest: &mut &[u8]) -> Result<Vec<u8>, CodecError> {
    let too_short = || CodecError::new("a tuple's part is cut short");
    let (len, behind) = rest.split_first_chunk().ok_or_else(too_short)?;
    let (part, behind) = behind.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(too_short)?;
    *rest = behind;
    Ok(part.to_vec())
}

/// What stands behind the bytes of a `Some`.
const SOME: u8 = 1;

/// To remember what is not there, too: `Cache<u64, Option<Product>>`. `None` has no bytes; `Some` has one more
/// than its value, the last, so that decoding moves nothing.
impl<T: Codec> Codec for Option<T> {
    const ID: CodecId = CodecId::compound(CodecId::OPTION, &[T::ID]);

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), CodecError> {
        if let Some(value) = self {
            value.encode(out)?;
            out.push(SOME);
        }
        Ok(())
    }

    fn decode(mut bytes: Vec<u8>) -> Result<Self, CodecError> {
        match bytes.pop() {
            None => Ok(None),
            Some(SOME) => T::decode(bytes).map(Some),
            Some(other) => Err(CodecError::new(format!("an option's last byte is {other}"))),
        }
    }

    fn heap_bytes(&self) -> usize {
        self.as_ref().map_or(0, T::heap_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fmt::Debug, sync::Arc};

    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::codec::KeyBytes;

    fn encode<T: Codec>(value: &T) -> Vec<u8> {
        let mut out = vec![0xee];
        value.encode(&mut out).unwrap();
        out.split_off(1)
    }

    fn round_trip<T: Codec + PartialEq + Debug>(value: &T) {
        let bytes = encode(value);
        assert!(value.with_bytes(|lent| lent == bytes).unwrap(), "it lends other bytes");
        assert_eq!(&T::decode(bytes).unwrap(), value);
    }

    /// Equal if and only if their bytes are.
    fn have_bytes_of_their_own<T: Codec + PartialEq + Debug>(one: &T, other: &T) {
        assert_eq!(encode(one) == encode(other), one == other, "{one:?}, {other:?}");
    }

    /// Refused, or what encodes to just these bytes.
    fn is_refused_or_canonical<T: Codec + Debug>(bytes: &[u8]) {
        if let Ok(value) = T::decode(bytes.to_vec()) {
            assert_eq!(encode(&value), bytes, "{value:?} has two encodings");
        }
    }

    type Pair = (String, Vec<u8>);
    type Triple = (Option<String>, u16, String);
    type Nested = (Pair, Option<Option<bool>>, char, Option<Pair>);

    /// Short, and of few letters, a length's bytes and an option's mark among them: what could be confused
    /// with something else is not rare.
    fn text() -> impl Strategy<Value = String> {
        vec(prop_oneof![Just('a'), Just('\0'), Just('\u{1}'), Just('\u{2}')], 0..4)
            .prop_map(String::from_iter)
    }

    fn pair() -> impl Strategy<Value = Pair> {
        (text(), text().prop_map(String::into_bytes))
    }

    fn triple() -> impl Strategy<Value = Triple> {
        (option::of(text()), 0_u16..3, text())
    }

    fn nested() -> impl Strategy<Value = Nested> {
        (pair(), option::of(option::of(any::<bool>())), any::<char>(), option::of(pair()))
    }

    proptest! {
        #[test]
        fn compounds_come_back(pair in pair(), triple in triple(), nested in nested()) {
            round_trip(&pair);
            round_trip(&triple);
            round_trip(&nested);
        }

        #[test]
        fn no_two_have_the_same_bytes(pairs in (pair(), pair()), triples in (triple(), triple())) {
            have_bytes_of_their_own(&pairs.0, &pairs.1);
            have_bytes_of_their_own(&triples.0, &triples.1);
            have_bytes_of_their_own(&(pairs.0, triples.0), &(pairs.1, triples.1));
        }

        #[test]
        fn hostile_bytes_are_refused_or_canonical(
            bytes in vec(prop_oneof![3 => 0_u8..5, 1 => any::<u8>()], 0..40),
            (nested, at, byte, keep) in (nested(), any::<usize>(), any::<u8>(), any::<usize>()),
        ) {
            let mut damaged = encode(&nested);
            let at = at % damaged.len();
            damaged[at] = byte;
            let cut = &damaged[..keep % damaged.len()];
            for bytes in [&bytes, &damaged, cut] {
                is_refused_or_canonical::<Pair>(bytes);
                is_refused_or_canonical::<Triple>(bytes);
                is_refused_or_canonical::<Nested>(bytes);
            }
        }
    }

    #[test]
    fn compounds_are_written_as_told() {
        assert_eq!(encode(&(7_u16, "ab".to_owned())), [2, 0, 0, 0, 7, 0, b'a', b'b']);
        assert_eq!(encode(&((), true, 'a')), [0, 0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0]);
        assert_eq!(encode(&None::<u8>), []);
        assert_eq!(encode(&Some(9_u8)), [9, 1]);
        assert_eq!(encode(&Some(None::<u8>)), [1]);
    }

    #[test]
    fn a_length_bomb_is_refused() {
        for len in [1, 1 << 20, u32::MAX] {
            assert!(Pair::decode(len.to_le_bytes().to_vec()).is_err());
        }
    }

    #[test]
    fn a_part_that_has_no_bytes_makes_none_of_the_whole() {
        #[derive(Debug)]
        struct Never;
        impl Codec for Never {
            const ID: CodecId = CodecId(70_000);
            fn encode(&self, _out: &mut Vec<u8>) -> Result<(), CodecError> {
                Err(CodecError::new("never"))
            }
            fn decode(_: Vec<u8>) -> Result<Self, CodecError> {
                Err(CodecError::new("never"))
            }
        }
        assert!((Never, 1).with_bytes(drop_bytes).is_err() && (1, Never).with_bytes(drop_bytes).is_err());
        assert!(Some(Never).with_bytes(drop_bytes).is_err());
    }

    fn drop_bytes(_: &[u8]) {}

    #[test]
    fn a_shared_key_has_the_tuples_bytes() {
        let key = (7_u64, "en".to_owned());
        let bytes_of = |key: &Arc<(u64, String)>| key.with_key_bytes(<[u8]>::to_vec).unwrap();
        assert_eq!(bytes_of(&Arc::new(key.clone())), key.with_key_bytes(<[u8]>::to_vec).unwrap());
    }

    /// Not of all that there can be: the name has 31 bits. But of all pairs and triples of what has a codec.
    #[test]
    fn codecs_have_names_of_their_own() {
        let plain = [1, 2, 3, 4, 5, 6, 7].into_iter();
        let numbers = [0x101, 0x102, 0x104, 0x108, 0x110].into_iter();
        let signed = numbers.clone().map(|id| id + 0x100);
        let simple: Vec<u32> = plain.chain(numbers).chain(signed).chain([0x304, 0x308]).collect();
        let mut names = HashSet::new();
        let mut add = |name: u32| assert!(names.insert(name), "{name:#x} twice");
        let tuple = |parts: &[u32]| {
            let parts: Vec<CodecId> = parts.iter().copied().map(CodecId).collect();
            CodecId::compound(CodecId::TUPLE, &parts).0
        };
        for &a in &simple {
            add(a);
            let option = CodecId::compound(CodecId::OPTION, &[CodecId(a)]).0;
            add(option);
            add(CodecId::compound(CodecId::OPTION, &[CodecId(option)]).0);
            for &b in &simple {
                add(tuple(&[a, b]));
                add(tuple(&[option, b]));
                add(tuple(&[b, option]));
                simple.iter().for_each(|&c| add(tuple(&[a, b, c])));
            }
        }
        assert_eq!(names.iter().filter(|&&name| name < 1 << 31).count(), simple.len());
    }

    /// They stand in directories: another number, and nothing in these is read any more.
    #[test]
    fn names_do_not_change() {
        assert_eq!(bool::ID, CodecId(6));
        assert_eq!(char::ID, CodecId(7));
        assert_eq!((f32::ID, f64::ID), (CodecId(0x304), CodecId(0x308)));
        assert_eq!(<(u64, String)>::ID, CodecId(0xba84_db07));
        assert_eq!(Option::<String>::ID, CodecId(0xd41c_8f22));
    }
}
