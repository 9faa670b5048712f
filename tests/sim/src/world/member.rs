//! One machine of a world: its clock and its disk, which outlive the node that runs there.

use std::sync::Arc;
use std::time::Duration;

use super::damage::Open;
use super::joining::Joining;
use super::life::Life;
use crate::clock::Clock;
use crate::disk::Medium;
use crate::plan::{Deceit, Loss, When};

/// See above.
pub(super) struct Member {
    pub(super) clock: Arc<Clock>,
    pub(super) medium: Arc<Medium>,
    /// The node, while it runs.
    pub(super) life: Option<Life>,
    /// Lives so far.
    pub(super) lives: u64,
    /// What a crash inside an operation loses.
    pub(super) loss: Loss,
    /// What the disk of the next life will say nothing of.
    pub(super) ahead: Vec<Deceit>,
    pub(super) open: Open,
    /// When the disk has room again.
    full_until: Option<Duration>,
    /// When the node is started again.
    pub(super) down_until: Option<Duration>,
    /// The cluster began with this node.
    pub(super) is_founder: bool,
    /// Its disk is empty, and it belongs to no cluster yet.
    pub(super) is_blank: bool,
    /// What it does about that.
    pub(super) joining: Option<Joining>,
    /// When the process goes on that stands still.
    paused_until: Option<Duration>,
}

impl Member {
    /// A machine with an empty disk.
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        Self {
            clock,
            medium: Medium::new(),
            life: None,
            lives: 0,
            loss: Loss::Nothing,
            ahead: Vec::new(),
            open: Open::default(),
            full_until: None,
            down_until: None,
            is_founder: true,
            is_blank: false,
            joining: None,
            paused_until: None,
        }
    }

    /// Time has passed, for everything here.
    pub(super) fn time_passed(&mut self, now: Duration) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if let Some(life) = self.life.as_ref().filter(|_| self.paused_until.is_none()) {
            life.host.time_passed();
        }
        if self.full_until.is_some_and(|until| until <= now) {
            self.make_room();
        }
    }

    /// When something here changes that the node does not know of.
    pub(super) fn next_change(&self) -> Option<Duration> {
        let changes = [self.full_until, self.paused_until, self.down_until];
        changes.into_iter().flatten().min()
    }

    /// Whether the process stands still.
    pub(super) fn is_paused(&self, now: Duration) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// The process stands still, and knows nothing of it.
    pub(super) const fn pause(&mut self, until: Duration) {
        self.paused_until = Some(until);
    }

    /// It goes on.
    pub(super) const fn go_on(&mut self) {
        self.paused_until = None;
    }

    /// The disk is full for a while.
    pub(super) fn fill(&mut self, left: u64, until: Duration) {
        let used = self.medium.used_bytes();
        self.medium.set_capacity(Some(used + left));
        self.full_until = Some(until);
    }

    /// The disk is not full any more.
    pub(super) fn make_room(&mut self) {
        self.medium.set_capacity(None);
        self.full_until = None;
    }

    /// Whether the disk is full.
    pub(super) const fn is_full(&self) -> bool {
        self.full_until.is_some()
    }

    /// Plans something that the disk will say nothing of.
    pub(super) fn deceive(&mut self, deceit: Deceit) {
        match deceit.when {
            When::Now => self.life.iter_mut().for_each(|life| life.deceive(deceit)),
            When::NextLife => self.ahead.push(deceit),
        }
    }
}
