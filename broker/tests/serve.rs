//! `millrace serve` as a process: signals, exit codes, what it says, and what a kill leaves behind.
#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test, also in its helpers"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use millrace_proto::v1;
use millrace_proto::v1::publisher_client::PublisherClient;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// What anything here may take.
const LIMIT: Duration = Duration::from_secs(30);

const TOPOLOGY: &str = "\
apiVersion: millrace.dev/v1alpha1
kind: Queue
metadata: {name: q}
spec: {}
";

/// A node's place on disk, and the process that serves from it.
struct Node {
    dir: TempDir,
    child: Option<Child>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("topology.yaml"), TOPOLOGY).unwrap();
        Self { dir, child: None }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// The verb with free ports and its own files.
    fn command(&self) -> Command {
        let mut command = millrace(&["serve"]);
        command
            .args(["--data-dir", &self.path("data")])
            .args(["--topology", &self.path("topology.yaml")])
            .args(["--ready-file", &self.path("ready.json")])
            .args(["--listen", "127.0.0.1:0"])
            .args(["--control-listen", "127.0.0.1:0"])
            .args(["--metrics-listen", "127.0.0.1:0"]);
        command
    }

    fn start(&mut self) {
        let ready = self.dir.path().join("ready.json");
        std::fs::remove_file(&ready).ok();
        let child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        self.child = Some(child);
        eventually("the node serves", || ready.exists());
    }

    fn server(&self) -> String {
        let ready = std::fs::read(self.path("ready.json")).unwrap();
        let ready: Value = serde_json::from_slice(&ready).unwrap();
        format!("http://{}", ready["clients"].as_str().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        let id = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Waits for the end: exit code, `None` when a signal ended it, and what it logged.
    fn ended(&mut self) -> (Option<i32>, String) {
        let mut child = self.child.take().unwrap();
        let mut code = None;
        eventually("the process ends", || {
            code = child.try_wait().unwrap();
            code.is_some()
        });
        let mut log = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        (code.and_then(|status| status.code()), log)
    }

    fn publish(&self, lines: &str) {
        let mut publish = millrace(&["publish", "queue/q", "--lines", "--server", &self.server()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        publish
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        assert!(publish.wait().unwrap().success());
    }

    fn consume(&self, count: &str) -> Vec<String> {
        let server = self.server();
        let arguments = [
            "consume", "queue/q", "--count", count, "--ack", "--format", "raw",
        ];
        let output = millrace(&arguments)
            .args(["--server", &server])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn millrace(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command
        .args(arguments)
        .env_remove("MILLRACE_LOG")
        .stdin(Stdio::null());
    command
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "never: {what}");
        thread::sleep(Duration::from_millis(10)); // polls
    }
}

fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let Output { status, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

#[test]
fn sigterm_drains_and_exits_with_zero() {
    let mut node = Node::new();
    node.start();
    node.publish("a\nb\n");
    node.signal(Signal::TERM);
    let (code, log) = node.ended();
    assert_eq!(code, Some(0), "{log}");
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).expect("a log that is no terminal is JSON");
        assert!(
            entry["message"].is_string() && entry["level"].is_string(),
            "{line}"
        );
    }
    assert!(
        log.contains("\"ready\"") && log.contains("\"stopped\""),
        "{log}"
    );
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let mut node = Node::new();
    node.start();
    node.publish("1\n2\n3\n4\n5\n");
    assert_eq!(node.consume("2"), ["1", "2"]);
    node.signal(Signal::KILL);
    assert_eq!(node.ended().0, None);
    node.start();
    assert_eq!(node.consume("3"), ["3", "4", "5"]);
}

#[tokio::test]
async fn a_second_signal_ends_the_drain_at_once() {
    let mut node = Node::new();
    node.start();
    // A publisher that does not go away holds the drain for its whole time.
    let channel = Channel::from_shared(node.server()).unwrap();
    let mut publisher = PublisherClient::new(channel.connect().await.unwrap());
    let (_sender, frames) = tokio::sync::mpsc::channel::<v1::PublishFrame>(1);
    let stream = publisher
        .publish_stream(ReceiverStream::new(frames))
        .await
        .unwrap();
    let mut replies = stream.into_inner();
    replies.message().await.unwrap();

    node.signal(Signal::INT);
    let told = replies.message().await.unwrap().unwrap();
    assert!(matches!(
        told.reply,
        Some(v1::publish_reply::Reply::Drain(_))
    ));
    let start = Instant::now();
    node.signal(Signal::TERM);
    assert_eq!(node.ended().0, Some(143));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "it waited for the drain"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let node = Node::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = millrace(&["serve", "--data-dir", &node.path("data")]);
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(["--control-listen", "127.0.0.1:0"])
        .args(["--metrics-listen", &address]);
    refused(&mut command, 10, &[&address, "metrics"]);
}

#[test]
fn a_data_directory_in_use_is_named() {
    let mut node = Node::new();
    node.start();
    let data = node.path("data");
    refused(&mut node.command(), 12, &[&data, "in use"]);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let node = Node::new();
    let file = node.dir.path().join("data");
    std::fs::write(&file, "no directory").unwrap();
    refused(&mut node.command(), 11, &[file.to_str().unwrap()]);
}

#[test]
fn a_wrong_topology_file_is_named_with_its_field() {
    let node = Node::new();
    let wrong = TOPOLOGY.replace("spec: {}", "spec: {delivery: {maxInFlight: 0}}");
    std::fs::write(Path::new(&node.path("topology.yaml")), wrong).unwrap();
    let file = node.path("topology.yaml");
    refused(
        &mut node.command(),
        16,
        &[&file, "spec.delivery.maxInFlight"],
    );
}

#[test]
fn a_control_port_for_everybody_is_refused_without_a_token() {
    let node = Node::new();
    let mut command = millrace(&["serve", "--data-dir", &node.path("data")]);
    command.args(["--control-listen", "0.0.0.0:0"]);
    refused(&mut command, 2, &["0.0.0.0:0", "--control-token-file"]);
}
