//! The Rust client of Millrace: publisher, consumer, reader, admin, control.
//!
//! ```no_run
//! # async fn example() -> Result<(), millrace_client::Error> {
//! use millrace_client::{Client, ConsumerOptions, Message, PublisherOptions};
//!
//! let client = Client::connect("http://127.0.0.1:7070")?;
//! let publisher = client.publisher("queue/default/orders", PublisherOptions::default());
//! let message = Message { payload: "hello".into(), ..Message::default() };
//! let acknowledged = publisher.publish(message).await?;
//! println!("on disk at offset {:?}", acknowledged.offset);
//!
//! let mut consumer = client.consumer("queue/default/orders", ConsumerOptions::default());
//! while let Some(delivery) = consumer.next().await {
//!     let delivery = delivery?;
//!     delivery.accept().await?;
//! }
//! # Ok(()) }
//! ```
//!
//! Connections are made when they are needed and made again when they are lost. Everything that
//! waits is bounded: what a publisher has not had decided, what a consumer holds, what a reader
//! has not taken yet. Nothing here panics on what a server sends.

mod admin;
mod backoff;
mod client;
mod consumer;
mod control;
mod error;
mod message;
mod publisher;
mod queue;
mod reader;
mod routing;
mod stream;
mod task;

pub use admin::Admin;
pub use client::{Client, ClientOptions};
pub use consumer::{Consumer, ConsumerOptions, Delivery, Settling};
pub use control::Control;
pub use error::{Applied, Error};
pub use message::{header, text_header, timestamp};
/// Why a connection or call failed, in gRPC's terms.
pub use tonic::Code;

/// What is published and delivered, as it is on the wire.
pub use millrace_proto::v1::{Death, Header, Message, death, header::Value};
pub use publisher::{Ack, Durability, Pending, Publisher, PublisherOptions};
pub use queue::{Peeked, ReceiveOptions, Received, Settle, Settlement};
pub use reader::{
    Event, PartitionStart, Position, ReadAnswer, ReadOptions, Reader, StoredMessage,
    SubscribeOptions, Subscription,
};
