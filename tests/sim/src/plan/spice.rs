//! Steps that come on top of what a seed makes, in every other seed: checkpoints at any moment, a
//! disk that says nothing of what it does wrong, and queues that get another dead-letter queue
//! while letters are on their way. The other half is as it was before there were
//! these, so that seeds that once failed still do what they did.

use millrace_storage::{Fault, Operation};

use super::{Deceit, End, Loss, QueueShape, Shape, Step, When};
use crate::random::{Random, mix};

/// Decides which seeds get more; chosen so that none did of those that `seeds.txt` had before.
const SALT: u64 = 1_851_877;
/// Where on the disk bits flip at rest.
const ROTTEN: [&str; 5] = ["segments/", "segments/", "checkpoint-", "journal/", "/"];
/// Where reads and writes go wrong.
const PARTS: [&str; 5] = ["segments/", "checkpoint-", "journal/", "journal/", "/"];

/// Adds steps to those of a seed.
pub(super) fn spice(seed: u64, objects: &[Shape], steps: &mut Vec<Step>) {
    let bits = mix(seed ^ SALT);
    if !bits.is_multiple_of(2) {
        return;
    }
    let mut random = Random::new(bits);
    let checkpoints = *random.pick(&[0, 5, 20, 60]);
    let misreads = *random.pick(&[0, 0, 4, 12]);
    // Most disks keep what they are given: who is damaged serves less, and shows less.
    let damages = *random.pick(&[0, 0, 0, 1, 1, 2]);
    let lies = *random.pick(&[0, 0, 0, 0, 0, 2]);
    for turn in 0..*random.pick(&[0, 0, 0, 4]) {
        let at = random.below(steps.len() + 1);
        steps.splice(at..at, redirect(&mut random, objects, turn));
    }
    let mut add = |count: u64, step: fn(&mut Random) -> Step| {
        for _ in 0..count {
            let at = random.below(steps.len() + 1);
            steps.insert(at, step(&mut random));
        }
    };
    add(checkpoints, |_| Step::Checkpoint);
    add(misreads, misread);
    add(damages, damage);
    add(lies, lie);
}

/// Messages of a queue die, and while they move it gets another dead-letter queue and the process
/// ends. Every other turn it gets back what it had.
fn redirect(random: &mut Random, objects: &[Shape], turn: u64) -> Vec<Step> {
    let queues = objects.iter().enumerate();
    let mut queues = queues.filter_map(|(place, shape)| match shape {
        Shape::Queue(queue) => Some((place, queue)),
        Shape::Topic(_) => None,
    });
    let (Some((place, queue)), Some((later, _))) = (queues.next(), queues.next()) else {
        return Vec::new();
    };
    let other = match queue.dead_letter {
        None => Some(later),
        Some(_) => None,
    };
    let declared = QueueShape {
        dead_letter: if turn.is_multiple_of(2) {
            other
        } else {
            queue.dead_letter
        },
        ..queue.clone()
    };
    let mut run = |turns: u64| Step::Run {
        turns: u32::try_from(random.within(1, turns)).unwrap_or(1),
    };
    vec![
        Step::Publish {
            to: place,
            partition: 0,
            counts: vec![5],
        },
        run(200),
        Step::Receive {
            from: place,
            dead: false,
            messages_max: 50,
            wait_ms: 0,
            lease_ms: None,
            give_up_ms: None,
        },
        run(200),
        Step::Settle {
            count: 200,
            end: End::Reject,
            at: 0,
        },
        run(60),
        Step::Declare {
            object: place,
            shape: Shape::Queue(declared),
        },
        run(120),
        Step::Crash {
            loss: Loss::Everything,
        },
    ]
}

/// What is read is not what is there.
fn misread(random: &mut Random) -> Step {
    Step::Deceive(Deceit {
        operation: Operation::Read,
        fault: *random.pick(&[Fault::Flipped, Fault::Misdirected]),
        after: *random.pick(&[0, 0, 1, 2, 3, 5, 8, 13, 30]),
        part: PARTS[random.below(PARTS.len())],
        when: *random.pick(&[When::Now, When::NextLife, When::NextLife]),
    })
}

/// What is there is not what was written.
fn damage(random: &mut Random) -> Step {
    if random.percent(60) {
        return Step::Rot {
            part: ROTTEN[random.below(ROTTEN.len())],
            at: random.bits(),
        };
    }
    Step::Deceive(Deceit {
        operation: Operation::Write,
        fault: *random.pick(&[Fault::Lost, Fault::Flipped, Fault::Misdirected]),
        after: *random.pick(&[0, 0, 1, 3, 10, 30]),
        part: PARTS[random.below(PARTS.len())],
        when: *random.pick(&[When::Now, When::Now, When::NextLife]),
    })
}

/// What was to be durable is not.
fn lie(random: &mut Random) -> Step {
    Step::Deceive(Deceit {
        operation: *random.pick(&[Operation::Sync, Operation::Sync, Operation::SyncDir]),
        fault: Fault::Lost,
        after: *random.pick(&[0, 1, 3, 10, 30]),
        part: PARTS[random.below(PARTS.len())],
        when: *random.pick(&[When::Now, When::NextLife]),
    })
}
