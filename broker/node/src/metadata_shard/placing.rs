//! What the catalogue's leader does about nodes and replicas: says how the cluster began, and plans
//! where replicas belong whenever something has changed.

use std::time::Instant;

use super::MetadataShard;
use crate::placement::plan::plan;
use crate::placement::registering;
use crate::reply::Reply;
use millrace_engine::catalogue::RosterCommand;

impl MetadataShard {
    /// A new leader: says how the cluster began, unless that is known, and looks at everything.
    pub(super) fn begin_placing(&mut self, now: Instant) {
        self.replan = true;
        if self.state.catalogue.roster().is_founded() {
            return;
        }
        match registering::founded(&self.node.data_dir) {
            Some(founded) => {
                let command = RosterCommand::Found(founded);
                self.propose(command.into(), Reply::none(), now);
            }
            None => tracing::error!("nobody here knows how the cluster began"),
        }
    }

    /// Plans when there is reason to, and nothing is on its way that would change the plan.
    pub(super) fn place(&mut self, now: Instant) {
        if !self.replan || !self.log.leads() || self.log.len() > 0 {
            return;
        }
        self.replan = false;
        for command in plan(self.state.catalogue.roster()) {
            tracing::info!(?command, "replicas are placed");
            self.propose(command.into(), Reply::none(), now);
        }
    }

    /// Brings the own members closer to what they should be, if there is reason to look.
    pub(super) fn steer(&mut self, now: Instant) {
        if self.log.regrouped() {
            self.steering.upset();
        }
        if self.steering.is_upset() {
            self.steering.steer(&self.node, &mut self.log, now);
        }
    }

    /// Nodes or replicas have changed.
    pub(crate) const fn upset(&mut self) {
        self.steering.upset();
    }
}
