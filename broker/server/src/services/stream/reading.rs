//! One read of a partition, from where it can be promised: what its leader has, or what is applied
//! here of what was asked for by its offset.

use std::time::Duration;

use millrace_node::{Position, Read, ReadAnswer};
use millrace_proto::v1;
use millrace_types::{Address, Offset, Refusal};

use crate::convert;
use crate::forward::{Origin, Place};
use crate::services::Context;

/// How often a reader asks the leader for more when nothing comes here: a replica that is late, or
/// none, must not keep what is there from being read.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Reads where the partition is led.
pub(super) async fn read(
    context: &Context,
    origin: &Origin,
    wanted: Read,
) -> Result<v1::ReadResponse, Refusal> {
    let (forward, broker) = (&context.forward, &context.broker);
    let shard = broker
        .partition_shard(&wanted.address, wanted.partition)
        .await?;
    let mut call = forward.call(origin, shard);
    loop {
        let answer = match call.place().await? {
            Place::Here => {
                let answer = broker.read(wanted.clone()).await;
                answer.and_then(|answer| response(wanted.partition, answer))
            }
            Place::There(remote) => {
                let mut reader = remote.reader();
                let call = reader.read(origin.request(request(&wanted)));
                remote.look(call).await
            }
        };
        match answer {
            Err(refusal) if call.again(&refusal).await => {}
            answer => return answer.map_err(|refusal| call.hinted(refusal)),
        }
    }
}

/// Reads on for somebody who has read everything before an offset: here, if more is applied here;
/// that is part of what the leader has. Otherwise the leader is asked.
pub(super) async fn read_on(
    context: &Context,
    origin: &Origin,
    wanted: Read,
) -> Result<v1::ReadResponse, Refusal> {
    if let Position::Offset(place) = wanted.from {
        let held = context.broker.held(&wanted.address, wanted.partition);
        if held.is_some_and(|held| held.contains(&place)) {
            let answer = context.broker.read(wanted.clone()).await?;
            return response(wanted.partition, answer);
        }
    }
    read(context, origin, wanted).await
}

/// Waits until there may be more of a partition than everything before an offset.
///
/// # Errors
/// When there never will be: it was removed, or the node drains.
pub(super) async fn more(
    context: &Context,
    address: &Address,
    partition: u32,
    beyond: Offset,
) -> Result<(), Refusal> {
    if context.broker.leads(address, partition)? {
        return context.broker.wait_for(address, partition, beyond).await;
    }
    if context.broker.held(address, partition).is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
        return Ok(());
    }
    let grown = context.broker.wait_for(address, partition, beyond);
    match tokio::time::timeout(LOOK_EVERY, grown).await {
        Ok(grown) => grown,
        Err(_) => Ok(()),
    }
}

fn response(partition: u32, answer: ReadAnswer) -> Result<v1::ReadResponse, Refusal> {
    let records = answer.records.into_iter();
    let messages = records.map(|record| convert::stream_message(partition, record));
    Ok(v1::ReadResponse {
        messages: messages.collect::<Result<_, _>>()?,
        next: answer.next.get(),
        available: Some(convert::offsets(&answer.available)),
    })
}

fn request(read: &Read) -> v1::ReadRequest {
    v1::ReadRequest {
        address: read.address.to_string(),
        partition: read.partition,
        from: Some(convert::wire_position(read.from)),
        messages_max: read.messages_max,
        bytes_max: read.bytes_max,
    }
}
