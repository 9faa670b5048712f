//! The command line of Millrace: `serve`, and verbs that talk to a cluster. A library so that
//! another program can offer those verbs and find the cluster by itself.

mod call;
mod cli;
mod connection;
mod consume;
mod describe;
mod exit;
mod input;
mod interrupt;
mod json;
mod list;
mod nodes;
mod output;
mod peek;
mod publish;
mod read;
mod serve;
mod table;
mod talk;
mod target;
mod tell;
mod topology;

pub use cli::main;
pub use exit::{EXIT_CODES, Failure};
pub use list::as_json as list_as_json;
pub use nodes::as_json as nodes_as_json;
pub use table::table;
pub use talk::{Port, Talk, Way};
pub use tell::line as tell;
