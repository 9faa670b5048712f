//! Publishers, consumers and subscriptions against a server that a test plays by hand.

mod consuming;
mod fake;
mod publishing;
mod subscribing;
