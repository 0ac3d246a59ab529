//! What callers may do, from their side: what they are answered, and what their keys, values and code may be like.

#[path = "../common/mod.rs"]
mod common;

mod collisions;
mod compounds;
mod contains_key;
mod get_many;
mod limits;
mod reentrance;
mod single_flight;
