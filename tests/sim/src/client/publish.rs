//! Publishing.

use millrace_node::Batch;
use millrace_storage::records::push_record;

use super::{Client, answer};
use crate::event::{Answer, Event};
use crate::facts;
use crate::message;

impl Client {
    /// Publishes batches, one after the other without waiting.
    pub(crate) fn publish(&self, to: usize, partition: u32, counts: &[u32]) {
        let address = self.address(to);
        let Some(log) = self.log(&address, partition) else {
            return;
        };
        self.note_logs();
        let (mut batches, mut numbers) = (Vec::new(), Vec::new());
        for count in counts {
            let (records, batch) = self.batch(log, *count);
            batches.push(Batch {
                partition: Some(partition),
                count: *count,
                records: records.into(),
            });
            numbers.push(batch);
            self.tell(&Event::Publishing { batch });
        }
        // Not a future yet: the call itself fixes the order.
        let sent = self.broker.publish(&address, batches);
        let client = self.clone();
        self.run(async move {
            let results = sent.await;
            for (batch, result) in numbers.into_iter().zip(results) {
                let offsets = |done: millrace_node::Acknowledged| {
                    done.offsets.start.get()..done.offsets.end.get()
                };
                let answer = answer(result.map(offsets));
                client.tell(&Event::Published { batch, answer });
            }
        });
    }

    /// Makes messages and takes note of them.
    fn batch(&self, log: millrace_types::LogId, count: u32) -> (Vec<u8>, usize) {
        let bytes_max = self.lasting.message_bytes_max;
        let first = {
            let mut numbers = self.lasting.numbers();
            let first = numbers.message;
            numbers.message += u64::from(count);
            first
        };
        let messages = first..first + u64::from(count);
        let mut records = Vec::new();
        let place = self.lasting.watch.with(|state| {
            let facts = &mut state.facts;
            let place = facts.batches.len();
            for number in messages.clone() {
                let message = message::make(number, bytes_max);
                push_record(&mut records, &message.bytes);
                facts.messages.insert(number, (message, place));
            }
            facts.batches.push(facts::Batch {
                log,
                messages,
                sent_ms: facts.now_ms,
                sent_wall: facts.wall_ms,
                answer: Answer::Unknown,
            });
            place
        });
        (records, place)
    }
}
