//! Who may publish: bounds what is on its way to the disk, what is kept in memory and how full the
//! disk gets. Settling and deleting pass, as they are what makes room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_types::{ErrorCode, Refusal, ShardId};

use super::options::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_ENTRIES_MAX, LOBBY_BYTES_MAX, RETRY_AFTER_MS};

/// What publishers have under way in one shard.
#[derive(Debug, Default)]
pub(super) struct Gate {
    entries: AtomicU64,
    bytes: AtomicU64,
}

/// One publish under way; dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    bytes: u64,
}

impl Gate {
    /// Lets a publish of this size in.
    ///
    /// # Errors
    /// `OVERLOADED`.
    pub(super) fn enter(self: &Arc<Self>, shard: ShardId, bytes: u64) -> Result<Permit, Refusal> {
        let entries = self.entries.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let permit = Permit {
            gate: Arc::clone(self),
            bytes,
        };
        // One that finds nobody else inside always passes, whatever its size.
        let full = entries >= IN_FLIGHT_ENTRIES_MAX
            || (before > 0 && before.saturating_add(bytes) > IN_FLIGHT_BYTES_MAX);
        if full {
            return Err(overloaded(format!(
                "shard {shard} has {entries} publishes with {before} bytes on their way to the disk"
            ))
            .with("limit", IN_FLIGHT_BYTES_MAX.to_string()));
        }
        Ok(permit)
    }
}

impl Gate {
    /// Bytes under way.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.entries.fetch_sub(1, Ordering::Relaxed);
        self.gate.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Where publishes wait that have no room yet: what they hold meanwhile is bounded, too.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    bytes: AtomicU64,
}

/// A place in the lobby; dropping it makes room for another.
#[derive(Debug)]
pub(super) struct Seat {
    lobby: Arc<Lobby>,
    bytes: u64,
}

impl Lobby {
    /// A place for a publish of this size, if there is one: who gets none does not wait.
    pub(super) fn enter(self: &Arc<Self>, bytes: u64) -> Option<Seat> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let lobby = Arc::clone(self);
        let seat = Seat { lobby, bytes };
        // One that finds nobody else inside always passes, whatever its size.
        (before == 0 || before.saturating_add(bytes) <= LOBBY_BYTES_MAX).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lobby.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Checks that bodies in memory are within their limit.
///
/// # Errors
/// `OVERLOADED`.
pub(super) fn check_memory(resident: u64, limit: u64) -> Result<(), Refusal> {
    if resident < limit {
        return Ok(());
    }
    Err(overloaded(format!(
        "messages in memory take {resident} bytes of {limit}; a checkpoint is on its way"
    ))
    .with("limit", limit.to_string())
    .with("actual", resident.to_string()))
}

/// Checks that the disk has room to spare.
///
/// # Errors
/// `DISK_FULL`.
pub(super) fn check_disk(free: u64, reserve: u64) -> Result<(), Refusal> {
    if free >= reserve {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::DiskFull,
        format!("the disk has {free} bytes free, publishing needs the reserve of {reserve}"),
    )
    .with("limit", reserve.to_string())
    .with("actual", free.to_string())
    .retry_after_millis(DISK_RETRY_AFTER_MS))
}

/// Room on a disk does not come back at once.
const DISK_RETRY_AFTER_MS: u64 = 1_000;

fn overloaded(message: String) -> Refusal {
    Refusal::new(ErrorCode::Overloaded, message).retry_after_millis(RETRY_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId::new(1);

    #[test]
    fn a_full_gate_refuses_and_opens_again_when_a_publish_is_through() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter(SHARD, IN_FLIGHT_BYTES_MAX).unwrap();
        let refusal = gate.enter(SHARD, 1).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Overloaded);
        assert!(refusal.retry_after_ms.is_some());
        drop(first);
        drop(gate.enter(SHARD, 1).unwrap());
        assert_eq!(gate.bytes.load(Ordering::Relaxed), 0);
        assert_eq!(gate.entries.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn those_who_wait_are_bounded_and_make_room_for_others() {
        let lobby = Arc::new(Lobby::default());
        let first = lobby.enter(LOBBY_BYTES_MAX).unwrap();
        assert!(lobby.enter(1).is_none());
        drop(first);
        let larger = lobby.enter(LOBBY_BYTES_MAX + 1).unwrap();
        assert!(lobby.enter(1).is_none());
        drop(larger);
        assert!(lobby.enter(1).is_some());
        assert_eq!(lobby.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_publish_larger_than_the_gate_passes_alone() {
        let gate = Arc::new(Gate::default());
        gate.enter(SHARD, IN_FLIGHT_BYTES_MAX * 2).unwrap();
    }

    #[test]
    fn entries_are_bounded_too() {
        let gate = Arc::new(Gate::default());
        let inside: Vec<Permit> = (0..IN_FLIGHT_ENTRIES_MAX)
            .map(|_| gate.enter(SHARD, 0).unwrap())
            .collect();
        assert!(gate.enter(SHARD, 0).is_err());
        drop(inside);
        assert!(gate.enter(SHARD, 0).is_ok());
    }

    #[test]
    fn a_refusal_names_the_limit() {
        let disk = check_disk(9, 10).unwrap_err();
        assert_eq!(
            (disk.code, disk.metadata["limit"].as_str()),
            (ErrorCode::DiskFull, "10")
        );
        assert!(check_disk(10, 10).is_ok());
        let memory = check_memory(10, 10).unwrap_err();
        assert_eq!(memory.code, ErrorCode::Overloaded);
        assert!(check_memory(9, 10).is_ok());
    }
}
