//! The operator: keeps broker clusters and their topology as declared.

mod backoff;
mod bells;
mod brokers;
pub mod cluster;
pub mod condition;
mod context;
mod controllers;
mod definitions;
mod events;
#[cfg(test)]
mod fakes;
mod hash;
mod http;
pub mod labels;
mod leader;
mod logs;
mod metrics;
pub mod names;
pub mod options;
pub mod reasons;
mod report;
mod resource;
pub mod rules;
mod run;
mod self_test;
pub mod topology;
mod watches;

pub use report::report;
pub use run::run;
pub use self_test::self_test;
