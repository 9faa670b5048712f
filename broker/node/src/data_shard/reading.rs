//! Questions that must not miss anything acknowledged before: each waits until the leader has made
//! sure that it leads, and until this replica has applied what was committed by then. All that
//! wait when a turn ends are made sure of together. Without other voters, that costs nothing.

use std::collections::BTreeMap;

use millrace_replica::{NotLeader, Read, ReadToken};
use millrace_types::{ErrorCode, LogIndex, Refusal};

use super::DataShard;
use crate::input::Question;
use crate::options::{READERS_WAITING_MAX, RETRY_AFTER_MS};
use crate::shard_log::Standing;

/// Those that wait.
#[derive(Default)]
pub(super) struct Reading {
    /// Nobody was asked about them yet.
    waiting: Vec<Question>,
    /// The leader is making sure.
    asked: BTreeMap<ReadToken, Vec<Question>>,
    /// To be answered when this much is applied.
    sure: Vec<(LogIndex, Question)>,
    token: u64,
}

impl Reading {
    fn len(&self) -> usize {
        let asked: usize = self.asked.values().map(Vec::len).sum();
        self.waiting.len() + asked + self.sure.len()
    }

    /// Everybody, when the shard stops.
    fn take_all(&mut self) -> Vec<Question> {
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(std::mem::take(&mut self.asked).into_values().flatten());
        all.extend(
            std::mem::take(&mut self.sure)
                .into_iter()
                .map(|(_, question)| question),
        );
        all
    }
}

impl DataShard {
    /// Answers a question by what is committed now, if this replica leads.
    pub(crate) fn ask_current(&mut self, question: Question) {
        if self.log.standing() == Standing::Follows {
            question(Err(self.log.not_leader()));
        } else if self.reading.len() >= READERS_WAITING_MAX {
            question(Err(self.too_many_readers()));
        } else {
            self.reading.waiting.push(question);
        }
    }

    /// Answers a question when an entry is applied, whoever leads.
    pub(crate) fn ask_applied(&mut self, index: LogIndex, question: Question) {
        if self.state.shard.applied() >= index {
            question(Ok(&self.state.shard));
        } else if self.reading.len() >= READERS_WAITING_MAX {
            question(Err(self.too_many_readers()));
        } else {
            self.reading.sure.push((index, question));
        }
    }

    /// Has the leader made sure of for those that wait.
    pub(super) fn ask_for_reads(&mut self) {
        if self.reading.waiting.is_empty() {
            return;
        }
        self.reading.token += 1;
        let token = ReadToken(self.reading.token);
        let questions = std::mem::take(&mut self.reading.waiting);
        match self.log.read_index(token) {
            Ok(()) => {
                self.reading.asked.insert(token, questions);
            }
            Err(NotLeader { .. }) => self.refuse_readers(questions),
        }
    }

    /// Answers those of whom it is known what they have to see, and who can.
    pub(super) fn answer_reads(&mut self, reads: Vec<Read>) {
        for Read { token, answer } in reads {
            let questions = self.reading.asked.remove(&token).unwrap_or_default();
            match answer {
                Ok(index) => {
                    let sure = questions.into_iter().map(|question| (index, question));
                    self.reading.sure.extend(sure);
                }
                Err(NotLeader { .. }) => self.refuse_readers(questions),
            }
        }
        let applied = self.state.shard.applied();
        let due = self
            .reading
            .sure
            .extract_if(.., |(index, _)| *index <= applied);
        for (_, question) in due {
            question(Ok(&self.state.shard));
        }
    }

    /// Nobody is answered any more.
    pub(super) fn end_reads(&mut self, refusal: &Refusal) {
        for question in self.reading.take_all() {
            question(Err(refusal.clone()));
        }
    }

    fn refuse_readers(&self, questions: Vec<Question>) {
        for question in questions {
            question(Err(self.log.not_leader()));
        }
    }

    fn too_many_readers(&self) -> Refusal {
        let shard = self.id;
        let text = format!("{READERS_WAITING_MAX} questions wait for shard {shard} already");
        Refusal::new(ErrorCode::Overloaded, text)
            .with("limit", READERS_WAITING_MAX.to_string())
            .retry_after_millis(RETRY_AFTER_MS)
    }
}
