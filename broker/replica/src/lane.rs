//! Which of the streams between two nodes a message takes.

use std::fmt;

/// Streams to one peer that never wait for each other: each has its own connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Elections and heartbeats.
    Votes,
    /// Entries and their acknowledgements.
    Appends,
    /// State for a replica that is too far behind.
    Snapshots,
}

impl Lane {
    /// All of them, in the order of [`Lane::index`].
    pub const ALL: [Self; 3] = [Self::Votes, Self::Appends, Self::Snapshots];

    /// Its place among all.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Votes => 0,
            Self::Appends => 1,
            Self::Snapshots => 2,
        }
    }

    /// Its word, for status and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Votes => "votes",
            Self::Appends => "appends",
            Self::Snapshots => "snapshots",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_the_place_among_all() {
        for (place, lane) in Lane::ALL.into_iter().enumerate() {
            assert_eq!(lane.index(), place);
        }
    }
}
