//! What the catalogue is now, for nodes that would refuse a name because they do not know it.

use millrace_types::{Refusal, ShardId};

use super::MetadataShard;
use crate::reply::Reply;
use crate::shard_log::Standing;

impl MetadataShard {
    /// Answers with the topology's revision as of what is committed now, if this replica leads.
    pub(crate) fn ask_revision(&mut self, reply: Reply<u64>) {
        if self.log.standing() == Standing::Follows {
            return reply.answer(Err(self.log.not_leader()));
        }
        match self.reading.check_room(ShardId::METADATA) {
            Ok(()) => self.reading.wait(reply),
            Err(refusal) => reply.answer(Err(refusal)),
        }
    }

    /// Has the leader made sure of for those that wait.
    pub(super) fn ask_for_reads(&mut self) {
        let log = &mut self.log;
        let refused = self.reading.ask(|token| log.read_index(token));
        self.refuse_readers(refused);
    }

    /// Answers those of whom it is known what they have to see, and who can.
    pub(super) fn answer_reads(&mut self) {
        let reads = self.log.take_reads();
        let due = self.reading.due(reads, self.state.catalogue.applied());
        for reply in due.answered {
            reply.answer(Ok(self.state.catalogue.topology().revision()));
        }
        self.refuse_readers(due.refused);
    }

    /// Nobody is answered any more.
    pub(super) fn end_reads(&mut self, refusal: &Refusal) {
        for reply in self.reading.take_all() {
            reply.answer(Err(refusal.clone()));
        }
    }

    fn refuse_readers(&self, replies: Vec<Reply<u64>>) {
        for reply in replies {
            reply.answer(Err(self.log.not_leader()));
        }
    }
}
