//! What runs in a simulation depends on its inputs alone: in the crates below, clocks, threads,
//! chance and the runtime are named by the few files that give them to all others, and nothing is
//! kept in an order that differs from run to run.

use crate::source::{code_lines, is_test_file};
use crate::tree::{File, Tree};

/// What is simulated.
const SIMULATED: [&str; 3] = [
    "broker/node/src/",
    "broker/replica/src/",
    "broker/storage/src/",
];

/// The files that give time, chance and threads to the others, or wait where no simulation does.
const GIVERS: [&str; 5] = [
    "broker/node/src/host/system.rs",
    "broker/storage/src/disk/counted.rs",
    "broker/storage/src/disk/real.rs",
    "broker/storage/src/routine.rs",
    "broker/storage/src/signal.rs",
];

/// A word and why it is not to be used.
struct Ban {
    word: &'static str,
    reason: &'static str,
}

const BANS: [Ban; 12] = [
    Ban {
        word: "Instant::now(",
        reason: CLOCK,
    },
    Ban {
        word: "SystemTime::now(",
        reason: CLOCK,
    },
    Ban {
        word: "since.elapsed()",
        reason: CLOCK,
    },
    Ban {
        word: "start.elapsed()",
        reason: CLOCK,
    },
    Ban {
        word: "started.elapsed()",
        reason: CLOCK,
    },
    Ban {
        word: "thread::spawn",
        reason: THREAD,
    },
    Ban {
        word: "thread::Builder",
        reason: THREAD,
    },
    Ban {
        word: "thread::sleep",
        reason: THREAD,
    },
    Ban {
        word: "getrandom",
        reason: "chance comes from `Host::random`",
    },
    Ban {
        word: "HashMap",
        reason: ORDER,
    },
    Ban {
        word: "HashSet",
        reason: ORDER,
    },
    Ban {
        word: "thread_local!",
        reason: "outlives a node, and is not shared by its threads",
    },
];
const CLOCK: &str = "time comes from `Host` and the `now` of a step";
const THREAD: &str = "threads are routines, run by the host";
const ORDER: &str = "its order differs from run to run: `BTreeMap`, `BTreeSet`";
/// All that may be used of the runtime: it works without one running.
const TOKIO: [&str; 3] = ["tokio::sync", "tokio::select!", "tokio_util::"];

/// Uses of clocks, threads, chance and the runtime where only the host may have them, and `select!`
/// without `biased`, which draws lots.
#[must_use]
pub fn chance_and_time(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.sources().filter(|file| is_simulated(&file.path)) {
        let lines: Vec<&str> = file.text.lines().take(code_lines(file)).collect();
        for (index, line) in lines.iter().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            let next = lines.get(index + 1).copied().unwrap_or_default();
            broken.extend(
                faults(line, next)
                    .into_iter()
                    .map(|why| place(file, index, &why)),
            );
        }
    }
    broken
}

fn is_simulated(path: &str) -> bool {
    SIMULATED.iter().any(|root| path.starts_with(root))
        && !GIVERS.contains(&path)
        && !is_test_file(path)
}

fn faults(line: &str, next: &str) -> Vec<String> {
    let banned = BANS.iter().filter(|ban| line.contains(ban.word));
    let mut faults: Vec<String> = banned
        .map(|ban| format!("`{}`: {}", ban.word, ban.reason))
        .collect();
    let uses = line.match_indices("tokio").map(|(at, _)| &line[at..]);
    for used in uses.filter(|used| used.starts_with("tokio::") || used.starts_with("tokio_")) {
        if !TOKIO.iter().any(|allowed| used.starts_with(allowed)) {
            faults.push(format!("`{used}`: of tokio, only what needs no runtime"));
        }
    }
    if line.contains("select!") && next.trim() != "biased;" {
        faults.push("`select!`: draws lots unless it begins with `biased;`".to_owned());
    }
    faults
}

fn place(file: &File, index: usize, why: &str) -> String {
    format!("{}:{}: {why}", file.path, index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        let file = File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let tree = Tree { files: vec![file] };
        chance_and_time(&tree).len()
    }

    #[test]
    fn clocks_threads_and_chance_are_the_hosts() {
        let node = "broker/node/src/a.rs";
        for line in [
            "let now = Instant::now();",
            "let took = started.elapsed();",
            "std::thread::spawn(f);",
            "getrandom::u64()",
            "use std::collections::HashMap;",
            "tokio::spawn(f);",
            "use tokio::runtime::Handle;",
            "tokio::time::timeout(d, f).await;",
            "tokio::select! {\n    a = b => {}",
        ] {
            assert_eq!(found(node, line), 1, "{line}");
            assert_eq!(found("broker/server/src/a.rs", line), 0);
            assert_eq!(found("broker/node/src/tests/a.rs", line), 0);
            assert_eq!(found("broker/node/src/host/system.rs", line), 0);
            let in_module = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{line}\n}}\n");
            assert_eq!(found(node, &in_module), 0);
        }
    }

    #[test]
    fn what_needs_no_runtime_may_be_used() {
        let lines = "use tokio::sync::watch;\nuse tokio_util::sync::CancellationToken;\n\
            tokio::select! {\n    biased;\n// Instant::now()\n";
        assert_eq!(found("broker/node/src/a.rs", lines), 0);
    }
}
