//! HTTP/2 as peers speak it: windows, keep-alive and limits.

use tonic::transport::{Endpoint, Server};

use crate::error::LinkError;
use crate::options::Timing;

/// What may be under way to us in one lane: a 10 Gbit/s network at 3 ms, or a gigabit at 30 ms. One
/// stream a connection, so that both windows are one.
const WINDOW_BYTES: u32 = 4 << 20;
/// Replies are hellos and pongs.
const REPLY_WINDOW_BYTES: u32 = 64 << 10;
/// Largest HTTP/2 frame: a large record is not two thousand of them.
const H2_FRAME_BYTES_MAX: u32 = 1 << 20;
/// A lane's connection has one stream; that for questions has as many as wait for an answer, and
/// further ones wait for their turn.
const STREAMS_MAX: u32 = 32;
/// Headers of a call: a token, and what a proxy may add.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;

/// A server with our limits, without services.
pub fn server(timing: &Timing) -> Server {
    Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(timing.keep_alive_every))
        .http2_keepalive_timeout(Some(timing.keep_alive_within))
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(H2_FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
}

/// Where to dial for questions: their answers may be as large as what lanes carry.
///
/// # Errors
/// The address is malformed.
pub(crate) fn call_endpoint(address: &str, timing: &Timing) -> Result<Endpoint, LinkError> {
    let endpoint = endpoint(address, timing)?;
    Ok(endpoint
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES))
}

/// Where to dial, with our limits.
///
/// # Errors
/// The address is malformed.
pub(crate) fn endpoint(address: &str, timing: &Timing) -> Result<Endpoint, LinkError> {
    let malformed = || LinkError::Address {
        address: address.to_owned(),
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| malformed())?;
    let uri = endpoint.uri();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let is_bare = authority == address && !address.contains('@');
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if !is_bare || !has_host || uri.port_u16().is_none() {
        return Err(malformed());
    }
    Ok(endpoint
        .connect_timeout(timing.dial_within)
        // Without Nagle's delay: a heartbeat is small and somebody waits for it.
        .tcp_nodelay(true)
        .http2_keep_alive_interval(timing.keep_alive_every)
        .keep_alive_timeout(timing.keep_alive_within)
        // A quiet lane must find out that its peer is gone before it is needed.
        .keep_alive_while_idle(true)
        .max_frame_size(H2_FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .initial_stream_window_size(REPLY_WINDOW_BYTES)
        .initial_connection_window_size(REPLY_WINDOW_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_and_a_port_is_an_address() {
        let timing = Timing::default();
        for address in [
            "a:1",
            "10.0.0.1:7073",
            "[::1]:7073",
            "m-0.m-nodes.ns.svc:7073",
        ] {
            endpoint(address, &timing).expect(address);
        }
        for address in [
            "",
            "a",
            ":1",
            "a:",
            "a:1/x",
            "u@a:1",
            "a:99999",
            "http://a:1",
            "a b:1",
        ] {
            let refused = endpoint(address, &timing).expect_err(address);
            assert!(matches!(refused, LinkError::Address { .. }), "{refused}");
        }
    }
}
