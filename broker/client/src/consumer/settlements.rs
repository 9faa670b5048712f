//! Settlements between a consumer's handles and its server: what waits, what was sent, and what
//! the server refused for now, which is sent again. Each is answered once, when its fate is known
//! or the session is over.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use millrace_proto::v1::{SettleBatch, SettleResults};
use tokio::time::Instant;

use super::Request;
use crate::backoff::Backoff;
use crate::error::{Applied, Error};
use crate::queue::{Settle, refusal, wire_settlement};

/// Settlements of one frame: they share a sync, and more would only delay the first of them.
const SETTLEMENTS_MAX: usize = 1000;
/// Different outcomes of one frame; each note makes another one.
const OUTCOMES_MAX: usize = 100;

/// All that are not answered.
#[derive(Debug)]
pub(super) struct Settlements {
    /// To be sent, in order.
    due: VecDeque<Request>,
    /// Sent, by sequence of their frame.
    sent: BTreeMap<u64, Vec<Request>>,
    sequence: u64,
    /// Refused for now.
    refused: Vec<Request>,
    /// When those are sent again.
    again_at: Instant,
    backoff: Backoff,
}

impl Settlements {
    /// There are none.
    pub(super) fn new() -> Self {
        Self {
            due: VecDeque::new(),
            sent: BTreeMap::new(),
            sequence: 0,
            refused: Vec::new(),
            again_at: Instant::now(),
            backoff: Backoff::new(),
        }
    }

    /// One more.
    pub(super) fn add(&mut self, request: Request) {
        self.due.push_back(request);
    }

    /// Whether all are answered.
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.sent.is_empty() && self.refused.is_empty()
    }

    /// Whether a frame of them is to be sent.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// When those that were refused are due again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        (!self.refused.is_empty()).then_some(self.again_at)
    }

    /// It is time for those that were refused.
    pub(super) fn again(&mut self) {
        for request in std::mem::take(&mut self.refused).into_iter().rev() {
            self.due.push_front(request);
        }
    }

    /// As many as one frame may have.
    pub(super) fn batch(&mut self) -> SettleBatch {
        let mut outcomes: Vec<(Settle, Vec<Bytes>)> = Vec::new();
        let mut sent = Vec::new();
        while let Some(request) = self.due.front() {
            let known = outcomes
                .iter()
                .position(|(settle, _)| *settle == request.settle);
            if known.is_none() && outcomes.len() == OUTCOMES_MAX {
                break;
            }
            match known.and_then(|at| outcomes.get_mut(at)) {
                Some((_, tags)) => tags.push(request.tag.clone()),
                None => outcomes.push((request.settle.clone(), vec![request.tag.clone()])),
            }
            sent.extend(self.due.pop_front());
            if sent.len() == SETTLEMENTS_MAX {
                break;
            }
        }
        self.sequence += 1;
        self.sent.insert(self.sequence, sent);
        let settlements = outcomes
            .into_iter()
            .map(|(settle, tags)| wire_settlement(tags, &settle));
        SettleBatch {
            sequence: self.sequence,
            settlements: settlements.collect(),
        }
    }

    /// Answers a frame; gives the tags of leases that are over.
    ///
    /// # Errors
    /// No such frame was sent.
    pub(super) fn answered(&mut self, results: &SettleResults) -> Result<Vec<Bytes>, Error> {
        let Some(requests) = self.sent.remove(&results.sequence) else {
            return Err(Error::protocol(
                "results came for settlements that were not sent",
            ));
        };
        let refused = results.refused.iter();
        let refused: BTreeMap<&Bytes, Error> =
            refused.map(|one| (&one.tag, refusal(one))).collect();
        let (mut over, mut pause) = (Vec::new(), None);
        for mut request in requests {
            match refused.get(&request.tag).cloned() {
                Some(error) if error.is_retryable() => {
                    // Who would be told could only do the same; and the lease of a settlement that
                    // is given up runs out, which counts as a failure of the message.
                    request.attempted |= error.applied != Applied::No;
                    pause = pause.max(Some(error.retry_after.unwrap_or_default()));
                    self.refused.push(request);
                }
                Some(error) => {
                    over.push(request.tag.clone());
                    reply(request, Err(error));
                }
                None => {
                    if request.settle != Settle::Extend {
                        over.push(request.tag.clone());
                    }
                    reply(request, Ok(()));
                }
            }
        }
        match pause {
            Some(pause) => self.pause(pause),
            None => self.backoff.reset(),
        }
        Ok(over)
    }

    fn pause(&mut self, asked: Duration) {
        self.again_at = Instant::now() + self.backoff.delay().max(asked);
    }

    /// What has no answer is sent again on the next stream.
    pub(super) fn resend(&mut self) {
        self.again();
        for (_, requests) in std::mem::take(&mut self.sent).into_iter().rev() {
            for mut request in requests.into_iter().rev() {
                request.attempted = true;
                self.due.push_front(request);
            }
        }
    }

    /// The session is over, and all leases are.
    pub(super) fn end(&mut self, error: &Error) {
        self.resend();
        for request in std::mem::take(&mut self.due) {
            reply(request, Err(error.clone()));
        }
    }
}

fn reply(request: Request, answer: Result<(), Error>) {
    let answer = match answer {
        Err(error) if request.attempted => Err(error.after_unknown()),
        answer => answer,
    };
    // Whoever dropped the handle does not want to know.
    drop(request.answer.send(answer));
}
