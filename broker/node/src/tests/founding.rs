//! A node that is one of several founders, or that has only some of the shards. The other nodes are
//! not there.

use std::path::Path;

use millrace_replica::{Mark, Member, Replica, Seat};
use millrace_storage::{Cluster, DataDir, MemoryDisk};
use millrace_types::{ErrorCode, Founder, Founding, FoundingDraft, NodeId, ReplicaId, ShardId};

use super::host::TestHost;
use super::*;
use crate::input::Input;
use crate::{Alone, Host as _, StartError};

const PATH: &str = "data";

/// Opens the directory as it is.
fn open(disk: &MemoryDisk, host: &TestHost) -> DataDir {
    let host = host.clone();
    let random = Arc::new(move || host.random());
    DataDir::open(Arc::new(disk.clone()), Path::new(PATH), random).unwrap()
}

/// A record of this node and two others; two replicas each, so that one of three shards is
/// elsewhere.
fn founding(own: NodeId, cluster: &str) -> Founding {
    let nodes = [own, NodeId::new(1), NodeId::new(2)];
    let founder = |node: NodeId| Founder {
        node,
        peer: format!("host-{node}:1"),
    };
    let draft = FoundingDraft {
        cluster_id: cluster.into(),
        shards: 3,
        replication: 2,
        founders: nodes.map(founder).into(),
    };
    draft.try_into().unwrap()
}

fn start(
    disk: &MemoryDisk,
    host: &TestHost,
    change: impl FnOnce(&mut NodeOptions),
) -> Result<Broker, StartError> {
    let mut options = options_at(PATH);
    options.shards = 3;
    change(&mut options);
    let (disk, host) = (Arc::new(disk.clone()), Arc::new(host.clone()));
    Broker::start_on(disk, host, Arc::new(Alone), options)
}

/// The shard's members as the node's replica has them, and where its log begins.
async fn replica(broker: &Broker, shard: ShardId) -> (Vec<Member>, Option<Mark>) {
    let (sender, answer) = tokio::sync::oneshot::channel();
    let ask = move |replica: &mut Replica| {
        let mark = replica.point().map(|point| point.mark);
        sender.send((replica.members().iter().collect(), mark)).ok();
    };
    let slot = broker.node.slot(shard).unwrap();
    slot.inbox.send(Input::Drive(shard, Box::new(ask)));
    answer.await.unwrap()
}

/// Asks the node for something of each shard, and for a change of what is declared.
async fn refusals(broker: &Broker) -> Vec<ErrorCode> {
    let mut codes = Vec::new();
    for shard in (1..=3).map(ShardId::new) {
        let asked = broker.node.slot(shard).err();
        codes.extend(asked.map(|refusal| refusal.code));
    }
    let declared = broker.apply_topology(TopologyDelta {
        cluster_id: None,
        base_revision: 0,
        upserts: vec![queue("queue/test/orders")],
        removals: Vec::new(),
    });
    codes.push(declared.await.unwrap_err().code);
    codes
}

#[test]
fn one_of_several_founders_has_its_replicas_with_the_members_of_the_record() {
    let (disk, host) = (MemoryDisk::new(), TestHost::new(3));
    let node = open(&disk, &host).node();
    let ours = founding(node, "ours");
    for life in 0..2 {
        // The directory knows by itself the second time.
        let founding = (life == 0).then(|| ours.clone());
        let alive = host.life();
        let broker = start(&disk, &alive, |options| options.founding = founding).unwrap();
        let ours = ours.clone();
        host.run(async move {
            for shard in (0..=3).map(ShardId::new) {
                let Some(own) = ours.replica(shard, node) else {
                    continue;
                };
                assert_eq!(broker.node.data_dir.replica(shard), Some(own));
                let (members, mark) = replica(&broker, shard).await;
                let mut expected = ours.members(shard);
                expected.sort_unstable();
                let found: Vec<_> = members.iter().map(|m| (m.replica, m.node)).collect();
                assert_eq!(found, expected);
                assert!(members.iter().all(|member| member.seat == Seat::Voter));
                // Who joins must not take it for a log that begins with nothing.
                assert_eq!(mark, Some(Mark::new(1, 1)));
            }
            // One shard is elsewhere, the others have no leader without the others.
            let here = (1..=3).map(ShardId::new);
            let here = here.filter(|shard| ours.replica(*shard, node).is_some());
            assert_eq!(here.count(), 2);
            assert_eq!(refusals(&broker).await, [ErrorCode::NotLeader; 2]);
            assert_eq!(broker.metadata().await.unwrap().cluster_id, "ours");
        });
        alive.kill();
    }
}

#[test]
fn a_directory_keeps_to_the_record_it_was_founded_by() {
    let (disk, host) = (MemoryDisk::new(), TestHost::new(4));
    let node = open(&disk, &host).node();
    let not_in = founding(NodeId::new(9), "ours");
    let refused = start(&disk, &host, |options| options.founding = Some(not_in)).err();
    assert!(matches!(refused, Some(StartError::Belong { .. })));
    let ours = founding(node, "ours");
    let begin = |options: &mut NodeOptions| options.founding = Some(ours.clone());
    drop(start(&disk, &host, begin).unwrap());
    host.kill();

    let host = TestHost::new(5);
    let theirs = founding(node, "theirs");
    let refused = start(&disk, &host, |options| options.founding = Some(theirs));
    assert!(matches!(refused.err(), Some(StartError::Belong { .. })));
    let another = start(&disk, &host, |o| o.cluster_id = Some("theirs".into()));
    assert!(matches!(another.err(), Some(StartError::Open(_))));
    let alone = Founding::alone("ours", 3, node).unwrap();
    let refused = start(&disk, &host, |options| options.founding = Some(alone));
    assert!(matches!(refused.err(), Some(StartError::Belong { .. })));
    drop(start(&disk, &host, begin).unwrap());
    host.kill();
}

#[test]
fn a_node_that_joined_starts_with_nothing_but_a_replica_that_knows_nobody() {
    let (disk, host) = (MemoryDisk::new(), TestHost::new(6));
    let dir = open(&disk, &host);
    let ours = Cluster {
        id: "ours".into(),
        shards: 3,
        founding: None,
    };
    dir.join(ours, ReplicaId::new(77)).unwrap();
    drop(dir);
    for _ in 0..2 {
        let alive = host.life();
        let broker = start(&disk, &alive, |_| {}).unwrap();
        host.run(async move {
            let (members, mark) = replica(&broker, ShardId::METADATA).await;
            assert_eq!((members, mark), (Vec::new(), Some(Mark::default())));
            assert_eq!(refusals(&broker).await, [ErrorCode::NotLeader; 4]);
        });
        alive.kill();
    }
}
