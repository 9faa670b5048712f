//! What can be seen from outside a node: what clients did and were told, and what became of the
//! process. Invariants are judged from these and from nothing else.

use std::fmt;
use std::ops::{Deref, Range};

use bytes::Bytes;
use millrace_types::LogId;

use crate::message;
use crate::plan::{End, Shape};
use crate::random::mix;

/// A stored message; shown by its number.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Body(pub(crate) Bytes);

/// A delivery tag; shown as a number.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag(pub(crate) Bytes);

impl Deref for Body {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.len();
        match message::read(&self.0) {
            Ok(found) if found.death.is_some() => write!(f, "#{} dead {bytes} B", found.number),
            Ok(found) => write!(f, "#{} {bytes} B", found.number),
            Err(why) => write!(f, "{why}, {bytes} B"),
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self
            .0
            .iter()
            .fold(0, |bits, byte| mix(bits ^ u64::from(*byte)));
        write!(f, "{:08x}", bits >> 32)
    }
}

/// What a client knows of something it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    /// It is done, and stays done.
    Done(T),
    /// It is not done and never will be.
    Refused(String),
    /// It may be done, or be done yet.
    Unknown,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A batch is on its way.
    Publishing {
        /// Its place among all batches.
        #[expect(dead_code, reason = "for the trace and for people")]
        batch: usize,
    },
    /// What came of a batch: where it is.
    Published {
        /// Its place among all batches.
        batch: usize,
        /// Offsets.
        answer: Answer<Range<u64>>,
    },
    /// A client was handed a message.
    Delivered(Delivered),
    /// A client asks to end a lease.
    Settling {
        /// Its place among all leases.
        lease: usize,
        /// How.
        end: End,
    },
    /// What came of it.
    Settled {
        /// Its place among all leases.
        lease: usize,
        /// How.
        end: End,
        /// Refused when the lease was over.
        answer: Answer<()>,
        /// When it was asked,
        asked_ms: u64,
        /// and after how many events.
        asked: u64,
    },
    /// A client was told that it has lost a lease.
    Lost {
        /// Its tag.
        tag: Tag,
    },
    /// A reader was given messages.
    Read(Read),
    /// Somebody looked at a queue.
    Peeked {
        /// Which.
        log: LogId,
        /// When it was asked.
        asked_ms: u64,
        /// Offset and body.
        messages: Vec<(u64, Body)>,
    },
    /// An object is about to change; `None` removes it.
    Declaring {
        /// Its place.
        object: usize,
        /// What it is to be.
        shape: Option<Shape>,
    },
    /// Every shard has it, or it was refused.
    Declared {
        /// Its place.
        object: usize,
        /// The revision.
        answer: Answer<u64>,
    },
    /// A revision of the topology is on disk.
    Confirmed {
        /// Which.
        revision: u64,
    },
    /// The node serves.
    Started {
        /// Revision of the topology it found.
        revision: u64,
        /// Events before it was asked for that.
        asked: u64,
    },
    /// One of several nodes has started.
    Up {
        /// Which.
        #[expect(dead_code, reason = "for the trace and for people")]
        node: usize,
    },
    /// Something is done to the cluster.
    Trouble {
        /// What.
        #[expect(dead_code, reason = "for the trace and for people")]
        what: String,
    },
    /// A node is gone.
    Stopped {
        /// Which.
        node: usize,
        /// Why.
        #[expect(dead_code, reason = "for the trace and for people")]
        why: String,
    },
    /// Figures of a node.
    Figures {
        /// Which.
        node: usize,
        /// Events before they were asked for.
        asked: u64,
        /// Of each shard.
        shards: Vec<ShardFigures>,
    },
    /// Checksum of a shard's state at an index of its log.
    Checksum {
        /// Where.
        #[expect(dead_code, reason = "for the trace and for people")]
        node: usize,
        /// Which shard.
        shard: u32,
        /// Entries applied.
        applied: u64,
        /// Of its state.
        checksum: u64,
    },
    /// The disk did something behind the node's back.
    Struck {
        /// What.
        #[expect(dead_code, reason = "for the trace and for people")]
        what: String,
    },
    /// A shard that serves refuses to show what it holds.
    Unreadable {
        /// Which.
        shard: u32,
        /// As it says.
        why: String,
    },
    /// Everything has been taken and handled; nothing more will come.
    Drained,
}

/// A message in a client's hands.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    /// Of which queue.
    pub log: LogId,
    /// Where in it.
    pub offset: u64,
    /// Names the lease.
    pub tag: Tag,
    /// The session that holds it; `None` for a single call.
    pub session: Option<u64>,
    /// Which call or event brought it, and its place therein.
    pub call: u64,
    /// Hand-outs.
    pub acquired: u32,
    /// Failures.
    pub attempts: u32,
    /// Length of the lease.
    pub lease_ms: u64,
    /// It was handed out at this time or later.
    pub since_ms: u64,
    /// The body.
    pub message: Body,
}

/// What a reader was given.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    /// Of which partition.
    pub log: LogId,
    /// The first offset asked for; `None` when it asked for a time.
    pub from: Option<u64>,
    /// It asked for what comes behind all there is.
    pub from_latest: bool,
    /// The time it asked for.
    pub since_wall: Option<u64>,
    /// Offset, time of storing and body.
    pub records: Vec<(u64, u64, Body)>,
    /// Where to go on.
    pub next: u64,
    /// What there was.
    pub available: Range<u64>,
    /// When it was asked,
    pub asked_ms: u64,
    /// and after how many events.
    pub asked: u64,
}

/// How far a shard is.
#[derive(Clone, Debug)]
pub(crate) struct ShardFigures {
    /// Which.
    pub shard: u32,
    /// Which replica it is.
    pub replica: Option<u64>,
    /// Why it does not serve; `None` when it does.
    pub unavailable: Option<String>,
    /// The log's last entry.
    pub last: u64,
    /// On disk.
    pub synced: u64,
    /// Known to be committed.
    pub committed: u64,
    /// Raft's.
    pub term: u64,
    /// Entries applied.
    pub applied: u64,
    /// Entries that a checkpoint covers.
    pub checkpoint: u64,
}
