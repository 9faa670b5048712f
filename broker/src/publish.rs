//! `millrace publish`: sends one message or every line of stdin, once, across restarts of the
//! broker.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use millrace_client::{Ack, Applied, Error, Header, Message, PublisherOptions, text_header};
use millrace_types::Address;
use serde_json::Value;

use crate::cli::duration;
use crate::connection::Connection;
use crate::exit::Failure;
use crate::input::{self, Path};
use crate::interrupt::Interrupts;
use crate::target::Target;
use crate::{call, tell};

/// Messages whose outcome is due: bounds the memory for their handles.
const PENDING_MAX: usize = 100_000;
/// Errors that are told one by one; the others are counted.
const ERRORS_TOLD_MAX: u64 = 10;
/// A progress bar that moves more often only costs time.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Send each line of stdin as a message, instead of all of stdin as one
    #[arg(long, conflicts_with = "message")]
    lines: bool,
    /// Send this text
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Key: messages of a topic with equal keys keep their order
    #[arg(long, conflicts_with = "json_key")]
    key: Option<String>,
    /// Subject: words joined by dots, matched by the patterns of bindings
    #[arg(long, conflicts_with = "json_subject")]
    subject: Option<String>,
    /// Header, matched by bindings; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<Header>,
    /// Take the key from this place of each JSON document: a.b.c or /a/b/c. Empty where there is
    /// none
    #[arg(long, value_name = "PATH", value_parser = Path::parse)]
    json_key: Option<Path>,
    /// Take the subject from this place of each JSON document; given several times, the parts are
    /// joined by dots. What a subject cannot have becomes _
    #[arg(long, value_name = "PATH", value_parser = Path::parse)]
    json_subject: Vec<Path>,
    /// Dedup id: published again under it within the window that the queue or topic declares, the
    /// message is stored once. At most 128 bytes
    #[arg(long, value_name = "ID", conflicts_with_all = ["json_dedup_id", "lines"])]
    dedup_id: Option<String>,
    /// Take the dedup id from this place of each JSON document; none where there is none
    #[arg(long, value_name = "PATH", value_parser = Path::parse)]
    json_dedup_id: Option<Path>,
    /// Content type, such as application/json
    #[arg(long, value_name = "TYPE", default_value = "")]
    content_type: String,
    /// How long to keep trying while the server is away or restarts
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once('=').ok_or("not of the form NAME=VALUE")?;
    Ok(text_header(name, value))
}

/// Publishes.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let address = args.target.address()?;
    let client = args.connection.client()?;
    call::reach(&client, &address, args.timeout).await?;
    let options = PublisherOptions {
        give_up_after: Some(args.timeout),
        ..PublisherOptions::default()
    };
    let publisher = client.publisher(address.to_string(), options);
    let mut tally = Tally::new(&address);
    if args.lines {
        lines(&args, &publisher, &mut tally).await?;
    } else {
        let payload = match &args.message {
            Some(text) => text.clone().into_bytes(),
            None => input::whole().map_err(|error| Failure::local("cannot read stdin", &error))?,
        };
        let outcome = match message(&args, payload) {
            Ok(message) => publisher.publish(message).await,
            Err(error) => Err(error),
        };
        tally.count(None, outcome);
    }
    tally.finish(client.url())
}

async fn lines(
    args: &Args,
    publisher: &millrace_client::Publisher,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    let mut lines = input::lines();
    let mut pending = FuturesUnordered::new();
    let mut number = 0_u64;
    let mut reading = true;
    while reading || !pending.is_empty() {
        tokio::select! {
            biased;
            () = interrupts.next() => {
                if !reading {
                    return Err(Failure::interrupted(tally.summary()));
                }
                reading = false;
            }
            Some((number, outcome)) = pending.next(), if !pending.is_empty() => {
                tally.count(Some(number), outcome);
                // Whatever follows would fail in the same way, after the same wait.
                reading &= tally.unreachable.is_none();
            }
            line = lines.recv(), if reading && pending.len() < PENDING_MAX => {
                let Some(line) = line else {
                    reading = false;
                    continue;
                };
                number += 1;
                let doing = format!("cannot read line {number} of stdin");
                let line = line.map_err(|error| Failure::local(&doing, &error));
                let sent = match message(args, line?) {
                    Ok(message) => publisher.send(&message).await,
                    Err(error) => Err(error),
                };
                match sent {
                    Ok(sent) => pending.push(async move { (number, sent.await) }),
                    Err(error) => tally.count(Some(number), Err(error)),
                }
            }
        }
    }
    Ok(())
}

/// The message of one payload, with key and subject as asked for.
fn message(args: &Args, payload: Vec<u8>) -> Result<Message, Error> {
    let mut message = Message {
        key: args.key.clone().unwrap_or_default(),
        subject: args.subject.clone().unwrap_or_default(),
        headers: args.header.clone(),
        dedup_id: args.dedup_id.clone().unwrap_or_default(),
        content_type: args.content_type.clone(),
        ..Message::default()
    };
    let paths = [&args.json_key, &args.json_dedup_id];
    if paths.into_iter().any(Option::is_some) || !args.json_subject.is_empty() {
        let document: Value = serde_json::from_slice(&payload).map_err(|error| Error {
            reason: "NOT_JSON".to_owned(),
            message: format!("not a JSON document: {error}"),
            applied: Applied::No,
            retry_after: None,
            code: millrace_client::Code::InvalidArgument,
            metadata: Default::default(),
        })?;
        if let Some(path) = &args.json_key {
            message.key = path.text(&document).unwrap_or_default();
        }
        if let Some(path) = &args.json_dedup_id {
            message.dedup_id = path.text(&document).unwrap_or_default();
        }
        if !args.json_subject.is_empty() {
            message.subject = input::subject(&args.json_subject, &document);
        }
    }
    message.payload = payload.into();
    Ok(message)
}

/// What became of the messages, counted and shown.
struct Tally {
    address: String,
    acknowledged: u64,
    /// Of those: were stored before.
    duplicates: u64,
    refused: u64,
    unknown: u64,
    unreachable: Option<Error>,
    /// Draws nothing unless stderr is a terminal.
    progress: ProgressBar,
}

impl Tally {
    fn new(address: &Address) -> Self {
        let progress = ProgressBar::new_spinner();
        // Without its template the bar looks different, that is all.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({per_sec:0}, {elapsed})")
        {
            progress.set_style(style);
        }
        progress.enable_steady_tick(PROGRESS_EVERY);
        Self {
            address: address.to_string(),
            acknowledged: 0,
            duplicates: 0,
            refused: 0,
            unknown: 0,
            unreachable: None,
            progress,
        }
    }

    fn count(&mut self, line: Option<u64>, outcome: Result<Ack, Error>) {
        match outcome {
            Ok(ack) => {
                self.acknowledged += 1;
                self.duplicates += u64::from(ack.duplicate);
            }
            Err(error) => self.fail(line, error),
        }
        self.progress.set_position(self.acknowledged);
        if !self.progress.is_hidden() {
            self.progress.set_message(self.summary());
        }
    }

    fn fail(&mut self, line: Option<u64>, error: Error) {
        match error.applied {
            Applied::No => self.refused += 1,
            Applied::Yes => self.acknowledged += 1,
            Applied::Unknown => self.unknown += 1,
        }
        if self.refused + self.unknown <= ERRORS_TOLD_MAX && !error.is_unreachable() {
            let line = line
                .map(|line| format!("line {line}: "))
                .unwrap_or_default();
            let error = error.to_string();
            // Most refusals name the object themselves.
            let object = match error.contains(&self.address) {
                true => String::new(),
                false => format!("{}: ", self.address),
            };
            let text = format!("error: {object}{line}{error}");
            self.progress.suspend(|| tell::line(text));
        }
        if error.is_unreachable() {
            self.unreachable = Some(error);
        }
    }

    fn summary(&self) -> String {
        let duplicates = match self.duplicates {
            0 => String::new(),
            count => format!(" ({count} stored before)"),
        };
        format!(
            "acknowledged {}{duplicates}, refused {}, unknown {}",
            self.acknowledged, self.refused, self.unknown
        )
    }

    fn finish(self, server: &str) -> Result<(), Failure> {
        self.progress.finish_and_clear();
        tell::line(self.summary());
        match self.unreachable {
            Some(error) => Err(Failure::call(self.address, server, &error)),
            None if self.refused + self.unknown > 0 => Err(Failure::refused()),
            None => Ok(()),
        }
    }
}
