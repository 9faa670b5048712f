//! Every committed input, every seed, and a fixed number of changes of each, through every target:
//! short, and the same every time.

use millrace_fuzz::mutate::Mutator;
use millrace_fuzz::{TARGETS, Target, corpus, target};

/// Changed inputs of each target, spread over its inputs. A debug build does this in seconds.
const MUTATIONS: usize = 400;
/// Where the changes begin.
const SEED: u64 = 1;

/// Says which input it was when one breaks a promise.
fn check(target: &Target, name: &str, bytes: &[u8]) {
    let done = std::panic::catch_unwind(|| target.check(bytes));
    assert!(
        done.is_ok(),
        "{}: {name} breaks: {}\n{bytes:?}",
        target.name,
        target.promises
    );
}

fn replay(name: &str) {
    let target = target(name).expect("a target of this name");
    let mut inputs = corpus::read(target).expect("the corpus can be read");
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let seeds = seeds.into_iter().enumerate();
    inputs.extend(seeds.map(|(n, seed)| (format!("seed {n}"), seed)));
    check(target, "nothing at all", &[]);
    for (name, bytes) in &inputs {
        check(target, name, bytes);
    }
    let mut mutator = Mutator::new(SEED);
    for n in 0..MUTATIONS {
        let (name, bytes) = &inputs[n % inputs.len()];
        let (_, other) = &inputs[(n * 7 + 1) % inputs.len()];
        let bytes = mutator.mutate(bytes, other, target.bytes_max);
        check(target, &format!("change {n}, of {name}"), &bytes);
    }
}

macro_rules! replay {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(all, replayed);
        }
    };
}

replay![
    journal_files,
    journal_damage,
    directory,
    records,
    commands,
    shard_snapshot,
    catalogue_commands,
    catalogue_snapshot,
    wire,
    wire_topology,
    peers,
    tag,
    routing,
    yaml,
    texts,
];
