//! What kill -9 must not change.

use anyhow::Result;
use millrace_client::Settle;
use millrace_cluster_tests::rounds;

use crate::given;

const QUEUE: &str = "queue/default/orders";

pub(crate) async fn acknowledged_messages_survive_kills_at_random_points() -> Result<()> {
    let options = rounds::Options { rounds: 3, seed: 7 };
    let verdict = rounds::run(options).await?;
    println!("{}\n{}", verdict.details(), verdict.line());
    assert!(verdict.is_good());
    assert!(
        verdict.acknowledged > 0,
        "nothing was acknowledged: no load"
    );
    Ok(())
}

pub(crate) async fn settlements_and_attempts_survive_a_kill() -> Result<()> {
    let (mut node, broker) = given::broker().await?;
    let client = broker.client()?;
    for payload in ["accepted", "retried", "untouched"] {
        given::publish(&client, QUEUE, payload).await?;
    }
    let accepted = given::take(&client, QUEUE).await?;
    given::settle(&client, QUEUE, &accepted, Settle::Accept).await??;
    let retried = given::take(&client, QUEUE).await?;
    let (delay, note) = (None, "no luck".to_owned());
    given::settle(&client, QUEUE, &retried, Settle::Retry { delay, note }).await??;

    broker.kill();
    let broker = node.start().await?;

    let client = broker.client()?;
    let mut left = [
        given::take(&client, QUEUE).await?,
        given::take(&client, QUEUE).await?,
    ];
    left.sort_by_key(|received| received.offset);
    let [retried, untouched] = left;
    assert_eq!(
        (&*retried.message.payload, retried.attempts),
        (&b"retried"[..], 1)
    );
    assert_eq!(
        (&*untouched.message.payload, untouched.attempts),
        (&b"untouched"[..], 0)
    );
    assert!(
        given::is_empty(&client, QUEUE).await?,
        "the accepted message came back"
    );
    Ok(())
}
