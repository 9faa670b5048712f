//! One way to a server: over which connection, and whose it is.

use millrace_proto::v1::admin_client::AdminClient;
use millrace_proto::v1::consumer_client::ConsumerClient;
use millrace_proto::v1::publisher_client::PublisherClient;
use millrace_proto::v1::routing_client::RoutingClient;
use millrace_proto::v1::stream_reader_client::StreamReaderClient;
use tonic::transport::Channel;

use crate::client::REPLY_BYTES_MAX;

/// A connection and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    channel: Channel,
    to: To,
    about: Option<About>,
}

/// What a way was chosen for.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// Who is to be asked leads this.
    pub(super) shard: u32,
    /// Or this one does, and is asked by who is; unknown when nobody was known to.
    pub(super) leader: Option<String>,
}

#[derive(Clone, Debug)]
enum To {
    /// One of the servers that were given.
    Given(usize),
    /// A node that the cluster has named.
    Node(String),
}

impl Way {
    pub(super) const fn given(server: usize, channel: Channel) -> Self {
        Self {
            channel,
            to: To::Given(server),
            about: None,
        }
    }

    pub(super) const fn direct(node: String, channel: Channel) -> Self {
        Self {
            channel,
            to: To::Node(node),
            about: None,
        }
    }

    /// The same, chosen for something.
    pub(super) fn about(self, about: Option<About>) -> Self {
        Self { about, ..self }
    }

    /// What it was chosen for.
    pub(super) const fn purpose(&self) -> Option<&About> {
        self.about.as_ref()
    }

    /// The node, if it is not a server that was given.
    pub(super) fn node(&self) -> Option<&str> {
        match &self.to {
            To::Given(_) => None,
            To::Node(node) => Some(node),
        }
    }

    pub(super) const fn server(&self) -> usize {
        match self.to {
            To::Given(server) => server,
            To::Node(_) => 0,
        }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn publisher(&self) -> PublisherClient<Channel> {
        PublisherClient::new(self.channel()).max_decoding_message_size(REPLY_BYTES_MAX)
    }

    pub(crate) fn consumer(&self) -> ConsumerClient<Channel> {
        ConsumerClient::new(self.channel()).max_decoding_message_size(REPLY_BYTES_MAX)
    }

    pub(crate) fn reader(&self) -> StreamReaderClient<Channel> {
        StreamReaderClient::new(self.channel()).max_decoding_message_size(REPLY_BYTES_MAX)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel()).max_decoding_message_size(REPLY_BYTES_MAX)
    }

    pub(super) fn routing(&self) -> RoutingClient<Channel> {
        RoutingClient::new(self.channel())
    }
}
