//! How the entries of a publish become batches with one partition each, and how the broker's
//! answers become one result for each entry. Pure: decides nothing about the broker's state but
//! what the target's declaration says.
//!
//! A message with a dedup id of its own goes alone: whether it is stored is decided for it alone.
//! A wrong entry refuses only itself. Messages that share a batch share its fate: all of them are
//! stored at consecutive offsets or none is.

use millrace_engine::command::Dedup;
use millrace_proto::v1;
use millrace_types::{Address, BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Count, ErrorCode, Refusal};
use prost::Message as _;
use prost::encoding::encoded_len_varint;

use crate::convert;
use crate::forward::publish::Entry;
use crate::validate;
use millrace_node::{Acknowledged, Batch, CatalogueView, partition_for};

/// What to send to the broker, and what each entry waits for.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    batches: Vec<Entry>,
    slots: Vec<Slot>,
}

#[derive(Debug)]
enum Slot {
    Refused(Refusal),
    /// Is a whole batch.
    Batch(usize),
    /// Is a message of a batch, this far from its first.
    Message {
        batch: usize,
        place: u32,
    },
}

/// Where a publish goes.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// `None`: a queue.
    partitions: Option<u32>,
    /// Where messages without a key go, if the client says so.
    unkeyed: Option<u32>,
    message_bytes_max: u32,
}

impl Plan {
    /// Plans the entries of one request or frame: either messages or batches.
    pub(crate) fn new(view: &CatalogueView, address: &Address, frame: &v1::PublishFrame) -> Self {
        let v1::PublishFrame {
            messages, batches, ..
        } = frame;
        match target(view, address, frame.partition) {
            Ok(target) if batches.is_empty() => Self::of_messages(target, messages),
            Ok(target) => Self::of_batches(target, batches),
            Err(refusal) => Self::refusing(messages.len() + batches.len(), &refusal),
        }
    }

    /// Refuses every entry alike.
    pub(crate) fn refusing(entries: usize, refusal: &Refusal) -> Self {
        Self {
            batches: Vec::new(),
            slots: vec![(); entries]
                .into_iter()
                .map(|()| Slot::Refused(refusal.clone()))
                .collect(),
        }
    }

    /// The batches to publish, in order.
    pub(crate) fn take_batches(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.batches)
    }

    /// One result for each entry, from the broker's answers to the batches.
    pub(crate) fn results(
        self,
        answers: &[Result<Acknowledged, Refusal>],
    ) -> Vec<v1::PublishResult> {
        let slots = self.slots.into_iter();
        slots.map(|slot| result(slot, answers)).collect()
    }

    fn of_messages(target: Target, messages: &[v1::Message]) -> Self {
        let mut plan = Self::default();
        let mut open: Vec<Open> = Vec::new();
        for (n, message) in messages.iter().enumerate() {
            let field = format!("messages[{n}]");
            let checked = validate::message(&field, message, target.message_bytes_max);
            plan.slots.push(match checked {
                Ok(()) => place(&mut open, target.partition_of(&message.key), message),
                Err(refusal) => Slot::Refused(refusal),
            });
        }
        let made = open.into_iter().map(|open| Entry {
            batch: open.finish(),
            wire: None,
        });
        plan.batches = made.collect();
        plan
    }

    fn of_batches(target: Target, batches: &[v1::RecordBatch]) -> Self {
        let mut plan = Self::default();
        for (n, batch) in batches.iter().enumerate() {
            let slot = match target.check(&format!("batches[{n}]"), batch) {
                Ok(checked) => {
                    let wire = Some(batch.clone());
                    let batch = Batch {
                        partition: checked.partition,
                        count: batch.count,
                        records: batch.records.clone(),
                        dedup: checked.dedup,
                    };
                    plan.batches.push(Entry { batch, wire });
                    Slot::Batch(plan.batches.len() - 1)
                }
                Err(refusal) => Slot::Refused(refusal),
            };
            plan.slots.push(slot);
        }
        plan
    }
}

/// The catalogue's word on a target of publishes.
fn target(
    view: &CatalogueView,
    address: &Address,
    unkeyed: Option<u32>,
) -> Result<Target, Refusal> {
    if let Address::DeadLetter { .. } = address {
        let text = format!("{address} is filled by the broker alone; publish to its queue");
        return Err(Refusal::new(ErrorCode::WrongKind, text).with("address", address.to_string()));
    }
    let object = view.require(address)?;
    Ok(Target {
        partitions: object.partition_count(),
        unkeyed,
        message_bytes_max: object.message_bytes_max,
    })
}

impl Target {
    /// `None`: the broker may choose.
    fn partition_of(&self, key: &str) -> Option<u32> {
        match self.partitions {
            Some(partitions) if !key.is_empty() => Some(partition_for(key, partitions)),
            Some(_) => self.unkeyed,
            None => None,
        }
    }

    /// Checks a client's batch and finds the one partition its keys agree on.
    fn check(&self, field: &str, batch: &v1::RecordBatch) -> Result<Checked, Refusal> {
        let checked = validate::batch(field, batch, self.message_bytes_max)?;
        let dedup = convert::dedup(field, batch, checked.dedup_id.as_deref())?;
        let mut partitions = checked.keys.iter().map(|key| self.partition_of(key));
        let partition = partitions.next().flatten();
        if partitions.all(|other| other == partition) {
            return Ok(Checked { partition, dedup });
        }
        let text = "holds keys of several partitions; send these messages singly, or in a batch \
                    for each partition";
        Err(validate::invalid(format!("{field}.records"), text))
    }
}

/// A client's batch that may be sent on.
struct Checked {
    /// The one its keys agree on; `None`: the broker may choose.
    partition: Option<u32>,
    dedup: Option<Dedup>,
}

/// A batch being filled with single messages.
struct Open {
    partition: Option<u32>,
    count: Count,
    records: Vec<u8>,
    /// Of the only message.
    dedup: Option<Dedup>,
}

impl Open {
    fn takes(&self, partition: Option<u32>, bytes: usize) -> bool {
        self.partition == partition
            && self.dedup.is_none()
            && self.count < BATCH_MESSAGES_MAX
            && self.records.len() + bytes <= BATCH_BYTES_MAX as usize
    }

    fn finish(self) -> Batch {
        Batch {
            partition: self.partition,
            count: self.count,
            records: self.records.into(),
            dedup: self.dedup,
        }
    }
}

/// Puts a message into the last open batch of its partition, or opens one: order within a partition
/// stays, since batches are published in the order they were opened.
fn place(open: &mut Vec<Open>, partition: Option<u32>, message: &v1::Message) -> Slot {
    let length = message.encoded_len();
    let framed = length + encoded_len_varint(length as u64);
    // Only the newest batch of the partition: filling up an older one would change the order.
    let newest = open.iter().rposition(|batch| batch.partition == partition);
    let dedup = convert::dedup_of_message(&message.dedup_id);
    let shared = newest.filter(|&at| dedup.is_none() && open[at].takes(partition, framed));
    let at = match shared {
        Some(at) => at,
        None => {
            open.push(Open {
                partition,
                count: 0,
                records: Vec::with_capacity(framed),
                dedup,
            });
            open.len() - 1
        }
    };
    let batch = &mut open[at];
    message
        .encode_length_delimited(&mut batch.records)
        .expect("a vector grows as needed");
    batch.count += 1;
    Slot::Message {
        batch: at,
        place: batch.count - 1,
    }
}

fn result(slot: Slot, answers: &[Result<Acknowledged, Refusal>]) -> v1::PublishResult {
    let (at, place) = match slot {
        Slot::Refused(refusal) => return convert::refused(refusal),
        Slot::Batch(at) => (at, None),
        Slot::Message { batch, place } => (batch, Some(place)),
    };
    match (answers.get(at), place) {
        (Some(Ok(batch)), None) => convert::acknowledged_batch(batch),
        (Some(Ok(batch)), Some(place)) => convert::acknowledged_message(batch, place),
        (Some(Err(refusal)), _) => convert::refused(refusal.clone()),
        // The broker answers each batch; a missing answer says nothing about what happened.
        (None, _) => convert::refused(
            Refusal::new(ErrorCode::Internal, "the broker gave no answer").unknown(),
        ),
    }
}
