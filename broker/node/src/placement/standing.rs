//! How shards stand, as their leaders say, and what that means for a node: whether it can stop, and
//! whether it has caught up. Pure.

use millrace_engine::catalogue::{Role, Roster};
use millrace_replica::{Member, Progress, Seat};
use millrace_types::{LogIndex, NodeId, ReplicaId, ShardId, Term};
use serde::{Deserialize, Serialize};

/// Entries that a replica may be behind and count as caught up: less than a second's worth.
const LAG_ENTRIES_MAX: u64 = 1_000;
/// Of so many voters one can stop and a majority is left.
const STOPPABLE_MIN: u32 = 3;

/// A shard, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStanding {
    /// Which.
    pub shard: ShardId,
    /// The node that leads it; `None` when nobody said that it does.
    pub leader: Option<NodeId>,
    /// The leader's term.
    pub term: Term,
    /// The last entry of its log.
    pub last: LogIndex,
    /// What is applied at the leader.
    pub applied: LogIndex,
    /// A change of members or a hand-over is under way.
    pub changing: bool,
    /// All members, by replica id.
    pub members: Vec<MemberStanding>,
}

/// A member, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStanding {
    /// Which.
    pub replica: ReplicaId,
    /// Where.
    pub node: NodeId,
    /// Whether it votes, now or until a change in two steps is done.
    pub votes: bool,
    /// Entries that it is behind.
    pub lag: u64,
    /// Whether it was heard of lately and gets entries as they come.
    pub active: bool,
}

/// What is in the way of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// Of which shard.
    pub shard: ShardId,
    /// In a word.
    pub reason: BlockerReason,
    /// For people.
    pub message: String,
}

/// Why a node cannot stop, or has not caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockerReason {
    /// Nobody leads the shard, or its leader does not answer.
    NoLeader,
    /// The node leads it.
    Leads,
    /// Without the node too few replicas would be left that vote and have everything.
    WouldLoseMajority,
    /// A replica is behind, and would be needed.
    ReplicaBehind,
    /// A change of members or a hand-over is under way.
    Changing,
    /// The node is to have a replica that is not a member yet.
    Missing,
}

impl BlockerReason {
    /// The stable reason, as it goes over the wire.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoLeader => "NoLeader",
            Self::Leads => "Leads",
            Self::WouldLoseMajority => "WouldLoseMajority",
            Self::ReplicaBehind => "ReplicaBehind",
            Self::Changing => "Changing",
            Self::Missing => "Missing",
        }
    }
}

impl MemberStanding {
    /// As a leader knows it, whose log goes up to `last`.
    pub(crate) fn of(
        member: Member,
        progress: &[Progress],
        own: ReplicaId,
        last: LogIndex,
    ) -> Self {
        let progress = progress.iter().find(|it| it.replica == member.replica);
        let matched = progress.map_or(0, |it| it.matched.get());
        let is_own = member.replica == own;
        Self {
            replica: member.replica,
            node: member.node,
            votes: member.seat != Seat::Learner,
            lag: if is_own {
                0
            } else {
                last.get().saturating_sub(matched)
            },
            active: is_own || progress.is_some_and(|it| it.keeps_up(last)),
        }
    }

    const fn is_ready(&self) -> bool {
        self.active && self.lag <= LAG_ENTRIES_MAX
    }

    fn behind(&self) -> String {
        if self.active {
            format!(
                "replica {} on node {} is {} entries behind",
                self.replica,
                name(self.node),
                self.lag
            )
        } else {
            format!(
                "replica {} on node {} does not keep up or answer",
                self.replica,
                name(self.node)
            )
        }
    }
}

/// How a node is named for people, everywhere.
#[must_use]
pub(crate) fn name(node: NodeId) -> String {
    format!("{:016x}", node.get())
}

/// All shards: as their leaders say, or, where none does, as the catalogue knows them.
pub(crate) fn complete(mut told: Vec<ShardStanding>, roster: &Roster) -> Vec<ShardStanding> {
    // Of two that both say they lead, the later one does.
    told.sort_by_key(|it| (it.shard, std::cmp::Reverse(it.term)));
    told.dedup_by_key(|it| it.shard);
    let is_told = |shard| told.iter().any(|it: &ShardStanding| it.shard == shard);
    let untold = roster.shards().filter(|(shard, _)| !is_told(*shard));
    let untold: Vec<ShardStanding> = untold
        .map(|(shard, replicas)| ShardStanding {
            shard,
            leader: None,
            term: Term::new(0),
            last: LogIndex::new(0),
            applied: LogIndex::new(0),
            changing: false,
            members: replicas.actual().members().iter().map(unknown).collect(),
        })
        .collect();
    told.extend(untold);
    told.sort_by_key(|it| it.shard);
    told
}

fn unknown(member: &millrace_engine::catalogue::Assigned) -> MemberStanding {
    MemberStanding {
        replica: member.replica,
        node: member.node,
        votes: member.role == Role::Voter,
        lag: 0,
        active: false,
    }
}

/// Whether those who use a shard asked for so few replicas that it stops with any of them: nobody
/// waits for it.
pub(crate) fn accepts_stops(roster: &Roster, shard: ShardId) -> bool {
    let asked = roster.shard(shard).and_then(|it| it.class().replication);
    asked.is_some_and(|replication| replication < STOPPABLE_MIN)
}

/// What keeps a node from stopping without anybody noticing.
pub(crate) fn stop_blockers(node: NodeId, shards: &[ShardStanding]) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    for shard in shards {
        let Some(own) = shard.members.iter().find(|member| member.node == node) else {
            continue;
        };
        let mut block = |reason, message| {
            blockers.push(Blocker {
                shard: shard.shard,
                reason,
                message,
            });
        };
        if shard.leader.is_none() {
            block(
                BlockerReason::NoLeader,
                "nobody leads it, or its leader does not answer".into(),
            );
            continue;
        }
        if shard.changing {
            let text = "its members or its leader are changing";
            block(BlockerReason::Changing, text.into());
        }
        if shard.leader == Some(node) {
            block(
                BlockerReason::Leads,
                "the node leads it: drain the node first".into(),
            );
        }
        if !own.votes {
            continue;
        }
        let voters = || shard.members.iter().filter(|member| member.votes);
        let left = voters().filter(|member| member.node != node);
        let ready = left.clone().filter(|member| member.is_ready()).count();
        let needed = voters().count() / 2 + 1;
        if ready >= needed {
            continue;
        }
        let behind: Vec<String> = left
            .filter(|m| !m.is_ready())
            .map(MemberStanding::behind)
            .collect();
        if behind.is_empty() {
            let text = format!(
                "{ready} of {} voters would be left, {needed} are needed",
                voters().count()
            );
            block(BlockerReason::WouldLoseMajority, text);
        } else {
            block(BlockerReason::ReplicaBehind, behind.join("; "));
        }
    }
    blockers
}

/// What a node still lacks of what it should have.
pub(crate) fn catch_up_blockers(
    node: NodeId,
    shards: &[ShardStanding],
    roster: &Roster,
) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    for shard in shards {
        let replicas = roster.shard(shard.shard);
        let target = replicas.map(|replicas| replicas.target().replicas());
        let wanted = target.unwrap_or_default().iter().find(|it| it.node == node);
        let Some(wanted) = wanted else {
            continue;
        };
        let mut block = |reason, message| {
            blockers.push(Blocker {
                shard: shard.shard,
                reason,
                message,
            });
        };
        if shard.leader.is_none() {
            block(
                BlockerReason::NoLeader,
                "nobody leads it, or its leader does not answer".into(),
            );
            continue;
        }
        match shard
            .members
            .iter()
            .find(|member| member.replica == wanted.replica)
        {
            None => {
                let text = format!("replica {} is not a member yet", wanted.replica);
                block(BlockerReason::Missing, text);
            }
            Some(member) if !member.is_ready() => {
                block(BlockerReason::ReplicaBehind, member.behind());
            }
            Some(member) if !member.votes && wanted.role == Role::Voter => {
                let text = format!("replica {} does not vote yet", wanted.replica);
                block(BlockerReason::Changing, text);
            }
            Some(_) => {}
        }
    }
    blockers
}

#[cfg(test)]
mod tests {
    use millrace_replica::Flow;

    use super::*;

    const A: NodeId = NodeId::new(1);
    const B: NodeId = NodeId::new(2);

    /// Voters on nodes 1 to the number of lags, led by the last one.
    fn shard(lags: &[u64]) -> ShardStanding {
        let member = |(n, lag): (u64, &u64)| MemberStanding {
            replica: ReplicaId::new(n),
            node: NodeId::new(n),
            votes: true,
            lag: *lag,
            active: *lag < u64::MAX,
        };
        ShardStanding {
            shard: ShardId::new(1),
            leader: Some(NodeId::new(lags.len() as u64)),
            term: Term::new(3),
            last: LogIndex::new(5_000),
            applied: LogIndex::new(5_000),
            changing: false,
            members: (1..).zip(lags).map(member).collect(),
        }
    }

    #[test]
    fn a_replica_that_came_back_to_an_idle_shard_with_everything_is_active() {
        let last = LogIndex::new(10);
        let member = Member {
            replica: ReplicaId::new(1),
            node: A,
            seat: Seat::Voter,
        };
        let of = |matched, active, flow| {
            let progress = Progress {
                replica: member.replica,
                matched: LogIndex::new(matched),
                has: LogIndex::new(matched),
                flow,
                active,
            };
            MemberStanding::of(member, &[progress], ReplicaId::new(2), last).active
        };

        assert!(of(10, true, Flow::Probing));
        assert!(of(9, true, Flow::Replicating));
        assert!(!of(9, true, Flow::Probing));
        assert!(!of(10, false, Flow::Probing));
    }

    fn reasons(node: NodeId, shard: ShardStanding) -> Vec<BlockerReason> {
        let blockers = stop_blockers(node, &[shard]);
        blockers.into_iter().map(|blocker| blocker.reason).collect()
    }

    #[test]
    fn one_of_three_that_are_well_can_stop_unless_it_leads() {
        assert_eq!(reasons(A, shard(&[0, 0, 0])), []);
        let leader = NodeId::new(3);
        assert_eq!(reasons(leader, shard(&[0, 0, 0])), [BlockerReason::Leads]);
    }

    #[test]
    fn nobody_can_stop_whose_majority_would_be_gone() {
        assert_eq!(
            reasons(A, shard(&[0, 0])),
            [BlockerReason::WouldLoseMajority]
        );
        assert_eq!(
            reasons(A, shard(&[0, 2_000, 0])),
            [BlockerReason::ReplicaBehind]
        );
        assert_eq!(
            reasons(A, shard(&[0, u64::MAX, 0])),
            [BlockerReason::ReplicaBehind]
        );
        // It is the one that is behind.
        assert_eq!(reasons(B, shard(&[0, 2_000, 0])), []);
    }

    #[test]
    fn nobody_can_stop_while_a_leader_is_unknown_or_changes() {
        let unknown = ShardStanding {
            leader: None,
            ..shard(&[0, 0, 0])
        };
        assert_eq!(reasons(A, unknown), [BlockerReason::NoLeader]);
        let changing = ShardStanding {
            changing: true,
            ..shard(&[0, 0, 0])
        };
        assert_eq!(reasons(A, changing), [BlockerReason::Changing]);
        assert_eq!(reasons(NodeId::new(9), shard(&[0, 0, 0])), []);
    }

    #[test]
    fn of_two_who_say_that_they_lead_the_later_one_does() {
        let old = ShardStanding {
            term: Term::new(2),
            leader: Some(A),
            ..shard(&[0, 0, 0])
        };
        let told = complete(vec![old, shard(&[0, 0, 0])], &Roster::default());
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].leader, Some(NodeId::new(3)));
    }
}
