//! A whole node on loopback, spoken to with the generated clients: what each call does, what it
//! refuses, and that neither clients nor garbage nor a restart takes anything away.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test, also in its helpers"
)]

mod admin;
mod consume;
mod control;
mod elsewhere;
mod errors;
mod garbage;
mod lifecycle;
mod publish;
mod publish_stream;
mod receive;
mod stream;
mod support;
mod waiting;
