//! What a publisher may still send on its stream: granted at its start, spent by frames, granted
//! anew as their batches are decided. In messages and in bytes.

use millrace_proto::v1;
use millrace_types::{ErrorCode, Refusal};
use prost::Message as _;

/// Messages a stream may have undecided: two of the largest batches.
pub(crate) const STREAM_MESSAGES_MAX: u32 = 20_000;
/// Bytes a stream may have undecided: the largest batch fits, and several streams stay below what
/// a shard takes before it refuses.
pub(crate) const STREAM_BYTES_MAX: u64 = 17 << 20;
/// What has been decided is granted again when it is a quarter of the whole, or when nothing is
/// under way: one grant for many frames, and no client ever waits for a grant that does not come.
const GRANT_SHARE: u32 = 4;

/// An amount of messages and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
}

/// A stream's credit.
#[derive(Debug)]
pub(crate) struct Account {
    left: Amount,
    decided: Amount,
}

impl Account {
    /// An account and the first grant.
    pub(crate) fn open() -> (Self, v1::PublishCredit) {
        let left = Amount {
            messages: STREAM_MESSAGES_MAX,
            bytes: STREAM_BYTES_MAX,
        };
        let account = Self {
            left,
            decided: Amount::default(),
        };
        (account, left.grant())
    }

    /// A frame came.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it is more than was granted.
    pub(crate) fn spend(&mut self, frame: Amount) -> Result<(), Refusal> {
        let left = (
            self.left.messages.checked_sub(frame.messages),
            self.left.bytes.checked_sub(frame.bytes),
        );
        let (Some(messages), Some(bytes)) = left else {
            let text = format!(
                "the frame has {} messages and {} bytes, the credit left is {} and {}",
                frame.messages, frame.bytes, self.left.messages, self.left.bytes
            );
            return Err(Refusal::new(ErrorCode::InvalidArgument, text).with("field", "credit"));
        };
        self.left = Amount { messages, bytes };
        Ok(())
    }

    /// A frame has been decided; gives the grant to send, if it is time for one.
    pub(crate) fn decide(&mut self, frame: Amount, idle: Idle) -> Option<v1::PublishCredit> {
        self.decided.messages = self.decided.messages.saturating_add(frame.messages);
        self.decided.bytes = self.decided.bytes.saturating_add(frame.bytes);
        let due = self.decided.messages >= STREAM_MESSAGES_MAX / GRANT_SHARE
            || self.decided.bytes >= STREAM_BYTES_MAX / u64::from(GRANT_SHARE);
        if !due && idle == Idle::No {
            return None;
        }
        let grant = std::mem::take(&mut self.decided);
        self.left.messages += grant.messages;
        self.left.bytes += grant.bytes;
        Some(grant.grant())
    }
}

/// Whether anything else of the stream is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idle {
    Yes,
    No,
}

impl Amount {
    /// What a frame costs: its messages, and the bytes of their encodings and of its records.
    pub(crate) fn of(frame: &v1::PublishFrame) -> Self {
        let singles = frame.messages.len();
        let messages = u64::try_from(singles).unwrap_or(u64::MAX)
            + frame
                .batches
                .iter()
                .map(|b| u64::from(b.count))
                .sum::<u64>();
        let bytes = frame
            .messages
            .iter()
            .map(v1::Message::encoded_len)
            .sum::<usize>()
            + frame.batches.iter().map(|b| b.records.len()).sum::<usize>();
        Self {
            messages: u32::try_from(messages).unwrap_or(u32::MAX),
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        }
    }

    const fn grant(self) -> v1::PublishCredit {
        v1::PublishCredit {
            messages: self.messages,
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(messages: u32, bytes: u64) -> Amount {
        Amount { messages, bytes }
    }

    #[test]
    fn what_is_spent_and_decided_is_granted_again() {
        let (mut account, first) = Account::open();
        assert_eq!(
            (first.messages, first.bytes),
            (STREAM_MESSAGES_MAX, STREAM_BYTES_MAX)
        );
        account.spend(amount(STREAM_MESSAGES_MAX, 10)).unwrap();
        account.spend(amount(1, 1)).unwrap_err();
        assert!(account.decide(amount(1, 5), Idle::No).is_none());
        let grant = account.decide(amount(2, 5), Idle::Yes).unwrap();
        assert_eq!((grant.messages, grant.bytes), (3, 10));
        account.spend(amount(3, 10)).unwrap();
    }

    #[test]
    fn a_quarter_decided_is_granted_while_others_are_under_way() {
        let (mut account, _) = Account::open();
        account.spend(amount(10, STREAM_BYTES_MAX)).unwrap();
        let grant = account.decide(amount(1, STREAM_BYTES_MAX / 4), Idle::No);
        assert_eq!(grant.unwrap().bytes, STREAM_BYTES_MAX / 4);
    }
}
