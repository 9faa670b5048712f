//! Rules about the text of Rust sources: lengths, headers, words.

use crate::tree::{File, Tree};

/// A file longer than this does more than one thing.
const FILE_LINES_MAX: usize = 600;
/// A function longer than this cannot be read in one go.
const FUNCTION_LINES_MAX: usize = 70;
/// Two files side by side fit on a screen.
const LINE_CHARS_MAX: usize = 100;

/// A word, where it is forbidden, and why.
struct Ban {
    word: &'static str,
    scope: Scope,
    reason: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everywhere,
    Tests,
}

/// Spelled in pieces, so that this file does not break its own rule.
const BANS: [Ban; 7] = [
    Ban {
        word: concat!("/tmp/", "wt"),
        scope: Scope::Everywhere,
        reason: MACHINE,
    },
    Ban {
        word: concat!("/ro", "ot/"),
        scope: Scope::Everywhere,
        reason: MACHINE,
    },
    Ban {
        word: concat!("/wo", "rk/"),
        scope: Scope::Everywhere,
        reason: MACHINE,
    },
    Ban {
        word: concat!("to", "do!("),
        scope: Scope::Everywhere,
        reason: UNFINISHED,
    },
    Ban {
        word: concat!("unimpl", "emented!("),
        scope: Scope::Everywhere,
        reason: UNFINISHED,
    },
    Ban {
        word: concat!("thread::", "sleep("),
        scope: Scope::Tests,
        reason: SLEEP,
    },
    Ban {
        word: concat!("time::", "sleep("),
        scope: Scope::Tests,
        reason: SLEEP,
    },
];
const MACHINE: &str = "a path of one machine";
const UNFINISHED: &str = "publish nothing that does not work";
const SLEEP: &str = "wait for a condition; a loop that polls one says `// polls` on the line";
/// What excuses a sleep: it is the pause of a loop that waits for a condition with a limit.
const POLLS: &str = "// polls";

/// Sources with more lines than one file should have; a test module at the end does not count.
#[must_use]
pub fn sources_too_long(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.sources() {
        let lines = code_lines(file);
        if lines > FILE_LINES_MAX {
            broken.push(format!(
                "{}: {lines} lines, at most {FILE_LINES_MAX}",
                file.path
            ));
        }
    }
    broken
}

/// Lines that do not fit.
#[must_use]
pub fn lines_too_long(tree: &Tree) -> Vec<String> {
    each_line(tree, |_, line| {
        let chars = line.chars().count();
        (chars > LINE_CHARS_MAX).then(|| format!("{chars} characters, at most {LINE_CHARS_MAX}"))
    })
}

/// Sources that do not begin with `//!`: what the file decides, promises and does not do.
#[must_use]
pub fn missing_headers(tree: &Tree) -> Vec<String> {
    let silent = tree.sources().filter(|file| !file.text.starts_with("//!"));
    silent
        .map(|file| format!("{}: does not begin with //!", file.path))
        .collect()
}

/// Forbidden words in Rust sources.
#[must_use]
pub fn banned_words(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.sources() {
        let tests_from = if is_test_file(&file.path) {
            0
        } else {
            code_lines(file)
        };
        for (index, line) in file.text.lines().enumerate() {
            let applies = |ban: &&Ban| ban.scope == Scope::Everywhere || index >= tests_from;
            let excused = |ban: &&Ban| ban.scope == Scope::Tests && line.contains(POLLS);
            for ban in BANS.iter().filter(applies).filter(|ban| !excused(ban)) {
                if line.contains(ban.word) {
                    let (path, line) = (&file.path, index + 1);
                    broken.push(format!("{path}:{line}: `{}`: {}", ban.word, ban.reason));
                }
            }
        }
    }
    broken
}

/// Functions with more lines than one should have. Relies on rustfmt: a function ends at the first
/// closing brace in the column it began in.
#[must_use]
pub fn functions_too_long(tree: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.sources() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            if !begins_function(line) {
                continue;
            }
            let length = function_length(&lines[start..]);
            if length > FUNCTION_LINES_MAX {
                let (path, line) = (&file.path, start + 1);
                broken.push(format!(
                    "{path}:{line}: {length} lines, at most {FUNCTION_LINES_MAX}"
                ));
            }
        }
    }
    broken
}

fn each_line(tree: &Tree, rule: impl Fn(&File, &str) -> Option<String>) -> Vec<String> {
    let mut broken = Vec::new();
    for file in tree.sources() {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(why) = rule(file, line) {
                broken.push(format!("{}:{}: {why}", file.path, index + 1));
            }
        }
    }
    broken
}

/// Lines before the test module at the end of the file.
pub(crate) fn code_lines(file: &File) -> usize {
    let mut lines = file.text.lines();
    lines
        .position(|line| line == "#[cfg(test)]")
        .unwrap_or_else(|| file.text.lines().count())
}

pub(crate) fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
        || path.ends_with("_test.rs")
        || path.ends_with("_tests.rs")
        || path.ends_with("/testing.rs")
}

fn begins_function(line: &str) -> bool {
    let qualifier = |word: &&str| {
        matches!(*word, "pub" | "const" | "async" | "unsafe") || word.starts_with("pub(")
    };
    let mut words = line.trim_start().split(' ');
    words.find(|word| !qualifier(word)) == Some("fn")
}

fn function_length(lines: &[&str]) -> usize {
    let indent = indent(lines[0]);
    let ends = |line: &&str| self::indent(line) == indent && line.trim_start().starts_with('}');
    if lines[0].trim_end().ends_with(['}', ';']) {
        return 1;
    }
    for (index, line) in lines.iter().enumerate().skip(1) {
        if ends(line) {
            return index + 1;
        }
        // A declaration in a trait, over several lines.
        if self::indent(line) == indent && line.ends_with(';') {
            return 1;
        }
    }
    lines.len()
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree {
            files: vec![File {
                path: path.to_owned(),
                text: text.to_owned(),
            }],
        }
    }

    fn function(lines: usize) -> String {
        format!(
            "//! A.\npub(crate) async fn a(\n    b: u8,\n) {{\n{}}}\n",
            "    c();\n".repeat(lines - 4)
        )
    }

    #[test]
    fn a_long_function_is_found_where_it_begins() {
        assert_eq!(
            functions_too_long(&tree("a.rs", &function(70))),
            Vec::<String>::new()
        );
        let found = functions_too_long(&tree("a.rs", &function(71)));
        assert_eq!(found, ["a.rs:2: 71 lines, at most 70"]);
    }

    #[test]
    fn declarations_and_one_liners_are_not_measured_to_the_next_brace() {
        let text = format!(
            "trait T {{\n    fn a();\n    fn b() {{}}\n{}}}\n",
            "    // …\n".repeat(99)
        );
        assert_eq!(
            functions_too_long(&tree("a.rs", &text)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_test_module_does_not_count_for_a_files_length() {
        let body = "\n".repeat(FILE_LINES_MAX);
        let text = format!("{body}#[cfg(test)]\nmod tests {{\n{body}}}\n");
        assert_eq!(sources_too_long(&tree("a.rs", &text)), Vec::<String>::new());
        assert_eq!(
            sources_too_long(&tree("a.rs", &format!("{body}\n"))).len(),
            1
        );
    }

    #[test]
    fn sleeping_is_forbidden_in_tests_only_and_not_in_loops_that_poll() {
        let sleep = format!("//! A.\nstd::{}a);\n", BANS[5].word);
        assert_eq!(
            banned_words(&tree("broker/src/a.rs", &sleep)),
            Vec::<String>::new()
        );
        assert_eq!(banned_words(&tree("tests/kube/src/a.rs", &sleep)).len(), 1);
        let in_module = format!("//! A.\n#[cfg(test)]\n{sleep}");
        assert_eq!(banned_words(&tree("broker/src/a.rs", &in_module)).len(), 1);
        let polls = sleep.replace(");", "); // polls");
        assert_eq!(
            banned_words(&tree("tests/kube/src/a.rs", &polls)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn generated_sources_are_nobodys_fault() {
        let long = tree("proto/src/generated/v1.rs", &"x".repeat(500));
        assert_eq!(lines_too_long(&long), Vec::<String>::new());
        assert_eq!(missing_headers(&long), Vec::<String>::new());
    }
}
