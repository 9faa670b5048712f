//! Questions about a data shard that must not miss anything acknowledged before.

use millrace_replica::Read;
use millrace_types::{LogIndex, Refusal};

use super::DataShard;
use crate::input::Question;
use crate::shard_log::Standing;

impl DataShard {
    /// Answers a question by what is committed now, if this replica leads.
    pub(crate) fn ask_current(&mut self, question: Question) {
        if self.log.standing() == Standing::Follows {
            return question(Err(self.log.not_leader()));
        }
        match self.reading.check_room(self.id) {
            Ok(()) => self.reading.wait(question),
            Err(refusal) => question(Err(refusal)),
        }
    }

    /// Answers a question when an entry is applied, whoever leads.
    pub(crate) fn ask_applied(&mut self, index: LogIndex, question: Question) {
        if self.state.shard.applied() >= index {
            return question(Ok(&self.state.shard));
        }
        match self.reading.check_room(self.id) {
            Ok(()) => self.reading.wait_for(index, question),
            Err(refusal) => question(Err(refusal)),
        }
    }

    /// Has the leader made sure of for those that wait.
    pub(super) fn ask_for_reads(&mut self) {
        let log = &mut self.log;
        let refused = self.reading.ask(|token| log.read_index(token));
        self.refuse_readers(refused);
    }

    /// Answers those of whom it is known what they have to see, and who can.
    pub(super) fn answer_reads(&mut self, reads: Vec<Read>) {
        let due = self.reading.due(reads, self.state.shard.applied());
        for question in due.answered {
            question(Ok(&self.state.shard));
        }
        self.refuse_readers(due.refused);
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
}
