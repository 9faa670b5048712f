//! Requests as they come from the network.

use bytes::Bytes;
use millrace_engine::{Catalogue, CatalogueCommand, CatalogueEntry};
use millrace_node::Record;
use millrace_proto::v1;
use millrace_server::fuzz;
use millrace_storage::records;
use millrace_types::{Elapsed, LogIndex, Offset, Refusal, Stamp, Wall};
use prost::Message as _;

use crate::input::Input;

/// What the target of a publish takes.
const MESSAGE_BYTES_MAX: u32 = 1024;
/// A refusal goes into the trailers of a call, where proxies take some 8 KiB in all.
const REFUSAL_BYTES_MAX: usize = 4096;

/// Kinds of requests in an input: its first byte.
const PUBLISH: u8 = 0;
const BATCH: u8 = 1;
const SETTLE: u8 = 2;
const READ: u8 = 3;
const KINDS: u8 = 4;

pub(crate) fn requests(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte() % KINDS;
    let rest = Bytes::copy_from_slice(input.rest());
    match kind {
        PUBLISH => publish(rest),
        BATCH => sealed_batch(rest),
        SETTLE => settle(rest),
        _ => read(rest),
    }
}

fn publish(bytes: Bytes) {
    let Ok(request) = v1::PublishRequest::decode(bytes) else {
        return;
    };
    refused(fuzz::address(&request.address));
    for message in &request.messages {
        refused(fuzz::message(message, MESSAGE_BYTES_MAX));
    }
    for batch in &request.batches {
        one_batch(batch);
    }
}

/// Records of any content with the right checksum; the count comes first.
fn sealed_batch(mut records: Bytes) {
    let count = records.first().copied().unwrap_or(0);
    records = records.slice(1.min(records.len())..);
    one_batch(&v1::RecordBatch {
        count: count.into(),
        crc32c: crc32c::crc32c(&records),
        records,
        ..v1::RecordBatch::default()
    });
}

fn one_batch(batch: &v1::RecordBatch) {
    let Some(keys) = refused(fuzz::batch(batch, MESSAGE_BYTES_MAX)) else {
        return;
    };
    records::check(&batch.records, batch.count).expect("a checked batch can be stored");
    let split = records::split(batch.records.clone());
    let messages: Vec<Bytes> = split.collect::<Result<_, _>>().expect("checked");
    assert_eq!(u32::try_from(messages.len()), Ok(batch.count));
    let mut seen = Vec::new();
    for (n, message) in (0..).zip(messages) {
        let record = Record {
            offset: Offset::new(n),
            stored_at: Wall::from_millis(n),
            message,
        };
        let delivered = fuzz::stream_message(record).expect("a checked message can be delivered");
        let key = delivered.message.unwrap_or_default().key;
        if !key.is_empty() && seen.last() != Some(&key) {
            seen.push(key);
        }
    }
    assert_eq!(keys, seen);
}

fn settle(bytes: Bytes) {
    let Ok(request) = v1::SettleRequest::decode(bytes) else {
        return;
    };
    let tags: usize = request.settlements.iter().map(|one| one.tags.len()).sum();
    let entries = fuzz::settlements(request.settlements);
    assert_eq!(entries.len(), tags, "every tag has an answer");
    for entry in entries {
        refused(entry.map_err(|(_, refusal)| refusal));
    }
}

fn read(bytes: Bytes) {
    if let Ok(request) = v1::ReadRequest::decode(bytes.clone()) {
        refused(fuzz::address(&request.address));
        refused(fuzz::position(request.from));
    }
    if let Ok(request) = v1::ReceiveRequest::decode(bytes.clone())
        && let Some(lease) = &request.lease
    {
        refused(fuzz::lease(lease));
    }
    // What is stored is not trusted either.
    drop(fuzz::stream_message(Record {
        offset: Offset::new(u64::MAX),
        stored_at: Wall::from_millis(u64::MAX),
        message: bytes,
    }));
}

/// A refusal is short, whatever it is about.
fn refused<T>(answer: Result<T, Refusal>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(refusal) => {
            let bytes = fuzz::error(refusal.clone()).encoded_len();
            assert!(
                bytes <= REFUSAL_BYTES_MAX,
                "{bytes} bytes of refusal: {refusal:?}"
            );
            None
        }
    }
}

/// A change of the topology.
pub(crate) fn topology(bytes: &[u8]) {
    let Ok(request) = v1::ApplyTopologyRequest::decode(bytes) else {
        return;
    };
    let objects = request.upserts.clone();
    let Some(delta) = refused(fuzz::delta(request)) else {
        return;
    };
    assert_eq!(delta.upserts.len(), objects.len());
    for (declared, object) in delta.upserts.iter().zip(&objects) {
        let kept = v1::TopologyObject::decode(declared.wire.clone()).expect("its own encoding");
        assert_eq!(&kept, object, "an object is kept as it came");
    }
    let mut catalogue = Catalogue::new();
    let commands = [
        CatalogueCommand::Init { data_shards: 2 },
        CatalogueCommand::ApplyTopology {
            base_revision: 0,
            upserts: delta.upserts,
            removals: delta.removals,
        },
    ];
    for (index, command) in (1..).zip(commands) {
        let stamp = Stamp {
            wall: Wall::from_millis(index),
            elapsed: Elapsed::from_millis(index),
        };
        let entry = CatalogueEntry { stamp, command };
        let again = CatalogueEntry::decode(&entry.encode()).expect("its own encoding");
        refused(catalogue.apply(LogIndex::new(index), &again).outcome);
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let message = v1::Message {
        payload: Bytes::from_static(b"payload"),
        key: "key".to_owned(),
        subject: "orders.eu.created".to_owned(),
        headers: vec![v1::Header {
            name: "region".to_owned(),
            value: Some(v1::header::Value::Text("eu".to_owned())),
        }],
        id: "id".to_owned(),
        ..v1::Message::default()
    };
    let record = message.encode_length_delimited_to_vec();
    let records = Bytes::from([record.as_slice(), record.as_slice()].concat());
    let publish = v1::PublishRequest {
        address: "queue/default/orders".to_owned(),
        messages: vec![message],
        batches: vec![v1::RecordBatch {
            count: 2,
            crc32c: crc32c::crc32c(&records),
            records: records.clone(),
            producer: Some(v1::Producer {
                id: Bytes::from_static(b"fuzz"),
                sequence: 3,
                floor: 2,
            }),
            age_ms: 9,
            ..v1::RecordBatch::default()
        }],
        acknowledge: v1::Acknowledge::OnReceipt.into(),
        partition: Some(1),
    };
    let settle = v1::SettleRequest {
        settlements: vec![v1::Settlement {
            tags: vec![Bytes::from_static(&[1; 37]), Bytes::from_static(&[2; 65])],
            outcome: v1::settlement::Outcome::Retry.into(),
            delay: Some(seconds(3)),
            note: "why".to_owned(),
        }],
        ..v1::SettleRequest::default()
    };
    let read = v1::ReadRequest {
        address: "topic/default/events".to_owned(),
        from: Some(v1::Position {
            at: Some(v1::position::At::Offset(7)),
        }),
        ..v1::ReadRequest::default()
    };
    let seed = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        seed(PUBLISH, &publish.encode_to_vec()),
        seed(BATCH, &[&[2], &*records].concat()),
        seed(SETTLE, &settle.encode_to_vec()),
        seed(READ, &read.encode_to_vec()),
    ]
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// The topology of a file, as a broker is told of it.
pub(crate) fn topology_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for yaml in super::yaml::seeds() {
        let text = String::from_utf8_lossy(&yaml);
        let Ok(mut upserts) = millrace_crds::load(&text) else {
            continue;
        };
        for object in &mut upserts {
            (object.uid, object.generation) = ("uid".to_owned(), 1);
        }
        let removals = vec![v1::Removal {
            address: "queue/default/gone".to_owned(),
            uid: "uid".to_owned(),
        }];
        let request = v1::ApplyTopologyRequest {
            upserts,
            removals,
            ..v1::ApplyTopologyRequest::default()
        };
        seeds.push(request.encode_to_vec());
    }
    seeds
}
