//! The sources as text: their layers, and the interface that they make public.

mod layering;
mod public_api;
