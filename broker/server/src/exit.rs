//! Exit codes of `millrace serve`: part of its interface, since supervisors and tests branch on
//! them. A code keeps its meaning.

/// Drained and stopped as asked.
pub const OK: u8 = 0;
/// Something without a code of its own.
pub const FAILURE: u8 = 1;
/// The command line or the configuration is wrong.
pub const USAGE: u8 = 2;
/// An address to listen on is taken or not ours.
pub const LISTEN: u8 = 10;
/// The data directory cannot be read or written.
pub const DATA_DIR: u8 = 11;
/// Another process holds the data directory.
pub const DATA_DIR_LOCKED: u8 = 12;
/// The data directory belongs to another cluster or node.
pub const DATA_DIR_FOREIGN: u8 = 13;
/// A newer version wrote the data directory.
pub const DATA_DIR_NEWER: u8 = 14;
/// The data directory is damaged.
pub const DATA_DIR_DAMAGED: u8 = 15;
/// The topology file is wrong, or the topology cannot be applied.
pub const TOPOLOGY: u8 = 16;
/// The disk failed while serving; what was acknowledged is on it. As sysexits' `EX_SOFTWARE`.
pub const FAILED: u8 = 70;
/// A second SIGINT came while draining: 128 + the signal, as shells report it.
pub const INTERRUPTED: u8 = 130;
/// A second SIGTERM came while draining: 128 + the signal.
pub const TERMINATED: u8 = 143;
