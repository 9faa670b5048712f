//! The command line, as users and scripts have it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use millrace_cluster_tests::broker::Broker;
use millrace_cluster_tests::program::{self, Said};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::given::{self, assert_has};

/// A verb against this broker, as it would be typed.
fn millrace(broker: &Broker, line: &str) -> Result<Command> {
    let mut command = program::command(line)?;
    command.arg("--server").arg(broker.url());
    Ok(command)
}

/// What it says to this input.
async fn said(broker: &Broker, line: &str, stdin: &str) -> Result<Said> {
    program::run(millrace(broker, line)?, stdin).await
}

fn json(line: &str) -> Result<Value> {
    Ok(serde_json::from_str(line)?)
}

pub(crate) async fn lines_go_through_a_topic_into_a_queue() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let lines = "{\"kind\":\"orders\",\"who\":{\"name\":\"a\"},\"n\":1}\n\
                 {\"kind\":\"other\",\"who\":{\"name\":\"b\"},\"n\":2}\n\
                 {\"kind\":\"orders\",\"who\":{\"name\":\"a\"},\"n\":3}\n";
    let publish = "publish topic/events --lines --header source=test \
                   --json-key who.name --json-subject /kind";
    let publish = said(&broker, publish, lines).await?;
    assert_eq!(publish.code, Some(0), "{}", publish.stderr);
    assert_has(&publish.stderr, "acknowledged 3, refused 0, unknown 0");

    let consume = said(&broker, "consume queue/orders --count 2 --wait 20s", "");
    let consume = consume.await?;

    assert_eq!(consume.code, Some(0), "{}", consume.stderr);
    assert_eq!(consume.lines.len(), 2);
    let first = json(&consume.lines[0])?;
    assert_eq!(first["key"], "a");
    assert_eq!(first["subject"], "orders");
    assert_eq!(first["headers"]["source"], "test");
    assert_eq!(json(first["payload"].as_str().unwrap_or_default())?["n"], 1);
    assert_eq!(
        json(
            json(&consume.lines[1])?["payload"]
                .as_str()
                .unwrap_or_default()
        )?["n"],
        3
    );
    Ok(())
}

pub(crate) async fn read_starts_where_it_is_told() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let publish = "publish topic/events --lines --key same";
    said(&broker, publish, "zero\none\ntwo\n").await?;
    let read = "read topic/events --format json";
    let all = said(&broker, read, "").await?;
    assert_eq!(all.code, Some(0), "{}", all.stderr);
    let payloads: Vec<_> = all
        .lines
        .iter()
        .map(|line| json(line))
        .collect::<Result<_>>()?;
    assert_eq!(
        payloads.iter().map(|m| &m["payload"]).collect::<Vec<_>>(),
        ["zero", "one", "two"]
    );
    let partition = payloads[0]["partition"].to_string();
    let time = payloads[2]["stored_at"]
        .as_str()
        .unwrap_or_default()
        .to_owned();

    let raw = |from: &str, count: &str| {
        let line = format!("read topic/events --from {from} --count {count} --format raw");
        millrace(&broker, &format!("{line} --partition {partition}"))
    };
    for (from, count, expected) in [
        ("earliest", "2", &["zero", "one"][..]),
        ("1", "9", &["one", "two"]),
        ("latest", "9", &[]),
        ("1970-01-01T00:00:00Z", "1", &["zero"]),
        ("2100-01-01T00:00:00Z", "9", &[]),
    ] {
        let said = program::run(raw(from, count)?, "").await?;
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert_eq!(said.lines, expected, "from {from}");
    }
    let late = program::run(raw(&time, "9")?, "").await?;
    assert_eq!(
        late.lines.last().map(String::as_str),
        Some("two"),
        "from {time}"
    );

    // Following ends when nothing came for long enough.
    let follow = "read topic/events --count 4 --wait 300ms --format raw";
    let follow = said(&broker, follow, "").await?;
    assert_eq!(follow.code, Some(5), "{}", follow.stderr);
    assert_eq!(follow.lines.len(), 3);
    Ok(())
}

pub(crate) async fn rejected_and_retried_messages_become_dead_letters() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    said(&broker, "publish queue/orders --message bad", "").await?;
    let reject = "consume queue/orders --count 1 --reject --note hopeless --wait 20s";
    assert_eq!(said(&broker, reject, "").await?.code, Some(0));
    let dead = "consume queue/default/orders/dead --count 1 --wait 20s";
    let dead = said(&broker, dead, "").await?;
    assert_eq!(dead.code, Some(0), "{}", dead.stderr);
    let death = json(&dead.lines[0])?["death"].clone();
    assert_eq!(death["queue"], "queue/default/orders");
    assert_eq!(death["reason"], "REJECTED");
    assert_eq!(death["note"], "hopeless");

    said(&broker, "publish queue/orders", "fails twice").await?;
    let retry = "consume queue/orders --count 2 --retry --wait 20s";
    let retry = said(&broker, retry, "").await?;
    assert_eq!(retry.code, Some(0), "{}", retry.stderr);
    assert_eq!(json(&retry.lines[1])?["attempts"], 1);
    let dead = "consume queue/default/orders/dead --count 1 --wait 20s";
    let dead = said(&broker, dead, "").await?;
    let letter = json(&dead.lines[0])?;
    assert_eq!(letter["payload"], "fails twice");
    assert_eq!(letter["death"]["reason"], "MAX_DELIVERIES");
    assert_eq!(letter["death"]["attempts"], 2);
    Ok(())
}

pub(crate) async fn list_describe_and_peek_show_what_is_there() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    said(&broker, "publish queue/orders --lines", "one\ntwo\n").await?;
    let list = said(&broker, "list", "").await?;
    let text = list.lines.join("\n");
    for part in [
        "QUEUE",
        "queue/default/orders",
        "queue/default/small",
        "topic/default/events",
    ] {
        assert_has(&text, part);
    }
    let list = said(&broker, "list queues -A -o json", "").await?;
    let list = json(&list.lines.join("\n"))?;
    let orders = list.as_array().into_iter().flatten();
    let orders = orders
        .into_iter()
        .find(|item| item["address"] == "queue/default/orders");
    assert_eq!(
        orders.map(|item| &item["queue"]["ready"]),
        Some(&Value::from(2))
    );

    let describe = said(&broker, "describe queue/orders", "").await?;
    let text = describe.lines.join("\n");
    for part in [
        "queue/default/orders",
        "orders.#",
        "Max deliveries:",
        "topic/default/events",
    ] {
        assert_has(&text, part);
    }
    let describe = said(&broker, "describe topic/events -o json", "").await?;
    let topic = json(&describe.lines.join("\n"))?;
    assert_eq!(topic["topic"]["partitions"], 2);

    for _ in 0..2 {
        let peek = said(&broker, "peek queue/orders", "").await?;
        assert_eq!(peek.lines.len(), 2, "peeking takes nothing");
        assert_eq!(json(&peek.lines[0])?["state"], "READY");
    }
    Ok(())
}

pub(crate) async fn exit_codes_tell_failures_apart() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    let cases: [(&str, i32, &str); 9] = [
        (
            "publish queue/nowhere --message x",
            4,
            "queue/default/nowhere",
        ),
        (
            "consume queue/nowhere --count 1",
            4,
            "queue/default/nowhere",
        ),
        ("read topic/nowhere", 4, "topic/default/nowhere"),
        ("read topic/events --partition 7", 4, "partition 7"),
        ("consume queue/orders --count 1 --wait 100ms", 5, "0 of 1"),
        ("consume topic/events", 2, "topic/default/events"),
        ("read topic/events --from yesterday", 2, "yesterday"),
        ("publish orders --message x", 2, "orders"),
        (
            "publish queue/orders --message x --subject a..b",
            1,
            "subject",
        ),
    ];
    for (arguments, code, part) in cases {
        let said = said(&broker, arguments, "").await?;
        assert_eq!(said.code, Some(code), "{arguments:?}: {}", said.stderr);
        assert_has(&said.stderr, part);
    }
    let nobody = "list --server http://127.0.0.1:1";
    let said = program::run(program::command(nobody)?, "").await?;
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    assert_has(&said.stderr, "http://127.0.0.1:1");

    let yaml = given::TOPOLOGY.replace("partitions: 2", "partitions: -1");
    let said = program::run(program::command("topology check -")?, &yaml).await?;
    assert_eq!(said.code, Some(1));
    assert_has(&said.stderr, "spec.partitions");
    let said = program::run(program::command("topology check -")?, given::TOPOLOGY).await?;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    Ok(())
}

pub(crate) async fn a_closed_pipe_ends_quietly_and_loses_nothing() -> Result<()> {
    let (_node, broker) = given::broker().await?;
    // More than the 64 KiB that a pipe holds: whoever closes it is always noticed.
    let lines: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    said(&broker, "publish queue/orders --lines", &lines).await?;
    let mut consume = millrace(&broker, "consume queue/orders --format raw")?;
    let ended = tokio::task::spawn_blocking(move || -> Result<(i32, String)> {
        use std::io::{BufRead as _, BufReader, Read as _};
        consume
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = consume.spawn()?;
        let mut line = String::new();
        let stdout = child
            .stdout
            .take()
            .map(|stdout| BufReader::with_capacity(1, stdout));
        stdout
            .map(|mut stdout| stdout.read_line(&mut line))
            .transpose()?;
        let mut stderr = String::new();
        child
            .stderr
            .take()
            .map(|mut pipe| pipe.read_to_string(&mut stderr))
            .transpose()?;
        Ok((child.wait()?.code().unwrap_or(-1), stderr))
    });
    let (code, stderr) = ended.await??;
    assert_eq!(code, 0, "{stderr}");
    assert!(!stderr.contains("error"), "{stderr}");

    // What nobody could read was given back; what was taken may have filled the pipe.
    let rest = "consume queue/orders --wait 500ms --format raw";
    let rest = said(&broker, rest, "").await?;
    assert_eq!(rest.code, Some(0), "{}", rest.stderr);
    assert_eq!(rest.lines.last().map(String::as_str), Some("19999"));
    Ok(())
}

pub(crate) async fn a_consumer_that_is_asked_to_end_settles_what_it_took() -> Result<()> {
    use std::io::{BufRead as _, BufReader, Read as _};
    let (_node, broker) = given::broker().await?;
    said(&broker, "publish queue/orders --lines", "one\n").await?;
    let mut consume = millrace(&broker, "consume queue/orders --format raw")?;
    let ended = tokio::task::spawn_blocking(move || -> Result<(Option<i32>, String)> {
        consume
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = consume.spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().map(BufReader::new);
        let mut stdout = stdout.context("stdout is piped")?;
        stdout.read_line(&mut line)?;
        assert_eq!(line, "one\n");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a pid")?, Signal::TERM)?;
        let mut stderr = String::new();
        let pipe = child.stderr.take().context("stderr is piped")?;
        BufReader::new(pipe).read_to_string(&mut stderr)?;
        Ok((child.wait()?.code(), stderr))
    });
    let (code, stderr) = ended.await??;

    assert_eq!(code, Some(0), "{stderr}");
    let rest = "consume queue/orders --wait 500ms --format raw";
    let rest = said(&broker, rest, "").await?;
    assert_eq!(rest.lines, [""; 0]);
    Ok(())
}

pub(crate) async fn publish_outlives_a_restart_of_the_broker() -> Result<()> {
    let (mut node, broker) = given::broker().await?;
    let mut publish = millrace(&broker, "publish queue/orders --lines --timeout 60s")?;
    publish.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = publish.spawn()?;
    let input = child.stdin.take();
    let feed = move |from: u32, mut input: std::process::ChildStdin| {
        use std::io::Write as _;
        tokio::task::spawn_blocking(move || {
            for n in from..from + 100 {
                writeln!(input, "{n}")?;
            }
            std::io::Result::Ok(input)
        })
    };
    let Some(input) = input else {
        anyhow::bail!("stdin is piped");
    };
    let input = feed(0, input).await??;
    broker.kill();
    let input = feed(100, input).await??;
    let broker = node.start().await?;
    drop(feed(200, input).await??);
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_has(&stderr, "acknowledged 300, refused 0, unknown 0");

    let all = "consume queue/orders --wait 1s --format raw";
    let mut numbers: Vec<u32> = Vec::new();
    for line in said(&broker, all, "").await?.lines {
        numbers.push(line.parse()?);
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    Ok(())
}
