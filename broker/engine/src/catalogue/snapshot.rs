//! The catalogue's state as bytes. Version 2 is pinned by a golden file: another shape of
//! `Catalogue` or anything in it is a new version, and this reader stays.

mod first;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use millrace_types::{LogId, LogIndex, SHARDS_MAX, ShardId};
use serde::{Deserialize, Serialize};

use super::declared::DeclaredSpec;
use super::index::Index;
use super::placed::{Placed, Placement};
use super::roster::Roster;
use super::topology::Topology;
use super::{Address, Catalogue};
use crate::codec::{self, DecodeError};
use crate::pool::Pool;

/// Format of the catalogue's snapshot.
const VERSION: u8 = 2;

/// A catalogue at one moment, to be encoded when there is time. Cheap to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Frozen {
    applied: LogIndex,
    last_log: LogId,
    topology: Topology,
    removed: BTreeMap<(ShardId, LogId), u64>,
    roster: Arc<Roster>,
}

impl Frozen {
    pub(super) fn of(catalogue: &Catalogue) -> Self {
        Self {
            applied: catalogue.applied,
            last_log: catalogue.last_log,
            topology: catalogue.topology.clone(),
            removed: catalogue.removed.clone(),
            roster: Arc::clone(&catalogue.roster),
        }
    }

    /// The whole state as bytes; equal states have equal bytes. Takes time with the number of
    /// objects.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, self)
    }
}

pub(super) fn checksum(catalogue: &Catalogue) -> u64 {
    codec::checksum(VERSION, &Frozen::of(catalogue))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Catalogue, DecodeError> {
    let Frozen {
        applied,
        last_log,
        mut topology,
        removed,
        roster,
    } = codec::decode_any(VERSION, bytes, first::frozen)?;
    if topology.data_shards > SHARDS_MAX {
        return Err(DecodeError::Inconsistent("there are too many data shards"));
    }
    let mut specs = Pool::new();
    let share = |placed: &mut Placed| placed.spec = specs.share(&placed.spec);
    topology.objects.for_each_mut(share);
    let mut seen = BTreeSet::new();
    let mut last: Option<&Address> = None;
    for placed in topology.objects.iter() {
        check(placed)?;
        if last.is_some_and(|last| *last >= *placed.address) {
            return Err(DecodeError::Inconsistent("objects are not in order"));
        }
        last = Some(&placed.address);
        if !placed.lanes().all(|lane| seen.insert(lane.log)) {
            return Err(DecodeError::Inconsistent("a log has two owners"));
        }
    }
    if !removed.keys().all(|(_, log)| seen.insert(*log)) {
        return Err(DecodeError::Inconsistent("a removed log has an owner"));
    }
    if seen.last().is_some_and(|log| *log > last_log) {
        return Err(DecodeError::Inconsistent("a log id was never assigned"));
    }
    roster.check().map_err(DecodeError::Inconsistent)?;
    let index = Index::of(&topology);
    Ok(Catalogue {
        applied,
        last_log,
        topology,
        roster,
        removed,
        index,
        specs,
    })
}

fn check(placed: &Placed) -> Result<(), DecodeError> {
    let fits = matches!(
        (&*placed.address, &*placed.spec, &placed.placement),
        (
            Address::Queue { .. },
            DeclaredSpec::Queue(_),
            Placement::Queue { .. }
        ) | (
            Address::Topic { .. },
            DeclaredSpec::Topic(_),
            Placement::Topic { .. }
        )
    );
    if fits {
        Ok(())
    } else {
        let message = "an object is of another kind than its address";
        Err(DecodeError::Inconsistent(message))
    }
}
