//! What one seed does: the node's options, what is declared, and the steps of clients, time, disk
//! and operator. A value, so that it can be printed, cut down and run again.

mod cluster;
pub mod generate;
mod script;
mod spice;

use std::fmt;

pub use cluster::{Between, Cluster, Cut, Found, Steer, Way, Weather, Who};
use millrace_storage::{Fault, Operation};

/// Everything that a run does; chance within the run comes from `schedule`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed it was made from.
    pub seed: u64,
    /// Orders what runs at the same time.
    pub schedule: u64,
    /// The nodes, and what is between them.
    pub cluster: Cluster,
    /// Options of each node.
    pub node: NodeShape,
    /// What is declared at first; steps name objects by their place.
    pub objects: Vec<Shape>,
    /// In order.
    pub steps: Vec<Step>,
}

/// Options of a node: small, so that files turn over and checkpoints come within few messages.
#[derive(Clone, Copy, Debug)]
pub struct NodeShape {
    /// Data shards.
    pub shards: u32,
    /// Workers.
    pub workers: usize,
    /// Bytes of a journal file.
    pub journal_file_bytes: u64,
    /// Records of a batch.
    pub batch_records_max: usize,
    /// Bytes of journal between checkpoints.
    pub checkpoint_journal_bytes: u64,
    /// Entries between checkpoints.
    pub checkpoint_entries: u64,
    /// Bodies in memory.
    pub memory_bytes_max: u64,
    /// Of a session.
    pub session_ttl_ms: u64,
    /// Effects of a hundred that are lost while faults last.
    pub lost_effects_percent: u64,
    /// Bytes of a message at most.
    pub message_bytes_max: u64,
}

/// The shortest lease of a queue.
pub const LEASE_MS_MIN: u64 = 1_000;

/// What is declared under an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A queue.
    Queue(QueueShape),
    /// A topic.
    Topic(TopicShape),
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueShape {
    /// Topics by their place, patterns by theirs.
    pub bindings: Vec<Bound>,
    /// Length of a lease.
    pub lease_ms: u64,
    /// Failed deliveries after which a message dies.
    pub deliveries_max: u32,
    /// First delay after a failure.
    pub backoff_ms: u64,
    /// Messages it holds.
    pub messages_max: Option<u64>,
    /// In flight over all consumers.
    pub in_flight_max: u32,
    /// Queue that takes its dead letters; `None`: the implicit one.
    pub dead_letter: Option<usize>,
    /// Whether messages go with the queue.
    pub deletes: bool,
}

/// A binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Place of the topic.
    pub topic: usize,
    /// Place in `PATTERNS`.
    pub pattern: usize,
    /// Whether it wants the header, too.
    pub marked: bool,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicShape {
    /// How many.
    pub partitions: u32,
    /// Messages kept of each.
    pub messages_max: Option<u64>,
    /// How long they are kept.
    pub age_ms_max: Option<u64>,
    /// Whether messages go with the topic.
    pub deletes: bool,
}

/// How leases are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Handled.
    Accept,
    /// Given back, perhaps for later.
    Release,
    /// Failed.
    Retry,
    /// Hopeless.
    Reject,
    /// Goes on.
    Extend,
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The oldest message.
    Earliest,
    /// A thousandth of what has been published there.
    Part(u64),
    /// So long ago.
    Ago(u64),
    /// The end.
    Latest,
}

/// What is left of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All of it: the process died.
    Nothing,
    /// None of it.
    Everything,
    /// Some of it: the power failed.
    Some(u64),
}

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// Publishes batches to an object, one after the other without waiting.
    Publish {
        /// Place of the object.
        to: usize,
        /// Of a topic.
        partition: u32,
        /// Messages of each batch.
        counts: Vec<u32>,
    },
    /// Takes messages.
    Receive {
        /// Place of the queue.
        from: usize,
        /// Its implicit dead-letter queue instead.
        dead: bool,
        /// At most this many.
        messages_max: u32,
        /// Waits for the first.
        wait_ms: u64,
        /// Length of the lease.
        lease_ms: Option<u64>,
        /// The caller gives up after this time.
        give_up_ms: Option<u64>,
    },
    /// Ends leases that clients hold.
    Settle {
        /// How many.
        count: usize,
        /// How.
        end: End,
        /// Where among all of them to begin.
        at: u64,
    },
    /// Names leases that are over.
    SettleStale {
        /// How many.
        count: usize,
    },
    /// Opens a session, or comes back to the one in this place.
    Attach {
        /// Which of the consumers.
        consumer: usize,
        /// Place of the queue.
        queue: usize,
        /// In flight at most.
        window: u32,
        /// What may be sent at once.
        credit: u64,
    },
    /// Lets more be sent.
    Credit {
        /// Which of the consumers.
        consumer: usize,
        /// Messages.
        more: u64,
    },
    /// The connection is lost.
    Detach {
        /// Which of the consumers.
        consumer: usize,
    },
    /// The session is ended.
    Close {
        /// Which of the consumers.
        consumer: usize,
    },
    /// Reads a topic.
    Read {
        /// Place of the topic.
        topic: usize,
        /// Of it.
        partition: u32,
        /// Where to begin.
        from: From,
        /// At most this many.
        messages_max: u32,
    },
    /// Looks at a queue.
    Peek {
        /// Place of the queue.
        queue: usize,
        /// At most this many.
        messages_max: u32,
    },
    /// Declares an object anew.
    Declare {
        /// Its place.
        object: usize,
        /// What it is to be.
        shape: Shape,
    },
    /// Removes an object.
    Remove {
        /// Its place.
        object: usize,
    },
    /// Asks for figures.
    Look,
    /// A step that is about one node, or asks this one.
    On {
        /// Which.
        node: Who,
        /// What.
        step: Box<Step>,
    },
    /// A node dies, and is started again after a while.
    Down {
        /// Which.
        node: Who,
        /// What is lost.
        loss: Loss,
        /// How long it is away.
        millis: u64,
    },
    /// A process stands still for a while.
    Pause {
        /// Which.
        node: Who,
        /// How long.
        millis: u64,
    },
    /// Some links let nothing through for a while.
    Cut(Cut),
    /// A machine is switched off, and comes back after a while with an empty disk: as another node,
    /// at the same address.
    Wipe {
        /// Which.
        node: Who,
        /// How long it is away.
        millis: u64,
    },
    /// Somebody has leaders or replicas moved.
    Steer(Steer),
    /// Lets so many things run.
    Run {
        /// How many.
        turns: u32,
    },
    /// Lets time pass.
    Wait {
        /// How much.
        millis: u64,
    },
    /// Somebody sets the time of day.
    Jump {
        /// By how much.
        millis: i64,
    },
    /// The process dies and is started again.
    Crash {
        /// What is lost.
        loss: Loss,
    },
    /// The process will die inside a disk operation.
    CrashInside {
        /// After so many more.
        operations: u64,
        /// Whether that operation is still carried out.
        carried_out: bool,
        /// What is lost.
        loss: Loss,
    },
    /// A clean restart.
    Restart,
    /// An operation of the disk will fail.
    Fail {
        /// Which kind,
        operation: Operation,
        /// after so many more,
        after: u64,
        /// on paths that contain this.
        part: &'static str,
        /// Half of what is written arrives.
        short: bool,
    },
    /// The disk is full for a while.
    Full {
        /// So many bytes are left.
        left: u64,
        /// For how long.
        millis: u64,
    },
    /// A bit flips at rest, while the node is down.
    Flip {
        /// In a file whose path contains this.
        part: &'static str,
        /// Which.
        at: u64,
    },
    /// A bit flips at rest, while the node runs.
    Rot {
        /// In a file whose path contains this.
        part: &'static str,
        /// Which.
        at: u64,
    },
    /// An operation of the disk will go wrong, and nobody be told.
    Deceive(Deceit),
    /// Somebody asks for checkpoints of all shards.
    Checkpoint,
}

/// Something that a disk does and says nothing of.
#[derive(Clone, Copy, Debug)]
pub struct Deceit {
    /// Which kind of operation,
    pub operation: Operation,
    /// what is wrong with it,
    pub fault: Fault,
    /// after so many more,
    pub after: u64,
    /// on paths that contain this,
    pub part: &'static str,
    /// and when.
    pub when: When,
}

/// In which life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// This one.
    Now,
    /// The next one, from its start on.
    NextLife,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cluster.drifts.len() > 1 {
            writeln!(f, "{:?}", self.cluster)?;
        }
        writeln!(f, "{:?}", self.node)?;
        for (place, shape) in self.objects.iter().enumerate() {
            writeln!(f, "  object {place}: {shape:?}")?;
        }
        for (place, step) in self.steps.iter().enumerate() {
            writeln!(f, "  step {place}: {step:?}")?;
        }
        Ok(())
    }
}
