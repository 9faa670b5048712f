//! Stories of dead letters: how messages die, leave, and arrive exactly once.

use millrace_engine::command::{Command, Settle};
use millrace_engine::outcome::{Applied, Effect, MessageState, Outcome};
use millrace_engine::spec::{DeadLetters, QueueSpec};
use millrace_types::{ErrorCode, LogId, Wall};

use crate::support::{
    Bench, DEAD, EPOCH, QUEUE, at, batch, configure, configure_to, discarded, held, queue_spec,
    refused, retry,
};

fn reject(note: &str) -> Settle {
    Settle::Reject { note: note.into() }
}

fn accept(bench: &mut Bench, source: LogId, number: u64, count: u32) -> Applied {
    bench.apply(Command::AcceptDead {
        queue: DEAD,
        source,
        number,
        batch: batch(count),
    })
}

fn confirm(bench: &mut Bench, number: u64) -> Applied {
    let queue = QUEUE;
    bench.apply(Command::ConfirmDead { queue, number })
}

#[test]
fn a_message_that_failed_as_often_as_allowed_dies() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(2);
    bench.pass(5);
    bench.kill_one();
    let dead = bench.queue().dead_letters(0, 10);
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].number, dead[0].offset), (0, at(0)));
    assert_eq!((dead[0].attempts, dead[0].rejected), (3, false));
    assert_eq!(dead[0].note, "no");
    assert_eq!(dead[0].died_at, Wall::from_millis(EPOCH + 5));
    let view = bench.queue().state_of(at(0)).unwrap();
    assert_eq!(view.state, MessageState::Dying);
}

#[test]
fn a_rejected_message_dies_at_once() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(1);
    bench.acquire(7, 1);
    let applied = bench.settled(7, held(0, 1), reject("never"));
    assert_eq!(applied.effects, [Effect::DeadLettersDue { queue: QUEUE }]);
    let dead = bench.queue().dead_letters(0, 10);
    assert_eq!((dead[0].attempts, dead[0].rejected), (1, true));
}

#[test]
fn a_confirmed_dead_letter_leaves_with_its_body() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(3);
    bench.acquire(7, 3);
    for offset in [2, 0, 1] {
        bench.settled(7, held(offset, 1), reject(""));
    }
    let applied = confirm(&mut bench, 2);
    assert_eq!(applied.outcome, Outcome::Numbered(2));
    assert_eq!(discarded(&applied), [(0, 1), (2, 3)]);
    let dead = bench.queue().dead_letters(0, 10);
    assert_eq!((dead.len(), dead[0].number, dead[0].offset), (1, 2, at(1)));

    assert_eq!(confirm(&mut bench, 1).outcome, Outcome::Numbered(2));
    assert_eq!(refused(&confirm(&mut bench, 4)), ErrorCode::InvalidArgument);
    assert_eq!(confirm(&mut bench, 3).outcome, Outcome::Numbered(3));
    assert_eq!(bench.queue().stats().bytes, 0);
    assert!(bench.queue().dead_letters(u64::MAX, 10).is_empty());
}

#[test]
fn dead_letters_arrive_once_however_often_they_are_sent() {
    let mut bench = Bench::new(queue_spec());
    let taken = accept(&mut bench, QUEUE, 0, 3).outcome;
    assert_eq!(taken, Outcome::Appended(at(0)..at(3)));
    for (number, count) in [(0, 3), (2, 4), (1, 1)] {
        let again = accept(&mut bench, QUEUE, number, count).outcome;
        assert_eq!(again, Outcome::Numbered(3));
    }
    let next = accept(&mut bench, QUEUE, 3, 1).outcome;
    assert_eq!(next, Outcome::Appended(at(3)..at(4)));
    let other = accept(&mut bench, LogId::new(50), 0, 1).outcome;
    assert_eq!(other, Outcome::Appended(at(4)..at(5)));
}

#[test]
fn a_target_takes_up_where_another_one_was_the_target() {
    let mut bench = Bench::new(queue_spec());
    accept(&mut bench, QUEUE, 0, 2);
    let later = accept(&mut bench, QUEUE, 9, 1).outcome;
    assert_eq!(later, Outcome::Appended(at(2)..at(3)));
    assert_eq!(bench.shard.queue(DEAD).unwrap().arrived(QUEUE), 10);
}

#[test]
fn a_full_target_refuses_and_says_when_it_has_room() {
    let mut bench = Bench::new(QueueSpec {
        messages_max: Some(2),
        ..queue_spec()
    });
    accept(&mut bench, QUEUE, 0, 2);
    let full = accept(&mut bench, QUEUE, 2, 1);
    assert_eq!(refused(&full), ErrorCode::QueueFull);
    let got = bench.apply(Command::Acquire {
        queue: DEAD,
        owner: millrace_types::SessionId::new(1),
        messages_max: 1,
        bytes_max: 0,
        lease_ms: None,
    });
    assert!(matches!(got.outcome, Outcome::Acquired(ref got) if got.len() == 1));
    let applied = bench.apply(Command::Settle {
        queue: DEAD,
        settlements: vec![millrace_engine::command::Settlement {
            owner: millrace_types::SessionId::new(1),
            held: held(0, 1),
            settle: Settle::Accept,
        }],
    });
    let due = Effect::TransferDue { queue: DEAD };
    assert!(applied.effects.contains(&due));
    let taken = accept(&mut bench, QUEUE, 2, 1).outcome;
    assert_eq!(taken, Outcome::Appended(at(2)..at(3)));
}

#[test]
fn nothing_dies_by_count_in_an_implicit_dead_letter_queue_and_a_reject_drops() {
    let mut bench = Bench::new(queue_spec());
    let (name, dropped) = ("queue/test/jobs", DeadLetters::Dropped);
    bench.apply(configure_to(dropped, QUEUE, name, 2, queue_spec()));
    bench.publish(1);
    for acquired in 1..20 {
        bench.acquire(7, 1);
        bench.settled(7, held(0, acquired), retry());
        bench.pass(10_000);
    }
    assert_eq!(bench.queue().state_of(at(0)).unwrap().attempts, 19);
    bench.acquire(7, 1);
    let applied = bench.settled(7, held(0, 20), reject(""));
    assert_eq!(discarded(&applied), [(0, 1)]);
}

#[test]
fn dead_letters_wait_until_their_target_is_known() {
    let mut bench = Bench::new(queue_spec());
    bench.publish(1);
    bench.kill_one();
    let again = configure(QUEUE, "queue/test/jobs", 2, queue_spec());
    let applied = bench.apply(again);
    let due = Effect::DeadLettersDue { queue: QUEUE };
    assert!(applied.effects.contains(&due));
}

/// Another dead-letter queue than the first.
const OTHER: LogId = LogId::new(5);

/// The queue's declaration from `revision` on: its dead letters go to this queue.
fn aim(bench: &mut Bench, revision: u64, target: Option<LogId>) -> Applied {
    let target = target.map_or(DeadLetters::Waiting, DeadLetters::To);
    let name = "queue/test/jobs";
    bench.apply(configure_to(target, QUEUE, name, revision, queue_spec()))
}

/// A queue with so many dead letters, and a second queue they could go to.
fn with_dead(count: u32) -> Bench {
    let mut bench = Bench::new(queue_spec());
    bench.apply(configure(OTHER, "queue/test/other", 1, queue_spec()));
    bench.publish(count);
    for got in bench.acquire(7, count) {
        bench.settled(7, held(got.offset.get(), got.acquired), reject(""));
    }
    bench
}

fn recall(bench: &mut Bench, target: LogId) -> Outcome {
    let number = bench.queue().next_dead_letter();
    let (queue, source) = (target, QUEUE);
    bench
        .apply(Command::RecallDead {
            queue,
            source,
            number,
        })
        .outcome
}

fn redirect(bench: &mut Bench, from: LogId, first: u64, arrived: u64) -> Applied {
    bench.apply(Command::RedirectDead {
        queue: QUEUE,
        from,
        first,
        arrived,
    })
}

fn numbers(bench: &Bench) -> Vec<(u64, u64)> {
    let dead = bench.queue().dead_letters(0, 100);
    dead.iter().map(|d| (d.number, d.offset.get())).collect()
}

#[test]
fn letters_stay_bound_to_their_target_until_it_has_recalled_them() {
    let mut bench = with_dead(3);
    accept(&mut bench, QUEUE, 0, 2);
    // Nobody was told that two have arrived when the target changes.
    aim(&mut bench, 2, Some(OTHER));
    assert_eq!(bench.queue().dead_letter_target(), Some(DEAD));
    assert!(bench.queue().recalls_dead_letters());

    assert_eq!(recall(&mut bench, DEAD), Outcome::Numbered(2));
    let applied = redirect(&mut bench, DEAD, 0, 2);
    assert_eq!(applied.outcome, Outcome::Numbered(3));
    assert_eq!(discarded(&applied), [(0, 2)]);
    let due = Effect::DeadLettersDue { queue: QUEUE };
    assert!(applied.effects.contains(&due));
    assert_eq!(bench.queue().dead_letter_target(), Some(OTHER));
    assert_eq!(numbers(&bench), [(3, 2)]);
}

#[test]
fn a_recalled_letter_is_refused_however_late_it_comes() {
    let mut bench = with_dead(3);
    aim(&mut bench, 2, Some(OTHER));
    assert_eq!(recall(&mut bench, DEAD), Outcome::Numbered(0));
    redirect(&mut bench, DEAD, 0, 0);
    let late = accept(&mut bench, QUEUE, 0, 3).outcome;
    assert_eq!(late, Outcome::Numbered(0));
    assert_eq!(bench.shard.queue(DEAD).unwrap().stats().ready, 0);

    // It is the target again: what is sent there now has numbers it takes.
    aim(&mut bench, 3, Some(DEAD));
    assert_eq!(recall(&mut bench, OTHER), Outcome::Numbered(0));
    redirect(&mut bench, OTHER, 3, 0);
    assert_eq!(numbers(&bench), [(6, 0), (7, 1), (8, 2)]);
    let taken = accept(&mut bench, QUEUE, 6, 3).outcome;
    assert_eq!(taken, Outcome::Appended(at(0)..at(3)));
}

#[test]
fn a_redirection_of_the_past_changes_nothing() {
    let mut bench = with_dead(2);
    aim(&mut bench, 2, Some(OTHER));
    recall(&mut bench, DEAD);
    redirect(&mut bench, DEAD, 0, 0);
    for (from, first) in [(DEAD, 0), (OTHER, 0), (DEAD, 2)] {
        let applied = redirect(&mut bench, from, first, 0);
        assert_eq!(applied.outcome, Outcome::Numbered(2));
        assert_eq!(numbers(&bench), [(2, 0), (3, 1)]);
    }
    let beyond = redirect(&mut bench, OTHER, 2, 5);
    assert_eq!(refused(&beyond), ErrorCode::InvalidArgument);
}

#[test]
fn an_empty_outbox_follows_its_queue_at_once() {
    let mut bench = with_dead(1);
    aim(&mut bench, 2, Some(OTHER));
    confirm(&mut bench, 1);
    assert_eq!(bench.queue().dead_letter_target(), Some(OTHER));
    aim(&mut bench, 3, None);
    bench.publish(1);
    bench.kill_one();
    assert_eq!(bench.queue().dead_letter_target(), None);
    aim(&mut bench, 4, Some(DEAD));
    assert_eq!(bench.queue().dead_letter_target(), Some(DEAD));
    assert!(!bench.queue().recalls_dead_letters());
}

#[test]
fn a_removed_target_knows_what_has_arrived_until_it_may_forget() {
    let mut bench = with_dead(3);
    accept(&mut bench, QUEUE, 0, 2);
    accept(&mut bench, LogId::new(50), 0, 4);
    bench.apply(Command::Remove {
        log: DEAD,
        revision: 2,
    });
    let late = accept(&mut bench, QUEUE, 2, 1);
    assert_eq!(refused(&late), ErrorCode::NoSuchQueue);
    assert_eq!(recall(&mut bench, DEAD), Outcome::Numbered(2));
    assert_eq!(bench.shard.departed().collect::<Vec<_>>(), [DEAD]);
    let sources = bench.shard.sources(DEAD, None, 10);
    assert_eq!(sources, [QUEUE, LogId::new(50)]);
    assert_eq!(bench.shard.sources(DEAD, Some(QUEUE), 10), sources[1..]);

    for source in sources {
        let (queue, sources) = (DEAD, vec![source]);
        bench.apply(Command::ForgetDead { queue, sources });
    }
    assert_eq!(bench.shard.departed().count(), 0);
    let forgotten = bench.apply(Command::RecallDead {
        queue: DEAD,
        source: QUEUE,
        number: 3,
    });
    assert_eq!(refused(&forgotten), ErrorCode::NoSuchQueue);
}

#[test]
fn the_numbers_of_a_removed_source_are_forgotten() {
    let mut bench = Bench::new(queue_spec());
    accept(&mut bench, QUEUE, 0, 2);
    bench.apply(Command::ForgetDead {
        queue: DEAD,
        sources: vec![QUEUE],
    });
    assert_eq!(bench.shard.sources(DEAD, None, 10), []);
}
