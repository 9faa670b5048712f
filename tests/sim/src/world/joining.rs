//! A machine that comes back with an empty disk: another node, at the same address, that belongs to
//! the cluster as soon as one of the others says so.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_node::{NodeFacts, Registered, Registration};
use millrace_storage::{Crash, DataDir, OpenError};
use millrace_types::{FEATURE_LEVEL, NodeId};

use super::life::{DATA_DIR, crash};
use super::{Over, World};
use crate::disk::{Medium, SimDisk};
use crate::event::Event;

/// Between two attempts to register.
const LOOK_MS: u64 = 500;
/// Attempts in peace: the others may have to elect leaders first, and to let go of who is gone.
const LOOKS_MAX: u32 = 240;

/// A node on its way into the cluster.
pub(super) struct Joining {
    node: NodeId,
    told: Arc<Mutex<Option<Registered>>>,
}

/// Where the others reach a machine, whichever node runs there.
pub(super) fn address(node: usize) -> String {
    format!("node-{node}:7073")
}

impl World<'_> {
    /// A machine loses its disk, and comes back without after a while. Once in a run: of what is
    /// there three times, two losses at the same time may be too many.
    pub(super) fn wipe(&mut self, node: usize, millis: u64) {
        if self.is_alone() || std::mem::replace(&mut self.wiped, true) {
            return;
        }
        self.report.crashes += 1;
        self.stop(node, Crash::DropAll, "the disk is lost");
        let until = self.time.now() + Duration::from_millis(millis);
        let member = &mut self.nodes[node];
        member.medium = Medium::new();
        member.make_room();
        member.down_until = Some(until);
        if !millrace_types::mutant!(IdUsedAgain) {
            member.is_blank = true;
            return;
        }
        if let Some(id) = self.net.id(node) {
            // The record makes it what it was.
            self.mint(node, id.get()).ok();
        }
    }

    /// A node with an empty disk asks to be let in, or is.
    pub(super) fn join(&mut self, node: usize) -> Result<(), Over> {
        let look_at = self.time.now() + Duration::from_millis(LOOK_MS);
        self.nodes[node].down_until = Some(look_at);
        let joined = match &self.nodes[node].joining {
            None => self.begin(node).map(|()| false),
            Some(_) => self.enter(node),
        };
        match joined {
            Ok(true) => {
                self.nodes[node].is_blank = false;
                self.nodes[node].is_founder = false;
                self.start(node)
            }
            Ok(false) => {
                self.register(node);
                Ok(())
            }
            Err(_) if self.nodes[node].medium.has_ended() => {
                self.report.crashes += 1;
                self.tell_stopped(node, "it died while it joined");
                let loss = self.nodes[node].loss;
                self.lose(node, crash(loss));
                Ok(())
            }
            Err(error) => Err(self.violated("starts", format!("it does not join: {error:#}"))),
        }
    }

    /// Everybody who is on the way into the cluster gets there.
    pub(super) fn let_in(&mut self) -> Result<(), Over> {
        for _ in 0..LOOKS_MAX {
            if self.nodes.iter().all(|node| !node.is_blank) {
                return Ok(());
            }
            self.wait(LOOK_MS)?;
            self.stop_at_violation()?;
        }
        Err(self.violated("liveness", "a node with an empty disk is not let in"))
    }

    /// It gets an id.
    fn begin(&mut self, node: usize) -> anyhow::Result<()> {
        let bits = self.random.bits();
        let id = self.mint(node, bits)?;
        self.net.replace(node, id);
        self.nodes[node].joining = Some(Joining {
            node: id,
            told: Arc::default(),
        });
        let what = format!("node {node} is {id} now");
        self.lasting.watch.tell(&Event::Trouble { what });
        Ok(())
    }

    fn mint(&self, node: usize, bits: u64) -> anyhow::Result<NodeId> {
        Ok(self.directory(node, bits)?.node())
    }

    fn directory(&self, node: usize, bits: u64) -> Result<DataDir, OpenError> {
        let disk = SimDisk::new(&self.nodes[node].medium);
        let random = move || -> io::Result<u64> { Ok(bits) };
        DataDir::open(Arc::new(disk), Path::new(DATA_DIR), Arc::new(random))
    }

    /// Joins, if somebody has said as what. Whether it has.
    fn enter(&mut self, node: usize) -> anyhow::Result<bool> {
        let told = self.nodes[node].joining.as_ref().and_then(|joining| {
            let told = joining.told.lock();
            told.unwrap_or_else(PoisonError::into_inner).take()
        });
        let Some(registered) = told else {
            return Ok(false);
        };
        let mut cluster = registered.cluster;
        cluster.founding = cluster.founding.or_else(|| self.founding.clone());
        let directory = self.directory(node, 0)?;
        directory.join(cluster, registered.metadata)?;
        Ok(true)
    }

    /// Asks any of the others.
    fn register(&mut self, node: usize) {
        let asked = self.anybody();
        let Some(joining) = &self.nodes[node].joining else {
            return;
        };
        let Some(client) = self.client(asked).cloned() else {
            return;
        };
        let told = Arc::clone(&joining.told);
        let registration = Registration {
            node: joining.node,
            facts: NodeFacts {
                peer_address: address(node),
                feature_level: FEATURE_LEVEL,
                ..NodeFacts::default()
            },
            lost: Vec::new(),
        };
        let broker = client.broker.clone();
        client.run(async move {
            if let Ok(registered) = broker.register(registration).await {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                *told = Some(registered);
            }
        });
    }
}
