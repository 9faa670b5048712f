//! How the streams of a node are set up; the defaults suit a broker, tests want shorter times.

use std::time::Duration;

use millrace_replica::Lane;

use crate::handshake::Identity;
use crate::limits::FRAME_BYTES_MAX;

/// Everything the streams need to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who we are.
    pub identity: Identity,
    /// What may wait for a peer that is slow, for each lane.
    pub queues: [QueueLimits; 3],
    /// How long things take.
    pub timing: Timing,
}

/// What may wait in one lane to one peer. A single message is taken whenever nothing waits,
/// however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages.
    pub messages_max: usize,
    /// Their encoded size.
    pub bytes_max: usize,
}

/// Times.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// To connect and to be answered: many round trips around the world, and short enough that an
    /// address nobody has any more, where nothing answers at all, is soon looked up again.
    pub dial_within: Duration,
    /// For the answer to a question: an election, and a slow disk or two on the way.
    pub call_within: Duration,
    /// Until the first frame of a stream that came in: it holds one of few places.
    pub hello_within: Duration,
    /// First delay after a failed attempt: a node that restarts is back in about a second.
    pub backoff_first: Duration,
    /// Longest delay: a node that is back has to be found well within an election or two.
    pub backoff_longest: Duration,
    /// Delay after a refusal that lasts: somebody has to do something first.
    pub refused_retry: Duration,
    /// How often the round trip is measured, in the lane of votes.
    pub ping_every: Duration,
    /// A quiet connection is asked for a sign of life this often,
    pub keep_alive_every: Duration,
    /// and given up when none comes within this. It finds a connection whose other end is gone
    /// without a word; until then a node that is back under another address hears nothing of us.
    pub keep_alive_within: Duration,
}

impl Options {
    /// With the usual limits.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            queues: Lane::ALL.map(QueueLimits::of),
            timing: Timing::default(),
        }
    }
}

impl QueueLimits {
    /// The usual ones of a lane.
    #[must_use]
    pub const fn of(lane: Lane) -> Self {
        match lane {
            // A heartbeat or a vote, and its answer, of each of thousands of shards.
            Lane::Votes => Self {
                messages_max: 16_384,
                bytes_max: 2 << 20,
            },
            // Raft's window of appends under way for the busy shards; two of the largest record.
            Lane::Appends => Self {
                messages_max: 32_768,
                bytes_max: 2 * FRAME_BYTES_MAX,
            },
            // Chunks are sent as they are acknowledged, a few at a time.
            Lane::Snapshots => Self {
                messages_max: 1_024,
                bytes_max: 16 << 20,
            },
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dial_within: Duration::from_secs(2),
            call_within: Duration::from_secs(10),
            hello_within: Duration::from_secs(5),
            backoff_first: Duration::from_millis(50),
            backoff_longest: Duration::from_secs(1),
            refused_retry: Duration::from_secs(10),
            ping_every: Duration::from_secs(1),
            keep_alive_every: Duration::from_secs(2),
            keep_alive_within: Duration::from_secs(3),
        }
    }
}
