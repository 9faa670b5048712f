//! A machine that stops. A kill of the process loses nothing the kernel has in its page cache, so
//! it cannot tell whether the broker synced what it acknowledged; these cases can: the file system
//! under the broker is shut down as a power cut would, and what was not synced is gone when it is
//! mounted again. Torn sectors and reordered writes are the simulator's (`tests/sim`).

use anyhow::Result;
use millrace_cluster_tests::broker::Node;
use millrace_cluster_tests::numbered::Book;
use millrace_cluster_tests::small_disk::SmallDisk;
use millrace_cluster_tests::wait::until;

use crate::given::{self, SOON};

const QUEUE: &str = "queue/default/orders";
const DISK_MEBIBYTES: u64 = 200;
/// Each at another moment of journal files and checkpoints.
const CUTS: usize = 4;
const MESSAGES: usize = 150;
const MESSAGE_BYTES: usize = 20_000;

pub(crate) async fn nothing_acknowledged_is_lost_when_the_power_goes() -> Result<()> {
    let mut node = Node::new(given::TOPOLOGY)?
        .with(["--memory-limit", "16Mi"])
        .with(["--journal-file-size", "1Mi"]);
    let disk = SmallDisk::mount(&node.data_dir(), &node.file("image"), DISK_MEBIBYTES)?;
    let mut broker = node.start().await?;
    let mut book = Book::new(&broker.client()?, QUEUE, MESSAGE_BYTES);
    for cut in 1..=CUTS {
        for _ in 0..MESSAGES {
            book.publish_when_possible().await?;
        }
        disk.cut_power()?;
        // The file system answers with errors now: the broker cannot go on.
        until("the broker to end", SOON, async || {
            if broker.has_ended()? {
                return Ok(Some(()));
            }
            // Only what it writes tells it.
            drop(book.publish().await);
            Ok(None)
        })
        .await?;
        broker.kill();
        disk.remount()?;
        broker = node.start().await?;
        let acknowledged = book.acknowledged.len();
        println!(
            "  cut {cut}: {acknowledged} acknowledged, {} unknown",
            book.unknown.len()
        );
        if cut % 2 == 0 {
            book.take_all(&broker.client()?).await?;
        }
    }
    broker.stop().await
}
