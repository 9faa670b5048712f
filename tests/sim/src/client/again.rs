//! Calls that have to go elsewhere: who asked a node that does not lead follows its hint, or tries
//! any other, a few times.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_types::{Applied, ErrorCode, Refusal};

use super::{Client, Lasting};

/// Tries of one call: an election takes some.
const TRIES_MAX: u32 = 12;
/// Before the first of them; each further one waits longer by as much.
const PAUSE_MS: u64 = 15;

/// A call to make, with the clients of the node it goes to.
type Call = Box<dyn FnOnce(&Client) + Send>;

/// A call that has to be made again.
pub(crate) struct Again {
    /// Where, if somebody has said so.
    pub to: Option<usize>,
    /// The call.
    pub call: Call,
}

/// All of them, by when they are due.
#[derive(Default)]
pub(super) struct Calls {
    due: BTreeMap<(Duration, u64), Again>,
    number: u64,
    /// Batches on their way that may be sent again if nobody answers.
    open: BTreeMap<usize, Sent>,
}

/// A batch on its way.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    /// Place of the object.
    pub to: usize,
    /// Of a topic.
    pub partition: u32,
    /// The node that was given it.
    pub node: usize,
}

impl Lasting {
    /// A call will be made again.
    pub(crate) fn again(&self, at: Duration, to: Option<usize>, call: Call) {
        let mut calls = self.calls();
        calls.number += 1;
        let number = calls.number;
        calls.due.insert((at, number), Again { to, call });
    }

    /// One that is due by now.
    pub(crate) fn due(&self, now: Duration) -> Option<Again> {
        let mut calls = self.calls();
        let first = calls.due.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// When the next one is due.
    pub(crate) fn next_call(&self) -> Option<Duration> {
        self.calls().due.keys().next().map(|(at, _)| *at)
    }

    /// A batch is on its way that may be sent again.
    pub(super) fn sent(&self, batch: usize, sent: Sent) {
        self.calls().open.insert(batch, sent);
    }

    /// It was answered.
    pub(super) fn answered(&self, batch: usize) {
        self.calls().open.remove(&batch);
    }

    /// Nobody will answer what a node was given that is gone.
    pub(super) fn send_again(&self, node: usize) {
        let now_ms = self.watch.with(|state| state.facts.now_ms);
        let open = std::mem::take(&mut self.calls().open);
        let at = Duration::from_millis(now_ms + PAUSE_MS);
        for (batch, sent) in open {
            if sent.node == node {
                let call = move |client: &Client| client.send_again(sent, batch);
                self.again(at, None, Box::new(call));
            } else {
                self.sent(batch, sent);
            }
        }
    }

    /// No call will be made any more.
    pub(crate) fn end(&self) {
        let due = std::mem::take(&mut self.calls().due);
        drop(due);
    }
}

impl Client {
    /// Makes a call again where a refusal says that it belongs. Whether that helps.
    pub(super) fn elsewhere(
        &self,
        refusal: &Refusal,
        tries: u32,
        call: impl FnOnce(&Self) + Send + 'static,
    ) -> bool {
        let helps = refusal.code == ErrorCode::NotLeader && refusal.applied == Applied::No;
        if self.place.alone || !helps || tries >= TRIES_MAX {
            return false;
        }
        let hint = refusal.metadata.get("leader");
        let hint = hint
            .and_then(|id| id.parse().ok())
            .map(millrace_types::NodeId::new);
        let to = hint.and_then(|id| self.place.net.place(id));
        let pause = Duration::from_millis(PAUSE_MS * u64::from(tries + 1));
        let at = self.host.clock().time().now() + pause;
        self.lasting.again(at, to, Box::new(call));
        true
    }
}
