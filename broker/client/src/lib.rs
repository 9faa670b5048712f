//! The Rust client: publisher, consumer, reader, admin, control.
