//! The check of a topology file.

use millrace_crds::{DEFAULT_NAMESPACE, check as check_yaml, load};
use millrace_server::fuzz;

pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let report = check_yaml(&text, DEFAULT_NAMESPACE);
    let objects = match load(&text) {
        Ok(objects) => objects,
        Err(loaded) => {
            assert!(
                !report.is_accepted(),
                "accepted, and does not compile:\n{loaded}"
            );
            return;
        }
    };
    assert!(report.is_accepted(), "refused, and compiles:\n{report}");
    for object in &objects {
        let taken = fuzz::declared(&with_identity(object));
        assert!(taken.is_ok(), "accepted, and no broker takes it: {taken:?}");
    }
}

/// What a broker gives an object of a file, or the API server one of its own.
fn with_identity(
    object: &millrace_proto::v1::TopologyObject,
) -> millrace_proto::v1::TopologyObject {
    let mut object = object.clone();
    if object.uid.is_empty() {
        object.uid = "uid".to_owned();
    }
    object.generation = object.generation.max(1);
    object
}

const TOPIC: &str = "apiVersion: millrace.dev/v1alpha1
kind: Topic
metadata: {name: events}
spec: {partitions: 2, retention: {maxAge: 24h, maxBytes: 10Gi}}
";
const QUEUE: &str = "apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: {name: orders}
spec:
  bindings:
  - topic: {name: events}
    subject: \"orders.#\"
    headers: [{name: region, value: eu}, {name: gold}]
    match: All
  delivery: {ackDeadline: 60s, maxDeliveries: 2, backoff: {initial: 10ms, max: 1m}}
  limits: {maxMessages: 5, maxMessageBytes: 2Ki}
  deadLetter: {queueRef: {name: dead}}
";

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let both = format!("{TOPIC}---\n{QUEUE}");
    let texts = [TOPIC, QUEUE, &both, "kind: [", "&a [*a]", "a: &b {c: *b}"];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
