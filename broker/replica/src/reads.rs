//! Questions that must not miss anything acknowledged before: each waits until a majority has
//! confirmed that its leader still leads. All that come in between two rounds share one.

use std::collections::VecDeque;

use millrace_types::LogIndex;

use super::error::NotLeader;
use super::message::Round;
use super::output::{Read, ReadToken};

/// Reads that have no answer yet.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Not asked yet.
    waiting: Vec<ReadToken>,
    /// Asked, by round.
    asked: VecDeque<(Round, Vec<ReadToken>)>,
    count: usize,
    round: u64,
    /// The term they were asked in.
    term: u64,
    answers: Vec<Read>,
}

impl Reads {
    /// Takes one.
    pub(crate) fn add(&mut self, token: ReadToken) {
        self.waiting.push(token);
        self.count += 1;
    }

    /// How many have no answer.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Whether answers wait to be told.
    pub(crate) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether some wait to be asked.
    pub(crate) fn wants_round(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Begins a round for all that wait.
    pub(crate) fn begin(&mut self, term: u64) -> Round {
        self.round += 1;
        self.term = term;
        let round = Round(self.round);
        self.asked
            .push_back((round, std::mem::take(&mut self.waiting)));
        round
    }

    /// A round is confirmed.
    pub(crate) fn confirmed(&mut self, round: Round, index: LogIndex) {
        while let Some((asked, _)) = self.asked.front()
            && *asked <= round
        {
            let (_, tokens) = self.asked.pop_front().unwrap_or_default();
            self.count -= tokens.len();
            let answer = |token| Read {
                token,
                answer: Ok(index),
            };
            self.answers.extend(tokens.into_iter().map(answer));
        }
    }

    /// Rounds of another term will not be confirmed, and without leading nothing will.
    pub(crate) fn settle(&mut self, term: u64, lost: Option<NotLeader>) {
        if self.count == 0 {
            return;
        }
        let mut failed = Vec::new();
        if lost.is_some() || self.term != term {
            failed.extend(self.asked.drain(..).flat_map(|(_, tokens)| tokens));
        }
        if lost.is_some() {
            failed.append(&mut self.waiting);
        }
        self.count -= failed.len();
        let error = lost.unwrap_or(NotLeader { leader: None });
        let answer = |token| Read {
            token,
            answer: Err(error),
        };
        self.answers.extend(failed.into_iter().map(answer));
    }

    /// Answers to be told.
    pub(crate) fn take_answers(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.answers)
    }
}
