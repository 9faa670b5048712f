//! Rules of the house that no compiler checks. Each rule is a function from the tree to what breaks
//! it; `tests/rules.rs` runs them over this very clone.

mod chance;
mod edges;
mod layout;
mod source;
mod tree;

pub use chance::chance_and_time;
pub use edges::{forbidden_edges, packages};
pub use layout::{foreign_entries, misplaced_modules, untested_examples};
pub use source::{
    banned_words, functions_too_long, lines_too_long, missing_headers, sources_too_long,
};
pub use tree::{File, Tree};
