//! The operator: keeps broker clusters and their topology as declared.

fn main() {}
