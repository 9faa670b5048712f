//! Who leads a shard, as this replica knows, and what those are told who ask another one.

use millrace_replica::{ProposeError, Role, Status};
use millrace_types::{ErrorCode, Refusal};

use super::ShardLog;
use crate::leaders::Led;
use crate::node;
use crate::options::RETRY_AFTER_MS;

impl<E> ShardLog<E> {
    /// Who leads, when that may have changed since it was asked last.
    pub(crate) fn moved(&mut self) -> Option<Led> {
        std::mem::take(&mut self.moved).then(|| self.led())
    }

    /// Who leads, as this replica knows.
    fn led(&self) -> Led {
        let Status { role, leader, .. } = self.replica.status();
        if role == Role::Leader {
            return Led::Here;
        }
        let member = leader.and_then(|leader| self.replica.members().find(leader));
        let other = member.filter(|member| member.replica != self.replica.id());
        other.map_or(Led::Nobody, |member| Led::There(member.node))
    }

    /// What a client is told that asks this replica, which does not lead.
    pub(crate) fn not_leader(&self) -> Refusal {
        let leader = match self.led() {
            Led::There(node) => Some(node),
            Led::Here | Led::Nobody => None,
        };
        node::not_leader(self.replica.shard(), leader)
    }

    /// What a client is told whose command is not taken.
    pub(super) fn refusal(&self, error: &ProposeError) -> Refusal {
        let code = match error {
            ProposeError::NotLeader(_) | ProposeError::Transferring { .. } => {
                return self.not_leader();
            }
            ProposeError::Full { .. } => ErrorCode::Overloaded,
            ProposeError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            ProposeError::NoHeader => ErrorCode::Internal,
        };
        let refusal = Refusal::new(code, format!("shard {}: {error}", self.replica.shard()));
        if code.is_retryable() {
            refusal.retry_after_millis(RETRY_AFTER_MS)
        } else {
            refusal
        }
    }
}
