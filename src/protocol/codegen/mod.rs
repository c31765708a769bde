//! The generator behind `build.rs`: `parse` reads the tables, `size` computes minimal wire sizes,
//! `emit` writes Rust.

pub mod emit;
mod field;
pub mod parse;
pub mod size;
