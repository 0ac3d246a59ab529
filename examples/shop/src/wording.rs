//! The words of the shop: every product's name, description and reviews follow from numbers, so that
//! the builder of the database and the customers who search it agree without asking each other.

use std::fmt::Write;

pub const BRANDS: [&str; 24] = [
    "Velora",
    "Kestrin",
    "Northpace",
    "Ardent",
    "Tempora",
    "Solvik",
    "Fennec",
    "Quillon",
    "Harrow",
    "Mistral",
    "Oakline",
    "Peregrin",
    "Rivet",
    "Stridewell",
    "Taiga",
    "Umbra",
    "Vantor",
    "Wexford",
    "Yarrow",
    "Zephyrine",
    "Corvane",
    "Lumen",
    "Brisk",
    "Juniper",
];
pub const COUNTRIES: [&str; 8] =
    ["Austria", "Brazil", "Canada", "Denmark", "Italy", "Japan", "Portugal", "Vietnam"];
pub const DEPARTMENTS: [&str; 4] = ["Women", "Men", "Kids", "Unisex"];
pub const SPORTS: [&str; 10] = [
    "Road running",
    "Trail running",
    "Track",
    "Football",
    "Basketball",
    "Tennis",
    "Hiking",
    "Training",
    "Climbing",
    "Walking",
];
const MODELS: [&str; 48] = [
    "Strider", "Volt", "Drift", "Canyon", "Pulse", "Falcon", "Comet", "Ridge", "Tempo", "Glide", "Summit",
    "Arrow", "Breeze", "Cinder", "Dune", "Echo", "Flint", "Grove", "Halo", "Ion", "Jolt", "Kite", "Lynx",
    "Meteor", "Nimbus", "Orbit", "Prism", "Quartz", "Rally", "Spark", "Torrent", "Ultra", "Vector", "Willow",
    "Apex", "Blaze", "Crest", "Dash", "Ember", "Fjord", "Gale", "Harbor", "Indigo", "Jet", "Karst", "Loop",
    "Mesa", "Nova",
];
const COLOURS: [&str; 20] = [
    "Crimson", "Cobalt", "Ivory", "Graphite", "Saffron", "Olive", "Coral", "Teal", "Plum", "Sand", "Mint",
    "Rust", "Navy", "Lilac", "Charcoal", "Amber", "Jade", "Rose", "Slate", "White",
];
const FEATURES: [&str; 16] = [
    "A springy midsole returns the energy of every step, even late in a long run.",
    "The knitted upper breathes well and dries in an hour after a wet morning.",
    "Four-millimetre lugs bite into mud and loose gravel and let go of both again.",
    "A rounded heel and a mild rocker roll the foot forward without a hard edge.",
    "The wide toe box leaves room to spread on descents and on hot afternoons.",
    "Reflective threads in the laces make you seen from two hundred metres.",
    "A rock plate under the forefoot takes the sting out of sharp stones.",
    "The tongue is gusseted on both sides, so that sand and needles stay out.",
    "Half of the upper is spun from recycled bottles, the lining all of it.",
    "The outsole is one piece of sticky rubber and can be resoled twice.",
    "A snug heel cup and a second row of eyelets hold narrow feet in place.",
    "At 240 grams in size 42 it is the lightest of its family.",
    "The removable sock liner makes room for an orthotic insert.",
    "Dense foam on the inner side steadies a foot that rolls inwards.",
    "Sealed seams and a membrane keep slush out on winter mornings.",
    "The laces are waxed and stay tied for the length of a marathon.",
];
const TITLES: [&str; 8] = [
    "Would buy again",
    "Good, with one flaw",
    "My third pair",
    "Runs half a size small",
    "Better than expected",
    "Not for wide feet",
    "Comfortable from day one",
    "Solid value",
];
const OPINIONS: [&str; 12] = [
    "After 300 kilometres the sole looks almost new. ",
    "The first week they rubbed at the heel, then no longer. ",
    "I wear them on wet cobbles and have not slipped once. ",
    "The colour is darker than in the picture, which I like. ",
    "Delivery took two days and the box was intact. ",
    "I ordered two sizes and kept the larger one. ",
    "For the price I expected a better insole. ",
    "My daughter refuses to wear anything else. ",
    "They survived a season of clay courts. ",
    "The laces are too long, everything else fits. ",
    "On hot days my feet stay cool. ",
    "They feel stiff at first and loosen up after a few walks. ",
];

/// A number that looks random and follows from `seed` alone (the finaliser of splitmix64).
pub fn scatter(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The index of the product's brand.
pub fn brand(product: u64) -> usize {
    scatter(product) as usize % BRANDS.len()
}

/// The product's name: brand, model, edition and colour.
pub fn name(product: u64) -> String {
    let edition = scatter(product) >> 40 & 7;
    format!("{} {} {} {}", BRANDS[brand(product)], model(product), edition + 1, colour(product))
}

/// What a customer types who looks for this product. Many products answer to it.
pub fn search_phrase(product: u64) -> String {
    format!("{} {}", model(product), colour(product))
}

/// Four sentences about the product.
pub fn description(product: u64) -> String {
    sentences(&FEATURES, scatter(product ^ 0xde5c), 4, " ")
}

/// A review's title.
pub fn review_title(bits: u64) -> &'static str {
    TITLES[bits as usize % TITLES.len()]
}

/// A review's text, of one to four sentences.
pub fn review_body(bits: u64) -> String {
    sentences(&OPINIONS, bits >> 8, 1 + (bits & 3), "")
}

fn model(product: u64) -> &'static str {
    MODELS[(scatter(product) >> 8) as usize % MODELS.len()]
}

fn colour(product: u64) -> &'static str {
    COLOURS[(scatter(product) >> 24) as usize % COLOURS.len()]
}

/// `count` neighbours of a list, starting where `bits` says.
fn sentences(list: &[&str], bits: u64, count: u64, separator: &str) -> String {
    let mut text = String::new();
    for at in 0..count {
        let sentence = list[(bits + at * 5) as usize % list.len()];
        write!(text, "{sentence}{separator}").expect("a string takes every write");
    }
    text
}
