//! Lets a dead-letter queue forget how far those have come that send it nothing any more: sources
//! that are gone from the catalogue and from every shard, and, for a removed queue, sources bound
//! to another one. What it does not find out now it finds out when it runs again.

use std::sync::Arc;

use bytes::Bytes;
use millrace_engine::command::Command;
use millrace_types::{LogId, Refusal, ShardId};

use super::Ended;
use crate::node::Node;

/// Sources looked at between two commands.
const STEP_SOURCES_MAX: usize = 256;

/// Some sources of a queue.
struct Sources {
    /// The queue itself is removed.
    departed: bool,
    logs: Vec<LogId>,
}

/// Runs once through all sources of a queue.
pub(super) async fn run(node: &Arc<Node>, shard: ShardId, queue: LogId) -> Ended {
    let mut after = None;
    loop {
        let sources = match ask(node, shard, queue, after).await {
            Ok(sources) => sources,
            Err(refusal) => return Ended::refused(&refusal),
        };
        let Some(last) = sources.logs.last().copied() else {
            return Ended::CaughtUp;
        };
        after = Some(last);
        let mut forgotten = Vec::new();
        for source in sources.logs {
            match sends(node, source, queue, sources.departed).await {
                Ok(true) => {}
                Ok(false) => forgotten.push(source),
                Err(ended) => return ended,
            }
        }
        if forgotten.is_empty() {
            continue;
        }
        let command = Command::ForgetDead {
            queue,
            sources: forgotten,
        };
        if let Err(refusal) = node.start(shard, command, Bytes::new()).answer().await {
            return Ended::refused(&refusal);
        }
    }
}

async fn ask(
    node: &Node,
    shard: ShardId,
    queue: LogId,
    after: Option<LogId>,
) -> Result<Sources, Refusal> {
    node.ask(shard, move |shard| Sources {
        departed: shard.queue(queue).is_none(),
        logs: shard.sources(queue, after, STEP_SOURCES_MAX),
    })
    .await
}

/// Whether a source has sent, or may send, something of which the queue still has to know. When in
/// doubt it has: what is not forgotten now is forgotten later.
async fn sends(node: &Node, source: LogId, queue: LogId, departed: bool) -> Result<bool, Ended> {
    let view = node.view.borrow().clone();
    let topology = view
        .topology()
        .map_err(|refusal| Ended::refused(&refusal))?;
    if topology.applied_revision() < topology.revision() {
        // A source, or the queue itself, may be on its way out of some shard.
        return Ok(true);
    }
    let home = match node.logs.shard(source) {
        Some(home) => Some(home),
        None => topology.home(source),
    };
    let Some(home) = home else {
        return Ok(false);
    };
    if !departed {
        return Ok(true);
    }
    let answer = node.sends(home, source).await;
    let answer = answer.map_err(|refusal| Ended::refused(&refusal))?;
    // An older state may not know yet that the source was bound to the queue.
    Ok(answer.revision < topology.revision() || answer.to == Some(queue))
}
