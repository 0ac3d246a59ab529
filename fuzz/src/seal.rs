//! Makes mutated files valid again: no fuzzer finds an XXH3, and behind the checks is where the
//! decoders have to prove themselves. Written from docs/format.md alone, so that it also checks that.

use xxhash_rust::xxh3::xxh3_64_with_seed as check;

/// Which checks to mend, a bit each; so inputs differ in how deep they reach.
#[derive(Clone, Copy)]
pub struct Mend(pub u8);

impl Mend {
    fn header(self) -> bool {
        self.0 & 1 != 0
    }

    fn bodies(self) -> bool {
        self.0 & 2 != 0
    }

    fn lists(self) -> bool {
        self.0 & 4 != 0
    }
}

/// The checks of a segment's header, of the records as far as their lengths lead, and of the footer.
pub fn segment(bytes: &mut [u8], mend: Mend) {
    if bytes.len() < 64 {
        return;
    }
    if mend.header() {
        magic(bytes, b"EMBSEGMT");
        end_with_check(&mut bytes[..64], 0);
    }
    let salt = u64_at(bytes, 24);
    let trailer_at = bytes.len() - 64;
    let has_trailer = trailer_at >= 64 && &bytes[trailer_at..trailer_at + 8] == b"EMBFOOTR";
    let data_end =
        if has_trailer { (u32_at(bytes, trailer_at + 8) as usize).min(trailer_at) } else { bytes.len() };
    if mend.bodies() {
        let mut at = 64;
        while let Some(len) = bytes.get_mut(at..data_end).and_then(|rest| record(rest, salt ^ at as u64)) {
            at += len;
        }
    }
    if mend.lists() && has_trailer {
        let entries_bytes = (trailer_at - data_end) as u32;
        bytes[trailer_at + 12..trailer_at + 16].copy_from_slice(&entries_bytes.to_le_bytes());
        let entries = check(&bytes[data_end..trailer_at], salt);
        put_u64(bytes, trailer_at + 32, entries);
        end_with_check(&mut bytes[trailer_at..], salt);
    }
}

/// Mends the record at the front and returns its extent, if it lies within the bytes. If it does not,
/// its header is mended all the same: whoever believes it reads too far.
fn record(bytes: &mut [u8], place: u64) -> Option<usize> {
    let head = bytes.first_chunk::<32>()?;
    if *head == [0; 32] {
        return None;
    }
    let value_len = u32_at(head, 16) as usize;
    let key_end = 32 + usize::from(u16::from_le_bytes([head[24], head[25]]));
    let value_end = key_end + value_len;
    let extent = value_end.next_multiple_of(8);
    let fits = extent <= bytes.len();
    if fits {
        let payload = check(&bytes[key_end..value_end], check(&bytes[32..key_end], place));
        put_u64(bytes, 0, payload);
    }
    let header = check(&bytes[..28], place) as u32;
    bytes[28..32].copy_from_slice(&header.to_le_bytes());
    fits.then_some(extent)
}

/// The checks of a journal's header and of its entries up to the first that is zero.
pub fn journal(bytes: &mut [u8], mend: Mend) {
    if bytes.len() < 64 {
        return;
    }
    if mend.header() {
        magic(bytes, b"EMBJOURN");
        end_with_check(&mut bytes[..64], 0);
    }
    let salt = u64_at(bytes, 24);
    if mend.bodies() {
        for (entry, at) in bytes[64..].chunks_exact_mut(32).zip((64_u64..).step_by(32)) {
            if entry.iter().all(|&byte| byte == 0) {
                break;
            }
            end_with_check(entry, salt ^ at);
        }
    }
}

/// The checks of a snapshot's blocks, of the list of them, and of its header, which covers the list's.
pub fn snapshot(bytes: &mut [u8], mend: Mend) {
    if bytes.len() < 64 {
        return;
    }
    let id = u64_at(bytes, 24);
    let blocks = (u32_at(bytes, 40) as usize).min((bytes.len() - 64) / 24);
    let list = bytes.len() - 24 * blocks;
    if mend.bodies() {
        let mut start = 64;
        for index in 0..blocks {
            let entry = list + 24 * index;
            let end = start + u32_at(bytes, entry + 16) as usize * 15;
            if let Some(block) = bytes[..list].get(start..end) {
                let sum = check(block, id ^ index as u64);
                put_u64(bytes, entry + 8, sum);
            }
            start = end;
        }
    }
    if mend.lists() {
        bytes[40..44].copy_from_slice(&(blocks as u32).to_le_bytes());
        let sum = check(&bytes[list..], id);
        put_u64(bytes, 32, sum);
    }
    if mend.header() {
        magic(bytes, b"EMBINDEX");
        end_with_check(&mut bytes[..64], 0);
    }
}

/// The checks of STATE's slots.
pub fn state(bytes: &mut [u8], mend: Mend) {
    for (slot, wanted) in bytes.chunks_exact_mut(512).zip([mend.header(), mend.bodies()]) {
        if wanted {
            magic(slot, b"EMBSTATE");
            end_with_check(slot, 0);
        }
    }
}

fn magic(bytes: &mut [u8], magic: &[u8; 8]) {
    bytes[..8].copy_from_slice(magic);
}

fn end_with_check(bytes: &mut [u8], seed: u64) {
    let end = bytes.len() - 8;
    let sum = check(&bytes[..end], seed);
    put_u64(bytes, end, sum);
}

fn put_u64(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
