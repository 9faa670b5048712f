//! What is declared, asked of this node. It never says that something is not declared because it
//! has not heard of it yet: it asks who leads the catalogue first.

use std::sync::Arc;
use std::time::Duration;

use millrace_types::{Address, ErrorCode, Refusal, ShardId};

use super::Broker;
use crate::calls;
use crate::leaders::Led;
use crate::node::{Node, not_leader};
use crate::options::{NAMES_SOUGHT_MAX, READ_WAIT_MAX, RETRY_AFTER_MS};
use crate::view::CatalogueView;

impl Broker {
    /// Makes sure that this node knows a queue or topic, if there is one. Costs nothing when it
    /// does.
    ///
    /// # Errors
    /// `NO_SUCH_QUEUE`, `NO_SUCH_TOPIC` when nothing of that name was declared when this was
    /// called; `NOT_LEADER`, `SHARD_UNAVAILABLE`, `OVERLOADED`, to be tried again, when that cannot
    /// be known in about the time that an election takes.
    pub async fn find(&self, address: &Address) -> Result<(), Refusal> {
        self.seek(|view| view.require(address).map(drop)).await
    }

    /// The same of a partition of a topic.
    ///
    /// # Errors
    /// As `find`; `NO_SUCH_PARTITION`, `WRONG_KIND`.
    pub async fn find_partition(&self, address: &Address, partition: u32) -> Result<(), Refusal> {
        let place = |view: &CatalogueView| view.require_partition(address, partition).map(drop);
        self.seek(place).await
    }

    /// Looks again when what is declared now has come here, if nothing is found at first.
    async fn seek(
        &self,
        look: impl Fn(&CatalogueView) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let found = look(&self.node.view.borrow());
        match found {
            Err(refusal) if is_doubtful(&refusal) => {}
            found => return found,
        }
        let view = self.node.current_view().await?;
        look(&view)
    }
}

/// Whether a node that is behind would say so, too.
fn is_doubtful(refusal: &Refusal) -> bool {
    let codes = [
        ErrorCode::NoSuchQueue,
        ErrorCode::NoSuchTopic,
        ErrorCode::NoSuchPartition,
        // There was no catalogue here yet.
        ErrorCode::NotLeader,
    ];
    codes.contains(&refusal.code)
}

impl Node {
    /// The catalogue as it is here, as soon as there is one; what is known of why there is none
    /// when that takes longer than an election.
    pub(super) async fn first_view(&self) -> Arc<CatalogueView> {
        let mut views = self.view.subscribe();
        let is_known = |view: &Arc<CatalogueView>| {
            let refusal = view.topology().err();
            refusal.is_none_or(|refusal| refusal.code != ErrorCode::NotLeader)
        };
        let known = async { views.wait_for(is_known).await.map(|view| view.clone()).ok() };
        let known = tokio::select! {
            biased;
            known = known => known,
            () = self.host.sleep(READ_WAIT_MAX) => None,
        };
        known.unwrap_or_else(|| self.view.borrow().clone())
    }

    /// The catalogue, with everything that was declared before this was called.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE`, `OVERLOADED`: it cannot be had now.
    pub(super) async fn current_view(&self) -> Result<Arc<CatalogueView>, Refusal> {
        let Ok(_seat) = self.seekers.try_acquire() else {
            let text = format!("{NAMES_SOUGHT_MAX} calls look for unknown names already");
            return Err(Refusal::new(ErrorCode::Overloaded, text)
                .with("limit", NAMES_SOUGHT_MAX.to_string())
                .retry_after_millis(RETRY_AFTER_MS));
        };
        let late = self.host.sleep(READ_WAIT_MAX);
        let seek = async {
            let revision = self.current_revision().await?;
            let mut views = self.view.subscribe();
            let has_come = |view: &Arc<CatalogueView>| {
                view.topology().is_ok_and(|it| it.revision() >= revision)
            };
            let come = views.wait_for(has_come).await.map(|view| view.clone());
            // The sender lives as long as the node.
            come.map_err(|_| calls::unsure(ShardId::METADATA, READ_WAIT_MAX))
        };
        tokio::select! {
            biased;
            view = seek => view,
            () = late => Err(calls::unsure(ShardId::METADATA, READ_WAIT_MAX)),
        }
    }

    /// Asks until somebody knows.
    async fn current_revision(&self) -> Result<u64, Refusal> {
        loop {
            let mut leaders = self.leaders.watch();
            let asked = match self.led(ShardId::METADATA) {
                Led::Here => self.revision_here().await,
                Led::There(node) => self.revision_of(node).await,
                Led::Nobody => Err(not_leader(ShardId::METADATA, None)),
            };
            match asked {
                Err(refusal) if refusal.code == ErrorCode::NotLeader => {}
                asked => return asked,
            }
            let pause = Duration::from_millis(RETRY_AFTER_MS);
            tokio::select! {
                biased;
                Ok(()) = leaders.changed() => {}
                () = self.host.sleep(pause) => {}
            }
        }
    }
}
