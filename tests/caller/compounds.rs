//! Keys and values that are made of others.

use embercache::{Cache, Error, MIB, OnMismatch};

type Page = (u64, String, char);

#[test]
fn compounds_are_found_in_ram_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let builder = Cache::<Page, Option<(String, f64)>>::builder(dir.path().join("cache"));
        builder.ram(MIB).disk(4 * MIB).open().unwrap()
    };
    let page = |number: u64| (number % 7, format!("page {number}"), 'x');
    let value =
        |number: u64| (!number.is_multiple_of(3)).then(|| (format!("value {number}"), number as f64 / 2.0));
    let cache = open();
    for number in 0..1_000 {
        cache.insert(page(number), value(number)).unwrap();
        assert_eq!(cache.get(&page(number)), Some(value(number)));
    }
    cache.close().unwrap();
    let cache = open();
    for number in 0..1_000 {
        assert_eq!(cache.get(&page(number)), Some(value(number)), "{number}");
    }
    assert_eq!(cache.get(&(7, "page 0".to_owned(), 'x')), None);
    assert_eq!(cache.stats().disk_hits, 1_000);
    cache.check();
}

/// Parts in another order are another codec, though each part has the same.
#[test]
fn other_compounds_are_a_mismatch() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("cache");
    Cache::<(u64, String), u64>::builder(&dir).open().unwrap().close().unwrap();
    let swapped = Cache::<(String, u64), u64>::builder(&dir).on_mismatch(OnMismatch::Refuse).open();
    assert!(matches!(swapped, Err(Error::Mismatch { what: "key codec", .. })), "{swapped:?}");
    let optional = Cache::<(u64, String), Option<u64>>::builder(&dir).on_mismatch(OnMismatch::Refuse).open();
    assert!(matches!(optional, Err(Error::Mismatch { what: "value codec", .. })), "{optional:?}");
    assert!(Cache::<(u64, String), u64>::builder(&dir).on_mismatch(OnMismatch::Refuse).open().is_ok());
}
