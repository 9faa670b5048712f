//! Publishing.

use millrace_node::Batch;
use millrace_storage::records::push_record;
use millrace_types::LogId;

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
        let batches = counts.iter().map(|count| self.batch(log, *count));
        let batches: Vec<usize> = batches.collect();
        for batch in &batches {
            self.tell(&Event::Publishing { batch: *batch });
        }
        self.send(to, partition, batches, 0);
    }

    /// Sends batches that are not on their way anywhere.
    fn send(&self, to: usize, partition: u32, batches: Vec<usize>, tries: u32) {
        let address = self.address(to);
        let Some(log) = self.log(&address, partition) else {
            for batch in batches {
                let answer = Answer::Refused("not declared here".into());
                self.tell(&Event::Published { batch, answer });
            }
            return;
        };
        self.note_logs();
        let sent = batches
            .iter()
            .map(|batch| self.records(*batch, log, partition));
        // Not a future yet: the call itself fixes the order.
        let sent = self.broker.publish(&address, sent.collect());
        let client = self.clone();
        self.run(async move {
            let results = sent.await;
            for (batch, result) in batches.into_iter().zip(results) {
                let offsets = |done: millrace_node::Acknowledged| {
                    let offsets = done.offsets().cloned().unwrap_or_default();
                    offsets.start.get()..offsets.end.get()
                };
                if let Err(refusal) = &result
                    && client.elsewhere(refusal, tries, move |client| {
                        client.send(to, partition, vec![batch], tries + 1);
                    })
                {
                    continue;
                }
                let answer = answer(result.map(offsets));
                client.tell(&Event::Published { batch, answer });
            }
        });
    }

    /// A batch as it is sent, of which note is taken.
    fn records(&self, batch: usize, log: LogId, partition: u32) -> Batch {
        let (node, order) = (self.place.node, self.lasting.order());
        self.lasting.watch.with(|state| {
            let facts = &mut state.facts;
            let asked = facts.events;
            let sent = &mut facts.batches[batch];
            (sent.log, sent.node, sent.order, sent.asked) = (log, node, order, asked);
            let mut records = Vec::new();
            for number in sent.messages.clone() {
                if let Some((message, _)) = facts.messages.get(&number) {
                    push_record(&mut records, &message.bytes);
                }
            }
            Batch {
                partition: Some(partition),
                count: u32::try_from(sent.messages.end - sent.messages.start).unwrap_or(u32::MAX),
                records: records.into(),
                dedup: None,
            }
        })
    }

    /// Makes messages and takes note of them.
    fn batch(&self, log: LogId, count: u32) -> usize {
        let bytes_max = self.lasting.message_bytes_max;
        let first = {
            let mut numbers = self.lasting.numbers();
            let first = numbers.message;
            numbers.message += u64::from(count);
            first
        };
        let messages = first..first + u64::from(count);
        self.lasting.watch.with(|state| {
            let facts = &mut state.facts;
            let place = facts.batches.len();
            for number in messages.clone() {
                let message = message::make(number, bytes_max);
                facts.messages.insert(number, (message, place));
            }
            facts.batches.push(facts::Batch {
                log,
                messages,
                node: self.place.node,
                order: 0,
                asked: facts.events,
                sent_ms: facts.now_ms,
                sent_wall: facts.wall_ms,
                answer: Answer::Unknown,
            });
            place
        })
    }
}
