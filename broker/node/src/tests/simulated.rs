//! The whole node on one thread, virtual time and a disk in memory: the same seed gives the same
//! run, step by step.

use millrace_storage::{Crash, Disk, MemoryDisk};
use millrace_types::Applied;

use super::host::TestHost;
use super::*;
use crate::Host as _;

/// A disk, and one life after the other on it.
struct World {
    disk: MemoryDisk,
    options: NodeOptions,
    steps: Vec<String>,
    seed: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut options = options_at("data");
        options.journal.file_bytes = 64 << 10;
        Self {
            disk: MemoryDisk::new(),
            options,
            steps: Vec::new(),
            seed,
        }
    }

    /// Lives until the story ends, then crashes.
    fn live<T, F>(&mut self, story: impl FnOnce(TestHost, Broker) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.seed += 1;
        let host = TestHost::new(self.seed);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let options = self.options.clone();
        let runs = Arc::new(host.clone());
        let broker = Broker::start_on(disk, runs, Arc::new(Alone), options).unwrap();
        let result = host.run(story(host.clone(), broker.clone()));
        self.disk.crash(Crash::Random(self.seed));
        host.kill();
        // Nothing is left that could be waited for.
        drop(broker);
        self.steps.extend(host.steps());
        let operations = self.disk.operations();
        self.steps.push(format!("{operations} operations"));
        result
    }
}

/// Publishes to a queue and a topic that is bound to another, crashes, and takes what is there.
fn story(seed: u64) -> (Vec<String>, Vec<String>) {
    let mut world = World::new(seed);
    world.live(|host, broker| async move {
        let objects = vec![
            queue("queue/test/direct"),
            topic("topic/test/events", 3),
            bound("queue/test/bound", "topic/test/events", "#"),
        ];
        declare(&broker, objects).await;
        for number in 0..20 {
            for to in ["queue/test/direct", "topic/test/events"] {
                let sent = vec![batch(&[message(&format!("{to} {number}"), "a")])];
                let results = broker.publish(&address(to), sent).await;
                host.note(format!("{results:?}"));
            }
        }
    });
    let taken = world.live(|host, broker| async move {
        let mut taken = Vec::new();
        for from in ["queue/test/direct", "queue/test/bound"] {
            for _ in 0..20 {
                let one = broker.receive(receive(from, 1, PATIENCE)).await.unwrap();
                host.note(format!("{one:?}"));
                taken.extend(texts(&one));
            }
        }
        broker.drain().await;
        taken
    });
    (world.steps, taken)
}

async fn declare(broker: &Broker, upserts: Vec<Declared>) {
    let delta = TopologyDelta {
        cluster_id: None,
        base_revision: 0,
        upserts,
        removals: Vec::new(),
    };
    let revision = broker.apply_topology(delta).await.unwrap();
    let mut view = broker.catalogue();
    let applied = view.wait_for(|view| view.applied_revision() >= revision);
    applied.await.unwrap();
}

#[test]
fn equal_seeds_give_equal_runs_and_nothing_is_lost_in_any() {
    for seed in [1, 2, 3] {
        let (steps, mut taken) = story(seed);
        let (again, _) = story(seed);
        for (at, (one, other)) in steps.iter().zip(&again).enumerate() {
            assert_eq!(one, other, "seed {seed}, step {at} of {}", steps.len());
        }
        assert_eq!(steps.len(), again.len());
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), 40);
    }
    let (one, other) = (story(1).0, story(2).0);
    assert!(one != other, "seeds make a difference");
}

#[test]
fn a_lease_of_a_minute_runs_out_without_a_wait() {
    let mut world = World::new(7);
    let (acquired, waited) = world.live(|host, broker| async move {
        declare(&broker, vec![queue("queue/test/orders")]).await;
        let sent = vec![batch(&[message("one", "")])];
        let results = broker.publish(&address("queue/test/orders"), sent).await;
        assert!(results.iter().all(Result::is_ok));
        let mut acquired = Vec::new();
        while acquired.len() < 2 {
            let wait = super::super::WAIT_MAX;
            let got = broker.receive(receive("queue/test/orders", 1, wait)).await;
            acquired.extend(got.unwrap().iter().map(|one| one.acquired));
        }
        (acquired, host.elapsed())
    });
    assert_eq!(acquired, [1, 2]);
    let lease = Duration::from_mins(1);
    assert!(waited >= lease && waited < lease * 2, "{waited:?}");
}

#[test]
fn a_node_drains_though_the_disk_has_no_room_for_what_is_in_flight() {
    let mut world = World::new(11);
    let disk = world.disk.clone();
    let (results, waited) = world.live(|host, broker| async move {
        declare(&broker, vec![queue("queue/test/orders")]).await;
        disk.set_capacity(Some(0));
        let big = "x".repeat(20 << 10);
        let to = address("queue/test/orders");
        // More than the journal's file and the next one can take.
        let sent: Vec<_> = (0..20)
            .map(|_| broker.publish(&to, vec![batch(&[message(&big, "")])]))
            .collect();
        broker.drain().await;
        let mut results = Vec::new();
        for sent in sent {
            results.extend(sent.await);
        }
        (results, host.elapsed())
    });
    let refusal = results.last().unwrap().as_ref().unwrap_err();
    assert_eq!(refusal.applied, Applied::Unknown);
    assert!(waited < Duration::from_mins(1), "{waited:?}");
}

#[test]
fn a_worker_that_holds_back_goes_on_when_the_disk_has_room_again() {
    let mut world = World::new(12);
    world.options.journal.queued_bytes_max = 64 << 10;
    let disk = world.disk.clone();
    world.live(|host, broker| async move {
        declare(&broker, vec![queue("queue/test/orders")]).await;
        disk.set_capacity(Some(0));
        let big = "x".repeat(20 << 10);
        let to = address("queue/test/orders");
        let mut sent = Vec::new();
        for _ in 0..20 {
            sent.push(broker.publish(&to, vec![batch(&[message(&big, "")])]));
            host.sleep(Duration::from_millis(100)).await;
        }
        host.sleep(Duration::from_secs(30)).await;
        disk.set_capacity(None);
        for sent in sent {
            assert!(sent.await.iter().all(Result::is_ok));
        }
    });
}
