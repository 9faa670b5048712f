//! Who asks about a shard's state and must not miss anything acknowledged before: each waits until
//! the leader has made sure that it leads, and until this replica has applied what was committed by
//! then. All that wait when a turn ends are made sure of together. Without other voters, that costs
//! nothing. Says who is to be answered; answers nobody.

use std::collections::BTreeMap;

use millrace_replica::{NotLeader, Read, ReadToken};
use millrace_types::{ErrorCode, LogIndex, Refusal, ShardId};

use super::options::{READERS_WAITING_MAX, RETRY_AFTER_MS};

/// Those that wait, with what they ask.
pub(super) struct Reading<Q> {
    /// Nobody was asked about them yet.
    waiting: Vec<Q>,
    /// The leader is making sure.
    asked: BTreeMap<ReadToken, Vec<Q>>,
    /// To be answered when this much is applied.
    sure: Vec<(LogIndex, Q)>,
    token: u64,
}

/// Those that wait no longer.
pub(super) struct Due<Q> {
    /// The state has what they have to see.
    pub(super) answered: Vec<Q>,
    /// The leader leads no more.
    pub(super) refused: Vec<Q>,
}

impl<Q> Default for Reading<Q> {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            asked: BTreeMap::new(),
            sure: Vec::new(),
            token: 0,
        }
    }
}

impl<Q> Reading<Q> {
    /// Refuses when too many wait already.
    ///
    /// # Errors
    /// `OVERLOADED`.
    pub(super) fn check_room(&self, shard: ShardId) -> Result<(), Refusal> {
        let asked: usize = self.asked.values().map(Vec::len).sum();
        if self.waiting.len() + asked + self.sure.len() < READERS_WAITING_MAX {
            return Ok(());
        }
        let text = format!("{READERS_WAITING_MAX} questions wait for shard {shard} already");
        Err(Refusal::new(ErrorCode::Overloaded, text)
            .with("limit", READERS_WAITING_MAX.to_string())
            .retry_after_millis(RETRY_AFTER_MS))
    }

    /// Asks what is committed now.
    pub(super) fn wait(&mut self, question: Q) {
        self.waiting.push(question);
    }

    /// Asks when this is applied.
    pub(super) fn wait_for(&mut self, index: LogIndex, question: Q) {
        self.sure.push((index, question));
    }

    /// Has the leader made sure of for those that wait; gives them back if it cannot.
    pub(super) fn ask(
        &mut self,
        read_index: impl FnOnce(ReadToken) -> Result<(), NotLeader>,
    ) -> Vec<Q> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        self.token += 1;
        let token = ReadToken(self.token);
        let questions = std::mem::take(&mut self.waiting);
        match read_index(token) {
            Ok(()) => {
                self.asked.insert(token, questions);
                Vec::new()
            }
            Err(NotLeader { .. }) => questions,
        }
    }

    /// Who can be told something, by what is made sure of and what is applied.
    pub(super) fn due(&mut self, reads: Vec<Read>, applied: LogIndex) -> Due<Q> {
        let mut refused = Vec::new();
        for Read { token, answer } in reads {
            let questions = self.asked.remove(&token).unwrap_or_default();
            match answer {
                Ok(index) => {
                    let sure = questions.into_iter().map(|question| (index, question));
                    self.sure.extend(sure);
                }
                Err(NotLeader { .. }) => refused.extend(questions),
            }
        }
        let due = self.sure.extract_if(.., |(index, _)| *index <= applied);
        Due {
            answered: due.map(|(_, question)| question).collect(),
            refused,
        }
    }

    /// Everybody, when the shard stops.
    pub(super) fn take_all(&mut self) -> Vec<Q> {
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(std::mem::take(&mut self.asked).into_values().flatten());
        let sure = std::mem::take(&mut self.sure).into_iter();
        all.extend(sure.map(|(_, question)| question));
        all
    }
}
