//! The framing inside a batch.

use bytes::Bytes;
use millrace_storage::records::{check as check_batch, framed_bytes, push_record, split};

use crate::input::Input;

pub(crate) fn check(bytes: &[u8]) {
    let batch = Bytes::copy_from_slice(bytes);
    let found: Vec<_> = split(batch.clone()).collect();
    let is_whole = found.iter().all(Result::is_ok);
    let count = u32::try_from(found.len()).expect("no more than bytes");
    assert_eq!(check_batch(&batch, count).is_ok(), is_whole);
    assert!(check_batch(&batch, count + 1).is_err(), "one too many");

    let mut input = Input::new(bytes);
    let (mut pushed, mut records, mut length) = (Vec::new(), Vec::new(), 0);
    while !input.is_empty() {
        let record = input.chunk();
        push_record(&mut pushed, record);
        length += framed_bytes(record.len());
        records.push(record);
    }
    assert_eq!(pushed.len(), length);
    let again: Vec<Bytes> = split(pushed.into())
        .collect::<Result<_, _>>()
        .expect("what was pushed");
    assert_eq!(again, records);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut batch = Vec::new();
    for bytes in [0, 1, 127, 128, 300] {
        push_record(&mut batch, &vec![7; bytes]);
    }
    vec![batch, vec![0xff, 0xff, 0xff, 0xff, 0x0f], vec![0; 5]]
}
