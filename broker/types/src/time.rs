//! The two clocks of a command. Neither is read here: the leader stamps them.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC, for retention and for people. Never goes back within a shard.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Wall(u64);

/// Milliseconds that a shard has had a leader: leases, backoff and sessions run on it, so that an
/// outage expires nothing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Elapsed(u64);

/// When a command was proposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Wall clock of the leader.
    pub wall: Wall,
    /// Shard time of the leader.
    pub elapsed: Elapsed,
}

macro_rules! millis {
    ($name:ident) => {
        impl $name {
            /// From milliseconds.
            #[must_use]
            pub const fn from_millis(millis: u64) -> Self {
                Self(millis)
            }

            /// In milliseconds.
            #[must_use]
            pub const fn as_millis(self) -> u64 {
                self.0
            }

            /// This much later; saturates.
            #[must_use]
            pub const fn plus_millis(self, millis: u64) -> Self {
                Self(self.0.saturating_add(millis))
            }

            /// Milliseconds from `earlier` to here; 0 when it is not earlier.
            #[must_use]
            pub const fn millis_since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} ms", self.0)
            }
        }
    };
}

millis!(Wall);
millis!(Elapsed);
