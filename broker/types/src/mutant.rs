//! Known bugs that can be switched on, to prove that the simulation finds each of them. Without the
//! feature `mutants`, which no workspace build has, every one of them is the constant `false`.

/// A known bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The journal answers before it has synced.
    AckBeforeSync,
    /// A new journal file's name is not made durable.
    DirectorySyncMissing,
    /// The last batch is cut though it is whole.
    TailCutTooFar,
    /// A body's checksum is not looked at.
    ChecksumSkipped,
    /// A checkpoint forgets who holds what.
    LeaseNotPersisted,
    /// Retention takes one message more.
    TrimOffByOne,
    /// The journal is let go before the checkpoint that covers it is durable.
    ReleasedBeforeCheckpoint,
    /// A checkpoint forgets how far a binding has come.
    CursorNotPersisted,
    /// A dead letter is taken however often it arrives.
    NumberNotChecked,
    /// A checkpoint writes what was settled while it was made as if it lived.
    SettledWrittenAsLive,
    /// Replay leaves an entry out.
    ReplaySkipsEntry,
    /// A failure is not counted.
    AttemptsNotCounted,
    /// The end of a lease that nobody was told of counts as a failure.
    UnsentCounted,
    /// A checkpoint says that it covers an entry that is still on its way.
    CheckpointCoversMore,
    /// The scrubber reads and does not look.
    ScrubberLooksAway,
    /// What does not check is not read again.
    MisreadTrusted,
    /// A batch that was read from another place passes for the one asked for.
    SequenceNotChecked,
    /// Damage in a batch costs shards that have nothing in it.
    DamageSpreads,
    /// A damaged checkpoint passes for none.
    DamagedCheckpointSkipped,
    /// A queue's letters go to its new dead-letter queue though they are in the old one.
    RecallSkipped,
    /// A vote is told before it is synced.
    VotedBeforeSync,
    /// A follower accepts entries before they are synced.
    AcceptedBeforeSync,
    /// A lone voter sends entries of a term that is not synced.
    LeadBeforeSync,
    /// Entries are applied before they are synced here.
    AppliedBeforeSync,
    /// A commit is not written with the entries after it.
    CommitNotWritten,
    /// A leader counts replicas of an earlier term's entries as a commit.
    CommitOfOldTerm,
    /// A read does not wait for a majority.
    StaleRead,
    /// A snapshot takes the place of a log that has more.
    SnapshotOverNewerLog,
    /// A disk that was wiped comes back as the replica it was.
    IdUsedAgain,
    /// A snapshot's bodies are not checked when they arrive.
    ChunkNotVerified,
    /// A snapshot comes into force before its bodies are durable.
    InstallBeforeSync,
    /// A checkpoint forgets which dedup ids were given.
    DedupForgotten,
    /// A leader takes its own disk for a majority.
    CommittedAlone,
    /// Who proposed and lost the lead is told that nothing was applied.
    LostLeadNotApplied,
    /// A new leader counts the time in which nobody led.
    FailoverExpiresLeases,
    /// A replica that lost what it once had goes on with what is left.
    QuarantinedVotes,
}

impl Mutant {
    /// Those that the simulation of one node finds.
    pub const ALL: [Self; 20] = [
        Self::AckBeforeSync,
        Self::DirectorySyncMissing,
        Self::TailCutTooFar,
        Self::ChecksumSkipped,
        Self::LeaseNotPersisted,
        Self::TrimOffByOne,
        Self::ReleasedBeforeCheckpoint,
        Self::CursorNotPersisted,
        Self::NumberNotChecked,
        Self::SettledWrittenAsLive,
        Self::ReplaySkipsEntry,
        Self::AttemptsNotCounted,
        Self::UnsentCounted,
        Self::CheckpointCoversMore,
        Self::ScrubberLooksAway,
        Self::MisreadTrusted,
        Self::SequenceNotChecked,
        Self::DamageSpreads,
        Self::DamagedCheckpointSkipped,
        Self::RecallSkipped,
    ];
    /// Those that the tests of replication find.
    pub const REPLICA: [Self; 9] = [
        Self::VotedBeforeSync,
        Self::AcceptedBeforeSync,
        Self::LeadBeforeSync,
        Self::AppliedBeforeSync,
        Self::CommitNotWritten,
        Self::CommitOfOldTerm,
        Self::StaleRead,
        Self::SnapshotOverNewerLog,
        Self::IdUsedAgain,
    ];
    /// Those that it takes several whole nodes to find.
    pub const CLUSTER: [Self; 12] = [
        Self::CommittedAlone,
        Self::LostLeadNotApplied,
        Self::FailoverExpiresLeases,
        Self::AcceptedBeforeSync,
        Self::CommitNotWritten,
        Self::AppliedBeforeSync,
        Self::StaleRead,
        Self::IdUsedAgain,
        Self::ChunkNotVerified,
        Self::InstallBeforeSync,
        Self::DedupForgotten,
        Self::QuarantinedVotes,
    ];
}

/// Whether a known bug is switched on in this thread.
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::is_on($crate::mutant::Mutant::$name)
    };
}

/// Whether a known bug is switched on: never.
#[cfg(not(feature = "mutants"))]
#[must_use]
#[inline]
pub const fn is_on(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use switch::{is_on, switch_on};

#[cfg(feature = "mutants")]
mod switch {
    extern crate std;

    use core::cell::Cell;

    use super::Mutant;

    std::thread_local! {
        static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// Whether a known bug is switched on in this thread.
    #[must_use]
    pub fn is_on(mutant: Mutant) -> bool {
        ON.with(|on| on.get() == Some(mutant))
    }

    /// Switches a bug on in this thread, and every other off.
    pub fn switch_on(mutant: Option<Mutant>) {
        ON.with(|on| on.set(mutant));
    }
}
