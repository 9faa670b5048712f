//! Random commands go to a shard and to the napkin model; after each one they agree on every
//! message, count, dead letter and deadline, and the shard is replaced by its own snapshot.

mod steps;

use millrace_engine::command::{Command, Held, SentLeases, Settle, Settlement};
use millrace_engine::outcome::{Applied, Delivery, Effect, Outcome};
use millrace_engine::spec::{DeadLetters, QueueSpec};
use millrace_engine::{Queue, Shard};
use millrace_types::{Elapsed, LogId, SessionId};
use proptest::prelude::*;

use crate::naive::{self, Naive, Session};
use crate::support::{Bench, DEAD, PARTITION, QUEUE, at, batch, bound, configure_to, queue_spec};
use steps::{Step, steps};

fn spec() -> QueueSpec {
    QueueSpec {
        bindings: vec![bound(&[PARTITION])],
        lease_ms: naive::LEASE_MS,
        in_flight_max: u32::try_from(naive::IN_FLIGHT_MAX).unwrap(),
        deliveries_max: naive::DELIVERIES_MAX,
        backoff_initial_ms: 3,
        backoff_max_ms: 9,
        backoff_factor_milli: 2000,
        messages_max: Some(naive::MESSAGES_MAX as u64),
        ..queue_spec()
    }
}

/// Both, and every lease there ever was.
struct Pair {
    bench: Bench,
    naive: Naive,
    leases: Vec<(u64, Held)>,
    revision: u64,
    /// The present dead-letter queue, and the one that waiting letters are bound to.
    wanted: Option<LogId>,
    target: Option<LogId>,
    /// What redirections have added to the numbers of dead letters.
    shift: u64,
}

const SOURCE: LogId = LogId::new(40);
const OTHER: LogId = LogId::new(41);

impl Pair {
    fn new() -> Self {
        Self {
            bench: Bench::new(spec()),
            naive: Naive::default(),
            // Never handed out, so that there is always one to settle.
            leases: vec![(99, crate::support::held(0, 1))],
            revision: 1,
            wanted: Some(DEAD),
            target: Some(DEAD),
            shift: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        if let Step::Pass(millis) = step {
            self.bench.now += millis;
            self.naive.now = self.bench.now;
        }
        self.naive.expire();
        let applied = self.bench.apply(Command::Tick);
        self.follow(applied, &[]);
        match step {
            Step::Pass(_) => {}
            Step::Publish(count) => self.publish(*count),
            Step::Transfer { off, read, matched } => self.transfer(*off, *read, *matched),
            Step::AcceptDead { off, count } => self.accept_dead(*off, *count),
            Step::Acquire { owner, max, bytes } => self.acquire(*owner, *max, *bytes),
            Step::Settle(settles) => self.settle(settles),
            Step::Sent {
                session,
                stale,
                which,
            } => self.note_sent(*session, *stale, *which),
            Step::Confirm(more) => {
                let number = (self.naive.confirmed + more).min(self.naive.dead.len());
                self.naive.confirm(number);
                let number = number as u64 + self.shift;
                let queue = QUEUE;
                let applied = self.bench.apply(Command::ConfirmDead { queue, number });
                assert_eq!(applied.outcome, Outcome::Numbered(number));
                self.follow(applied, &[]);
            }
            Step::Redirect(arrived) => self.redirect(*arrived),
            Step::Freeze | Step::Thaw | Step::Lead | Step::Aim(_) => self.live(step),
            _ => self.session(step),
        }
        if self.waiting() == 0 || self.target.is_none() {
            self.target = self.wanted;
        }
        self.check();
    }

    /// Dead letters that are not confirmed.
    fn waiting(&self) -> u64 {
        (self.naive.dead.len() - self.naive.confirmed) as u64
    }

    fn redirect(&mut self, arrived: u64) {
        let Some(from) = self.target else {
            return;
        };
        let first = self.naive.confirmed as u64 + self.shift;
        let arrived = arrived.min(self.waiting());
        let applied = self.bench.apply(Command::RedirectDead {
            queue: QUEUE,
            from,
            first,
            arrived: first + arrived,
        });
        let confirmed = self.naive.confirmed + usize::try_from(arrived).unwrap();
        self.naive.confirm(confirmed);
        self.shift += self.waiting();
        self.target = self.wanted;
        let first = self.naive.confirmed as u64 + self.shift;
        assert_eq!(applied.outcome, Outcome::Numbered(first));
        self.follow(applied, &[]);
    }

    fn has_room(&self, count: u32) -> bool {
        let after = self.naive.unsettled() + count as usize;
        !self.naive.frozen && after <= naive::MESSAGES_MAX
    }

    fn taken(&mut self, applied: Applied, count: u32) {
        let first = self.naive.messages.len() as u64;
        let range = at(first)..at(first + u64::from(count));
        assert_eq!(applied.outcome, Outcome::Appended(range));
        self.naive.append(count);
        self.follow(applied, &[]);
    }

    fn publish(&mut self, count: u32) {
        let applied = self.bench.publish(count);
        if self.has_room(count) {
            self.taken(applied, count);
        } else {
            assert!(matches!(applied.outcome, Outcome::Refused(_)));
        }
    }

    fn transfer(&mut self, off: u64, read: u64, matched: u32) {
        let from = self.naive.cursor + off;
        let revision = self.bench.queue().revision();
        let applied = self.bench.apply(Command::Transfer {
            queue: QUEUE,
            revision,
            partition: PARTITION,
            from: at(from),
            to: at(from + read),
            batch: (matched > 0).then(|| batch(matched)),
        });
        if off > 0 {
            assert_eq!(applied.outcome, Outcome::Cursor(at(self.naive.cursor)));
        } else if u64::from(matched) > read || self.naive.frozen {
            assert!(matches!(applied.outcome, Outcome::Refused(_)));
        } else if matched == 0 {
            assert_eq!(applied.outcome, Outcome::Done);
            self.naive.cursor += read;
        } else if self.has_room(matched) {
            self.taken(applied, matched);
            self.naive.cursor += read;
        } else {
            assert!(matches!(applied.outcome, Outcome::Refused(_)));
        }
    }

    fn accept_dead(&mut self, off: i64, count: u32) {
        let number = self.naive.received.saturating_add_signed(off);
        let applied = self.bench.apply(Command::AcceptDead {
            queue: QUEUE,
            source: SOURCE,
            number,
            batch: batch(count),
        });
        if number < self.naive.received {
            assert_eq!(applied.outcome, Outcome::Numbered(self.naive.received));
        } else if self.has_room(count) {
            self.taken(applied, count);
            self.naive.received = number + u64::from(count);
        } else {
            assert!(matches!(applied.outcome, Outcome::Refused(_)));
        }
    }

    fn acquire(&mut self, owner: u64, max: u32, bytes: u64) {
        let applied = self.bench.apply(Command::Acquire {
            queue: QUEUE,
            owner: SessionId::new(owner),
            messages_max: max,
            bytes_max: bytes,
            lease_ms: None,
        });
        let Outcome::Acquired(got) = &applied.outcome else {
            assert!(self.naive.frozen, "{:?}", applied.outcome);
            return;
        };
        let fit = usize::try_from(bytes / naive::MESSAGE_BYTES)
            .unwrap()
            .max(1);
        let free = naive::IN_FLIGHT_MAX - self.naive.leased();
        let ready = self.naive.count(|place| place == naive::Place::Ready);
        assert_eq!(got.len(), fit.min(free).min(ready).min(max as usize));
        for delivery in got {
            self.note(owner, delivery);
        }
        let got = got.iter().map(|delivery| (owner, *delivery)).collect();
        self.naive.hand_out_all(got);
        self.follow(applied, &[]);
    }

    fn settle(&mut self, settles: &[(prop::sample::Index, Settle)]) {
        let settlements: Vec<_> = settles
            .iter()
            .map(|(pick, settle)| {
                // Of the latest ones, or hardly any would still be there.
                let latest = self.leases.len().saturating_sub(10);
                let (owner, held) = *pick.get(&self.leases[latest..]);
                let owner = SessionId::new(owner);
                let settle = settle.clone();
                Settlement {
                    owner,
                    held,
                    settle,
                }
            })
            .collect();
        let applied = self.bench.apply(Command::Settle {
            queue: QUEUE,
            settlements: settlements.clone(),
        });
        let Outcome::Settled(results) = &applied.outcome else {
            panic!("{:?}", applied.outcome);
        };
        for (one, result) in settlements.iter().zip(results) {
            let was_there = self.naive.settle(one.owner.get(), one.held, &one.settle);
            assert_eq!(result.is_ok(), was_there, "{one:?}");
        }
        self.follow(applied, &[]);
    }

    /// A connection, perhaps one of the past, has sent some of what its session ever held.
    fn note_sent(&mut self, id: u64, stale: bool, which: u64) {
        let session = self.naive.sessions.iter().find(|s| s.id == id);
        let epoch = session.map_or(1, |session| session.epoch);
        let own = self.leases.iter().filter(|(owner, _)| *owner == id);
        let some = own.enumerate().filter(|(n, _)| which >> (n % 64) & 1 == 1);
        let held: Vec<Held> = some.map(|(_, (_, held))| *held).collect();
        if session.is_some() && !stale {
            for held in &held {
                self.naive.note_sent(id, *held);
            }
        }
        let sent = SentLeases {
            session: SessionId::new(id),
            epoch: epoch + u32::from(stale),
            held,
        };
        let applied = self.bench.apply(Command::NoteSent { sent: vec![sent] });
        self.follow(applied, &[]);
    }

    fn live(&mut self, step: &Step) {
        self.revision += 1;
        let (log, revision) = (QUEUE, self.revision);
        if let Step::Aim(wanted) = step {
            self.wanted = *wanted;
        }
        let wanted = self.wanted.map_or(DeadLetters::Waiting, DeadLetters::To);
        let command = match step {
            Step::Freeze => Command::Freeze { log, revision },
            Step::Thaw | Step::Aim(_) => {
                configure_to(wanted, log, "queue/test/jobs", revision, spec())
            }
            _ => Command::Lead,
        };
        let applied = self.bench.apply(command);
        match step {
            Step::Freeze => self.naive.frozen = true,
            Step::Thaw | Step::Aim(_) => {
                if std::mem::take(&mut self.naive.frozen) {
                    self.naive.restart_leases();
                }
            }
            _ => {
                for session in &mut self.naive.sessions {
                    session.attached = false;
                    session.until = self.naive.now + naive::TTL_MS;
                }
            }
        }
        self.follow(applied, &[]);
    }

    fn session(&mut self, step: &Step) {
        let (Step::Open { session, .. }
        | Step::Attach { session, .. }
        | Step::Detach { session, .. }
        | Step::SetWindow { session, .. }
        | Step::Close(session)) = step
        else {
            unreachable!("{step:?}");
        };
        let id = *session;
        let place = self.naive.sessions.iter().position(|s| s.id == id);
        let (command, claimed) = self.session_command(step, id, place);
        let applied = self.bench.apply(command);
        let possible = match step {
            Step::Open { .. } => !self.naive.frozen && place.is_none(),
            _ => place.is_some(),
        };
        if !possible {
            assert!(matches!(applied.outcome, Outcome::Refused(_)), "{step:?}");
            return;
        }
        assert!(!matches!(applied.outcome, Outcome::Refused(_)), "{step:?}");
        let now = self.naive.now;
        match (step, place) {
            (Step::Open { window, .. }, _) => self.naive.sessions.push(Session {
                id,
                epoch: 1,
                window: *window,
                attached: true,
                until: 0,
            }),
            (Step::Close(_), _) => self.naive.close(id),
            (_, Some(place)) => {
                let session = &mut self.naive.sessions[place];
                match step {
                    Step::Attach { window, .. } => {
                        session.window = *window;
                        session.attached = true;
                        session.epoch += 1;
                    }
                    Step::SetWindow { window, .. } => session.window = *window,
                    Step::Detach { stale: false, .. } if session.attached => {
                        session.attached = false;
                        session.until = now + naive::TTL_MS;
                        self.naive.release_unsent(id);
                    }
                    _ => {}
                }
            }
            (_, None) => unreachable!("{step:?}"),
        }
        if let Step::Attach { .. } = step {
            for held in &claimed {
                self.naive.note_sent(id, *held);
            }
        }
        self.follow(applied, &claimed);
    }

    fn session_command(&self, step: &Step, id: u64, place: Option<usize>) -> (Command, Vec<Held>) {
        let session = SessionId::new(id);
        let epoch = place.map_or(1, |place| self.naive.sessions[place].epoch);
        let mut claimed = Vec::new();
        let command = match step {
            Step::Open { window, .. } => Command::OpenSession {
                session,
                queue: QUEUE,
                consumer: String::new(),
                window: *window,
                ttl_ms: naive::TTL_MS,
            },
            Step::Attach { window, claim, .. } => {
                let own = self.leases.iter().filter(|(owner, _)| *owner == id);
                let own = own.enumerate().filter(|(n, _)| claim >> (n % 64) & 1 == 1);
                claimed = own.map(|(_, (_, held))| *held).collect();
                Command::AttachSession {
                    session,
                    window: *window,
                    held: claimed.clone(),
                }
            }
            Step::Detach { stale, .. } => Command::DetachSession {
                session,
                epoch: epoch + u32::from(*stale),
            },
            Step::SetWindow { window, .. } => Command::SetWindow {
                session,
                window: *window,
            },
            _ => Command::CloseSession { session },
        };
        (command, claimed)
    }

    /// Follows what was handed to sessions. What a session holds already may only come again when
    /// it attached without claiming it.
    fn follow(&mut self, applied: Applied, claimed: &[Held]) {
        let mut handed = Vec::new();
        for effect in applied.effects {
            let Effect::Deliver {
                session,
                deliveries,
                ..
            } = effect
            else {
                continue;
            };
            let session = session.get();
            for delivery in deliveries {
                let (offset, acquired) = (delivery.offset, delivery.acquired);
                if self.leases.contains(&(session, Held { offset, acquired })) {
                    assert!(!claimed.contains(&Held { offset, acquired }));
                    self.again(session, &delivery);
                } else {
                    self.note(session, &delivery);
                    handed.push((session, delivery));
                }
            }
        }
        let got: Vec<u64> = handed.iter().map(|(session, _)| *session).collect();
        self.naive.hand_out_all(handed);
        for session in self.naive.sessions.iter().filter(|s| got.contains(&s.id)) {
            assert!(
                session.attached && self.naive.fits(session, 0),
                "{session:?}"
            );
        }
    }

    fn again(&mut self, session: u64, delivery: &Delivery) {
        let offset = usize::try_from(delivery.offset.get()).unwrap();
        let message = &mut self.naive.messages[offset];
        assert_eq!(message.acquired, delivery.acquired);
        let naive::Place::Leased {
            owner, deadline, ..
        } = &mut message.place
        else {
            panic!("{delivery:?} again, but {message:?}");
        };
        assert_eq!(*owner, session);
        *deadline = self.naive.now + naive::LEASE_MS;
    }

    fn note(&mut self, owner: u64, delivery: &Delivery) {
        let (offset, acquired) = (delivery.offset, delivery.acquired);
        self.leases.push((owner, Held { offset, acquired }));
    }

    fn check(&mut self) {
        self.naive.check_nobody_waits();
        let queue: &Queue = self.bench.queue();
        let end = self.naive.messages.len();
        let expected: Vec<_> = (0..end).filter_map(|o| self.naive.view(o)).collect();
        let mut views: Vec<_> = queue.unsettled(at(0)).collect();
        views.sort_by_key(|view| view.offset);
        assert_eq!(views, expected);
        for offset in 0..end + 1 {
            let offset_ = at(offset as u64);
            assert_eq!(queue.state_of(offset_), self.naive.view(offset));
        }
        let stats = queue.stats();
        let total = stats.ready + stats.in_flight + stats.delayed + stats.dying;
        assert_eq!(total, self.naive.unsettled() as u64);
        assert_eq!(stats.in_flight, self.naive.leased() as u64);
        assert_eq!(stats.bytes, total * naive::MESSAGE_BYTES);
        assert_eq!(stats.oldest.is_some(), total > 0);
        assert_eq!(stats.consumers as usize, self.naive.sessions.len());
        assert_eq!(queue.cursor(PARTITION), Some(at(self.naive.cursor)));
        let dead = queue.dead_letters(0, usize::MAX);
        let dead: Vec<_> = dead.iter().map(|d| (d.number, d.offset)).collect();
        let waiting = self
            .naive
            .dead
            .iter()
            .enumerate()
            .skip(self.naive.confirmed);
        let waiting: Vec<_> = waiting
            .map(|(n, o)| (n as u64 + self.shift, at(*o as u64)))
            .collect();
        assert_eq!(dead, waiting);
        assert_eq!(queue.dead_letter_target(), self.target);
        let deadline = self.naive.next_deadline().map(Elapsed::from_millis);
        assert_eq!(self.bench.shard.next_deadline(), deadline);

        let bytes = self.bench.shard.snapshot();
        let restored = Shard::restore(&bytes).unwrap();
        assert_eq!(restored, self.bench.shard);
        assert_eq!(restored.snapshot(), bytes);
        assert_eq!(restored.checksum(), self.bench.shard.checksum());
        self.bench.shard = restored;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_queue_does_what_the_napkin_says(steps in prop::collection::vec(steps(), 1..80)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
        }
        // Restored after each step here, never there.
        let replayed = pair.bench.replayed();
        prop_assert_eq!(replayed.checksum(), pair.bench.shard.checksum());
        prop_assert_eq!(replayed, pair.bench.shard);
    }

    #[test]
    fn what_is_due_happens_alike_in_a_tick_or_with_the_next_command(
        steps in prop::collection::vec((steps(), 0..900_u64), 1..40),
    ) {
        let mut ticked = Bench::new(spec());
        let mut lazy = Bench::new(spec());
        for (step, pause) in steps {
            ticked.pass(pause);
            lazy.now += pause;
            let command = match step {
                Step::Publish(count) => Command::Publish {
                    log: QUEUE,
                    batch: batch(count),
                    dedup: None,
                },
                Step::Open { session, window } => Command::OpenSession {
                    session: SessionId::new(session),
                    queue: QUEUE,
                    consumer: String::new(),
                    window,
                    ttl_ms: naive::TTL_MS,
                },
                Step::Lead => Command::Lead,
                _ => Command::Tick,
            };
            ticked.apply(command.clone());
            lazy.apply(command);
            prop_assert_eq!(ticked.queue(), lazy.queue());
        }
    }
}
