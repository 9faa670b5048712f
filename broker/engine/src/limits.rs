//! Every limit of a data shard's state that is the engine's own. Others are declared and checked by
//! the catalogue (in flight, deliveries, messages, bytes, bindings) or hold everywhere
//! (`millrace_types`: batches, notes, names, delays, windows).
//!
//! | grows | bounded by | reaching it |
//! |---|---|---|
//! | messages, delays, outbox of a queue | declared `messages` and `bytes` | `QUEUE_FULL` |
//! | leases of a queue | declared `in_flight_max` | nothing more is handed out |
//! | leases of a session | its window, cut to `IN_FLIGHT_MAX` | nothing more is handed to it |
//! | sessions of a queue | `SESSIONS_MAX` | `LIMIT_REACHED` |
//! | sources of a dead-letter queue | `SOURCES_MAX` | `LIMIT_REACHED`; the letters wait |
//! | cursors of a queue | `BINDINGS_MAX` topics, `PARTITIONS_MAX` each | refused when declared |
//! | messages of a partition | declared retention, twice it while a queue lags | trimmed |
//! | removed queues that know what arrived | `SOURCES_MAX` each, until forgotten | |
//! | dedup ids of a queue or partition | `DEDUP_IDS_MAX` | `LIMIT_REACHED` |
//! | undecided batches of a producer | `PRODUCER_BATCHES_MAX` | `LIMIT_REACHED` |
//! | dedup ids of a shard | `DEDUP_IDS_OF_SHARD_MAX` | `LIMIT_REACHED` |
//! | work of one command | `EXPIRIES_MAX`, `DELIVERIES_MAX`, `DETACHED_MAX` | the next goes on |
//! | dedup ids that one command forgets | `FORGOTTEN_MAX` | the next goes on |

use millrace_types::{
    BINDINGS_MAX, CONDITION_VALUE_BYTES_MAX, CONDITIONS_MAX, Count, HEADER_NAME_BYTES_MAX,
    NAME_BYTES_MAX, NAMESPACE_BYTES_MAX, PARTITIONS_MAX, SUBJECT_BYTES_MAX,
};

/// Sessions of one queue: each costs memory on every replica, and a turn looks at all with room.
pub const SESSIONS_MAX: usize = 10_000;
/// Queues that send their dead letters to one queue: as many as a cluster is made for.
pub const SOURCES_MAX: usize = 100_000;
/// Messages of one `Acquire`, as `Receive` has it.
pub const ACQUIRE_MESSAGES_MAX: Count = 1000;
/// Settlements of one command: bounds how long it holds its worker.
pub const SETTLEMENTS_MAX: usize = 10_000;
/// Dedup ids that one queue or partition knows: four thousand messages a second with ids of their
/// own in two minutes, and some 50 MB.
pub const DEDUP_IDS_MAX: usize = 500_000;
/// Dedup ids that all queues and partitions of a shard know together: some 200 MB.
pub const DEDUP_IDS_OF_SHARD_MAX: usize = 2_000_000;
/// Batches that one producer may have undecided in one queue or partition: four times what our
/// client has.
pub const PRODUCER_BATCHES_MAX: usize = 65_536;
/// Longest time to live of a session: a client that is gone for a day is gone.
pub const SESSION_TTL_MS_MAX: u64 = 24 * 3_600_000;
/// An encoded number at most, and a text's or a list's length: what varints of 64 bits take.
const NUMBER_BYTES_MAX: usize = 10;
/// An encoded address at most.
const ADDRESS_BYTES_MAX: usize = 3 * NUMBER_BYTES_MAX + NAMESPACE_BYTES_MAX + NAME_BYTES_MAX;
/// An encoded filter at most.
const FILTER_BYTES_MAX: usize = 3 * NUMBER_BYTES_MAX
    + SUBJECT_BYTES_MAX
    + CONDITIONS_MAX * (3 * NUMBER_BYTES_MAX + HEADER_NAME_BYTES_MAX + CONDITION_VALUE_BYTES_MAX);
/// An encoded `ConfigureQueue` at most, the largest command without a body: each filter once, each
/// partition of each topic a number, and some twenty numbers besides.
pub const CONFIGURE_BYTES_MAX: usize = 2 * ADDRESS_BYTES_MAX
    + 32 * NUMBER_BYTES_MAX
    + BINDINGS_MAX
        * (ADDRESS_BYTES_MAX
            + 2 * NUMBER_BYTES_MAX
            + FILTER_BYTES_MAX
            + PARTITIONS_MAX as usize * NUMBER_BYTES_MAX);
/// Leases, delays and sessions that one entry ends at most, so that none holds its worker for
/// long. The rest stays due: `next_deadline` lies in the past, so a `Tick` follows at once.
pub(crate) const EXPIRIES_MAX: u32 = 10_000;
/// Sessions of a past leader's connections that one entry looks at, for the same reason and with
/// the same remedy. Those of a queue go together, so that it may be more by `SESSIONS_MAX`.
pub const DETACHED_MAX: usize = 1_000;
/// Dedup ids that one entry forgets at most, for the same reason and with the same remedy. A
/// fraction of a millisecond's work.
pub(crate) const FORGOTTEN_MAX: u32 = 1_000;
/// Messages that one operation hands to sessions at most, for the same reason and with the same
/// remedy. A few milliseconds' work.
pub const DELIVERIES_MAX: u32 = 10_000;
