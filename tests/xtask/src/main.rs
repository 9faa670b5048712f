//! Every command of the house.

fn main() {}
