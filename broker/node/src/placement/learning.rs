//! What the catalogue says of nodes and replicas, heard from other nodes: while this one has no
//! replica of the metadata shard that serves, because it was damaged or given up, and now and then
//! in any case, because nobody tells a replica that it was removed.
//!
//! Promises: without its own catalogue a node still learns who the others are, that its replica is
//! missed, and which one takes its place; one that was removed learns that it has to let go. A
//! later roster is never exchanged for an earlier one. What others say is never shown to clients.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::future::join_all;
use millrace_engine::catalogue::Roster;
use millrace_types::{Founding, NodeId, ShardId};

use crate::input::Input;
use crate::leaders::Led;
use crate::node::Node;
use crate::pumps::Pumps;
use crate::view::CatalogueView;

/// Between two rounds without an own catalogue: as often as everything else that is missing is
/// looked for.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two rounds with one. It costs a few bytes, and what a removed replica holds on to is
/// only room.
const AGAIN_LAZILY: Duration = Duration::from_secs(10);

/// The latest roster that was heard of, if it was later than the own one.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<Arc<Roster>>);

impl Heard {
    fn get(&self) -> Arc<Roster> {
        // It is replaced whole.
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, roster: Arc<Roster>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = roster;
    }
}

impl Node {
    /// The latest that is known here of nodes and replicas: by the own catalogue, or by others'.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        let (own, heard) = (Arc::clone(self.view.borrow().roster()), self.heard.get());
        if heard.revision() > own.revision() {
            heard
        } else {
            own
        }
    }
}

/// Sees to it from here on.
pub(crate) fn start(node: &Arc<Node>) {
    Pumps::errand(node, learn(Arc::downgrade(node)));
}

/// Does not keep the node alive while it waits.
async fn learn(weak: Weak<Node>) {
    let Some(node) = weak.upgrade() else {
        return;
    };
    let (mut view, mut asked) = (node.view.subscribe(), node.host.now());
    drop(node);
    while let Some(node) = weak.upgrade() {
        view.borrow_and_update();
        let every = match node.hosts(ShardId::METADATA) {
            true => AGAIN_LAZILY,
            false => AGAIN,
        };
        let since = node.host.now().saturating_duration_since(asked);
        if since < every {
            let due = node.host.sleep(every - since);
            drop(node);
            tokio::select! {
                biased;
                changed = view.changed() => if changed.is_err() { return },
                () = due => {}
            }
            continue;
        }
        asked = node.host.now();
        if let Some(latest) = ask(&node).await {
            take(&node, &Arc::new(latest));
        }
    }
}

/// The latest roster that anybody knows who answers, if it is later than what is known here.
async fn ask(node: &Arc<Node>) -> Option<Roster> {
    let known = node.roster().revision();
    let others: Vec<NodeId> = match node.led(ShardId::METADATA) {
        // Nobody knows better.
        Led::Here if node.hosts(ShardId::METADATA) => return None,
        Led::There(leader) if node.hosts(ShardId::METADATA) => vec![leader],
        Led::Here | Led::There(_) | Led::Nobody => others(node).into_iter().collect(),
    };
    let asked = others.into_iter().map(|it| node.roster_of(it, known));
    let answers = join_all(asked).await;
    let rosters = answers.into_iter().filter_map(Result::ok).flatten();
    let sound = rosters.filter(|roster| roster.check().is_ok());
    sound.max_by_key(Roster::revision)
}

/// Everybody who may know: those the catalogue knew last, or those it began with.
fn others(node: &Node) -> BTreeSet<NodeId> {
    let roster = node.roster();
    let founding = node.data_dir.cluster().and_then(|it| it.founding);
    let founders = founding.iter().flat_map(Founding::founders);
    let founders = founders.map(|founder| founder.node);
    let all = roster.nodes().map(|(id, _)| id).chain(founders);
    all.filter(|id| *id != node.data_dir.node()).collect()
}

fn take(node: &Node, latest: &Arc<Roster>) {
    if latest.revision() <= node.roster().revision() {
        return;
    }
    node.heard.set(Arc::clone(latest));
    node.view.send_if_modified(|view| {
        let told = CatalogueView::told(latest, view);
        let is_news = told.is_some();
        *view = told.map_or_else(|| Arc::clone(view), Arc::new);
        is_news
    });
    let inboxes = node.inboxes.iter();
    inboxes.for_each(|inbox| inbox.send(Input::Roster));
}
