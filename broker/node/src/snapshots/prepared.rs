//! A state that has arrived whole: checked, durable, and ready to take the place of the one that a
//! shard has.

use std::sync::Arc;
use std::time::Duration;

use millrace_engine::Shard;
use millrace_engine::catalogue::Catalogue;
use millrace_replica::{Mark, Members, Point};
use millrace_storage::{DiskFailure, Staged, Store};
use millrace_types::ShardId;

use crate::host;
use crate::input::Input;
use crate::node::Node;

/// How often somebody looks whether what was replaced is still read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// It.
pub(crate) struct Prepared {
    /// On disk.
    pub(crate) staged: Staged,
    /// What it covers.
    pub(crate) point: Point,
    /// In memory.
    pub(crate) state: State,
}

/// Why something that was staged is no state of a shard.
pub(super) enum Unfit {
    /// It makes no sense to this version.
    State(String),
    /// The disk failed.
    Disk(DiskFailure),
}

/// What the entries made.
pub(crate) enum State {
    /// Of the metadata shard.
    Metadata(Box<Catalogue>),
    /// Of a data shard.
    Data(Box<Shard>),
}

/// Puts a state in force on disk; the shard's inbox hears of it. A disk that fails ends the node.
pub(crate) fn promote(node: &Arc<Node>, shard: ShardId, prepared: Box<Prepared>) {
    let of = Arc::clone(node);
    node.host
        .blocking(Box::new(move || match prepared.staged.promote() {
            Ok(()) => {
                let inbox = &of.slot_at_all(shard).inbox;
                inbox.send(Input::Promoted(shard, prepared));
            }
            Err(failure) => of.fail(format!("{failure}: {}", failure.source)),
        }));
}

/// What a snapshot has replaced: its files go when nobody reads them any more.
pub(crate) fn replaced(
    node: &Arc<Node>,
    shard: ShardId,
    (store, state): (Arc<Store>, impl Send + 'static),
) {
    let of = Arc::clone(node);
    node.host.blocking(Box::new(move || drop(state)));
    let run = node.snapshots.tracker.track_future(async move {
        while Arc::strong_count(&store) > 1 {
            tokio::select! {
                biased;
                // The next start removes them.
                () = of.snapshots.stop.cancelled() => return,
                () = of.host.sleep(LOOK_EVERY) => {}
            }
        }
        let removed = host::blocking(&of.host, move || store.remove()).await;
        if let Some(Err(failure)) = removed {
            tracing::error!(%shard, %failure, "what a snapshot replaced is still there");
        }
    });
    node.host.spawn(Box::pin(run));
}

impl Prepared {
    /// Reads what is staged, and removes what cannot be read. Blocks on the disk.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) fn new(shard: ShardId, staged: Staged) -> Result<Self, Unfit> {
        match read(shard, &staged) {
            Ok((point, state)) => Ok(Self {
                staged,
                point,
                state,
            }),
            Err(why) => {
                staged.discard().map_err(Unfit::Disk)?;
                Err(Unfit::State(why))
            }
        }
    }
}

fn read(shard: ShardId, staged: &Staged) -> Result<(Point, State), String> {
    let covered = staged.covered();
    let members = Members::decode(&covered.members).map_err(|error| error.to_string())?;
    let mark = Mark {
        index: covered.index,
        term: covered.term,
    };
    let unreadable = |error| format!("its state cannot be read: {error}");
    let (state, applied) = if shard == ShardId::METADATA {
        let catalogue = Catalogue::restore(staged.snapshot()).map_err(unreadable)?;
        let applied = catalogue.applied();
        (State::Metadata(Box::new(catalogue)), applied)
    } else {
        let state = Shard::restore(staged.snapshot()).map_err(unreadable)?;
        if state.id() != shard {
            return Err(format!("it is of shard {}", state.id()));
        }
        let applied = state.applied();
        (State::Data(Box::new(state)), applied)
    };
    if applied != covered.index {
        return Err(format!(
            "it is of entry {applied}, not of {}",
            covered.index
        ));
    }
    Ok((Point { mark, members }, state))
}
