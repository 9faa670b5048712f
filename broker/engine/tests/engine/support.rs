//! A shard with a clock, and short words for commands.

use millrace_engine::command::{
    BatchHeader, Command, Entry, Held, SentLeases, Settle, Settlement, Window,
};
use millrace_engine::outcome::{Applied, BodyChange, Delivery, Effect, Outcome};
use millrace_engine::spec::{BoundTopic, DeadLetters, Filter, PartitionSpec, QueueSpec};
use millrace_engine::{Queue, Shard};
use millrace_types::{
    Address, Elapsed, ErrorCode, LogId, LogIndex, Offset, SessionId, ShardId, Stamp, Wall,
};

pub(crate) const QUEUE: LogId = LogId::new(1);
pub(crate) const DEAD: LogId = LogId::new(2);
pub(crate) const PARTITION: LogId = LogId::new(3);
/// Wall time at shard time 0.
pub(crate) const EPOCH: u64 = 1_700_000_000_000;

/// A shard and the time.
pub(crate) struct Bench {
    pub(crate) shard: Shard,
    pub(crate) now: u64,
    index: u64,
    /// Everything applied, to be replayed.
    history: Vec<Entry>,
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub(crate) fn queue_spec() -> QueueSpec {
    QueueSpec {
        bindings: Vec::new(),
        lease_ms: 30_000,
        in_flight_max: 100,
        deliveries_max: 3,
        backoff_initial_ms: 1000,
        backoff_max_ms: 8000,
        backoff_factor_milli: 2000,
        messages_max: None,
        bytes_max: None,
        message_bytes_max: 1 << 20,
        dedup_ms: 120_000,
    }
}

pub(crate) fn partition_spec() -> PartitionSpec {
    PartitionSpec {
        age_ms_max: None,
        bytes_max: None,
        messages_max: None,
        message_bytes_max: 1 << 20,
        dedup_ms: 120_000,
    }
}

/// To a topic of these partitions.
pub(crate) fn bound(partitions: &[LogId]) -> BoundTopic {
    BoundTopic {
        topic: address("topic/test/events"),
        partitions: partitions.to_vec(),
        filters: vec![Filter {
            pattern: "#".into(),
            headers: Vec::new(),
            any: false,
        }],
    }
}

/// A queue's declaration; dead letters go to `DEAD`, which drops its own.
pub(crate) fn configure(log: LogId, name: &str, revision: u64, spec: QueueSpec) -> Command {
    let dead_letters = match log {
        DEAD => DeadLetters::Dropped,
        _ => DeadLetters::To(DEAD),
    };
    configure_to(dead_letters, log, name, revision, spec)
}

pub(crate) fn configure_to(
    dead_letters: DeadLetters,
    log: LogId,
    name: &str,
    revision: u64,
    spec: QueueSpec,
) -> Command {
    Command::ConfigureQueue {
        log,
        address: address(name),
        revision,
        spec,
        dead_letters,
    }
}

pub(crate) fn configure_partition(revision: u64, spec: PartitionSpec) -> Command {
    Command::ConfigurePartition {
        log: PARTITION,
        address: address("topic/test/events"),
        partition: 0,
        revision,
        spec,
    }
}

pub(crate) fn batch(count: u32) -> BatchHeader {
    BatchHeader {
        count,
        bytes: u64::from(count) * 100,
    }
}

pub(crate) fn window(messages: u32) -> Window {
    Window {
        messages,
        bytes: u64::MAX,
    }
}

pub(crate) fn held(offset: u64, acquired: u32) -> Held {
    Held {
        offset: Offset::new(offset),
        acquired,
    }
}

pub(crate) fn retry() -> Settle {
    Settle::Retry {
        delay_ms: None,
        note: String::new(),
    }
}

pub(crate) const fn at(offset: u64) -> Offset {
    Offset::new(offset)
}

impl Bench {
    /// What a leader has to do for queues.
    pub(crate) fn outstanding(&self) -> Vec<Effect> {
        let (mut effects, last) = self.shard.outstanding(None, usize::MAX);
        assert_eq!(last, None);
        effects.retain(|effect| !matches!(effect, Effect::Appended { .. }));
        effects
    }

    /// A queue with an implicit dead-letter queue, and a partition.
    pub(crate) fn new(spec: QueueSpec) -> Self {
        let mut bench = Self {
            shard: Shard::new(ShardId::new(1)),
            now: 0,
            index: 0,
            history: Vec::new(),
        };
        let dead = QueueSpec {
            bindings: Vec::new(),
            ..spec
        };
        bench.apply(configure(QUEUE, "queue/test/jobs", 1, spec));
        bench.apply(configure(DEAD, "queue/test/jobs/dead", 1, dead));
        bench.apply(configure_partition(1, partition_spec()));
        bench
    }

    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        self.index += 1;
        let stamp = Stamp {
            wall: Wall::from_millis(EPOCH + self.now),
            elapsed: Elapsed::from_millis(self.now),
        };
        let entry = Entry { stamp, command };
        let entry = Entry::decode(&entry.encode()).unwrap();
        let applied = self.shard.apply(LogIndex::new(self.index), &entry);
        self.history.push(entry);
        applied
    }

    /// What another replica makes of the same entries.
    pub(crate) fn replayed(&self) -> Shard {
        let mut shard = Shard::new(self.shard.id());
        for (index, entry) in self.history.iter().enumerate() {
            shard.apply(LogIndex::new(index as u64 + 1), entry);
        }
        shard
    }

    /// Lets time pass and says what that did.
    pub(crate) fn pass(&mut self, millis: u64) -> Applied {
        self.now += millis;
        self.apply(Command::Tick)
    }

    pub(crate) fn queue(&self) -> &Queue {
        self.shard.queue(QUEUE).unwrap()
    }

    pub(crate) fn publish(&mut self, count: u32) -> Applied {
        self.apply(Command::Publish {
            log: QUEUE,
            batch: batch(count),
            dedup: None,
        })
    }

    pub(crate) fn open(&mut self, session: u64, window: Window) -> Applied {
        self.apply(Command::OpenSession {
            session: SessionId::new(session),
            queue: QUEUE,
            consumer: "tester".into(),
            window,
            ttl_ms: 60_000,
        })
    }

    pub(crate) fn attach(&mut self, session: u64, window: Window, held: Vec<Held>) -> Applied {
        let session = SessionId::new(session);
        self.apply(Command::AttachSession {
            session,
            window,
            held,
        })
    }

    /// The first connection of a session has sent these.
    pub(crate) fn sent(&mut self, session: u64, held: Vec<Held>) -> Applied {
        let session = SessionId::new(session);
        let epoch = 1;
        let sent = vec![SentLeases {
            session,
            epoch,
            held,
        }];
        self.apply(Command::NoteSent { sent })
    }

    pub(crate) fn detach(&mut self, session: u64, epoch: u32) -> Applied {
        let session = SessionId::new(session);
        self.apply(Command::DetachSession { session, epoch })
    }

    pub(crate) fn close(&mut self, session: u64) -> Applied {
        let session = SessionId::new(session);
        self.apply(Command::CloseSession { session })
    }

    pub(crate) fn acquire(&mut self, owner: u64, messages_max: u32) -> Vec<Delivery> {
        let applied = self.apply(Command::Acquire {
            queue: QUEUE,
            owner: SessionId::new(owner),
            messages_max,
            bytes_max: u64::MAX,
            lease_ms: None,
        });
        match applied.outcome {
            Outcome::Acquired(deliveries) => deliveries,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn settle(&mut self, owner: u64, held: Held, settle: Settle) -> Applied {
        self.apply(Command::Settle {
            queue: QUEUE,
            settlements: vec![Settlement {
                owner: SessionId::new(owner),
                held,
                settle,
            }],
        })
    }

    /// Settles and asserts that it was taken.
    pub(crate) fn settled(&mut self, owner: u64, held: Held, settle: Settle) -> Applied {
        let applied = self.settle(owner, held, settle);
        assert_eq!(applied.outcome, Outcome::Settled(vec![Ok(())]));
        applied
    }

    /// Fails the front message until it dies.
    pub(crate) fn kill_one(&mut self) {
        loop {
            let got = self.acquire(77, 1)[0];
            let held = held(got.offset.get(), got.acquired);
            self.settled(
                77,
                held,
                Settle::Retry {
                    delay_ms: Some(0),
                    note: "no".into(),
                },
            );
            if got.attempts + 1 >= self.queue().spec().deliveries_max {
                return;
            }
        }
    }
}

/// What was handed to a session, as (offset, acquired).
pub(crate) fn delivered(applied: &Applied, to: u64) -> Vec<(u64, u32)> {
    let effects = applied.effects.iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Deliver {
                session,
                deliveries,
                ..
            } if session.get() == to => Some(deliveries),
            _ => None,
        })
        .flatten()
        .map(|one| (one.offset.get(), one.acquired))
        .collect()
}

pub(crate) fn discarded(applied: &Applied) -> Vec<(u64, u64)> {
    let bodies = applied.bodies.iter();
    bodies
        .filter_map(|body| match body {
            BodyChange::Discard { offsets, .. } => Some((offsets.start.get(), offsets.end.get())),
            _ => None,
        })
        .collect()
}

/// The code of a refusal, of the whole command or of its only settlement.
pub(crate) fn refused(applied: &Applied) -> ErrorCode {
    match &applied.outcome {
        Outcome::Refused(refusal) => refusal.code,
        Outcome::Settled(results) => results[0].as_ref().unwrap_err().code,
        other => panic!("{other:?} is no refusal"),
    }
}
