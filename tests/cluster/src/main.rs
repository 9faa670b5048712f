//! Real processes under kill -9, with a ledger of what was acknowledged.

fn main() {}
