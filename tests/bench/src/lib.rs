//! Measures the real binary, on a real disk, through the public client: one scenario for each
//! figure that is published. Each prints a table for people and one line of JSON, with what the
//! disk gives before and after, because a disk's mood decides most of these numbers.
//!
//! Measures only; what a figure should be stands beside it as its aim. A comparison with other
//! systems is to be a module beside `figures`, with `load` and `process` shared.

pub mod baseline;
pub mod broker;
pub mod cluster;
pub mod figures;
pub mod load;
pub mod options;
pub mod process;
pub mod report;
pub mod scrape;
