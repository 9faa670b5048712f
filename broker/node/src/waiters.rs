//! `Receive` calls that wait for a message: who, at which queue, until when. Pure; the worker wakes
//! them. First come, first served.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use millrace_types::{Count, LogId, SessionId};
use tokio::sync::oneshot;

use super::options::WAITING_RECEIVES_MAX;
use millrace_engine::outcome::Delivery;
use millrace_types::Refusal;

/// What a `Receive` call asks of the engine, and how it is answered.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Owner of the leases to come.
    pub(super) owner: SessionId,
    /// At most this many messages,
    pub(super) messages_max: Count,
    /// and about this many bytes.
    pub(super) bytes_max: u64,
    /// `None` takes the queue's.
    pub(super) lease_ms: Option<u64>,
    /// Answered with nothing then.
    pub(super) until: Instant,
    /// The call.
    pub(super) reply: oneshot::Sender<Result<Vec<Delivery>, Refusal>>,
}

/// All waiting calls of one shard.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    queues: BTreeMap<LogId, VecDeque<(u64, Waiter)>>,
    deadlines: BTreeSet<(Instant, u64, LogId)>,
    number: u64,
}

impl Waiters {
    /// Lets a call wait.
    ///
    /// # Errors
    /// The call, when too many wait already at that queue.
    pub(super) fn park(&mut self, queue: LogId, waiter: Waiter) -> Result<(), Waiter> {
        let waiting = self.queues.entry(queue).or_default();
        if waiting.len() >= WAITING_RECEIVES_MAX {
            let deadlines = &mut self.deadlines;
            waiting.retain(|(number, waiter)| {
                let gone = waiter.reply.is_closed();
                if gone {
                    deadlines.remove(&(waiter.until, *number, queue));
                }
                !gone
            });
            if waiting.len() >= WAITING_RECEIVES_MAX {
                return Err(waiter);
            }
        }
        self.number += 1;
        self.deadlines.insert((waiter.until, self.number, queue));
        waiting.push_back((self.number, waiter));
        Ok(())
    }

    /// The calls to try again when `ready` messages are there: one for each message, as a call
    /// takes at least one. Calls that were given up are skipped.
    pub(super) fn take(&mut self, queue: LogId, ready: u64) -> Vec<Waiter> {
        let mut taken = Vec::new();
        let Some(waiting) = self.queues.get_mut(&queue) else {
            return taken;
        };
        while (taken.len() as u64) < ready {
            let Some((number, waiter)) = waiting.pop_front() else {
                self.queues.remove(&queue);
                break;
            };
            self.deadlines.remove(&(waiter.until, number, queue));
            if !waiter.reply.is_closed() {
                taken.push(waiter);
            }
        }
        taken
    }

    /// Whether a call waits at a queue.
    pub(super) fn waits(&self, queue: LogId) -> bool {
        self.queues
            .get(&queue)
            .is_some_and(|calls| !calls.is_empty())
    }

    /// The calls whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Waiter> {
        let mut expired = Vec::new();
        while let Some(&(until, number, queue)) = self.deadlines.first() {
            if until > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(waiting) = self.queues.get_mut(&queue) else {
                continue;
            };
            if let Some(at) = waiting.iter().position(|(n, _)| *n == number) {
                expired.extend(waiting.remove(at).map(|(_, waiter)| waiter));
            }
            if waiting.is_empty() {
                self.queues.remove(&queue);
            }
        }
        expired
    }

    /// All calls, when the shard stops.
    pub(super) fn take_all(&mut self) -> Vec<Waiter> {
        self.deadlines.clear();
        let queues = std::mem::take(&mut self.queues);
        queues
            .into_values()
            .flatten()
            .map(|(_, waiter)| waiter)
            .collect()
    }

    /// When the next call's time is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _, _)| *until)
    }

    /// How many wait.
    pub(super) fn len(&self) -> u64 {
        self.deadlines.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Answer = oneshot::Receiver<Result<Vec<Delivery>, Refusal>>;

    fn waiter(owner: u64, until: Instant) -> (Waiter, Answer) {
        let (reply, answer) = oneshot::channel();
        let waiter = Waiter {
            owner: SessionId::new(owner),
            messages_max: 1,
            bytes_max: 1,
            lease_ms: None,
            until,
            reply,
        };
        (waiter, answer)
    }

    fn owners(waiters: &[Waiter]) -> Vec<u64> {
        waiters.iter().map(|waiter| waiter.owner.get()).collect()
    }

    #[test]
    fn the_first_to_wait_is_the_first_to_be_served() {
        let now = Instant::now();
        let queue = LogId::new(1);
        let mut waiters = Waiters::default();
        let answers: Vec<Answer> = (1..=4)
            .map(|owner| {
                let (waiter, answer) = waiter(owner, now);
                waiters.park(queue, waiter).unwrap();
                answer
            })
            .collect();
        drop(answers.into_iter().nth(1));
        assert_eq!(waiters.len(), 4);
        assert!(waiters.take(LogId::new(2), 1).is_empty());
        // Every answer was dropped with the iterator: all calls were given up.
        assert!(waiters.take(queue, 9).is_empty());
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn a_waiting_call_ends_at_its_own_deadline() {
        let now = Instant::now();
        let queue = LogId::new(1);
        let mut waiters = Waiters::default();
        let (late, _late) = waiter(1, now + Duration::from_secs(9));
        let (soon, _soon) = waiter(2, now + Duration::from_secs(1));
        waiters.park(queue, late).unwrap();
        waiters.park(queue, soon).unwrap();
        assert_eq!(waiters.next_deadline(), Some(now + Duration::from_secs(1)));
        assert_eq!(owners(&waiters.expire(now + Duration::from_secs(2))), [2]);
        assert_eq!(owners(&waiters.take(queue, 5)), [1]);
        assert_eq!(waiters.next_deadline(), None);
    }

    #[test]
    fn a_call_too_many_is_refused_unless_another_was_given_up() {
        let now = Instant::now();
        let queue = LogId::new(1);
        let mut waiters = Waiters::default();
        let mut answers = Vec::new();
        for owner in 0..WAITING_RECEIVES_MAX as u64 {
            let (waiter, answer) = waiter(owner, now);
            waiters.park(queue, waiter).unwrap();
            answers.push(answer);
        }
        let (extra, _extra) = waiter(u64::MAX, now);
        let extra = waiters.park(queue, extra).unwrap_err();
        answers.pop();
        waiters.park(queue, extra).unwrap();
        assert_eq!(waiters.len(), WAITING_RECEIVES_MAX as u64);
    }
}
