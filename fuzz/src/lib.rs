//! What the fuzz targets share.

pub mod allocation;
#[path = "../../tests/common/model.rs"]
mod checked;
pub mod codecs;
pub mod model;
#[path = "../../tests/common/ops.rs"]
mod ops;
pub mod seal;
