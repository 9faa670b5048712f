//! What is done to a queue at random, and how often.

use millrace_engine::command::{Settle, Window};
use millrace_types::LogId;
use proptest::prelude::*;

use super::OTHER;
use crate::support::DEAD;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Pass(u64),
    Publish(u32),
    Transfer {
        off: u64,
        read: u64,
        matched: u32,
    },
    AcceptDead {
        off: i64,
        count: u32,
    },
    Open {
        session: u64,
        window: Window,
    },
    Attach {
        session: u64,
        window: Window,
        claim: u64,
    },
    Detach {
        session: u64,
        stale: bool,
    },
    SetWindow {
        session: u64,
        window: Window,
    },
    Close(u64),
    Acquire {
        owner: u64,
        max: u32,
        bytes: u64,
    },
    Settle(Vec<(prop::sample::Index, Settle)>),
    Sent {
        session: u64,
        stale: bool,
        which: u64,
    },
    Confirm(usize),
    Aim(Option<LogId>),
    Redirect(u64),
    Freeze,
    Thaw,
    Lead,
}

fn windows() -> impl Strategy<Value = Window> {
    let bytes = prop_oneof![Just(u64::MAX), 0..600_u64];
    (0..5_u32, bytes).prop_map(|(messages, bytes)| Window { messages, bytes })
}

fn settles() -> impl Strategy<Value = Settle> {
    let note = String::new;
    prop_oneof![
        3 => Just(Settle::Accept),
        1 => (0..20_u64).prop_map(|delay_ms| Settle::Release { delay_ms }),
        3 => prop::option::of(0..20_u64)
            .prop_map(move |delay_ms| Settle::Retry { delay_ms, note: note() }),
        1 => Just(Settle::Reject { note: note() }),
        1 => Just(Settle::Extend),
    ]
}

pub(super) fn steps() -> impl Strategy<Value = Step> {
    let session = 1..4_u64;
    let settle = (any::<prop::sample::Index>(), settles());
    prop_oneof![
        4 => prop_oneof![0..10_u64, 0..700_u64].prop_map(Step::Pass),
        4 => (1..8_u32).prop_map(Step::Publish),
        1 => (0..2_u64, 0..9_u64, 0..6_u32)
            .prop_map(|(off, read, matched)| Step::Transfer { off, read, matched }),
        1 => (-2..2_i64, 1..4_u32).prop_map(|(off, count)| Step::AcceptDead { off, count }),
        2 => (session.clone(), windows())
            .prop_map(|(session, window)| Step::Open { session, window }),
        1 => (session.clone(), windows(), any::<u64>())
            .prop_map(|(session, window, claim)| Step::Attach { session, window, claim }),
        1 => (session.clone(), prop::bool::weighted(0.2))
            .prop_map(|(session, stale)| Step::Detach { session, stale }),
        1 => (session.clone(), windows())
            .prop_map(|(session, window)| Step::SetWindow { session, window }),
        3 => (session.clone(), prop::bool::weighted(0.1), any::<u64>())
            .prop_map(|(session, stale, which)| Step::Sent { session, stale, which }),
        1 => session.prop_map(Step::Close),
        2 => (10..12_u64, 0..5_u32, 0..400_u64)
            .prop_map(|(owner, max, bytes)| Step::Acquire { owner, max, bytes }),
        6 => prop::collection::vec(settle, 1..6).prop_map(Step::Settle),
        1 => (0..4_usize).prop_map(Step::Confirm),
        1 => prop_oneof![Just(None), Just(Some(DEAD)), Just(Some(OTHER))].prop_map(Step::Aim),
        2 => (0..4_u64).prop_map(Step::Redirect),
        1 => Just(Step::Freeze),
        2 => Just(Step::Thaw),
        1 => Just(Step::Lead),
    ]
}
