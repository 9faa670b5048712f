//! Conditions as `metav1.Condition` means them. Decides when `lastTransitionTime` moves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::reasons::condition;

/// Longest message: the API server refuses more than 32768 bytes in a condition and more than this
/// in an operation, people read no more than this.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Value of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Truth {
    /// As in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition as decided now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One of `reasons::condition`.
    pub type_: &'static str,
    /// Whether it holds.
    pub truth: Truth,
    /// Stable, CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Verdict {
    /// A verdict.
    #[must_use]
    pub fn new(
        type_: &'static str,
        truth: Truth,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            truth,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// The same verdict as the one that led to a condition of ours; `None` for a type or status
    /// that is not ours.
    #[must_use]
    pub fn again(condition: &Condition) -> Option<Self> {
        let types = [
            condition::READY,
            condition::STABLE,
            condition::PROGRESSING,
            condition::SYNCED,
        ];
        let type_ = types.into_iter().find(|type_| *type_ == condition.type_)?;
        let truths = [Truth::True, Truth::False, Truth::Unknown];
        let truth = truths
            .into_iter()
            .find(|truth| truth.as_str() == condition.status)?;
        Some(Self::new(
            type_,
            truth,
            &condition.reason,
            &condition.message,
        ))
    }
}

/// The conditions to be written: those decided now, each with the time at which it last became what
/// it is.
#[must_use]
pub fn conditions(
    previous: &[Condition],
    verdicts: Vec<Verdict>,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let stamped = verdicts.into_iter().map(|verdict| {
        let status = verdict.truth.as_str();
        let before = previous
            .iter()
            .find(|before| before.type_ == verdict.type_ && before.status == status);
        Condition {
            type_: verdict.type_.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason,
            message: cut(verdict.message),
            last_transition_time: before.map_or(Time(now), |c| c.last_transition_time.clone()),
            observed_generation: Some(generation),
        }
    });
    stamped.collect()
}

/// The condition of a type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// A message that is short enough for every place in a status.
pub(crate) fn cut(mut message: String) -> String {
    /// Stands for the rest.
    const REST: char = '…';
    if message.len() > MESSAGE_BYTES_MAX {
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX - REST.len_utf8());
        message.truncate(end);
        message.push(REST);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(truth: Truth, reason: &str) -> Verdict {
        Verdict::new("Ready", truth, reason, "")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_does() {
        let first = conditions(&[], vec![ready(Truth::False, "Starting")], 1, at(10));
        let second = conditions(&first, vec![ready(Truth::False, "PodCrashing")], 2, at(20));
        let third = conditions(&second, vec![ready(Truth::True, "Ready")], 2, at(30));

        assert_eq!(second[0].last_transition_time, Time(at(10)));
        assert_eq!(second[0].reason, "PodCrashing");
        assert_eq!(second[0].observed_generation, Some(2));
        assert_eq!(third[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn a_long_message_is_cut_between_two_characters() {
        let long = "é".repeat(MESSAGE_BYTES_MAX);

        let cut = cut(long);

        assert!(cut.len() <= MESSAGE_BYTES_MAX);
        assert!(cut.ends_with('…'));
    }
}
