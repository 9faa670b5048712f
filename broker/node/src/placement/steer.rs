//! Decides what a shard's leader does next to bring its members to their target: pure, one step at
//! a time.
//!
//! Promises: nobody is removed whom the catalogue has not named as a member before it stopped
//! wanting it, so that an old view of it harms nobody; who is to vote has caught up first; voters
//! leave only when those that are to take their places vote in the same step; a change that would
//! leave a majority of voters out of reach is not made; a leader that is to go, or must not lead,
//! hands over first. When every step is carried out and nobody dies, the members come to be the
//! target and there are no more steps.

use millrace_engine::catalogue::{Assigned, Replicas, Role};
use millrace_replica::{Change, Member, Progress, Seat};
use millrace_types::{LogIndex, NodeId, ReplicaId};

/// Entries that a learner may be behind and be made a voter: a fraction of a second's worth, so
/// that the next commit does not wait for it.
const LAG_ENTRIES_MAX: u64 = 1_000;
/// Voters from which on some of those that are wanted may begin before the others have caught up:
/// with two, either of them would be missed.
const VOTERS_FEW: usize = 3;

/// What a leader knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// The leader's own replica.
    pub(crate) own: ReplicaId,
    /// All members, as of what is applied; no change of them is half done.
    pub(crate) members: &'a [Member],
    /// Those that should be, and those that are known to have been.
    pub(crate) replicas: &'a Replicas,
    /// How far each member is.
    pub(crate) progress: &'a [Progress],
    /// The last entry of the log.
    pub(crate) last: LogIndex,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: all is well, or somebody has to catch up first.
    Rest,
    /// Change members.
    Change(Vec<Change>),
    /// Let another replica lead, because the own one has to go.
    HandOver(ReplicaId),
}

impl Scene<'_> {
    /// The next step to the target.
    pub(crate) fn next_change(&self) -> Step {
        let steps = [Self::make_way, Self::add, Self::seat, Self::remove_learner];
        let mut steps = steps.iter().map(|step| step(self));
        steps.find(|step| *step != Step::Rest).unwrap_or(Step::Rest)
    }

    /// Whether the members are what they should be.
    pub(crate) fn is_converged(&self) -> bool {
        let target = self.target();
        target.len() == self.members.len()
            && target.iter().all(|wanted| {
                let member = self.members.iter().find(|m| m.replica == wanted.replica);
                member.is_some_and(|m| role(m.seat) == Some(wanted.role))
            })
    }

    /// The voter that should lead instead of the own one: the preferred one, or, when the own node
    /// must not lead, any other that may. Only somebody who could take over at once.
    pub(crate) fn heir(&self, may_lead: impl Fn(NodeId) -> bool) -> Option<ReplicaId> {
        let own = self.members.iter().find(|m| m.replica == self.own)?.node;
        let preferred = self.replicas.target().leader();
        let mut fit: Vec<Member> = self.voters().copied().collect();
        fit.retain(|m| m.replica != self.own && may_lead(m.node) && self.is_ready(m.replica));
        // Somebody who is to go would only have to hand over again.
        fit.retain(|m| self.wants_voter(m.replica));
        let first = fit.iter().find(|member| Some(member.node) == preferred);
        if first.is_some() || may_lead(own) {
            return first.map(|member| member.replica);
        }
        self.most_advanced(&fit)
    }

    /// A new replica on a node that has another one has to wait until that is gone.
    fn make_way(&self) -> Step {
        for wanted in self.missing() {
            let there = self.members.iter().find(|m| m.node == wanted.node);
            let Some(there) = there.filter(|m| self.is_dispensable(m.replica)) else {
                continue;
            };
            let replica = there.replica;
            if replica == self.own {
                return self.hand_over();
            }
            let change = vec![Change::Remove { replica }];
            if role(there.seat) == Some(Role::Learner) || self.keeps_majority(&change) {
                return Step::Change(change);
            }
        }
        Step::Rest
    }

    /// Adds a learner.
    fn add(&self) -> Step {
        let mut missing = self.missing();
        let free = missing.find(|wanted| self.members.iter().all(|m| m.node != wanted.node));
        free.map_or(Step::Rest, |&Assigned { replica, node, .. }| {
            Step::Change(vec![Change::Add { replica, node }])
        })
    }

    /// Lets learners vote that have caught up, and voters go whose places they take.
    fn seat(&self) -> Step {
        let wanted = self.target().iter().filter(|it| it.role == Role::Voter);
        let is_voter = |replica| self.voters().any(|member| member.replica == replica);
        let coming: Vec<ReplicaId> = wanted
            .clone()
            .map(|it| it.replica)
            .filter(|replica| !is_voter(*replica))
            .collect();
        let mut ready = coming.clone();
        ready.retain(|replica| self.is_learner(*replica) && self.is_ready(*replica));
        let mut going: Vec<Change> = self.voters().filter_map(|m| self.leave(m)).collect();
        // Those who are not heard of go first, the leader last.
        going.sort_by_key(|change| {
            (
                change.replica() == self.own,
                self.is_active(change.replica()),
            )
        });
        let voters = self.voters().count();
        let few = voters + ready.len() < VOTERS_FEW;
        if ready.len() < coming.len() && few && going.is_empty() {
            ready.clear();
        }
        let surplus = (voters + ready.len()).saturating_sub(wanted.count());
        going.truncate(surplus);
        if going.iter().any(|change| change.replica() == self.own) {
            let step = self.hand_over();
            if step != Step::Rest {
                return step;
            }
            // The only voter leads until there is another one.
            going.retain(|change| change.replica() != self.own);
        }
        let promote = |replica| Change::Promote { replica };
        let changes: Vec<Change> = ready.into_iter().map(promote).chain(going).collect();
        if changes.is_empty() || !self.keeps_majority(&changes) {
            return Step::Rest;
        }
        Step::Change(changes)
    }

    fn remove_learner(&self) -> Step {
        let learners = self.members.iter().filter(|m| m.seat == Seat::Learner);
        let mut going = learners.filter(|m| self.is_dispensable(m.replica));
        going.next().map_or(Step::Rest, |Member { replica, .. }| {
            let replica = *replica;
            Step::Change(vec![Change::Remove { replica }])
        })
    }

    /// How a voter leaves, if it has to.
    fn leave(&self, member: &Member) -> Option<Change> {
        let replica = member.replica;
        match self.replicas.target().find(replica) {
            Some(wanted) if wanted.role == Role::Voter => None,
            Some(_) => Some(Change::Demote { replica }),
            None => self
                .is_dispensable(replica)
                .then_some(Change::Remove { replica }),
        }
    }

    /// To a voter that stays.
    fn hand_over(&self) -> Step {
        let mut fit: Vec<Member> = self.voters().copied().collect();
        fit.retain(|m| {
            m.replica != self.own && self.wants_voter(m.replica) && self.is_ready(m.replica)
        });
        self.most_advanced(&fit).map_or(Step::Rest, Step::HandOver)
    }

    fn most_advanced(&self, among: &[Member]) -> Option<ReplicaId> {
        let matched = |replica| self.of(replica).map(|progress| progress.matched);
        let best = among.iter().max_by_key(|m| (matched(m.replica), m.replica));
        best.map(|member| member.replica)
    }

    /// Whether, after changes, a majority of the voters can be reached and has caught up.
    fn keeps_majority(&self, changes: &[Change]) -> bool {
        let mut voters: Vec<ReplicaId> = self.voters().map(|m| m.replica).collect();
        for change in changes {
            match change {
                Change::Promote { replica } => voters.push(*replica),
                Change::Remove { replica } | Change::Demote { replica } => {
                    voters.retain(|voter| voter != replica);
                }
                Change::Add { .. } => {}
            }
        }
        let ready = voters.iter().filter(|voter| self.is_ready(**voter)).count();
        ready > voters.len() / 2
    }

    fn target(&self) -> &[Assigned] {
        self.replicas.target().replicas()
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        let voters = self.members.iter();
        voters.filter(|member| role(member.seat) == Some(Role::Voter))
    }

    /// Wanted, and no member.
    fn missing(&self) -> impl Iterator<Item = &Assigned> {
        let is_member = |replica| self.members.iter().any(|m| m.replica == replica);
        self.target()
            .iter()
            .filter(move |it| !is_member(it.replica))
    }

    fn is_learner(&self, replica: ReplicaId) -> bool {
        let mut members = self.members.iter();
        members.any(|m| m.replica == replica && m.seat == Seat::Learner)
    }

    fn wants_voter(&self, replica: ReplicaId) -> bool {
        let wanted = self.replicas.target().find(replica);
        wanted.is_some_and(|it| it.role == Role::Voter)
    }

    /// Not wanted any more. Who is not known to have been a member may be wanted by a target that
    /// this node has not heard of yet.
    fn is_dispensable(&self, replica: ReplicaId) -> bool {
        let known = self.replicas.actual().find(replica).is_some();
        known && self.replicas.target().find(replica).is_none()
    }

    fn of(&self, replica: ReplicaId) -> Option<&Progress> {
        self.progress.iter().find(|it| it.replica == replica)
    }

    fn is_active(&self, replica: ReplicaId) -> bool {
        replica == self.own || self.of(replica).is_some_and(|it| it.active)
    }

    /// Whether it is there and has nearly everything.
    fn is_ready(&self, replica: ReplicaId) -> bool {
        let is_near = |it: &Progress| {
            let behind = self.last.get().saturating_sub(it.matched.get());
            it.keeps_up(self.last) && behind <= LAG_ENTRIES_MAX
        };
        replica == self.own || self.of(replica).is_some_and(is_near)
    }
}

/// Of a member that neither comes nor goes.
pub(crate) const fn role(seat: Seat) -> Option<Role> {
    match seat {
        Seat::Voter => Some(Role::Voter),
        Seat::Learner => Some(Role::Learner),
        Seat::Joining | Seat::Leaving | Seat::Demoting => None,
    }
}
