//! Who made a call, how long it waits, and how often the call has been passed on.

use std::time::{Duration, Instant};

use tonic::Request;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use super::HOPS_MAX;
use crate::services::deadline;

/// Header: how often the call has been passed on by nodes.
const HOPS: &str = "millrace-hops";
/// Headers that go along: who the caller is, and its trace.
const PASSED_ON: [&str; 3] = ["authorization", "traceparent", "tracestate"];

/// What a call brought with it.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    hops: u8,
    until: Option<Instant>,
    passed_on: Vec<(&'static str, MetadataValue<Ascii>)>,
}

impl Origin {
    /// Of a call.
    pub(crate) fn of(metadata: &MetadataMap) -> Self {
        let hops = metadata.get(HOPS).and_then(|hops| hops.to_str().ok());
        let passed_on = PASSED_ON.into_iter();
        let passed_on = passed_on.filter_map(|name| Some((name, metadata.get(name)?.clone())));
        Self {
            // What cannot be read is not passed on any more.
            hops: hops.map_or(0, |hops| hops.parse().unwrap_or(HOPS_MAX)),
            until: deadline::of(metadata).map(|left| Instant::now() + left),
            passed_on: passed_on.collect(),
        }
    }

    /// Whether it may be passed on once more.
    pub(crate) const fn may_go_on(&self) -> bool {
        self.hops < HOPS_MAX
    }

    /// What is left of its time; `None` when it waits for ever.
    pub(crate) fn left(&self) -> Option<Duration> {
        let until = self.until?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// The call as it is passed on.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(left) = self.left() {
            request.set_timeout(left);
        }
        let metadata = request.metadata_mut();
        metadata.insert(HOPS, MetadataValue::from(u16::from(self.hops) + 1));
        for (name, value) in &self.passed_on {
            metadata.insert(*name, value.clone());
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_goes_on_with_its_caller_its_time_and_one_hop_more() {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", "Bearer x".parse().unwrap());
        metadata.insert("grpc-timeout", "5S".parse().unwrap());
        metadata.insert("cookie", "none of theirs".parse().unwrap());
        let first = Origin::of(&metadata);
        assert!(first.may_go_on());
        let passed_on = first.request(());
        assert_eq!(
            passed_on.metadata().get("authorization").unwrap(),
            "Bearer x"
        );
        assert!(passed_on.metadata().get("cookie").is_none());
        let second = Origin::of(passed_on.metadata());
        assert!(second.left().unwrap() <= Duration::from_secs(5));
        assert!(second.may_go_on());
        assert!(!Origin::of(second.request(()).metadata()).may_go_on());
    }

    #[test]
    fn a_hop_count_that_cannot_be_read_ends_the_journey() {
        let mut metadata = MetadataMap::new();
        metadata.insert(HOPS, "many".parse().unwrap());
        assert!(!Origin::of(&metadata).may_go_on());
    }
}
