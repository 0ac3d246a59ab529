//! First in, first out.

use std::collections::VecDeque;

use crate::{player::Player, trace::Request};

/// Evicts what was stored first, hits or not.
pub struct Fifo {
    capacity: u64,
    weight: u64,
    queue: VecDeque<(u32, u32)>,
    resident: Vec<bool>,
}

impl Fifo {
    pub fn new(capacity: u64, distinct: usize) -> Fifo {
        Fifo { capacity, weight: 0, queue: VecDeque::new(), resident: vec![false; distinct] }
    }
}

impl Player for Fifo {
    fn request(&mut self, request: Request) -> bool {
        let weight = u64::from(request.weight);
        if self.resident[request.number as usize] || weight > self.capacity {
            return self.resident[request.number as usize];
        }
        while self.weight + weight > self.capacity {
            let (number, weight) = self.queue.pop_front().expect("what is counted is queued");
            self.resident[number as usize] = false;
            self.weight -= u64::from(weight);
        }
        self.queue.push_back((request.number, request.weight));
        self.resident[request.number as usize] = true;
        self.weight += weight;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::hits;
    use super::*;

    /// 1 2 3 | 1 hits | 4 puts 1 out | 1 misses and puts 2 out | 3 hits | 2 misses.
    #[test]
    fn a_hit_does_not_save_the_first() {
        assert_eq!(hits(Fifo::new(3, 4), &[1, 2, 3, 1, 4, 1, 3, 2]), 2);
    }
}
