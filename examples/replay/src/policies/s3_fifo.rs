//! S3-FIFO, after Yang et al., "FIFO queues are all you need for cache eviction", SOSP'23.

use std::collections::VecDeque;

use crate::{player::Player, trace::Request};

const COUNT_MAX: u8 = 3;

/// A small queue for newcomers (a tenth), a main queue with second chances, and a ghost of what the
/// small one let go, as large as the main one.
pub struct S3Fifo {
    capacity: u64,
    small_target: u64,
    small: Queue,
    main: Queue,
    ghost: Queue,
    places: Vec<Place>,
    counts: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Resident,
    Ghost,
}

/// Numbers and weights, the oldest in front.
#[derive(Default)]
struct Queue {
    entries: VecDeque<(u32, u32)>,
    weight: u64,
}

impl Queue {
    fn push(&mut self, entry: (u32, u32)) {
        self.weight += u64::from(entry.1);
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<(u32, u32)> {
        let entry = self.entries.pop_front()?;
        self.weight -= u64::from(entry.1);
        Some(entry)
    }
}

impl S3Fifo {
    pub fn new(capacity: u64, distinct: usize) -> S3Fifo {
        S3Fifo {
            capacity,
            small_target: (capacity / 10).max(1),
            small: Queue::default(),
            main: Queue::default(),
            ghost: Queue::default(),
            places: vec![Place::Nowhere; distinct],
            counts: vec![0; distinct],
        }
    }

    fn evict(&mut self) {
        if self.small.weight >= self.small_target || self.main.entries.is_empty() {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        while let Some((number, weight)) = self.small.pop() {
            if self.counts[number as usize] > 1 {
                self.counts[number as usize] = 0;
                self.main.push((number, weight));
                if self.main.weight > self.capacity - self.small_target {
                    return self.evict_main();
                }
            } else {
                return self.remember((number, weight));
            }
        }
    }

    fn evict_main(&mut self) {
        while let Some((number, weight)) = self.main.pop() {
            let count = &mut self.counts[number as usize];
            if *count == 0 {
                self.places[number as usize] = Place::Nowhere;
                return;
            }
            *count -= 1;
            self.main.push((number, weight));
        }
    }

    /// Moves an entry into the ghost. What came back meanwhile leaves a stale entry in its queue.
    fn remember(&mut self, entry: (u32, u32)) {
        self.places[entry.0 as usize] = Place::Ghost;
        self.ghost.push(entry);
        while self.ghost.weight > self.capacity - self.small_target {
            let Some((number, _)) = self.ghost.pop() else { return };
            let place = &mut self.places[number as usize];
            if *place == Place::Ghost {
                *place = Place::Nowhere;
            }
        }
    }
}

impl Player for S3Fifo {
    fn request(&mut self, request: Request) -> bool {
        let (index, entry) = (request.number as usize, (request.number, request.weight));
        if self.places[index] == Place::Resident {
            self.counts[index] = (self.counts[index] + 1).min(COUNT_MAX);
            return true;
        }
        if u64::from(request.weight) > self.capacity {
            return false;
        }
        while self.small.weight + self.main.weight + u64::from(request.weight) > self.capacity {
            self.evict();
        }
        if self.places[index] == Place::Ghost {
            self.main.push(entry);
        } else {
            self.small.push(entry);
        }
        self.places[index] = Place::Resident;
        self.counts[index] = 0;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::hits;
    use super::*;

    /// Ten entries, one of them small. 1 is hit twice, so that key 11 moves it to main and puts 2
    /// out into the ghost; 1 hits again, 2 misses and returns into main, and puts 3 out; 2 hits.
    #[test]
    fn two_hits_promote_and_the_ghost_remembers() {
        let keys = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 1, 11, 1, 2, 2, 3];
        assert_eq!(hits(S3Fifo::new(10, 11), &keys), 4);
    }

    /// 1 comes back through the ghost and stays for a scan twice as long as the cache.
    #[test]
    fn main_outlives_a_scan() {
        let keys: Vec<u64> = (1..=11).chain([1]).chain(20..40).chain([1, 40]).collect();
        assert_eq!(hits(S3Fifo::new(10, 32), &keys), 1);
    }
}
