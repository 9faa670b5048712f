//! Carries out for one shard what `steer` decides, while this node leads it: changes members one
//! step at a time, hands over, and tells the catalogue who the members are.
//!
//! Promises: at most one change and one hand-over are under way; leadership goes to the preferred
//! node only after it has rested for a while, so that it does not go to and fro; what gets lost is
//! tried again. A shard that has what it should have is left alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_engine::catalogue::{Assigned, KnownNode, Replicas, Roster, RosterCommand};
use millrace_replica::{ChangeError, Member, Members};
use millrace_types::ReplicaId;

use super::steer::{Scene, Step, role};
use crate::node::Node;
use crate::pumps::Pumps;
use crate::shard_log::ShardLog;

/// A report that is not in the catalogue after this long is made again.
const REPORT_AGAIN: Duration = Duration::from_secs(1);
/// Between two attempts to hand over: the one before has succeeded or failed by then, which takes
/// an election's time.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(2);
/// A leader that may stay leads for this long before it hands over to the preferred one, which may
/// just have come back and go again.
const LEAD_AT_LEAST: Duration = Duration::from_secs(5);

/// Of one shard, what its leader has under way.
#[derive(Debug, Default)]
pub(crate) struct Steering {
    /// Something has changed since the last look.
    upset: bool,
    /// Something is to be done, or waited for.
    restless: bool,
    led_since: Option<Instant>,
    handed_over: Option<Instant>,
    reported: Option<(Instant, Vec<Assigned>)>,
}

impl Steering {
    /// Has the shard looked at with the next turn.
    pub(crate) const fn upset(&mut self) {
        self.upset = true;
    }

    /// Whether it is to be looked at now.
    pub(crate) const fn is_upset(&self) -> bool {
        self.upset
    }

    /// Whether it is to be looked at again in a second.
    pub(crate) const fn is_restless(&self) -> bool {
        self.restless
    }

    /// Does what is to be done next.
    pub(crate) fn steer<E>(&mut self, node: &Arc<Node>, log: &mut ShardLog<E>, now: Instant) {
        self.upset = false;
        self.restless = false;
        if !log.leads() {
            *self = Self::default();
            return;
        }
        self.led_since.get_or_insert(now);
        let roster = Arc::clone(node.view.borrow().roster());
        let Some(replicas) = roster.shard(log.shard()) else {
            return;
        };
        if log.members().is_joint() {
            // The second half comes by itself, and is told.
            return;
        }
        self.report(node, log, replicas, now);
        let members: Vec<Member> = log.members().iter().collect();
        let progress = log.progress();
        let scene = Scene {
            own: log.id(),
            members: &members,
            replicas,
            progress: &progress,
            last: log.reach().last,
        };
        self.restless |= !scene.is_converged();
        match scene.next_change() {
            Step::Change(changes) => {
                let (shard, changed) = (log.shard(), log.change_members(&changes));
                match changed {
                    Ok(()) => tracing::info!(%shard, ?changes, "members change"),
                    Err(ChangeError::Pending | ChangeError::Transferring { .. }) => {}
                    Err(error) => tracing::warn!(%shard, %error, ?changes, "members do not change"),
                }
            }
            Step::HandOver(heir) => self.hand_over(log, heir, now),
            Step::Rest => self.prefer(log, &scene, &roster, now),
        }
    }

    /// Leads on, or lets somebody do so who should.
    fn prefer<E>(
        &mut self,
        log: &mut ShardLog<E>,
        scene: &Scene<'_>,
        roster: &Roster,
        now: Instant,
    ) {
        let may_lead = |node| roster.node(node).is_some_and(KnownNode::may_lead);
        let own = log.members().find(scene.own).map(|member| member.node);
        let preferred = scene.replicas.target().leader();
        let must_not = own.is_some_and(|own| roster.node(own).is_some() && !may_lead(own));
        self.restless |= must_not || (preferred != own && preferred.is_some_and(may_lead));
        let Some(heir) = scene.heir(|node| may_lead(node) || (!must_not && Some(node) == own))
        else {
            return;
        };
        let long = |since: Instant| now.saturating_duration_since(since) >= LEAD_AT_LEAST;
        if must_not || self.led_since.is_some_and(long) {
            self.hand_over(log, heir, now);
        }
    }

    fn hand_over<E>(&mut self, log: &mut ShardLog<E>, heir: ReplicaId, now: Instant) {
        self.restless = true;
        let lately = |at: Instant| now.saturating_duration_since(at) < HAND_OVER_AGAIN;
        if self.handed_over.is_some_and(lately) {
            return;
        }
        self.handed_over = Some(now);
        let shard = log.shard();
        match log.hand_over(heir) {
            Ok(()) => tracing::info!(%shard, %heir, "leadership is handed over"),
            Err(error) => tracing::debug!(%shard, %heir, %error, "leadership is not handed over"),
        }
    }

    /// Tells the catalogue who the members are, unless it knows.
    fn report<E>(
        &mut self,
        node: &Arc<Node>,
        log: &ShardLog<E>,
        replicas: &Replicas,
        now: Instant,
    ) {
        let members = assigned(log.members());
        let index = log.applied_to();
        if members == replicas.actual().members() || index <= replicas.actual().index() {
            self.reported = None;
            return;
        }
        self.restless = true;
        let lately = |at: Instant| now.saturating_duration_since(at) < REPORT_AGAIN;
        let is_told = |(at, told): &(Instant, Vec<Assigned>)| lately(*at) && *told == members;
        if self.reported.as_ref().is_some_and(is_told) {
            return;
        }
        self.reported = Some((now, members.clone()));
        let shard = log.shard();
        let command = RosterCommand::ReportMembers {
            shard,
            index,
            members,
        };
        let telling = Arc::clone(node);
        Pumps::errand(node, async move {
            if let Err(refusal) = telling.order_catalogue(command.into()).await {
                tracing::debug!(%shard, %refusal, "the catalogue was not told of members");
            }
        });
    }
}

/// Members as the catalogue has them; none of them is on its way in or out.
fn assigned(members: &Members) -> Vec<Assigned> {
    let assigned = |member: Member| {
        let role = role(member.seat)?;
        Some(Assigned {
            replica: member.replica,
            node: member.node,
            role,
        })
    };
    members.iter().filter_map(assigned).collect()
}
