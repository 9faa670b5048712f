//! Reading topics. Never passes through a shard's thread but to find a time.

use millrace_storage::{Limits, ReadError};
use millrace_types::{
    Address, BATCH_MESSAGES_MAX, ErrorCode, LogId, Offset, Refusal, ShardId, Wall,
};
use tokio::sync::watch;

use super::Broker;
use crate::api::{Position, Read, ReadAnswer, Record};
use crate::logs::Extent;
use crate::node::draining;
use crate::options::RETRY_AFTER_MS;

/// Messages looked at for one read of those of a time: a span of the partition's index.
const SKIPPED_MAX: usize = 100_000;

impl Broker {
    /// Reads a partition once; nothing there is no error.
    ///
    /// # Errors
    /// The refusal.
    pub async fn read(&self, read: Read) -> Result<ReadAnswer, Refusal> {
        if !(1..=BATCH_MESSAGES_MAX).contains(&read.messages_max) {
            let given = read.messages_max;
            return Err(Refusal::new(
                ErrorCode::InvalidArgument,
                format!("messages_max must be 1..={BATCH_MESSAGES_MAX}, not {given}"),
            )
            .with("field", "messages_max"));
        }
        self.find_partition(&read.address, read.partition).await?;
        let (shard, log) = self.partition(&read.address, read.partition)?;
        let extents = self.extent(&read.address, log)?;
        let extent = extents.borrow().clone();
        let since = match read.from {
            Position::Time(wall) => wall,
            _ => Wall::default(),
        };
        let mut from = self.first(&read, (shard, log), &extent).await?;
        let limits = Limits {
            messages_max: read.messages_max as usize,
            bytes_max: read.bytes_max,
        };
        let bodies = self.bodies(shard)?;
        let mut skipped = 0;
        loop {
            let mut extent = extents.borrow().clone();
            from = from.max(extent.start);
            let found = match bodies.range(log, from, extent.end, limits).await {
                Ok(found) => found,
                Err(ReadError::Discarded { .. }) => Vec::new(),
                Err(error) => return Err(bodies.unreadable(&error)),
            };
            if let Some(first) = found.first().filter(|first| first.offset > from) {
                // Trimmed while it was read: without gaps, what is left begins here.
                extent.start = first.offset;
            }
            let looked = found.len();
            let last = found.last().map(|record| record.offset.plus(1));
            let records: Vec<Record> = found
                .into_iter()
                .filter(|record| record.stored_at >= since)
                .map(|record| Record {
                    offset: record.offset,
                    stored_at: record.stored_at,
                    message: record.message,
                })
                .collect();
            skipped += looked;
            let next = last.unwrap_or(from);
            let trimmed = looked == 0 && from < extent.end && extents.borrow().start > from;
            let too_old = looked > 0 && records.is_empty() && skipped < SKIPPED_MAX;
            if trimmed || too_old {
                from = next;
                continue;
            }
            return Ok(ReadAnswer {
                records,
                next,
                available: extent,
            });
        }
    }

    async fn first(
        &self,
        read: &Read,
        (shard, log): (ShardId, LogId),
        extent: &Extent,
    ) -> Result<Offset, Refusal> {
        // What is applied here is committed, but it may not be all: an end has to be asked for.
        let end = || {
            self.node.ask_current(shard, move |shard| {
                shard.partition(log).map(millrace_engine::Partition::end)
            })
        };
        match read.from {
            Position::Earliest => Ok(extent.start),
            Position::Latest => Ok(end().await?.unwrap_or(extent.end)),
            Position::Offset(offset) if offset <= extent.end => Ok(offset.max(extent.start)),
            Position::Offset(offset) if end().await?.is_some_and(|end| offset <= end) => Ok(offset),
            Position::Offset(offset) => Err(Refusal::new(
                ErrorCode::OffsetOutOfRange,
                format!(
                    "partition {} of {} holds {}..{}, offset {offset} is beyond",
                    read.partition, read.address, extent.start, extent.end
                ),
            )
            .with("address", read.address.to_string())
            .with("limit", extent.end.to_string())
            .with("actual", offset.to_string())),
            Position::Time(wall) => {
                let found = self.node.ask_current(shard, move |shard| {
                    shard
                        .partition(log)
                        .map(|partition| partition.offset_at(wall))
                });
                Ok(found.await?.unwrap_or(extent.end))
            }
        }
    }

    /// Waits until the partition holds a message at `beyond` or later: its end is above `beyond`.
    ///
    /// # Errors
    /// The refusal; also when the partition is removed meanwhile or the node drains.
    pub async fn wait_for(
        &self,
        address: &Address,
        partition: u32,
        beyond: Offset,
    ) -> Result<(), Refusal> {
        let (shard, log) = self.partition(address, partition)?;
        let mut extent = self.extent(address, log)?;
        tokio::select! {
            biased;
            () = self.draining() => Err(draining()),
            grown = extent.wait_for(|extent| extent.end > beyond) => {
                grown.map(|_| ()).map_err(|_| self.partition_gone(address, shard))
            }
        }
    }

    /// Why there is no partition here any more: it was removed, or its replica has left.
    fn partition_gone(&self, address: &Address, shard: ShardId) -> Refusal {
        if !self.node.hosts(shard) {
            return self.not_leader(shard);
        }
        Refusal::new(ErrorCode::NoSuchTopic, format!("{address} was removed"))
    }

    pub(super) fn partition(
        &self,
        address: &Address,
        partition: u32,
    ) -> Result<(ShardId, LogId), Refusal> {
        let view = self.node.view.borrow().clone();
        view.require_partition(address, partition)
    }

    fn extent(&self, address: &Address, log: LogId) -> Result<watch::Receiver<Extent>, Refusal> {
        self.node.logs.extent(log).ok_or_else(|| {
            Refusal::new(
                ErrorCode::ShardUnavailable,
                format!("{address} was declared just now, or its shard does not serve"),
            )
            .retry_after_millis(RETRY_AFTER_MS)
        })
    }
}
