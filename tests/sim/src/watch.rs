//! Takes every event, keeps the facts, asks every invariant, and adds the event to the trace that
//! equal seeds have to share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::event::Event;
use crate::facts::Facts;
use crate::host::Clock;
use crate::invariants::{self, Invariant};
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
pub(crate) struct Watch(Arc<Mutex<State>>, Arc<Clock>);

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
    pub(crate) fn new(clock: Arc<Clock>, loud: bool) -> Self {
        let state = State {
            facts: Facts::default(),
            invariants: invariants::all(),
            violation: None,
            recent: VecDeque::new(),
            trace: 0,
            loud,
        };
        Self(Arc::new(Mutex::new(state)), clock)
    }

    /// Something happened.
    pub(crate) fn tell(&self, event: &Event) {
        self.with(|state| state.tell(event));
    }

    /// Something happened that no invariant has to be asked about.
    pub(crate) fn violated(&self, invariant: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.with(|state| state.violated(Violation { invariant, what }));
    }

    /// Looks at, or adds to, what is known.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        state.facts.now_ms = self.1.millis();
        state.facts.wall_ms = self.1.wall_millis();
        state.facts.wall_max_ms = state.facts.wall_max_ms.max(state.facts.wall_ms);
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Whether every event is printed.
    #[must_use]
    pub(crate) const fn is_loud(&self) -> bool {
        self.loud
    }

    fn violated(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }
}
