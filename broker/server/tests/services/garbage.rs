//! What is no gRPC costs its own connection and nothing else.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Node, message, queue, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const QUEUE: &str = "queue/test/q";

#[tokio::test]
async fn garbage_costs_only_its_own_connection() {
    let node = Node::declaring(vec![queue("q")]).await;
    let random: Vec<u8> = (0..4096_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2])
        .collect();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // A frame whose header says 16 MiB - 1, of a type nobody knows.
    let huge = [0xff, 0xff, 0xff, 0x42, 0xff, 0x7f, 0xff, 0xff, 0xff];
    // Headers that are no HPACK, on stream 1.
    let headers = [0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
    let with_preface = |frame: &[u8]| [PREFACE, &settings, frame].concat();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("random bytes", random),
        (
            "an HTTP/1 request",
            b"GET / HTTP/1.1\r\nhost: node\r\n\r\n".to_vec(),
        ),
        (
            "a TLS greeting",
            vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        ),
        ("a huge frame", with_preface(&huge)),
        ("broken headers", with_preface(&headers)),
        ("nothing", Vec::new()),
    ];
    let addresses = node.running().addresses();
    for address in [addresses.clients, addresses.control] {
        for (what, bytes) in &table {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(bytes).await.unwrap();
            socket.shutdown().await.unwrap();
            // However the node answers, it ends the connection.
            let mut answer = Vec::new();
            let ended = within(socket.read_to_end(&mut answer)).await;
            assert!(answer.len() < 4096, "{what}: {ended:?}");
        }
    }
    node.publish(QUEUE, vec![message("still served")]).await;
}
