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
