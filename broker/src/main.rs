//! The broker binary: serve, and the command line.

fn main() {}
