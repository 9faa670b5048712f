//! HTTP/2 as we serve it: windows, keep-alive and limits. Whatever comes in that is no HTTP/2 costs
//! its own connection and nothing else.

use std::time::Duration;

use tonic::transport::Server;

/// What a stream may send before it must be told to go on: covers 2 MiB of bandwidth-delay product,
/// 32 times the default, with which one stream carries about 1 MB/s at 64 ms.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The same for all streams of a connection: four busy ones.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// A quiet connection is asked for a sign of life this often,
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);
/// and closed when none comes within this.
const KEEP_ALIVE_WITHIN: Duration = Duration::from_secs(10);
/// Calls one connection may have open: streams are few, unary calls end soon.
const STREAMS_MAX: u32 = 1_000;
/// Largest HTTP/2 frame we take: large enough that a big message is not a thousand frames, small
/// enough that frames of several streams take turns.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Headers of a call: a token and trace context fit many times.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// A gRPC message. Twice the largest batch, so that one that is moderately too large gets our typed
/// error; beyond that the transport refuses it with `OUT_OF_RANGE`.
pub(crate) const GRPC_MESSAGE_BYTES_MAX: usize = 2 * millrace_types::BATCH_BYTES_MAX as usize;

/// A server with our limits, without services.
pub(crate) fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_WITHIN))
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
}
