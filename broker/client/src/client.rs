//! A connection to one server, made when it is needed. Cheap to clone; clones share it.

use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::admin::Admin;
use crate::consumer::{Consumer, ConsumerOptions};
use crate::error::{Applied, Error};
use crate::publisher::{Publisher, PublisherOptions};
use crate::reader::Reader;
use crate::routing::{Heed, Routing, Way, news};

/// h2's default of 64 KiB caps a stream at about 1 MB/s over a wide network.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Several streams of one connection make progress at once.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest reply taken: 4 MiB of messages, or one message of the largest size (16 MiB), and frames.
pub(crate) const REPLY_BYTES_MAX: usize = 20 << 20;
/// A connection on which something is under way, and nothing is heard, is asked for a sign of life
/// after this long,
const KEEPALIVE: Duration = Duration::from_secs(5);
/// and is gone when none comes within this.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Proxies forget idle connections after about a minute.
const TCP_KEEPALIVE: Duration = Duration::from_secs(20);

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `http://HOST:PORT`, or several of them with commas between: nodes of one cluster, of which
    /// the next is used when one cannot be reached.
    pub url: String,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long a call with one answer may take, on top of any wait it asks for.
    pub call_timeout: Duration,
    /// Whether calls go to the nodes that lead what they are about, when those are known and can be
    /// reached; otherwise all of them go to the server given, which forwards them.
    pub direct: bool,
}

impl ClientOptions {
    /// With the usual limits: 5 s to connect, 30 s to answer.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            direct: true,
        }
    }

    /// The same, but for going to leaders directly: only the server given can be reached.
    #[must_use]
    pub fn no_direct(self) -> Self {
        Self {
            direct: false,
            ..self
        }
    }
}

impl<U: Into<String>> From<U> for ClientOptions {
    fn from(url: U) -> Self {
        Self::new(url)
    }
}

/// A connection to a server.
#[derive(Clone, Debug)]
pub struct Client {
    options: ClientOptions,
    routing: Arc<Routing>,
}

impl Client {
    /// Prepares a connection; it is made by the first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The URL is malformed.
    pub fn connect(options: impl Into<ClientOptions>) -> Result<Self, Error> {
        let options = options.into();
        let routing = Arc::new(Routing::new(&options)?);
        Ok(Self { options, routing })
    }

    /// The URL of the server that was given, or those of several.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.options.url
    }

    /// Publishes to a queue or topic over a stream of its own.
    #[must_use]
    pub fn publisher(&self, address: impl Into<String>, options: PublisherOptions) -> Publisher {
        Publisher::new(self.clone(), address.into(), options)
    }

    /// Consumes a queue in a session of its own.
    #[must_use]
    pub fn consumer(&self, address: impl Into<String>, options: ConsumerOptions) -> Consumer {
        Consumer::new(self.clone(), address.into(), options)
    }

    /// Reads a topic.
    #[must_use]
    pub fn reader(&self, address: impl Into<String>) -> Reader {
        Reader::new(self.clone(), address.into())
    }

    /// Looks at queues and topics.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The way to whoever leads a queue, or a partition of a topic.
    pub(crate) async fn way_to(&self, address: &str, partition: u32) -> Way {
        self.routing.way_to(address, partition).await
    }

    /// The way to the server that was given.
    pub(crate) fn given(&self) -> Way {
        self.routing.given()
    }

    /// Watches whether somebody else comes to lead what a way was chosen for.
    pub(crate) fn heed(&self, way: &Way) -> Heed {
        Heed::new(&self.routing, way)
    }

    /// Waits before another attempt, but not when somebody else comes to lead meanwhile.
    pub(crate) async fn pause(&self, way: &Way, delay: Duration) {
        tokio::select! {
            biased;
            () = news(&self.routing, way) => {}
            () = tokio::time::sleep(delay) => {}
        }
    }

    /// A stream went well.
    pub(crate) fn succeeded(&self, way: &Way) {
        self.routing.succeeded(way);
    }

    /// A stream failed: the next attempt may go elsewhere.
    pub(crate) fn failed(&self, way: &Way, error: &Error) {
        self.routing.failed(way, error);
    }

    /// Asks whoever leads a queue or partition, and waits for the answer `wait` longer than calls
    /// usually may take. Who cannot be reached was asked nothing: then others are asked.
    pub(crate) async fn call<T, A>(
        &self,
        about: Option<(&str, u32)>,
        wait: Duration,
        ask: impl Fn(Way) -> A,
    ) -> Result<T, Error>
    where
        A: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let limit = self.options.call_timeout.saturating_add(wait);
        let asked = async {
            // Each server that was given, and a leader that was named.
            let mut others = self.routing.servers();
            loop {
                let way = match about {
                    Some((address, partition)) => self.way_to(address, partition).await,
                    None => self.given(),
                };
                let error = match ask(way.clone()).await {
                    Ok(answer) => {
                        self.succeeded(&way);
                        return Ok(answer.into_inner());
                    }
                    Err(status) => Error::from(status),
                };
                self.failed(&way, &error);
                if error.reason != Error::UNREACHABLE || others == 0 {
                    return Err(error);
                }
                others -= 1;
            }
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::local(
                Error::CONNECTION_LOST,
                Code::DeadlineExceeded,
                Applied::Unknown,
                format!("{} did not answer within {limit:?}", self.options.url),
            )),
        }
    }
}

/// The endpoint of a URL, tuned.
///
/// # Errors
/// It is malformed.
pub(crate) fn endpoint(url: &str, connect_timeout: Duration) -> Result<Endpoint, Error> {
    let invalid = |why: String| {
        let text = format!("server URL {url:?}: {why}");
        Error::local(
            Error::INVALID_OPTION,
            Code::InvalidArgument,
            Applied::No,
            text,
        )
    };
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|_| invalid("not of the form http://HOST:PORT".to_owned()))?;
    let uri = endpoint.uri();
    if uri.scheme_str() != Some("http") || uri.host().is_none() {
        return Err(invalid("not of the form http://HOST:PORT".to_owned()));
    }
    Ok(endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(TCP_KEEPALIVE))
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_malformed_url_is_refused_by_name() {
        for url in ["", "127.0.0.1:7070", "https://x:1", "http://", "ftp://a:1"] {
            let error = Client::connect(url).expect_err(url);
            assert_eq!(error.reason, Error::INVALID_OPTION);
            assert!(error.message.contains("http://HOST:PORT"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unreachable_and_nothing_was_applied() {
        let client = Client::connect("http://127.0.0.1:1").unwrap();
        let error = client.admin().describe("queue/a/b").await.unwrap_err();
        assert_eq!(error.reason, Error::UNREACHABLE);
        assert_eq!(error.applied, Applied::No);
        assert_eq!(error.code, Code::Unavailable);
    }
}
