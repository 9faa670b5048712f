//! What Raft promises, judged by what replicas say to each other: one leader in a term, logs that
//! agree on an entry agree on all before it, what is committed stays, and every later leader has
//! it.
//!
//! Sees what is sent, whether or not it arrives: who says something false has done it.

use std::collections::BTreeMap;

use millrace_replica::{Body, Entry, Message, Payload, ShardMessage};
use millrace_types::ReplicaId;

use super::Link;
use crate::random::mix;

/// Which invariant, and what happened.
pub(super) type Broken = (&'static str, String);

/// What was said so far.
#[derive(Default)]
pub(super) struct Tap {
    shards: BTreeMap<u32, Shard>,
}

/// Of one shard.
#[derive(Default)]
struct Shard {
    /// Who led each term, and on which node.
    leaders: BTreeMap<u64, (ReplicaId, usize)>,
    /// Entries by index and term.
    entries: BTreeMap<(u64, u64), Said>,
    /// What is committed: the term of the entry at an index, and the term of the leader that said
    /// so first.
    committed: BTreeMap<u64, (u64, u64)>,
}

/// An entry, as some leader sent it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Said {
    /// The term of the entry before it.
    before: u64,
    /// What is in it.
    content: u64,
}

impl Tap {
    /// The node of the leader of the latest term.
    pub(super) fn leader(&self, shard: u32) -> Option<usize> {
        let (_, (_, node)) = self.shards.get(&shard)?.leaders.last_key_value()?;
        Some(*node)
    }

    /// The node of the last leader before that one which was on another node.
    pub(super) fn former_leader(&self, shard: u32) -> Option<usize> {
        let leaders = &self.shards.get(&shard)?.leaders;
        let (_, (_, last)) = leaders.last_key_value()?;
        let mut earlier = leaders.values().rev().map(|(_, node)| *node);
        earlier.find(|node| node != last)
    }

    /// Looks at a message that is sent.
    ///
    /// # Errors
    /// Which promise is broken.
    pub(super) fn look(&mut self, link: Link, message: &ShardMessage) -> Result<(), Broken> {
        let id = message.shard.get();
        let Body::Raft(message) = &message.body else {
            return Ok(());
        };
        let shard = self.shards.entry(id).or_default();
        let leads = matches!(
            message.payload,
            Payload::Append { .. } | Payload::Heartbeat { .. } | Payload::Snapshot { .. }
        );
        if leads {
            shard
                .led(link.from, message)
                .map_err(|what| ("election safety", format!("shard {id}: {what}")))?;
        }
        if let Payload::Append {
            prev,
            commit,
            entries,
        } = &message.payload
        {
            let before = (prev.index.get(), prev.term.get());
            let matches = shard.append(before, entries);
            matches.map_err(|what| ("log matching", format!("shard {id}: {what}")))?;
            let complete = shard.commit(message.term.get(), before, commit.get(), entries);
            complete.map_err(|what| ("leader completeness", format!("shard {id}: {what}")))?;
        }
        Ok(())
    }
}

impl Shard {
    fn led(&mut self, node: usize, message: &Message) -> Result<(), String> {
        let term = message.term.get();
        let (leader, at) = *self.leaders.entry(term).or_insert((message.from, node));
        if (leader, at) == (message.from, node) {
            return Ok(());
        }
        Err(format!(
            "replica {leader} on node {at} and replica {} on node {node} lead term {term}",
            message.from
        ))
    }

    fn append(&mut self, mut before: (u64, u64), entries: &[Entry]) -> Result<(), String> {
        for entry in entries {
            let place = (entry.index.get(), entry.term.get());
            let said = Said {
                before: before.1,
                content: content(entry),
            };
            if place.0 != before.0 + 1 {
                return Err(format!("entry {} is sent behind {}", place.0, before.0));
            }
            let known = *self.entries.entry(place).or_insert(said);
            if known != said {
                return Err(format!(
                    "entry {} of term {} is there twice: behind term {} and behind term {}, {}",
                    place.0,
                    place.1,
                    known.before,
                    said.before,
                    if known.content == said.content {
                        "alike"
                    } else {
                        "different"
                    }
                ));
            }
            before = place;
        }
        Ok(())
    }

    /// A leader's log has everything that any leader said is committed; what it says is committed
    /// is, for ever.
    fn commit(
        &mut self,
        leads: u64,
        before: (u64, u64),
        commit: u64,
        entries: &[Entry],
    ) -> Result<(), String> {
        let sent = entries
            .iter()
            .map(|entry| (entry.index.get(), entry.term.get()));
        for (index, term) in [before]
            .into_iter()
            .chain(sent)
            .filter(|(index, _)| *index > 0)
        {
            if let Some((known, by)) = self.committed.get(&index).copied()
                && known != term
                && (leads > by || index <= commit)
            {
                return Err(format!(
                    "entry {index} of term {known} was committed in term {by}; the leader of term \
                     {leads} has one of term {term} there"
                ));
            }
            if index <= commit {
                self.committed.entry(index).or_insert((term, leads));
            }
        }
        Ok(())
    }
}

fn content(entry: &Entry) -> u64 {
    let bytes = entry.header.iter().chain(entry.body.iter());
    let kind = entry.kind as u64;
    bytes.fold(mix(kind), |sum, byte| mix(sum ^ u64::from(*byte)))
}
