//! A part of the recipe: cells, and their means.

use crate::{contestant::Contestant, player::Outcome};

/// Cells that are played by the same caches. Where FIFO plays, it is the first.
pub struct Section {
    pub name: &'static str,
    pub caches: Vec<Contestant>,
    pub cells: Vec<Cell>,
}

/// One trace at one size.
pub struct Cell {
    pub trace: String,
    pub size: u64,
    /// In order of the section's caches.
    pub outcomes: Vec<Outcome>,
}

impl Section {
    pub fn new(name: &'static str, caches: Vec<Contestant>) -> Section {
        Section { name, caches, cells: Vec::new() }
    }

    /// A cache's mean over all cells; not a number if it or they are missing.
    pub fn mean(&self, cache: Contestant, of: impl Fn(&Outcome) -> f64) -> f64 {
        mean(self.outcomes(cache).map(|(_, outcome)| of(outcome)))
    }

    /// By how much a cache cuts what FIFO misses, in the mean over all cells.
    pub fn cut(&self, cache: Contestant, missed: impl Fn(&Outcome) -> u64) -> f64 {
        mean(self.cuts(cache, missed).map(|(_, cut)| cut))
    }

    /// The cell in which a cache does worst against FIFO.
    pub fn worst(&self, cache: Contestant) -> Option<(&Cell, f64)> {
        self.cuts(cache, |outcome| outcome.misses).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    pub fn outcomes(&self, cache: Contestant) -> impl Iterator<Item = (&Cell, &Outcome)> {
        let index = self.caches.iter().position(|&other| other == cache);
        self.cells.iter().filter_map(move |cell| Some((cell, &cell.outcomes[index?])))
    }

    fn cuts(
        &self,
        cache: Contestant,
        missed: impl Fn(&Outcome) -> u64,
    ) -> impl Iterator<Item = (&Cell, f64)> {
        self.outcomes(cache)
            .map(move |(cell, outcome)| (cell, cut(missed(&cell.outcomes[0]), missed(outcome))))
    }

    pub fn print(&self) {
        println!("\nBy {}: {} cells", self.name, self.cells.len());
        match self.caches.first() {
            Some(Contestant::Fifo) => self.print_cuts(),
            _ => self.print_tiers(),
        }
    }

    fn print_cuts(&self) {
        println!("{:18} {:>7} {:>8} {:>7} {:>7}  worst cell", "", "cut", "byte cut", "miss", "worst");
        for &cache in &self.caches {
            let (cut, byte_cut) = (self.cut(cache, |of| of.misses), self.cut(cache, |of| of.missed_weight));
            let miss_ratio = self.mean(cache, Outcome::miss_ratio);
            let Some((cell, worst)) = self.worst(cache) else { return };
            let (name, at) = (cache.name(), format!("{} at {}", cell.trace, cell.size));
            println!("{name:18} {cut:7.4} {byte_cut:8.4} {miss_ratio:7.4} {worst:7.4}  {at}");
        }
    }

    fn print_tiers(&self) {
        println!(
            "{:18} {:>7} {:>7} {:>7} {:>8} {:>9}",
            "", "hit", "in RAM", "writes", "rewrites", "log fill"
        );
        for &cache in &self.caches {
            let mean = |of: fn(&Outcome) -> Option<f64>| self.mean(cache, |it| of(it).unwrap_or(f64::NAN));
            println!(
                "{:18} {:7.4} {:7.4} {:7.4} {:8.4} {:9.4}",
                cache.name(),
                self.mean(cache, Outcome::hit_ratio),
                mean(Outcome::ram_hit_ratio),
                mean(Outcome::writes_a_request),
                mean(Outcome::rewrites_a_request),
                mean(|outcome| outcome.details.disk.map(|disk| disk.fill)),
            );
        }
    }
}

/// By how much `misses` cuts those of `base`; negative where it is worse.
fn cut(base: u64, misses: u64) -> f64 {
    if base == misses { 0.0 } else { (base as f64 - misses as f64) / base.max(misses) as f64 }
}

fn mean(of: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    of.for_each(|number| (sum, count) = (sum + number, count + 1.0));
    sum / count
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::player::Details;

    pub(in super::super) fn outcome(misses: u64) -> Outcome {
        Outcome { requests: 100, misses, missed_weight: 10 * misses, details: Details::default() }
    }

    /// FIFO misses 80 and then 50, the other 40 and then 100.
    fn section() -> Section {
        let caches = vec![Contestant::Fifo, Contestant::Lru];
        let cell = |fifo, lru| Cell {
            trace: format!("t{fifo}"),
            size: 1,
            outcomes: vec![outcome(fifo), outcome(lru)],
        };
        Section { name: "test", caches, cells: vec![cell(80, 40), cell(50, 100)] }
    }

    #[test]
    fn a_cut_is_of_the_larger() {
        assert_eq!((cut(100, 75), cut(75, 100), cut(5, 5)), (0.25, -0.25, 0.0));
        assert_eq!(cut(0, 0), 0.0);
    }

    #[test]
    fn every_cell_counts_as_much() {
        let section = section();
        assert_eq!(section.cut(Contestant::Lru, |of| of.misses), 0.0);
        assert_eq!(section.mean(Contestant::Lru, Outcome::miss_ratio), 0.7);
        assert_eq!(section.mean(Contestant::Fifo, Outcome::miss_ratio), 0.65);
        let (cell, cut) = section.worst(Contestant::Lru).unwrap();
        assert_eq!((cell.trace.as_str(), cut), ("t50", -0.5));
        assert!(section.mean(Contestant::Moka, Outcome::miss_ratio).is_nan(), "it did not play");
    }
}
