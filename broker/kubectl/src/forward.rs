//! A port of a broker pod on this machine: loopback only, for as long as the value lives. Each
//! connection looks for a pod anew, so that it survives the one that was used.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use kube::ResourceExt as _;
use millrace::{Failure, tell};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::place::{Cluster, is_ready, refused};

/// Connections at one time: a client makes one or two.
const CONNECTIONS_MAX: usize = 16;

/// A way to a port.
pub(crate) struct Forward {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forward {
    /// To a pod, or to any that is ready.
    pub(crate) async fn open(
        cluster: Cluster,
        port: u16,
        pod: Option<String>,
    ) -> Result<Self, Failure> {
        let target = Target { cluster, port, pod };
        // What is wrong is said now, not as a connection that breaks.
        drop(target.connect().await?);
        let local = |error: io::Error| Failure::local("cannot listen on loopback", &error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(local)?;
        let address = listener.local_addr().map_err(local)?;
        let task = tokio::spawn(serve(listener, target));
        Ok(Self { address, task })
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Target {
    cluster: Cluster,
    port: u16,
    pod: Option<String>,
}

impl Target {
    /// A stream to it.
    async fn connect(&self) -> Result<tokio::io::DuplexStream, Failure> {
        let pod = match &self.pod {
            Some(pod) => pod.clone(),
            None => self.any_pod().await?,
        };
        let (namespace, port) = (&self.cluster.namespace, self.port);
        let what = format!("cannot reach port {port} of pod {namespace}/{pod}");
        let forwarded = self.cluster.pods().portforward(&pod, &[port]).await;
        let mut forwarded = forwarded.map_err(|error| refused(&what, &error))?;
        let stream = forwarded.take_stream(port);
        stream.ok_or_else(|| Failure::unreachable(what))
    }

    async fn any_pod(&self) -> Result<String, Failure> {
        let (namespace, name) = (&self.cluster.namespace, self.cluster.name());
        let pods = self.cluster.brokers().await?;
        match pods.first() {
            Some(pod) if is_ready(pod) => Ok(pod.name_any()),
            Some(_) => Err(Failure::unreachable(format_args!(
                "no broker of {namespace}/{name} is ready; `kubectl millrace status` says why"
            ))),
            None => Err(Failure::unreachable(format_args!(
                "{namespace}/{name} has no broker pods; `kubectl millrace status` says why"
            ))),
        }
    }
}

async fn serve(listener: TcpListener, target: Target) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                if let Ok((socket, _)) = accepted {
                    connections.spawn(relay(socket, target.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Ends with either side.
async fn relay(mut socket: TcpStream, target: Target) {
    match target.connect().await {
        Ok(mut stream) => {
            // How it ended is a matter of who uses the connection.
            copy_bidirectional(&mut socket, &mut stream).await.ok();
        }
        Err(failure) => tell(failure),
    }
}
