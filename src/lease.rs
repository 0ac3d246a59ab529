//! Leases (stub).
use crate::{
    codec::{Key, Value},
    error::Error,
};
use std::time::Duration;
/// The right to store what is being loaded, as long as nothing invalidates it.
pub struct Lease<K: Key, V: Value> {
    stub: std::marker::PhantomData<(K, V)>,
}
#[allow(unused_variables)]
impl<K: Key, V: Value> Lease<K, V> {
    /// Stores the loaded value; `false` if the key was invalidated since the lease was taken.
    pub fn fill(self, value: V) -> Result<bool, Error> {
        todo!()
    }
    /// As `fill`, for as long as `ttl`.
    pub fn fill_with_ttl(self, value: V, ttl: Duration) -> Result<bool, Error> {
        todo!()
    }
}
