//! What a connection is told, and when.

use millrace_types::Offset;

use super::*;

/// At once.
const PAID: Taken = Taken::Paid {
    waited: Duration::ZERO,
};

const WINDOW: Window = Window {
    messages: 10,
    bytes: 1_000,
};

fn connection(messages: u64, bytes: u64, now: Instant) -> Connection {
    let place = (ShardId::new(1), LogId::new(2));
    Connection::new(
        SessionId::new(3),
        place,
        WINDOW,
        Credit { messages, bytes },
        now,
    )
}

fn delivery(offset: u64) -> Delivery {
    Delivery {
        offset: Offset::new(offset),
        acquired: 1,
        attempts: 0,
        lease_ms: 1_000,
    }
}

fn held(offset: u64) -> Held {
    Held {
        offset: Offset::new(offset),
        acquired: 1,
    }
}

#[test]
fn credit_in_messages_is_never_exceeded() {
    let now = Instant::now();
    let connection = connection(2, 1_000, now);
    connection.deliver(&[delivery(0), delivery(1), delivery(2)], now);
    let Next::Read(read, _) = connection.next() else {
        panic!("nothing to read")
    };
    assert_eq!(read, [delivery(0), delivery(1)]);
    for sent in &read {
        assert_eq!(connection.take(sent, 1, now), PAID);
    }
    assert!(matches!(connection.next(), Next::Wait));
    assert_eq!(connection.take(&delivery(2), 1, now), Taken::NoCredit);
    connection.credit(
        Credit {
            messages: 1,
            bytes: 0,
        },
        now,
    );
    assert!(matches!(connection.next(), Next::Read(read, _) if read == [delivery(2)]));
}

#[test]
fn one_large_message_overdraws_the_bytes_once_and_the_debt_is_paid_back() {
    let now = Instant::now();
    let connection = connection(10, 5, now);
    connection.deliver(&[delivery(0), delivery(1)], now);
    assert_eq!(connection.take(&delivery(0), 100, now), PAID);
    assert_eq!(connection.take(&delivery(1), 1, now), Taken::NoCredit);
    connection.credit(
        Credit {
            messages: 0,
            bytes: 95,
        },
        now,
    );
    assert!(matches!(connection.next(), Next::Wait));
    connection.credit(
        Credit {
            messages: 0,
            bytes: 1,
        },
        now,
    );
    assert_eq!(connection.take(&delivery(1), 1, now), PAID);
}

#[test]
fn a_lease_lost_before_it_was_sent_is_never_mentioned() {
    let now = Instant::now();
    let connection = connection(9, 1_000, now);
    connection.deliver(&[delivery(0), delivery(1)], now);
    assert_eq!(connection.take(&delivery(0), 1, now), PAID);
    connection.lose(vec![held(0), held(1)]);
    assert_eq!(connection.take(&delivery(1), 1, now), Taken::Gone);
    assert!(matches!(connection.next(), Next::Notice(Notice::Lost(lost)) if lost == [held(0)]));
    assert!(matches!(connection.next(), Next::Wait));
}

#[test]
fn a_stuck_connection_gives_back_what_waits_and_resumes_when_it_takes_again() {
    let now = Instant::now();
    let (ttl, stall) = (Duration::from_secs(60), Duration::from_secs(10));
    let connection = connection(1, 1, now);
    assert_eq!(connection.health(now + stall, ttl, stall), Health::Good);
    connection.deliver(&[delivery(0)], now);
    assert_eq!(connection.health(now + stall / 2, ttl, stall), Health::Good);
    let stuck = connection.health(now + stall, ttl, stall);
    assert_eq!(stuck, Health::Stuck(vec![delivery(0)]));
    assert_eq!(connection.health(now + stall, ttl, stall), Health::Good);
    assert_eq!(connection.room(0).messages, 0);
    assert!(matches!(connection.next(), Next::Resume));
    assert_eq!(connection.room(0).messages, 1);
    assert!(matches!(connection.next(), Next::Wait));
}

#[test]
fn a_silent_client_is_gone_and_any_sign_of_life_counts() {
    let now = Instant::now();
    let (ttl, stall) = (Duration::from_secs(30), Duration::from_secs(10));
    let connection = connection(1, 1, now);
    connection.attached(4, &[]);
    connection.touch(now + ttl / 2);
    assert_eq!(connection.health(now + ttl, ttl, stall), Health::Good);
    let later = now + ttl + ttl / 2;
    assert_eq!(connection.health(later, ttl, stall), Health::Silent);
}

#[test]
fn a_connection_hears_of_what_it_missed_and_of_nothing_twice() {
    let now = Instant::now();
    let connection = connection(9, 1_000, now);
    connection.attached(1, &[held(7)]);
    connection.deliver(&[delivery(0), delivery(1)], now);
    assert_eq!(connection.take(&delivery(0), 1, now), PAID);
    connection.settled([held(0)]);
    assert_eq!(connection.holds(), 2);

    connection.align(&[delivery(1), delivery(2)], now);
    assert!(matches!(connection.next(), Next::Notice(Notice::Lost(lost)) if lost == [held(7)]));
    let Next::Read(read, _) = connection.next() else {
        panic!("nothing to read")
    };
    assert_eq!(read, [delivery(1), delivery(2)]);
    connection.align(&[delivery(1), delivery(2)], now);
    assert!(matches!(connection.next(), Next::Read(same, _) if same == read));
}

#[test]
fn nothing_follows_the_end() {
    let now = Instant::now();
    let connection = connection(1, 1, now);
    let end = Refusal::new(millrace_types::ErrorCode::SessionExpired, "over");
    connection.deliver(&[delivery(0)], now);
    connection.tell(Notice::Closed(end));
    connection.tell(Notice::Drain);
    assert!(matches!(connection.next(), Next::Notice(Notice::Closed(_))));
    assert!(matches!(connection.next(), Next::End));
}

const NO_CREDIT: Credit = Credit {
    messages: 0,
    bytes: 0,
};

fn credit(messages: u64) -> Credit {
    Credit {
        messages,
        bytes: 1_000,
    }
}

#[test]
fn a_session_is_leased_what_there_is_credit_for_and_its_window_when_it_is_quick() {
    let now = Instant::now();
    assert_eq!(connection(0, 0, now).room(0).messages, 0);
    let quick = connection(3, 1_000, now);
    assert_eq!((quick.room(0).messages, quick.room(2).messages), (3, 5));
    quick.deliver(&[delivery(0), delivery(1)], now);
    assert_eq!(quick.take(&delivery(0), 1, now), PAID);
    quick.credit(credit(1), now);
    assert!(matches!(quick.next(), Next::Read(..)), "one waits yet");
    assert_eq!(quick.room(0).messages, 1 + 3);
    assert_eq!(quick.take(&delivery(1), 1, now), PAID);
    quick.credit(credit(1), now);
    assert!(matches!(quick.next(), Next::Resume));
    assert_eq!(quick.room(0), WINDOW);
    assert!(matches!(quick.next(), Next::Wait));
}

#[test]
fn what_waits_for_credit_for_long_goes_back_and_comes_with_credit_alone() {
    let now = Instant::now();
    let (ttl, stall) = (Duration::from_secs(60), Duration::from_secs(10));
    let connection = connection(1, 1_000, now);
    connection.deliver(&[delivery(0), delivery(1)], now);
    assert_eq!(connection.take(&delivery(0), 1, now), PAID);
    let health = |later| connection.health(now + later, ttl, stall);
    assert_eq!(health(CREDIT_WAIT_MAX / 2), Health::Good);
    assert_eq!(health(CREDIT_WAIT_MAX), Health::Stuck(vec![delivery(1)]));
    assert_eq!(connection.room(0).messages, 0);
    // Leased before the window was closed.
    connection.deliver(&[delivery(2)], now + CREDIT_WAIT_MAX);
    connection.lose(vec![held(2)]);
    connection.deliver(&[delivery(2)], now + CREDIT_WAIT_MAX * 2);
    assert_eq!(
        health(CREDIT_WAIT_MAX * 2),
        Health::Stuck(vec![delivery(2)])
    );
    connection.credit(credit(4), now);
    assert!(matches!(connection.next(), Next::Resume));
    assert_eq!(connection.room(0).messages, 1 + 4);
}

#[test]
fn what_is_due_and_was_not_sent_is_not_sent_any_more() {
    let now = Instant::now();
    let connection = connection(9, 1_000, now);
    connection.deliver(&[delivery(0), delivery(1), delivery(2)], now);
    assert_eq!(connection.take(&delivery(0), 1, now), PAID);
    let due = [held(0), held(1), held(9)];
    assert_eq!(connection.split_sent(&due), [held(0)]);
    assert_eq!(connection.take(&delivery(1), 1, now), Taken::Gone);
    let later = now + Duration::from_secs(2);
    let waited = Duration::from_secs(2);
    assert_eq!(
        connection.take(&delivery(2), 1, later),
        Taken::Paid { waited }
    );
    assert_eq!(connection.sent(), [held(0), held(2)]);
    connection.lose(vec![held(0), held(1)]);
    assert!(matches!(connection.next(), Next::Notice(Notice::Lost(lost)) if lost == [held(0)]));
    assert_eq!(connection.holds(), 1);
}

#[test]
fn an_abandoned_connection_sends_nothing_more() {
    let now = Instant::now();
    let connection = connection(9, 1_000, now);
    connection.deliver(&[delivery(0), delivery(1)], now);
    assert_eq!(connection.take(&delivery(0), 1, now), PAID);
    connection.abandon();
    assert!(matches!(connection.next(), Next::Wait));
    assert_eq!(connection.take(&delivery(1), 1, now), Taken::Gone);
    assert_eq!(connection.sent(), [held(0)]);
}

#[test]
fn a_later_lease_of_a_message_takes_the_place_of_the_one_that_waits() {
    let now = Instant::now();
    let connection = connection(9, 1_000, now);
    connection.deliver(&[delivery(0)], now);
    let again = Delivery {
        acquired: 2,
        ..delivery(0)
    };
    connection.deliver(&[again], now);
    assert!(matches!(connection.next(), Next::Read(read, 1_000) if read == [again]));
    connection.credit(NO_CREDIT, now);
    assert_eq!(connection.holds(), 1);
}
