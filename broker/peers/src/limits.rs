//! What bounds a stream, and why there.

pub(crate) use millrace_proto::peer::{FRAME_ENTRIES_MAX, FRAME_MESSAGES_MAX};

/// A frame, encoded: the largest journal record (32 MiB) alone in its message, and room for what
/// surrounds it.
pub const FRAME_BYTES_MAX: usize = (32 << 20) + (64 << 10);
/// One message, encoded: a frame with nothing else. Larger ones are dropped and counted.
pub const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;
/// Messages that wait are put into one frame up to this: its own cost is then a fraction of a
/// percent, and an entry that stays in memory keeps no more than this alive, since all that came
/// in a frame shares its memory.
pub(crate) const FRAME_BYTES_TARGET: usize = 256 << 10;
/// The first frame of a stream: names, numbers, a version.
pub(crate) const HELLO_BYTES_MAX: usize = 4 << 10;
/// What the answering side says: a hello, pongs, a refusal.
pub(crate) const REPLY_BYTES_MAX: usize = 16 << 10;
/// Replies that wait for a caller that does not read them; pongs beyond are left out.
pub(crate) const REPLIES_MAX: usize = 8;
/// A text for people that came from the other side, in characters.
pub(crate) const TEXT_CHARS_MAX: usize = 512;
/// Peers of a node: far more than a cluster has; each costs three tasks and its queues.
pub const PEERS_MAX: usize = 128;
/// Streams that come in: each peer's lanes, and once more for those that are being replaced.
pub(crate) const SESSIONS_MAX: usize = 2 * 3 * PEERS_MAX;
/// Connections a peer listener should take: one for each stream, and each peer's for questions.
pub const CONNECTIONS_MAX: usize = SESSIONS_MAX + PEERS_MAX;
/// Questions of all peers that are being answered: they wait for a disk or for other nodes, and
/// hold what they carry, a megabyte for most that carry anything. One more is refused.
pub(crate) const QUESTIONS_MAX: usize = 256;
