//! What the shop shows. `Page`, `Listing` and `Hits` are the cached values, `Shelf` is a key.

use serde::{Deserialize, Serialize};

/// A product's page, ready to be rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Page {
    pub product: u64,
    /// The version of the product that the page was built from.
    pub version: u64,
    pub name: String,
    pub brand: String,
    pub country: String,
    pub department: String,
    pub sport: String,
    pub description: String,
    pub image: String,
    pub sizes: Vec<Size>,
    pub rating: Rating,
    pub reviews: Vec<Review>,
    pub related: Vec<Teaser>,
}

/// A size that a product comes in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    pub size: u16,
    pub price_cents: u64,
    pub stock: u32,
}

/// How many customers gave one to five stars.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rating {
    pub stars: [u32; 5],
}

/// What a customer wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Review {
    pub customer: String,
    pub country: String,
    pub stars: u8,
    pub posted_day: u32,
    pub title: String,
    pub body: String,
}

/// A link to another product. It shows no price: a page that showed other products' prices would have
/// to be invalidated with each of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Teaser {
    pub product: u64,
    pub name: String,
    pub image: String,
}

/// Names a page of a category's listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shelf {
    pub category: u16,
    pub page: u16,
}

/// A page of a category's listing, with prices: a change of any of its products invalidates it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    pub shelf: Shelf,
    /// The version of the shelf that the listing was built from.
    pub version: u64,
    pub cards: Vec<Card>,
}

/// A product in a listing or among search results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    pub product: u64,
    pub name: String,
    pub brand: String,
    pub price_cents: u64,
    pub stock: u32,
    pub reviews: u32,
    pub stars: f32,
}

/// The products that a search found, newest first. Ids alone: names do not change, and what does change
/// is read when the results are shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hits {
    pub products: Vec<u64>,
}

embercache::bincode_codec!(Page, Shelf, Listing, Hits);
