//! What the customers ask for: a stream of requests that follows from its seed alone, so that every run
//! is asked the same.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use rand_distr::{Distribution, Zipf};

use crate::{catalog, page::Shelf, wording};

const ZIPF_EXPONENT: f64 = 0.99;
const POPULARITY_SEED: u64 = 7;

/// A customer's next click, or the merchant's.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Shows a product.
    Product(u64),
    /// Shows a page of a category.
    Listing(Shelf),
    /// Searches by words.
    Search(String),
    /// Looks up price and stock for the cart, which must be exact.
    Cart { product: u64, size: u16 },
    /// Buys, which changes the stock.
    Checkout { product: u64, size: u16 },
    /// Changes a price.
    Reprice { product: u64, cents: u64 },
}

/// Which products are popular.
pub struct Popularity {
    best_first: Vec<u64>,
}

impl Popularity {
    /// Shuffles the ids, so that popular products are neighbours nowhere.
    pub fn new(products: u64) -> Popularity {
        let mut best_first: Vec<u64> = (1..=products).collect();
        best_first.shuffle(&mut StdRng::seed_from_u64(POPULARITY_SEED));
        Popularity { best_first }
    }

    /// All products, the most popular first.
    pub fn best_first(&self) -> impl Iterator<Item = u64> {
        self.best_first.iter().copied()
    }
}

/// One client's endless stream of requests.
pub struct Traffic<'a> {
    popularity: &'a Popularity,
    products: Zipf<f64>,
    categories: Zipf<f64>,
    shelves: Zipf<f64>,
    dice: StdRng,
}

impl<'a> Traffic<'a> {
    pub fn new(popularity: &'a Popularity, seed: u64) -> Traffic<'a> {
        let zipf = |count: u64, exponent| Zipf::new(count as f64, exponent).expect("there is at least one");
        let products = popularity.best_first.len() as u64;
        Traffic {
            popularity,
            products: zipf(products, ZIPF_EXPONENT),
            categories: zipf(catalog::CATEGORIES, ZIPF_EXPONENT),
            // Few leaf through a listing beyond its first pages.
            shelves: zipf(catalog::shelves_per_category(products), 1.5),
            dice: StdRng::seed_from_u64(seed),
        }
    }

    fn product(&mut self) -> u64 {
        self.popularity.best_first[self.products.sample(&mut self.dice) as usize - 1]
    }

    fn size(&mut self) -> u16 {
        self.dice.random_range(catalog::SIZES)
    }

    fn shelf(&mut self) -> Shelf {
        let category = self.categories.sample(&mut self.dice) as u16 - 1;
        Shelf { category, page: self.shelves.sample(&mut self.dice) as u16 - 1 }
    }
}

impl Iterator for Traffic<'_> {
    type Item = Request;

    /// 80 % product pages, 8 % listings, 4 % searches, 6 % carts, 1.5 % checkouts, 0.5 % new prices.
    fn next(&mut self) -> Option<Request> {
        let permille = self.dice.random_range(0..1_000);
        Some(match permille {
            0..800 => Request::Product(self.product()),
            800..880 => Request::Listing(self.shelf()),
            880..920 => Request::Search(wording::search_phrase(self.product())),
            920..980 => Request::Cart { product: self.product(), size: self.size() },
            980..995 => Request::Checkout { product: self.product(), size: self.size() },
            _ => Request::Reprice { product: self.product(), cents: self.dice.random_range(3_900..19_900) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_follows_from_its_seed() {
        let popularity = Popularity::new(2_000);
        let stream = |seed| Traffic::new(&popularity, seed).take(500).collect::<Vec<_>>();
        assert_eq!(stream(1), stream(1));
        assert_ne!(stream(1), stream(2));
    }

    #[test]
    fn popular_products_are_asked_for_most_and_every_kind_of_request_comes() {
        let popularity = Popularity::new(2_000);
        let best = popularity.best_first().next().unwrap();
        let requests: Vec<Request> = Traffic::new(&popularity, 1).take(20_000).collect();
        let share = |kind: fn(&Request) -> bool| requests.iter().filter(|r| kind(r)).count();
        assert!((15_500..16_500).contains(&share(|r| matches!(r, Request::Product(_)))));
        assert!((1_400..1_800).contains(&share(|r| matches!(r, Request::Listing(_)))));
        assert!((650..950).contains(&share(|r| matches!(r, Request::Search(_)))));
        assert!((1_050..1_350).contains(&share(|r| matches!(r, Request::Cart { .. }))));
        assert!((220..380).contains(&share(|r| matches!(r, Request::Checkout { .. }))));
        assert!((50..160).contains(&share(|r| matches!(r, Request::Reprice { .. }))));
        let of_best = requests.iter().filter(|r| **r == Request::Product(best)).count();
        assert!(of_best > 1_000, "the most popular product was asked for {of_best} times of 16,000");
    }
}
