//! Fuzz targets: functions that take any bytes and fail, by a panic, when Millrace does not keep
//! what it promises about them. The same functions run under libFuzzer (`cargo xtask fuzz`), and in
//! `cargo test` over the committed corpora and a fixed number of mutations of them.
//!
//! Formats with checksums are fed through `millrace_storage::fuzz`, which puts the right checksum
//! on any content: what is behind a checksum must not be trusted either, it only proves that the
//! bytes are as they were written.

pub mod allocation;
pub mod corpus;
pub mod input;
pub mod mutate;
mod target;
mod targets;

pub use target::{TARGETS, Target, target};
