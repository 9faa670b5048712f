//! Takes every event, keeps the facts, asks every invariant, and adds the event to the trace that
//! equal seeds have to share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_replica::{Body, Payload, ShardMessage};

use crate::clock::{Clock, DRIFT_PERCENT_MAX, Time};
use crate::event::Event;
use crate::facts::Facts;
use crate::invariants::{self, Invariant};
use crate::network::Link;
use crate::random::mix;

/// Events kept to be shown with a violation.
const RECENT_MAX: usize = 40;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What happened.
    pub what: String,
}

/// Shared by everything that sees events.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Inner>);

struct Inner {
    time: Arc<Time>,
    /// Of all machines.
    clocks: Vec<Arc<Clock>>,
    state: Mutex<State>,
}

/// What a watch keeps.
pub(crate) struct State {
    /// What is known.
    pub facts: Facts,
    invariants: Vec<Box<dyn Invariant>>,
    violation: Option<Violation>,
    recent: VecDeque<String>,
    trace: u64,
    loud: bool,
}

impl Watch {
    /// Nothing has happened yet. A loud one prints every event.
    #[must_use]
    pub(crate) fn new(time: &Arc<Time>, clocks: Vec<Arc<Clock>>, loud: bool) -> Self {
        let mut facts = Facts::default();
        if clocks.len() > 1 {
            facts.drift_percent = DRIFT_PERCENT_MAX;
            facts.is_cluster = true;
        }
        let state = State {
            facts,
            invariants: invariants::all(),
            violation: None,
            recent: VecDeque::new(),
            trace: 0,
            loud,
        };
        Self(Arc::new(Inner {
            time: Arc::clone(time),
            clocks,
            state: Mutex::new(state),
        }))
    }

    /// Something happened.
    pub(crate) fn tell(&self, event: &Event) {
        self.with(|state| state.tell(event));
    }

    /// A message is on its way between two nodes; it arrives so often.
    pub(crate) fn passes(&self, link: Link, lane: u64, message: &ShardMessage, arrives: u64) {
        self.with(|state| state.passes(link, lane, message, arrives));
    }

    /// Something happened that no invariant has to be asked about.
    pub(crate) fn violated(&self, invariant: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.with(|state| state.violated(Violation { invariant, what }));
    }

    /// Looks at, or adds to, what is known.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.facts.now_ms = self.0.time.millis();
        let walls = || self.0.clocks.iter().map(|clock| clock.wall_millis());
        state.facts.wall_ms = walls().min().unwrap_or_default();
        let latest = walls().max().unwrap_or_default();
        state.facts.wall_max_ms = state.facts.wall_max_ms.max(latest);
        look(&mut state)
    }

    /// The first violation.
    #[must_use]
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    /// A number that equal runs share.
    #[must_use]
    pub(crate) fn trace(&self) -> u64 {
        self.lock().trace
    }

    /// The last events, for people.
    #[must_use]
    pub(crate) fn recent(&self) -> Vec<String> {
        self.lock().recent.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Something happened.
    pub(crate) fn tell(&mut self, event: &Event) {
        let text = format!("{:>8} ms {event:?}", self.facts.now_ms);
        for byte in text.bytes() {
            self.trace = mix(self.trace ^ u64::from(byte));
        }
        if self.loud {
            println!("{text}");
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(text);
        let excused = self.facts.damage.excused;
        for invariant in &mut self.invariants {
            if excused && !invariant.outlives_damage() {
                continue;
            }
            if let Err(what) = invariant.check(&self.facts, event) {
                let violation = Violation {
                    invariant: invariant.name(),
                    what,
                };
                self.violation.get_or_insert(violation);
            }
        }
        self.facts.note(event);
    }

    /// Messages are too many to be told in full, but to who wants to see everything.
    fn passes(&mut self, link: Link, lane: u64, message: &ShardMessage, arrives: u64) {
        let ends = mix((link.from as u64) << 32 | (link.to as u64) << 8 | lane);
        self.trace = mix(self.trace ^ ends ^ arrives ^ self.facts.now_ms);
        if self.loud {
            let fate = match arrives {
                0 => " (lost)",
                1 => "",
                _ => " (twice)",
            };
            let Link { from, to } = link;
            let text = brief(message);
            println!("{:>8} ms   {from} -> {to}{fate} {text}", self.facts.now_ms);
        }
    }

    /// Whether every event is printed.
    #[must_use]
    pub(crate) const fn is_loud(&self) -> bool {
        self.loud
    }

    fn violated(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }
}

/// A message in one line, without what its entries hold.
fn brief(message: &ShardMessage) -> String {
    let shard = message.shard;
    let raft = match &message.body {
        Body::Raft(raft) => raft,
        Body::Chunk(chunk) => {
            return format!("shard {shard}: {} of {} bytes", chunk.offset, chunk.total);
        }
        Body::Ack(ack) => return format!("shard {shard}: {:?}", ack.next),
    };
    let term = raft.term;
    match &raft.payload {
        Payload::Append {
            prev,
            commit,
            entries,
        } => {
            let (count, index) = (entries.len(), prev.index);
            format!("shard {shard} term {term}: {count} entries behind {index}, commit {commit}")
        }
        other => format!("shard {shard} term {term}: {other:?}"),
    }
}
