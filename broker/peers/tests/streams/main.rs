//! Nodes on loopback that speak to each other, and some that misbehave.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test, also in its helpers"
)]

mod delivery;
mod handshake;
mod hostile;
mod lifecycle;
mod link;
mod questions;
mod slow;
mod support;
