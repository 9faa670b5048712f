//! For the fuzz targets: the edge where the wire ends, as functions. Each does what a service does
//! with that part of a request.

use std::time::Duration;

use bytes::Bytes;
use millrace_engine::catalogue::Declared;
use millrace_node::{Position, Record, SettleTag, TopologyDelta};
use millrace_proto::v1;
use millrace_types::{Address, Refusal};

use crate::{convert, validate};

/// An address.
///
/// # Errors
/// When it is none.
pub fn address(text: &str) -> Result<Address, Refusal> {
    validate::address(text)
}

/// A message to publish.
///
/// # Errors
/// When it may not enter.
pub fn message(message: &v1::Message, bytes_max: u32) -> Result<(), Refusal> {
    validate::message("messages[0]", message, bytes_max)
}

/// A batch to publish; returns its keys.
///
/// # Errors
/// When it may not enter.
pub fn batch(batch: &v1::RecordBatch, bytes_max: u32) -> Result<Vec<String>, Refusal> {
    Ok(validate::batch("batches[0]", batch, bytes_max)?.keys)
}

/// Tags to settle, or why not.
#[must_use]
pub fn settlements(settlements: Vec<v1::Settlement>) -> Vec<Result<SettleTag, (Bytes, Refusal)>> {
    convert::settlements(settlements)
}

/// Where to read from.
///
/// # Errors
/// When it is no place.
pub fn position(position: Option<v1::Position>) -> Result<Position, Refusal> {
    convert::position("from", position)
}

/// How long to lease.
///
/// # Errors
/// When it is out of bounds.
pub fn lease(lease: &prost_types::Duration) -> Result<Duration, Refusal> {
    convert::lease(lease)
}

/// A change of the topology.
///
/// # Errors
/// When it may not enter.
pub fn delta(request: v1::ApplyTopologyRequest) -> Result<TopologyDelta, Refusal> {
    convert::topology::delta(request)
}

/// One object of it.
///
/// # Errors
/// When it may not enter.
pub fn declared(object: &v1::TopologyObject) -> Result<Declared, Refusal> {
    convert::topology::declared(object)
}

/// A stored message on its way to a reader.
///
/// # Errors
/// When it is none.
pub fn stream_message(record: Record) -> Result<v1::StreamMessage, Refusal> {
    convert::stream_message(0, record)
}

/// A refusal on its way to a client.
#[must_use]
pub fn error(refusal: Refusal) -> v1::Error {
    convert::error(refusal)
}
