//! Pattern and header filter, against naive ones.

use millrace_engine::routing::{Matcher, Pattern};
use millrace_engine::spec::{Filter, HeaderCondition};

use crate::input::{Input, put_text};

/// Words to build from: few, so that they meet.
const WORDS: [&str; 6] = ["a", "b", "ab", "", "*", "#"];
/// Words of one pattern or subject built here: the naive matcher takes exponential time.
const WORDS_MAX: usize = 8;
/// Wildcards `#` in a pattern that the naive matcher is asked about.
const ANY_MAX: usize = 6;
/// Words of a subject that it is asked about.
const SUBJECT_WORDS_MAX: usize = 16;
/// Headers and conditions.
const HEADERS_MAX: usize = 4;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (pattern, subject) = (text(&mut input), text(&mut input));
    let flags = input.byte();
    let headers = headers(&mut input);
    let filter = Filter {
        pattern: pattern.clone(),
        headers: conditions(&mut input),
        any: flags & 1 != 0,
    };
    let Ok(parsed) = Pattern::parse(&pattern) else {
        assert!(
            Matcher::new(&filter).is_err(),
            "{pattern:?} has two answers"
        );
        return;
    };
    let words: Vec<&str> = pattern.split('.').collect();
    let spoken: Vec<&str> = subject.split('.').filter(|_| !subject.is_empty()).collect();
    let any = words.iter().filter(|word| **word == "#").count();
    let matched = parsed.matches(&subject);
    if any <= ANY_MAX && spoken.len() <= SUBJECT_WORDS_MAX {
        assert_eq!(matched, naive(&words, &spoken), "{pattern:?} {subject:?}");
    }
    let Ok(matcher) = Matcher::new(&filter) else {
        assert!(
            filter
                .headers
                .iter()
                .any(|condition| condition.name.is_empty())
        );
        return;
    };
    let has = |name: &str, value: Option<&str>| {
        let mut named = headers.iter().filter(|(n, _)| n == name);
        named.any(|(_, v)| value.is_none_or(|value| value == v))
    };
    let holds = filter
        .headers
        .iter()
        .map(|c| has(&c.name, c.value.as_deref()));
    let holding = holds.filter(|holds| *holds).count();
    let conditions = filter.headers.len();
    let expected = matched
        && (conditions == 0
            || if filter.any {
                holding > 0
            } else {
                holding == conditions
            });
    assert_eq!(
        matcher.matches(&subject, has),
        expected,
        "{filter:?} {headers:?}"
    );
}

/// As the words are defined, one after the other.
fn naive(pattern: &[&str], subject: &[&str]) -> bool {
    match (pattern.split_first(), subject.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((&"#", rest)), _) => {
            naive(rest, subject)
                || subject
                    .split_first()
                    .is_some_and(|(_, s)| naive(pattern, s))
        }
        (Some(_), None) => false,
        (Some((word, pattern)), Some((spoken, subject))) => {
            (*word == "*" || word == spoken) && naive(pattern, subject)
        }
    }
}

/// Words from the list, or any text.
fn text(input: &mut Input<'_>) -> String {
    let shape = input.byte();
    if shape & 0x80 != 0 {
        return input.text();
    }
    let words = (0..usize::from(shape) % (WORDS_MAX + 1))
        .map(|_| WORDS[usize::from(input.byte()) % WORDS.len()]);
    words.collect::<Vec<_>>().join(".")
}

fn word(input: &mut Input<'_>) -> String {
    WORDS[usize::from(input.byte()) % WORDS.len()].to_owned()
}

fn headers(input: &mut Input<'_>) -> Vec<(String, String)> {
    let count = usize::from(input.byte()) % (HEADERS_MAX + 1);
    (0..count).map(|_| (word(input), word(input))).collect()
}

fn conditions(input: &mut Input<'_>) -> Vec<HeaderCondition> {
    let count = usize::from(input.byte()) % (HEADERS_MAX + 1);
    let condition = |_| HeaderCondition {
        name: word(input),
        value: (input.byte() & 1 != 0).then(|| word(input)),
    };
    (0..count).map(condition).collect()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seed = |pattern: &str, subject: &str, rest: &[u8]| {
        let mut input = vec![0x80];
        put_text(&mut input, pattern);
        input.push(0x80);
        put_text(&mut input, subject);
        input.extend(rest);
        input
    };
    vec![
        seed(
            "orders.*.created",
            "orders.eu.created",
            &[0, 1, 0, 1, 1, 0, 1, 1],
        ),
        seed("#.a.#.b", "a.a.b.b", &[1, 2, 0, 1, 1, 0, 2, 0, 0, 1, 1, 0]),
        seed("#", "", &[]),
        vec![5, 5, 0, 5, 4, 0, 6, 0, 0, 1, 1, 0, 0],
    ]
}
