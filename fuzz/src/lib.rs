//! What the fuzz targets share.

pub mod allocation;
pub mod model;
#[path = "../../tests/common/ops.rs"]
mod ops;
pub mod seal;
