//! The broker process: shard threads and everything around them.

pub mod config;
pub mod exit;

mod connections;
mod convert;
mod forward;
mod founding;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fuzz;
mod http;
mod lifecycle;
mod listeners;
mod memory;
mod mesh;
mod metrics;
mod report;
mod services;
mod start_error;
mod state;
mod status;
mod tasks;
mod token;
mod topology_file;
mod transport;
mod validate;

pub use config::Config;
pub use founding::settings::PeeringError;
pub use lifecycle::{Addresses, Running, Server};
pub use report::report;
pub use start_error::StartError;
pub use token::TokenError;
pub use topology_file::TopologyError;
