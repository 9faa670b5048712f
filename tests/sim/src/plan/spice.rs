//! Steps that come on top of what a seed makes, in every other seed: checkpoints at any moment, and
//! a disk that says nothing of what it does wrong. The other half is as it was before there were
//! these, so that seeds that once failed still do what they did.

use millrace_storage::{Fault, Operation};

use super::{Deceit, Step, When};
use crate::random::{Random, mix};

/// Decides which seeds get more; chosen so that none of `seeds.txt` does.
const SALT: u64 = 1_851_877;
/// Where on the disk bits flip at rest.
const ROTTEN: [&str; 5] = ["segments/", "segments/", "checkpoint-", "journal/", "/"];
/// Where reads and writes go wrong.
const PARTS: [&str; 5] = ["segments/", "checkpoint-", "journal/", "journal/", "/"];

/// Adds steps to those of a seed.
pub(super) fn spice(seed: u64, steps: &mut Vec<Step>) {
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
