//! Messages that say which they are: their body is made from their number, so that a mixed-up or
//! damaged one is found out. For cases that publish, break something, and count.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use millrace_client::{
    Client, Error, Message, Position, Publisher, PublisherOptions, ReadOptions, ReceiveOptions,
    Settle, Settlement,
};

/// How long something that must come may take.
const SOON: Duration = Duration::from_secs(60);
/// Messages taken at a time.
const PAGE: u32 = 100;

/// A number's body.
#[must_use]
pub fn body(number: u64, bytes: usize) -> Vec<u8> {
    let mut body = format!("{number} ").into_bytes();
    let letters = (0_u64..).map(|n| b'a' + (number.wrapping_mul(31).wrapping_add(n) % 26) as u8);
    body.extend(letters.take(bytes.saturating_sub(body.len())));
    body
}

/// The number of a body, when it is whole.
#[must_use]
pub fn number(found: &[u8]) -> Option<u64> {
    let digits = found.split(|byte| *byte == b' ').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (body(number, found.len()) == found).then_some(number)
}

/// Publishes numbered messages and remembers what was said of each.
pub struct Book {
    publisher: Publisher,
    address: String,
    bytes: usize,
    next: u64,
    /// Offset of each acknowledged number.
    pub acknowledged: BTreeMap<u64, u64>,
    /// Sent, and nobody knows.
    pub unknown: Vec<u64>,
    /// What was said of messages that are nowhere.
    refused: BTreeMap<u64, Error>,
}

impl Book {
    /// For a queue, or a topic with one partition; each message has so many bytes.
    #[must_use]
    pub fn new(client: &Client, address: &str, bytes: usize) -> Self {
        let options = PublisherOptions {
            give_up_after: Some(Duration::ZERO),
            ..PublisherOptions::default()
        };
        Self {
            publisher: client.publisher(address, options),
            address: address.to_owned(),
            bytes,
            next: 0,
            acknowledged: BTreeMap::new(),
            unknown: Vec::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Publishes the next message.
    ///
    /// # Errors
    /// As the broker says.
    pub async fn publish(&mut self) -> Result<(), Error> {
        let number = self.next;
        self.next += 1;
        let message = Message {
            payload: body(number, self.bytes).into(),
            ..Message::default()
        };
        match self.publisher.publish(message).await {
            Ok(ack) => {
                // It is synced, so it has a place.
                self.acknowledged
                    .insert(number, ack.offset.unwrap_or_default());
                Ok(())
            }
            Err(error) => {
                if error.applied == millrace_client::Applied::Unknown {
                    self.unknown.push(number);
                } else {
                    self.refused.insert(number, error.clone());
                }
                Err(error)
            }
        }
    }

    /// Publishes until the broker refuses with `reason`; other refusals that pass are waited out.
    ///
    /// # Errors
    /// It refuses for another reason, or takes more than `most`.
    pub async fn publish_until(&mut self, reason: &str, most: usize) -> Result<Error> {
        for _ in 0..most {
            match self.publish().await {
                Err(error) if error.reason == reason => return Ok(error),
                Err(error) if error.is_retryable() => tokio::task::yield_now().await,
                Err(error) => bail!("wanted {reason}: {error:?}"),
                Ok(()) => {}
            }
        }
        bail!("{most} messages, and no {reason}")
    }

    /// Publishes as soon as the broker takes messages again.
    ///
    /// # Errors
    /// It does not, in time.
    pub async fn publish_when_possible(&mut self) -> Result<()> {
        let mut last = None;
        let waited = crate::wait::until("a publish to be taken", SOON, async || {
            last = self.publish().await.err();
            Ok(last.is_none().then_some(()))
        })
        .await;
        waited.with_context(|| format!("the last refusal: {last:?}"))
    }

    /// Takes and accepts everything in the queue; fails unless each acknowledged message came once,
    /// as it was, and nothing came that nobody sent.
    ///
    /// # Errors
    /// As said.
    pub async fn take_all(&mut self, client: &Client) -> Result<()> {
        while !self.acknowledged.is_empty() {
            let taken = self.take_some(client, SOON).await??;
            ensure!(taken > 0, "lost: {:?}", self.acknowledged.keys());
        }
        Ok(())
    }

    /// Takes and accepts some of what is in the queue, and forgets it; returns how many.
    ///
    /// # Errors
    /// What came is damaged, came again, or was never sent; or as the broker says.
    pub async fn take_some(
        &mut self,
        client: &Client,
        wait: Duration,
    ) -> Result<Result<usize, Error>> {
        let options = ReceiveOptions {
            messages_max: PAGE,
            wait,
            ..ReceiveOptions::default()
        };
        let received = match client.receive(&self.address, options).await {
            Ok(received) => received,
            Err(error) => return Ok(Err(error)),
        };
        let mut settlements = Vec::new();
        for one in received {
            let number = number(&one.message.payload).context("a damaged message")?;
            match self.acknowledged.remove(&number) {
                Some(offset) => ensure!(offset == one.offset, "{number} moved"),
                None if self.unknown.contains(&number) => {}
                None => bail!(
                    "{number} came as hand-out {}: accepted before, or refused: {:?}",
                    one.acquired,
                    self.refused.get(&number)
                ),
            }
            let (tag, settle) = (one.tag, Settle::Accept);
            settlements.push(Settlement { tag, settle });
        }
        for answer in client.settle(&self.address, &settlements).await? {
            answer?;
        }
        Ok(Ok(settlements.len()))
    }

    /// Reads the topic's partition 0 from its start; fails unless each acknowledged message is
    /// there.
    ///
    /// # Errors
    /// As said, or as the broker says.
    pub async fn read_all(&self, client: &Client) -> Result<Result<(), Error>> {
        let (mut from, mut found) = (0, BTreeMap::new());
        loop {
            let options = ReadOptions {
                partition: 0,
                from: Position::Offset(from),
                messages_max: PAGE,
                bytes_max: 0,
            };
            let answer = match client.reader(self.address.clone()).read(options).await {
                Ok(answer) => answer,
                Err(error) => return Ok(Err(error)),
            };
            for one in &answer.messages {
                let number = number(&one.message.payload).context("a damaged message")?;
                found.insert(number, one.offset);
            }
            if answer.next >= answer.available.end {
                break;
            }
            from = answer.next;
        }
        for (number, offset) in &self.acknowledged {
            ensure!(found.get(number) == Some(offset), "lost: {number}");
        }
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_its_number_and_a_damaged_one_does_not() {
        let mut whole = body(42, 1000);
        assert_eq!((whole.len(), number(&whole)), (1000, Some(42)));
        whole[500] ^= 1;
        assert_eq!(number(&whole), None);
    }
}
