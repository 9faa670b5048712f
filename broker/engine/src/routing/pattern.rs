//! Subject patterns: words separated by dots, `*` stands for one word, `#` for any number of them,
//! also none. The empty subject has no words; AMQP's topic exchanges decide alike.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use millrace_types::SUBJECT_BYTES_MAX;
use thiserror::Error;

/// Words of a pattern: bounds the work of one match to words of the subject times this.
pub const PATTERN_WORDS_MAX: usize = 32;

/// A checked pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    words: Vec<Word>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Literal(String),
    One,
    Any,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Empty; `#` matches every subject.
    #[error("the pattern is empty; `#` matches every subject")]
    Empty,
    /// Longer than any subject.
    #[error("the pattern has {0} bytes, more than {SUBJECT_BYTES_MAX}")]
    Long(usize),
    /// Too many words.
    #[error("the pattern has {0} words, more than {PATTERN_WORDS_MAX}")]
    Words(usize),
    /// Two dots in a row, or one at an end.
    #[error("pattern {0:?} has an empty word")]
    EmptyWord(String),
    /// A wildcard is a word of its own.
    #[error("word {0:?} mixes a wildcard with other characters")]
    Mixed(String),
}

impl Pattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// When it is empty, too long, has an empty word or a wildcard within a word.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > SUBJECT_BYTES_MAX {
            return Err(PatternError::Long(text.len()));
        }
        let words = text.split('.').count();
        if words > PATTERN_WORDS_MAX {
            return Err(PatternError::Words(words));
        }
        let words = text.split('.').map(|word| match word {
            "" => Err(PatternError::EmptyWord(text.to_string())),
            "*" => Ok(Word::One),
            "#" => Ok(Word::Any),
            _ if word.contains(['*', '#']) => Err(PatternError::Mixed(word.to_string())),
            _ => Ok(Word::Literal(word.to_string())),
        });
        Ok(Self {
            words: words.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a subject matches. Steps are bounded by words of the subject times words of the
    /// pattern: after a `#` only the last one is ever returned to.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        let subject: Vec<&str> = if subject.is_empty() {
            Vec::new()
        } else {
            subject.split('.').collect()
        };
        let (mut at, mut word) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while at < subject.len() {
            match self.words.get(word) {
                Some(Word::Any) => {
                    retry = Some((at, word + 1));
                    word += 1;
                    continue;
                }
                Some(Word::One) => {
                    (at, word) = (at + 1, word + 1);
                    continue;
                }
                Some(Word::Literal(text)) if text == subject[at] => {
                    (at, word) = (at + 1, word + 1);
                    continue;
                }
                Some(Word::Literal(_)) | None => {}
            }
            let Some((taken, after)) = retry else {
                return false;
            };
            retry = Some((taken + 1, after));
            (at, word) = (taken + 1, after);
        }
        self.words[word..].iter().all(|word| *word == Word::Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_whole_words() {
        let table: [(&str, &[&str], &[&str]); 13] = [
            ("a.b", &["a.b"], &["a", "a.b.c", "a.c", "", "ab"]),
            ("a.*.c", &["a.b.c", "a..c"], &["a.c", "a.b.b.c", "a.b"]),
            ("*", &["a"], &["", "a.b"]),
            ("#", &["", "a", "a.b.c"], &[]),
            ("a.#", &["a", "a.b", "a.b.c"], &["", "b", "b.a", "ab"]),
            ("#.z", &["z", "a.z", "a.b.z", "z.z"], &["", "z.a", "az"]),
            ("a.#.z", &["a.z", "a.b.z", "a.z.z"], &["a", "z", "a.z.b"]),
            ("#.a.#", &["a", "b.a", "a.b", "b.a.b"], &["", "b"]),
            ("*.#", &["a", "a.b"], &[""]),
            ("#.*", &["a", "a.b"], &[""]),
            ("#.#", &["", "a", "a.b"], &[]),
            ("#.b.*.d", &["b.c.d", "b.b.c.d"], &["b.d", "b.c.c.d"]),
            ("*.*", &["a.b", "."], &["a", "a.b.c"]),
        ];
        for (pattern, yes, no) in table {
            let parsed = Pattern::parse(pattern).unwrap();
            for subject in yes {
                assert!(parsed.matches(subject), "{pattern} refuses {subject:?}");
            }
            for subject in no {
                assert!(!parsed.matches(subject), "{pattern} takes {subject:?}");
            }
        }
    }

    #[test]
    fn a_bad_pattern_is_refused() {
        let long = "a".repeat(SUBJECT_BYTES_MAX + 1);
        let wide = ["a"; PATTERN_WORDS_MAX + 1].join(".");
        for (text, error) in [
            ("", PatternError::Empty),
            ("a..b", PatternError::EmptyWord("a..b".into())),
            (".a", PatternError::EmptyWord(".a".into())),
            ("a.", PatternError::EmptyWord("a.".into())),
            ("a.b*", PatternError::Mixed("b*".into())),
            ("##", PatternError::Mixed("##".into())),
            (long.as_str(), PatternError::Long(SUBJECT_BYTES_MAX + 1)),
            (wide.as_str(), PatternError::Words(PATTERN_WORDS_MAX + 1)),
        ] {
            assert_eq!(Pattern::parse(text), Err(error));
        }
    }

    #[test]
    fn many_wildcards_do_not_take_for_ever() {
        let pattern = Pattern::parse(&["#.a"; PATTERN_WORDS_MAX / 2].join(".")).unwrap();
        assert!(!pattern.matches(&["a"; 120].join(".").replace('a', "b")));
        assert!(pattern.matches(&["a"; 120].join(".")));
    }
}
