//! Least recently used.

use std::collections::BTreeMap;

use crate::{player::Player, trace::Request};

/// Evicts what was asked for the longest ago.
pub struct Lru {
    capacity: u64,
    weight: u64,
    now: u64,
    /// Number and weight, by the time of the last use.
    by_use: BTreeMap<u64, (u32, u32)>,
    /// The time of the last use, by number; `None` where it is not resident.
    last_use: Vec<Option<u64>>,
}

impl Lru {
    pub fn new(capacity: u64, distinct: usize) -> Lru {
        Lru { capacity, weight: 0, now: 0, by_use: BTreeMap::new(), last_use: vec![None; distinct] }
    }
}

impl Player for Lru {
    fn request(&mut self, request: Request) -> bool {
        let weight = u64::from(request.weight);
        self.now += 1;
        if let Some(last_use) = &mut self.last_use[request.number as usize] {
            let entry = self.by_use.remove(last_use).expect("a resident has a last use");
            self.by_use.insert(self.now, entry);
            *last_use = self.now;
            return true;
        }
        if weight > self.capacity {
            return false;
        }
        while self.weight + weight > self.capacity {
            let (_, (number, weight)) = self.by_use.pop_first().expect("what is counted is listed");
            self.last_use[number as usize] = None;
            self.weight -= u64::from(weight);
        }
        self.by_use.insert(self.now, (request.number, request.weight));
        self.last_use[request.number as usize] = Some(self.now);
        self.weight += weight;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::hits;
    use super::*;

    /// 1 2 3 | 1 hits | 4 puts 2 out | 1 hits | 3 hits | 2 misses and puts 4 out | 4 misses.
    #[test]
    fn a_hit_saves_the_first() {
        assert_eq!(hits(Lru::new(3, 4), &[1, 2, 3, 1, 4, 1, 3, 2, 4]), 3);
    }

    #[test]
    fn a_loop_larger_than_the_cache_never_hits() {
        assert_eq!(hits(Lru::new(3, 4), &[1, 2, 3, 4, 1, 2, 3, 4]), 0);
    }
}
