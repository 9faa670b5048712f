//! Publishing.

use std::ops::Range;
use std::time::Duration;

use millrace_engine::command::{Dedup, DedupId};
use millrace_node::Batch;
use millrace_storage::records::push_record;
use millrace_types::{DedupKey, LogId};

use super::again::Sent;
use super::{Client, answer};
use crate::event::{Answer, Event};
use crate::facts;
use crate::message;
use crate::random::mix;
use crate::watch::State;

/// A batch of which nobody knows what became is sent again after this time,
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// unless it is so old: what a queue knows by then, a clock that runs slow may have let go.
const RETRY_MS_MAX: u64 = 40_000;

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
                // Of one that was sent before, nobody knows.
                if self.attempts(batch) == 0 {
                    let answer = Answer::Refused("not declared here".into());
                    self.tell(&Event::Published { batch, answer });
                }
            }
            return;
        };
        self.note_logs();
        let sent = batches
            .iter()
            .map(|batch| self.records(*batch, log, partition));
        let node = self.place.node;
        for batch in &batches {
            let has_id = |state: &mut State| state.facts.batches[*batch].has_id;
            if self.lasting.watch.with(has_id) {
                let sent = Sent {
                    to,
                    partition,
                    node,
                };
                self.lasting.sent(*batch, sent);
            }
        }
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
                client.lasting.answered(batch);
                if let Err(refusal) = &result
                    && client.elsewhere(refusal, tries, move |client| {
                        client.send(to, partition, vec![batch], tries + 1);
                    })
                {
                    client.attempted(batch, false);
                    continue;
                }
                client.attempted(batch, true);
                client.decided(batch, (to, partition), answer(result.map(offsets)));
            }
        });
    }

    /// Whether what was sent may be there.
    fn attempted(&self, batch: usize, counts: bool) {
        self.lasting.watch.with(|state| {
            state.facts.batches[batch].attempts += u32::from(counts);
        });
    }

    /// How often a batch was sent that may be there.
    fn attempts(&self, batch: usize) -> u32 {
        let watch = &self.lasting.watch;
        watch.with(|state| state.facts.batches[batch].attempts)
    }

    /// Tells what came of a batch, or sends it again if that is not known.
    fn decided(&self, batch: usize, (to, partition): (usize, u32), answer: Answer<Range<u64>>) {
        let (has_id, attempts) = self.lasting.watch.with(|state| {
            let batch = &state.facts.batches[batch];
            (batch.has_id, batch.attempts)
        });
        match answer {
            Answer::Unknown if has_id => {
                let at = self.host.clock().time().now() + RETRY_AFTER;
                let node = self.place.node;
                let sent = Sent {
                    to,
                    partition,
                    node,
                };
                let again = move |client: &Self| client.send_again(sent, batch);
                self.lasting.again(at, None, Box::new(again));
            }
            // The first attempt may have come to something.
            Answer::Refused(_) if attempts > 1 => {}
            answer => self.tell(&Event::Published { batch, answer }),
        }
    }

    /// Sends a batch again that may have arrived, if it still can be told from another one.
    pub(super) fn send_again(&self, sent: Sent, batch: usize) {
        let here = self.log(&self.address(sent.to), sent.partition);
        let (log, young) = self.lasting.watch.with(|state| {
            let batch = &mut state.facts.batches[batch];
            batch.attempts = batch.attempts.max(1);
            let young = state.facts.now_ms < batch.sent_ms + RETRY_MS_MAX;
            (batch.log, young)
        });
        if here == Some(log) && young {
            self.send(sent.to, sent.partition, vec![batch], 0);
        }
    }

    /// A batch as it is sent, of which note is taken.
    fn records(&self, batch: usize, log: LogId, partition: u32) -> Batch {
        let (node, order) = (self.place.node, self.lasting.order());
        self.lasting.watch.with(|state| {
            let facts = &mut state.facts;
            let (asked, now_ms) = (facts.events, facts.now_ms);
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
                dedup: sent.has_id.then(|| {
                    let mut key = [0; 16];
                    key[..8].copy_from_slice(&(batch as u64).to_le_bytes());
                    let id = DedupId::Message(DedupKey::new(key));
                    // At least: clocks differ.
                    let age_ms = now_ms - sent.sent_ms;
                    Dedup { id, age_ms }
                }),
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
                has_id: facts.is_cluster && mix(first).is_multiple_of(2),
                attempts: 0,
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
