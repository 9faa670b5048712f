//! Whatever is wrong is refused, with the thing that is wrong in the error.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::Result;
use millrace_client::{Applied, Client, Code, ConsumerOptions, Message, PublisherOptions};
use millrace_cluster_tests::broker::Node;
use millrace_proto::v1::publisher_client::PublisherClient;
use millrace_proto::v1::{ApplyTopologyRequest, PublishRequest};
use tokio::time::timeout;

use crate::given::{self, SOON, assert_has};

/// Exit codes of `serve`, as its help has them.
const USAGE: Option<i32> = Some(2);
const LISTEN: Option<i32> = Some(10);
const DATA_DIR_LOCKED: Option<i32> = Some(12);
const DATA_DIR_FOREIGN: Option<i32> = Some(13);
const DATA_DIR_NEWER: Option<i32> = Some(14);
const TOPOLOGY: Option<i32> = Some(16);

pub(crate) async fn an_invalid_topology_names_the_field() -> Result<()> {
    let yaml = given::TOPOLOGY.replace("maxDeliveries: 2", "maxDeliveries: 0");
    let ended = Node::new(&yaml)?.must_not_start().await?;
    assert_eq!(ended.code, TOPOLOGY, "{}", ended.log);
    assert_has(&ended.log, "spec.delivery.maxDeliveries");
    assert_has(&ended.log, "orders");

    let ended = Node::new("kind: [")?.must_not_start().await?;
    assert_eq!(ended.code, TOPOLOGY, "{}", ended.log);
    assert_has(&ended.log, "line 1");
    Ok(())
}

pub(crate) async fn a_bad_pattern_names_the_field() -> Result<()> {
    let yaml = given::TOPOLOGY.replace("orders.#", "orders..created");
    let ended = Node::new(&yaml)?.must_not_start().await?;
    assert_eq!(ended.code, TOPOLOGY, "{}", ended.log);
    assert_has(&ended.log, "spec.bindings[0].subject");
    Ok(())
}

pub(crate) async fn an_unknown_queue_is_named() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let client = broker.client()?;
    let nowhere = "queue/default/nowhere";

    let error = given::publish(&client, nowhere, "lost?")
        .await
        .expect_err("no such queue");
    assert_eq!(
        (error.reason.as_str(), error.code),
        ("NO_SUCH_QUEUE", Code::NotFound)
    );
    assert_eq!(error.applied, Applied::No);
    assert_has(&error.message, nowhere);

    let mut consumer = client.consumer(nowhere, ConsumerOptions::default());
    let error = timeout(SOON, consumer.next())
        .await?
        .expect("a word")
        .expect_err("no such queue");
    assert_eq!(error.reason, "NO_SUCH_QUEUE");
    assert_has(&error.message, nowhere);

    let error = client
        .receive(nowhere, Default::default())
        .await
        .expect_err("no such queue");
    assert_eq!(
        (error.reason.as_str(), error.code),
        ("NO_SUCH_QUEUE", Code::NotFound)
    );

    let error = given::publish(&client, "topic/default/x", "lost?")
        .await
        .expect_err("no topic");
    assert_eq!(error.reason, "NO_SUCH_TOPIC");
    Ok(())
}

pub(crate) async fn an_oversized_message_is_refused_and_its_neighbours_are_not() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let client = broker.client()?;
    let publisher = client.publisher("queue/default/small", PublisherOptions::default());
    let mut pending = Vec::new();
    for bytes in [10, 4_000, 10] {
        pending.push(publisher.send(&given::message(vec![b'x'; bytes])).await?);
    }
    let mut outcomes = Vec::new();
    for pending in pending {
        outcomes.push(pending.await);
    }
    let [Ok(_), Err(error), Ok(_)] = outcomes.as_slice() else {
        panic!("{outcomes:?}");
    };
    assert_eq!(
        (error.reason.as_str(), error.applied),
        ("MESSAGE_TOO_LARGE", Applied::No)
    );
    assert_has(&error.message, "2048");
    Ok(())
}

pub(crate) async fn a_message_larger_than_any_limit_does_not_end_the_connection() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let channel = tonic::transport::Endpoint::from_shared(broker.url())?
        .connect()
        .await?;
    let mut publisher = PublisherClient::new(channel);
    let request = |bytes: usize| PublishRequest {
        address: "queue/default/orders".to_owned(),
        messages: vec![Message {
            payload: vec![b'x'; bytes].into(),
            ..Message::default()
        }],
        batches: Vec::new(),
        ..PublishRequest::default()
    };
    publisher
        .publish(request(40 << 20))
        .await
        .expect_err("no frame is that large");

    let answer = publisher.publish(request(10)).await?.into_inner();

    assert_has(&format!("{answer:?}"), "Acknowledged");
    Ok(())
}

pub(crate) async fn a_publish_beyond_the_backlog_limit_is_refused() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let client = broker.client()?;
    for n in 0..5 {
        given::publish(&client, "queue/default/small", &n.to_string()).await?;
    }

    let error = given::publish(&client, "queue/default/small", "5")
        .await
        .expect_err("full");

    assert_eq!(
        (error.reason.as_str(), error.applied),
        ("QUEUE_FULL", Applied::No)
    );
    assert!(error.is_retryable());
    assert_has(&error.message, "queue/default/small");
    Ok(())
}

pub(crate) async fn garbage_on_the_port_harms_nobody() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let client = broker.client()?;
    given::publish(&client, "queue/default/orders", "before").await?;
    let addresses = broker.addresses();
    for address in [addresses.clients, addresses.control, addresses.metrics] {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff";
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0; 4096],
            preface,
            &[0xff; 100_000],
        ] {
            let mut stream = TcpStream::connect(address)?;
            // Whether it is taken, refused or cut off does not matter.
            drop(stream.write_all(garbage));
            drop(stream.shutdown(std::net::Shutdown::Write));
            stream.set_read_timeout(Some(SOON))?;
            drop(stream.read(&mut [0; 1024]));
        }
    }

    given::publish(&client, "queue/default/orders", "after").await?;

    let fresh = Client::connect(broker.url())?;
    assert_eq!(
        &*given::take(&fresh, "queue/default/orders")
            .await?
            .message
            .payload,
        b"before"
    );
    broker.stop().await
}

pub(crate) async fn a_data_directory_of_another_cluster_is_refused() -> Result<()> {
    let mut node = Node::new(given::TOPOLOGY)?.with(["--cluster-id", "first"]);
    node.start().await?.stop().await?;
    let mut other = node.with(["--cluster-id", "second"]);
    let ended = other.must_not_start().await?;
    assert_eq!(ended.code, DATA_DIR_FOREIGN, "{}", ended.log);
    assert_has(&ended.log, "first");
    assert_has(&ended.log, "second");
    Ok(())
}

pub(crate) async fn a_data_directory_of_a_newer_version_is_refused() -> Result<()> {
    let (mut node, broker) = given::broker().await?;
    broker.stop().await?;
    let identity = node.data_dir().join("identity");
    let mut bytes = fs::read(&identity)?;
    // The version follows magic and checksum.
    bytes[12] = 99;
    let checksum = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&identity, bytes)?;

    let ended = node.must_not_start().await?;

    assert_eq!(ended.code, DATA_DIR_NEWER, "{}", ended.log);
    assert_has(&ended.log, "version 99");
    assert_has(&ended.log, "identity");
    Ok(())
}

pub(crate) async fn a_locked_data_directory_is_refused() -> Result<()> {
    let (mut node, broker) = given::broker().await?;
    node.forget_address();
    let ended = node.must_not_start().await?;
    assert_eq!(ended.code, DATA_DIR_LOCKED, "{}", ended.log);
    assert_has(&ended.log, &node.data_dir().display().to_string());
    broker.stop().await
}

pub(crate) async fn a_port_in_use_is_named() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let mut node = Node::new(given::TOPOLOGY)?;
    node.set_address(taken.local_addr()?);
    let ended = node.must_not_start().await?;
    assert_eq!(ended.code, LISTEN, "{}", ended.log);
    assert_has(&ended.log, &address);
    Ok(())
}

pub(crate) async fn control_on_all_addresses_needs_a_token() -> Result<()> {
    let node = Node::new(given::TOPOLOGY)?;
    let ended = node
        .with(["--control-listen", "0.0.0.0:0"])
        .must_not_start()
        .await?;
    assert_eq!(ended.code, USAGE, "{}", ended.log);
    assert_has(&ended.log, "--control-token-file");
    Ok(())
}

pub(crate) async fn the_control_port_wants_the_right_token() -> Result<()> {
    let node = Node::new(given::TOPOLOGY)?;
    let file = node.file("token");
    fs::write(&file, "right-token-of-32-characters-0123\n")?;
    let file = file.display().to_string();
    let mut node = node.with(["--control-token-file", &file]);
    let broker = node.start().await?;

    let error = broker
        .control("wrong")?
        .metadata()
        .await
        .expect_err("the wrong token");
    assert_eq!(
        (error.reason.as_str(), error.code),
        ("UNAUTHENTICATED", Code::Unauthenticated)
    );
    let delta = ApplyTopologyRequest::default();
    let error = broker
        .control("wrong")?
        .apply_topology(delta)
        .await
        .expect_err("the wrong token");
    assert_eq!(error.code, Code::Unauthenticated);

    let control = broker.control("right-token-of-32-characters-0123")?;
    let metadata = control.metadata().await?;
    let topology = metadata.topology.unwrap_or_default();
    assert_eq!(topology.objects.len(), 3);
    assert_eq!(topology.revision, topology.applied_revision);

    // Read again when it changes, as a Secret that was rotated.
    fs::write(&file, "another-token-of-32-characters-45\n")?;
    let control = broker.control("another-token-of-32-characters-45")?;
    millrace_cluster_tests::wait::until("the new token to be taken", SOON, async || {
        Ok(control.metadata().await.ok())
    })
    .await?;
    Ok(())
}
