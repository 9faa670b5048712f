//! `millrace nodes`, `shards`, and the verbs that steer them: on the control port of any node, with
//! the control token. A node is named by its id, by as many of its first digits as tell it from the
//! others, or by the host of its address: `main-0` for the first pod of cluster `main`.

use std::time::Duration;

use millrace_client::{Control, Error};
use millrace_proto::v1::{
    Blocker, MoveReplicaRequest, Node, NodeHosting, Shard, ShardMember, TransferLeaderRequest,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::cli::duration;
use crate::connection::ControlPort;
use crate::exit::Failure;
use crate::list::Output;
use crate::table::table;
use crate::{output, tell};

/// Between two looks at a node that is drained: a hand-over takes less than that.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Options of `nodes` and `shards`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) port: ControlPort,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// The same as --output json
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    fn is_json(&self) -> bool {
        self.json || self.output == Output::Json
    }
}

/// Options of a verb on a node.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The node's id, its first digits, or its host, such as main-0
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    pub(crate) port: ControlPort,
}

/// Options of a verb that tells of a node.
#[derive(Debug, clap::Args)]
pub(crate) struct ListedNodeArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Options of `drain`.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// How long to wait until the node can be stopped; 0s: not at all
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

/// Options of `transfer`.
#[derive(Debug, clap::Args)]
pub(crate) struct TransferArgs {
    /// The shard's number
    shard: u32,
    /// Who is to lead: the node's id, its first digits, or its host
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    pub(crate) port: ControlPort,
}

/// Options of `move`.
#[derive(Debug, clap::Args)]
pub(crate) struct MoveArgs {
    /// The shard's number
    shard: u32,
    /// The node that has it
    #[arg(value_name = "FROM")]
    from: String,
    /// The node that is to have it
    #[arg(value_name = "TO")]
    to: String,
    #[command(flatten)]
    pub(crate) port: ControlPort,
}

/// All nodes and all shards, as `--output json` prints them.
///
/// # Errors
/// As the server refuses it, or cannot be reached.
pub async fn as_json(control: &Control) -> Result<(Value, Value), Error> {
    let (nodes, shards) = (control.nodes().await?, control.shards().await?);
    let nodes = nodes.nodes.iter().map(node_value).collect();
    let shards = shards.shards.iter().map(shard_value).collect();
    Ok((nodes, shards))
}

/// Lists nodes.
pub(crate) async fn nodes(args: ListArgs) -> Result<(), Failure> {
    let answer = args.port.open()?.nodes().await;
    let answer = answer.map_err(|error| args.port.failed("cannot list nodes", &error))?;
    if args.is_json() {
        let nodes: Vec<Value> = answer.nodes.iter().map(node_value).collect();
        return output::text(&format!("{:#}", Value::Array(nodes)));
    }
    const HEAD: [&str; 8] = [
        "NODE", "STATE", "LEADS", "REPLICAS", "ZONE", "VERSION", "CLIENTS", "PEERS",
    ];
    let rows: Vec<Vec<String>> = answer.nodes.iter().map(node_row).collect();
    output::text(&table(&HEAD, &rows))
}

fn node_row(node: &Node) -> Vec<String> {
    let or_none = |text: &str| match text {
        "" => "<none>".to_owned(),
        text => text.to_owned(),
    };
    vec![
        node.node_id.clone(),
        state(node).join(","),
        node.leads.to_string(),
        node.replicas.to_string(),
        or_none(&node.zone),
        or_none(&node.version),
        or_none(&node.client_address),
        or_none(&node.peer_address),
    ]
}

/// In words.
fn state(node: &Node) -> Vec<&'static str> {
    let mut words = vec![if node.answers { "Ready" } else { "Away" }];
    match node.hosting() {
        NodeHosting::Cordoned => words.push("Cordoned"),
        NodeHosting::Replaced => words.push("Replaced"),
        NodeHosting::Open | NodeHosting::Unspecified => {}
    }
    if node.drained {
        words.push("Drained");
    }
    if node.lost > 0 {
        words.push("Damaged");
    }
    words
}

fn node_value(node: &Node) -> Value {
    json!({
        "node": node.node_id,
        "state": state(node),
        "leads": node.leads,
        "replicas": node.replicas,
        "lost": node.lost,
        "zone": node.zone,
        "version": node.version,
        "client_address": node.client_address,
        "peer_address": node.peer_address,
    })
}

/// Lists shards, a line for each replica.
pub(crate) async fn shards(args: ListArgs) -> Result<(), Failure> {
    let answer = args.port.open()?.shards().await;
    let answer = answer.map_err(|error| args.port.failed("cannot list shards", &error))?;
    if args.is_json() {
        let shards: Vec<Value> = answer.shards.iter().map(shard_value).collect();
        return output::text(&format!("{:#}", Value::Array(shards)));
    }
    const HEAD: [&str; 7] = ["SHARD", "NODE", "ROLE", "LAG", "TERM", "APPLIED", "STATE"];
    let rows = answer.shards.iter().flat_map(shard_rows);
    output::text(&table(&HEAD, &rows.collect::<Vec<_>>()))
}

fn shard_rows(shard: &Shard) -> Vec<Vec<String>> {
    let row = |member: &ShardMember| {
        let told = !shard.leader.is_empty();
        let word = match (told, member.active) {
            (false, _) => "NoLeader",
            (true, false) => "Away",
            (true, true) if shard.changing => "Changing",
            (true, true) => "Active",
        };
        let lag = if told {
            member.lag.to_string()
        } else {
            "<unknown>".to_owned()
        };
        vec![
            shard.shard.to_string(),
            member.node_id.clone(),
            role(shard, member).to_owned(),
            lag,
            shard.term.to_string(),
            shard.applied.to_string(),
            word.to_owned(),
        ]
    };
    shard.members.iter().map(row).collect()
}

fn role(shard: &Shard, member: &ShardMember) -> &'static str {
    match (shard.leader == member.node_id, member.votes) {
        (true, _) => "Leader",
        (false, true) => "Follower",
        (false, false) => "Learner",
    }
}

fn shard_value(shard: &Shard) -> Value {
    let member = |member: &ShardMember| {
        json!({
            "replica": member.replica,
            "node": member.node_id,
            "role": role(shard, member),
            "lag": member.lag,
            "active": member.active,
        })
    };
    json!({
        "shard": shard.shard,
        "leader": (!shard.leader.is_empty()).then_some(&shard.leader),
        "term": shard.term,
        "last": shard.last,
        "applied": shard.applied,
        "changing": shard.changing,
        "members": shard.members.iter().map(member).collect::<Vec<_>>(),
    })
}

/// Drains a node and waits until it can be stopped.
pub(crate) async fn drain(args: DrainArgs) -> Result<(), Failure> {
    let port = &args.node.port;
    let control = port.open()?;
    let node = port.node(&control, &args.node.node).await?;
    let drained = control.drain_node(&node).await;
    drained.map_err(|error| port.failed("cannot drain", &error))?;
    let until = Instant::now() + args.wait;
    loop {
        let answer = control.can_stop(&node).await;
        let blockers = match answer {
            Ok(answer) => answer.blockers,
            Err(error) if !error.is_retryable() => {
                return Err(port.failed("cannot tell whether the node can stop", &error));
            }
            Err(error) => vec![Blocker {
                message: error.message,
                ..Blocker::default()
            }],
        };
        if blockers.is_empty() {
            tell::line(format_args!("node {node} is drained: it can be stopped"));
            return Ok(());
        }
        if Instant::now() + LOOK_EVERY >= until {
            for Blocker { shard, message, .. } in &blockers {
                tell::line(format_args!("shard {shard}: {message}"));
            }
            if args.wait.is_zero() {
                return Ok(());
            }
            return Err(Failure::idle(format!("node {node} cannot be stopped yet")));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Tells whether a node can be stopped.
pub(crate) async fn can_stop(args: ListedNodeArgs) -> Result<(), Failure> {
    let port = &args.node.port;
    let (control, node) = args.node.open().await?;
    let answer = control.can_stop(&node).await;
    let answer = answer.map_err(|error| port.failed("cannot tell", &error))?;
    let blockers = answer.blockers;
    match args.output {
        Output::Json => {
            let of = |blocker: &Blocker| {
                let Blocker { shard, message, .. } = blocker;
                json!({"shard": shard, "message": message})
            };
            let list: Vec<Value> = blockers.iter().map(of).collect();
            let value = json!({"node": node, "can_stop": list.is_empty(), "blockers": list});
            output::text(&format!("{value:#}"))?;
        }
        Output::Table if blockers.is_empty() => {
            output::text(&format!("node {node} can be stopped"))?;
        }
        Output::Table => {
            let row = |blocker: &Blocker| vec![blocker.shard.to_string(), blocker.message.clone()];
            let rows: Vec<_> = blockers.iter().map(row).collect();
            output::text(&table(&["SHARD", "BLOCKER"], &rows))?;
        }
    }
    match blockers.is_empty() {
        true => Ok(()),
        false => Err(Failure::refused()),
    }
}

/// Lets a node lead again.
pub(crate) async fn undrain(args: NodeArgs) -> Result<(), Failure> {
    let (control, node) = args.open().await?;
    args.ended("undrain", control.undrain_node(&node).await)
}

/// Has a node's replicas moved away.
pub(crate) async fn cordon(args: NodeArgs) -> Result<(), Failure> {
    let (control, node) = args.open().await?;
    args.ended("cordon", control.cordon_node(&node).await)
}

/// Lets a node have replicas again.
pub(crate) async fn uncordon(args: NodeArgs) -> Result<(), Failure> {
    let (control, node) = args.open().await?;
    args.ended("uncordon", control.uncordon_node(&node).await)
}

/// Strikes a node off.
pub(crate) async fn forget(args: NodeArgs) -> Result<(), Failure> {
    let (control, node) = args.open().await?;
    args.ended("forget", control.forget_node(&node).await)
}

impl NodeArgs {
    async fn open(&self) -> Result<(Control, String), Failure> {
        let control = self.port.open()?;
        let node = self.port.node(&control, &self.node).await?;
        Ok((control, node))
    }

    fn ended<T>(&self, verb: &str, outcome: Result<T, Error>) -> Result<(), Failure> {
        let failed = |error| self.port.failed(&format!("cannot {verb}"), &error);
        outcome.map(|_| ()).map_err(failed)
    }
}

/// Has another node lead a shard.
pub(crate) async fn transfer(args: TransferArgs) -> Result<(), Failure> {
    let control = args.port.open()?;
    let node_id = args.port.node(&control, &args.node).await?;
    let shard = args.shard;
    let asked = TransferLeaderRequest { shard, node_id };
    let transferred = control.transfer_leader(asked).await;
    transferred.map_err(|error| args.port.failed("cannot transfer", &error))?;
    Ok(())
}

/// Moves a replica.
pub(crate) async fn move_replica(args: MoveArgs) -> Result<(), Failure> {
    let control = args.port.open()?;
    let from_node_id = args.port.node(&control, &args.from).await?;
    let to_node_id = args.port.node(&control, &args.to).await?;
    let asked = MoveReplicaRequest {
        shard: args.shard,
        from_node_id,
        to_node_id,
    };
    let moved = control.move_replica(asked).await;
    moved.map_err(|error| args.port.failed("cannot move", &error))?;
    tell::line(format_args!(
        "it is on its way; `millrace shards` shows how far"
    ));
    Ok(())
}
