//! Three nodes of which too few can be reached: what is refused, what is not, and what is left when
//! they are back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use millrace_client::{Applied, Client, ClientOptions, Error, ReceiveOptions};
use millrace_cluster_tests::nodes::Nodes;
use millrace_cluster_tests::numbered::Book;
use millrace_cluster_tests::wait::until;
use tokio::time::timeout;

use crate::given;

const QUEUE: &str = "queue/default/orders";
const MESSAGE_BYTES: usize = 100;
/// A leader that nobody follows has noticed by then, on a busy machine, too.
const NOTICED: Duration = Duration::from_secs(20);
/// A call that takes longer hangs: each has less time than that.
const HANGS: Duration = Duration::from_secs(40);

/// Three nodes that know what is declared.
async fn three(prepare: impl FnOnce(&mut Nodes) -> Result<()>) -> Result<Nodes> {
    let mut nodes = Nodes::new(3, given::TOPOLOGY, &[]).await?;
    prepare(&mut nodes)?;
    nodes.start_all().await?;
    for node in 0..nodes.len() {
        nodes.knows(node, QUEUE).await?;
    }
    Ok(nodes)
}

/// A client that knows one node only.
fn client_of(nodes: &Nodes, node: usize) -> Result<Client> {
    let options = ClientOptions::new(nodes.broker(node)?.url()).no_direct();
    Ok(Client::connect(options)?)
}

/// One call of each kind, of which none may hang.
async fn calls(client: &Client) -> Result<Vec<Error>> {
    let receive = client.receive(QUEUE, ReceiveOptions::default());
    let received = timeout(HANGS, receive).await.context("receive hangs")?;
    let admin = client.admin();
    let describe = admin.describe(QUEUE);
    let described = timeout(HANGS, describe).await.context("describe hangs")?;
    let peek = client.peek(QUEUE, 0, 1);
    let peeked = timeout(HANGS, peek).await.context("peek hangs")?;
    let errors = [received.err(), described.err(), peeked.err()];
    Ok(errors.into_iter().flatten().collect())
}

/// Publishes until that is refused, and goes on being refused; what is under way meanwhile ends.
async fn refuses(book: &mut Book, client: &Client) -> Result<()> {
    until("publishes to be refused", NOTICED, async || {
        let publish = timeout(HANGS, book.publish()).await;
        let Err(error) = publish.context("a publish hangs")? else {
            return Ok(None);
        };
        ensure!(error.is_retryable(), "{error:?}");
        Ok((error.applied == Applied::No).then_some(()))
    })
    .await?;
    let errors = calls(client).await?;
    ensure!(errors.len() == 3, "some calls were answered: {errors:?}");
    for error in errors {
        ensure!(error.is_retryable(), "{error:?}");
    }
    Ok(())
}

pub(crate) async fn without_a_majority_calls_are_refused_as_retryable_and_none_hangs() -> Result<()>
{
    let mut nodes = three(|_| Ok(())).await?;
    let leader = nodes.leader_of(QUEUE).await?;
    let client = client_of(&nodes, leader)?;
    let mut book = Book::new(&client, QUEUE, MESSAGE_BYTES);
    book.publish_when_possible().await?;
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    for other in &others {
        nodes.kill(*other);
    }

    refuses(&mut book, &client).await?;

    for other in others {
        let launch = nodes.launch(other)?;
        nodes.serves(other, launch).await?;
    }
    book.publish_when_possible().await?;
    book.take_all(&client).await?;
    nodes.stop_all().await
}

pub(crate) async fn a_leader_that_is_cut_off_refuses_and_the_others_go_on() -> Result<()> {
    let mut nodes = three(|_| Ok(())).await?;
    let leader = nodes.leader_of(QUEUE).await?;
    let (inside, outside) = (leader, (leader + 1) % 3);
    let alone = client_of(&nodes, inside)?;
    let mut book = Book::new(&alone, QUEUE, MESSAGE_BYTES);
    book.publish_when_possible().await?;
    for other in (0..3).filter(|other| *other != leader) {
        nodes.wires().cut(leader, other);
        nodes.wires().cut(other, leader);
    }

    refuses(&mut book, &alone).await?;
    let other = client_of(&nodes, outside)?;
    let mut elsewhere = Book::new(&other, "queue/default/small", MESSAGE_BYTES);
    elsewhere.publish_when_possible().await?;

    nodes.wires().heal();
    book.publish_when_possible().await?;
    book.take_all(&other).await?;
    elsewhere.take_all(&alone).await?;
    nodes.stop_all().await
}

pub(crate) async fn a_followers_full_disk_stops_publishing_only_and_no_node() -> Result<()> {
    let mut nodes = three(Nodes::mount).await?;
    let leader = nodes.leader_of(QUEUE).await?;
    let (follower, client) = ((leader + 1) % 3, client_of(&nodes, leader)?);
    let mut book = Book::new(&client, QUEUE, MESSAGE_BYTES);
    for _ in 0..50 {
        book.publish_when_possible().await?;
    }
    nodes.volume(follower)?.fill();
    until("the leader to hear of it", NOTICED, async || {
        let Err(error) = book.publish().await else {
            return Ok(None);
        };
        ensure!(error.reason == "DISK_FULL", "{error:?}");
        ensure!(error.applied == Applied::No, "{error:?}");
        Ok(Some(()))
    })
    .await?;

    book.take_all(&client).await.context("at a full disk")?;
    nodes.all_run()?;

    nodes.volume(follower)?.free();
    book.publish_when_possible().await?;
    book.take_all(&client).await?;
    nodes.caught_up(follower).await?;
    nodes.all_run()?;
    nodes.stop_all().await
}
