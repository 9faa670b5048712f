//! What raft-rs logs, told to `tracing`: its information is for people who look for something.

use std::fmt::{self, Write};

use millrace_types::{ReplicaId, ShardId};
use slog::{Drain, KV, Level, Logger, OwnedKVList, Record, Serializer};

/// A logger for one replica.
pub(crate) fn logger(shard: ShardId, replica: ReplicaId) -> Logger {
    Logger::root(ToTracing { shard, replica }, slog::o!())
}

struct ToTracing {
    shard: ShardId,
    replica: ReplicaId,
}

impl Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), slog::Never> {
        let (shard, replica) = (self.shard, self.replica);
        // Formatted only where somebody listens.
        match record.level() {
            Level::Critical | Level::Error => {
                tracing::error!(%shard, %replica, said = %Said(record), "consensus");
            }
            Level::Warning => tracing::warn!(%shard, %replica, said = %Said(record), "consensus"),
            Level::Info => tracing::debug!(%shard, %replica, said = %Said(record), "consensus"),
            Level::Debug | Level::Trace => {
                tracing::trace!(%shard, %replica, said = %Said(record), "consensus");
            }
        }
        Ok(())
    }
}

struct Said<'a>(&'a Record<'a>);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.msg())?;
        let mut pairs = Pairs(String::new());
        self.0
            .kv()
            .serialize(self.0, &mut pairs)
            .map_err(|_| fmt::Error)?;
        f.write_str(&pairs.0)
    }
}

struct Pairs(String);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, ", {key}: {value}").map_err(slog::Error::from)
    }
}
