//! The wires between the nodes of a cluster: each node is reached through a relay of ours, which
//! knows who calls and can hold back what one node says to another, one way or both.
//!
//! Bytes on a wire that is cut wait, as they do on a cable that was pulled: connections stay open,
//! new ones are taken and nothing comes through, and when the wire is whole again everything goes
//! on.

mod caller;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use caller::Callers;

/// Read and passed on at a time.
const PIECE_BYTES: usize = 64 << 10;

/// From whom to whom.
type Way = (usize, usize);

/// Where a node really listens, and its process.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    port: Option<SocketAddr>,
    pid: Option<u32>,
}

#[derive(Debug)]
struct Shared {
    cut: watch::Sender<BTreeSet<Way>>,
    ends: Mutex<Vec<End>>,
    callers: Callers,
}

impl Shared {
    fn end(&self, node: usize) -> End {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(node).copied().unwrap_or_default()
    }

    fn change(&self, node: usize, change: impl FnOnce(&mut End)) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = ends.get_mut(node) {
            change(end);
        }
    }

    fn pids(&self) -> Vec<Option<u32>> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().map(|end| end.pid).collect()
    }
}

/// All wires; they end when dropped.
#[derive(Debug)]
pub struct Wires {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    _relays: JoinSet<()>,
}

impl Wires {
    /// Wires between so many nodes.
    ///
    /// # Errors
    /// No ports are to be had.
    pub async fn new(nodes: usize) -> Result<Self> {
        let shared = Arc::new(Shared {
            cut: watch::Sender::default(),
            ends: Mutex::new(vec![End::default(); nodes]),
            callers: Callers::default(),
        });
        let (mut addresses, mut relays) = (Vec::new(), JoinSet::new());
        for node in 0..nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            addresses.push(listener.local_addr()?);
            relays.spawn(relay(Arc::clone(&shared), node, listener));
        }
        Ok(Self {
            shared,
            addresses,
            _relays: relays,
        })
    }

    /// Where the others reach a node.
    #[must_use]
    pub fn address(&self, node: usize) -> SocketAddr {
        self.addresses[node]
    }

    /// Where it really listens.
    pub fn set_port(&self, node: usize, port: SocketAddr) {
        self.shared.change(node, |end| end.port = Some(port));
    }

    /// The process that it is from now on; without one, nobody calls in its name.
    pub fn set_process(&self, node: usize, pid: Option<u32>) {
        self.shared.change(node, |end| end.pid = pid);
    }

    /// Holds back what `from` says to `to`.
    pub fn cut(&self, from: usize, to: usize) {
        self.shared.cut.send_modify(|cut| {
            cut.insert((from, to));
        });
    }

    /// Holds back nothing any more.
    pub fn heal(&self) {
        self.shared.cut.send_modify(BTreeSet::clear);
    }
}

async fn relay(shared: Arc<Shared>, node: usize, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, caller)) = accepted {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        // Whoever lost the connection notices.
                        connect(&shared, node, stream, caller).await.ok();
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(shared: &Shared, node: usize, stream: TcpStream, from: SocketAddr) -> Result<()> {
    let own = stream.local_addr()?;
    let caller = shared.callers.find((from, own), &shared.pids()).await;
    let caller = caller.context("nobody of ours calls")?;
    if let Some(Ok(0)) = stream.peek(&mut [0]).now_or_never() {
        // It has given up meanwhile.
        return Ok(());
    }
    let port = shared.end(node).port.context("the node never started")?;
    let onward = TcpStream::connect(port).await?;
    stream.set_nodelay(true)?;
    onward.set_nodelay(true)?;
    let (from_caller, to_caller) = stream.into_split();
    let (from_node, to_node) = onward.into_split();
    // The first end of the two ends both.
    tokio::select! {
        ended = pass_on(shared, (caller, node), from_caller, to_node) => ended,
        ended = pass_on(shared, (node, caller), from_node, to_caller) => ended,
    }
}

async fn pass_on(
    shared: &Shared,
    way: Way,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
) -> Result<()> {
    let mut cut = shared.cut.subscribe();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut piece).await?;
        cut.wait_for(|cut| !cut.contains(&way)).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&piece[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node 0 calls node 1, both in this process.
    async fn pair() -> (Wires, TcpStream, TcpStream) {
        let wires = Wires::new(2).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        wires.set_port(1, listener.local_addr().unwrap());
        wires.set_process(0, Some(std::process::id()));
        let caller = TcpStream::connect(wires.address(1)).await.unwrap();
        let (called, _) = listener.accept().await.unwrap();
        (wires, caller, called)
    }

    async fn says(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) {
        from.write_all(text).await.unwrap();
        let mut heard = vec![0; text.len()];
        to.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, text);
    }

    #[tokio::test]
    async fn a_wire_cut_one_way_holds_back_that_way_until_it_is_healed() {
        let (wires, mut caller, mut called) = pair().await;
        says(&mut caller, &mut called, b"hello").await;
        wires.cut(0, 1);
        caller.write_all(b"held").await.unwrap();
        says(&mut called, &mut caller, b"the other way is whole").await;
        let mut heard = [0; 4];
        assert!(called.try_read(&mut heard).is_err());
        wires.heal();
        called.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"held");
    }

    #[tokio::test]
    async fn a_caller_that_is_no_node_is_not_let_through() {
        let wires = Wires::new(2).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        wires.set_port(1, listener.local_addr().unwrap());
        let mut stranger = TcpStream::connect(wires.address(1)).await.unwrap();
        assert_eq!(stranger.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}
