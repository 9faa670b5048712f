//! The pure middle of the operator, without an API server: what is built, planned and reported.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may panic as tests may"
)]

mod built_objects;
mod chart_rights;
mod foundings;
mod plans;
mod reason_list;
mod rolls;
mod shrinks;
mod sizes;
mod statuses;
mod support;
mod validation;
