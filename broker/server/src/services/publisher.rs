//! `Publisher`: puts messages into queues and topics. An answer says what is on disk; a stream that
//! ends early says of its last frame whether it may have happened.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use millrace_proto::v1;
use millrace_proto::v1::publish_reply::Reply;
use millrace_proto::v1::publisher_server::Publisher;
use millrace_types::{Address, Applied, ErrorCode, Refusal};
use tonic::{Request, Response, Status, Streaming};

use super::credit::{Account, Amount, Idle};
use super::deadline;
use super::outbox::{Gone, Outbox, Replies, outbox};
use super::plan::Plan;
use super::{Context, draining};
use crate::convert;
use crate::forward::Origin;
use crate::forward::lanes::{self, Lanes};
use crate::forward::publish::{self, Entry, Target};
use crate::status::status;
use crate::tasks::Kind;
use crate::validate;
use millrace_node::{ANSWER_WAIT_MAX, PUBLISH_WAIT_MAX, PublishOptions};

/// Entries of one request: as many as a batch may have messages.
const ENTRIES_MAX: usize = millrace_types::BATCH_MESSAGES_MAX as usize;
/// Bytes of one request or frame, as [`Amount`] counts them: the largest batch, once.
const FRAME_BYTES_MAX: u64 = millrace_types::BATCH_BYTES_MAX as u64;

/// Frames of one stream under way: a few dozen streams of small frames stay below what a shard
/// takes before it refuses. Beyond, the client's frames wait in the connection's window.
const FRAMES_MAX: usize = 256;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Context);

#[tonic::async_trait]
impl Publisher for Service {
    type PublishStreamStream = Replies<v1::PublishReply>;

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        self.0.admit()?;
        let origin = Origin::of(request.metadata());
        let pace = Pace::of_call(deadline::of(request.metadata()));
        let v1::PublishRequest {
            address,
            messages,
            batches,
            acknowledge,
            partition,
        } = request.into_inner();
        let frame = v1::PublishFrame {
            sequence: 0,
            address,
            messages,
            batches,
            acknowledge,
            partition,
        };
        shape(&frame).map_err(status)?;
        let address = validate::address(&frame.address).map_err(status)?;
        let results = match planned(&self.0, Ok(address), frame, pace).await {
            Ok((plan, target, batches)) => {
                let answers = publish::call(&self.0, &origin, &target, batches).await;
                plan.results(&answers)
            }
            Err(results) => results,
        };
        Ok(Response::new(v1::PublishResponse { results }))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishFrame>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        self.0.admit()?;
        let (outbox, replies) = outbox();
        let (account, grant) = Account::open();
        let origin = Origin::of(request.metadata());
        let stream = Stream {
            lanes: Lanes::new(&self.0, origin),
            context: self.0.clone(),
            outbox,
            account,
            sending: None,
            pending: FuturesOrdered::new(),
            sequence: 0,
        };
        let frames = request.into_inner();
        self.0
            .tasks
            .spawn(Kind::Stream, "publish stream", async move {
                stream.run(grant, frames).await;
                Ok::<(), Refusal>(())
            });
        Ok(Response::new(replies))
    }
}

/// A frame or request as such: what is wrong here concerns all of it.
fn shape(frame: &v1::PublishFrame) -> Result<(), Refusal> {
    let (singles, batches) = (frame.messages.len(), frame.batches.len());
    match (singles, batches) {
        (0, 0) => return Err(validate::invalid("messages", "there are none, nor batches")),
        (0, _) | (_, 0) => {}
        _ => {
            return Err(validate::invalid(
                "batches",
                "go without messages, not beside them",
            ));
        }
    }
    let entries = singles.max(batches);
    if entries > ENTRIES_MAX {
        let text = format!("are {entries}; want at most {ENTRIES_MAX}");
        return Err(validate::invalid("messages", text));
    }
    let bytes = Amount::of(frame).bytes;
    if bytes > FRAME_BYTES_MAX {
        let text = format!("the request has {bytes} bytes; want at most {FRAME_BYTES_MAX}");
        return Err(Refusal::new(ErrorCode::MessageTooLarge, text)
            .with("limit", FRAME_BYTES_MAX.to_string())
            .with("actual", bytes.to_string()));
    }
    Ok(())
}

/// How long a publish may take.
#[derive(Clone, Copy)]
struct Pace {
    patience: Duration,
    answer_within: Duration,
}

impl Pace {
    /// A stream has no deadline.
    const OF_STREAM: Self = Self {
        patience: PUBLISH_WAIT_MAX,
        answer_within: ANSWER_WAIT_MAX,
    };

    /// Leaves a call with a deadline time for what comes after, and for the answer: who gives up
    /// is told what that means.
    fn of_call(left: Option<Duration>) -> Self {
        left.map_or(Self::OF_STREAM, |left| Self {
            patience: left / 2,
            answer_within: left / ANSWER_PARTS * (ANSWER_PARTS - 1),
        })
    }
}

/// A call is answered when one of so many parts of its time is left.
const ANSWER_PARTS: u32 = 10;

/// A decision under way: one result for each entry, and why the stream cannot go on after it, for
/// what follows would overtake something.
type Decision = Pin<Box<dyn Future<Output = (Vec<v1::PublishResult>, Option<Refusal>)> + Send>>;

/// What to send where, if anything; otherwise one result for each entry.
async fn planned(
    context: &Context,
    address: Result<Address, Refusal>,
    frame: v1::PublishFrame,
    pace: Pace,
) -> Result<(Plan, Target, Vec<Entry>), Vec<v1::PublishResult>> {
    let entries = frame.messages.len() + frame.batches.len();
    let checked = convert::acknowledge(frame.acknowledge);
    let checked = address.and_then(|address| Ok((address, checked?)));
    let (address, acknowledge) = match checked {
        Ok(checked) => checked,
        Err(refusal) => return Err(Plan::refusing(entries, &refusal).results(&[])),
    };
    if let Err(refusal) = find(context, &address, frame.partition).await {
        return Err(Plan::refusing(entries, &refusal).results(&[]));
    }
    let view = context.broker.catalogue();
    let view = view.borrow().clone();
    let mut plan = Plan::new(&view, &address, &frame);
    let batches = plan.take_batches();
    if batches.is_empty() {
        return Err(plan.results(&[]));
    }
    let options = PublishOptions {
        patience: pace.patience,
        answer_within: pace.answer_within,
        acknowledge,
    };
    let target = Target {
        address,
        options,
        acknowledge: frame.acknowledge,
    };
    Ok((plan, target, batches))
}

/// Makes sure that what is unknown here is unknown to the cluster.
async fn find(context: &Context, address: &Address, place: Option<u32>) -> Result<(), Refusal> {
    match (address, place) {
        // Takes no publishes whether it is there or not.
        (Address::DeadLetter { .. }, _) => Ok(()),
        (Address::Topic { .. }, Some(place)) => context.broker.find_partition(address, place).await,
        _ => context.broker.find(address).await,
    }
}

/// Sends a frame's batches where they are led, at the pace there, and gives the decision to come:
/// frames sent one after the other keep their order without waiting for each other's decision.
async fn send(
    context: Context,
    lanes: Lanes,
    address: Result<Address, Refusal>,
    frame: v1::PublishFrame,
) -> Decision {
    match planned(&context, address, frame, Pace::OF_STREAM).await {
        Ok((plan, target, batches)) => {
            let answers = lanes.send(target, batches).await;
            Box::pin(async move {
                let answers = answers.await;
                let broken = answers.iter().find(|answer| lanes::breaks(answer));
                let broken = broken.and_then(|answer| answer.as_ref().err().cloned());
                (plan.results(&answers), broken)
            })
        }
        Err(results) => Box::pin(async move { (results, None) }),
    }
}

/// Why a stream ends of which something was not stored: what was not decided was not taken.
fn cut(why: &Refusal) -> Refusal {
    let text = format!(
        "the stream ends, so that nothing overtakes: {}",
        why.message
    );
    Refusal {
        code: ErrorCode::NotLeader,
        message: text,
        applied: Applied::No,
        ..why.clone()
    }
}

/// The frame that waits to be sent, once it is; never if none does. Cancel-safe.
async fn sending(frame: &mut Option<Pin<Box<dyn Future<Output = Sent> + Send>>>) -> Sent {
    match frame {
        Some(frame) => frame.await,
        None => std::future::pending().await,
    }
}

/// One client's pipelined stream.
struct Stream {
    lanes: Lanes,
    context: Context,
    outbox: Outbox<v1::PublishReply>,
    account: Account,
    /// The last frame taken, while it waits for the broker to have room: no other is taken then,
    /// and those that follow wait in the connection's window.
    sending: Option<Pin<Box<dyn Future<Output = Sent> + Send>>>,
    pending: FuturesOrdered<Pin<Box<dyn Future<Output = Decided> + Send>>>,
    /// Of the last frame taken.
    sequence: u64,
}

/// A frame on its way.
struct Sent {
    sequence: u64,
    decision: Decision,
    cost: Amount,
}

struct Decided {
    sequence: u64,
    results: Vec<v1::PublishResult>,
    broken: Option<Refusal>,
    cost: Amount,
}

impl Stream {
    async fn run(mut self, grant: v1::PublishCredit, frames: Streaming<v1::PublishFrame>) {
        match self.serve(grant, frames).await {
            Ok(Ok(())) | Err(Gone) => {}
            Ok(Err(refusal)) => self.outbox.fail(refusal).await,
        }
    }

    /// Serves until the client has ended its frames and all are decided, or until something is
    /// wrong: then no frame is taken any more, and the error follows the last decision.
    async fn serve(
        &mut self,
        grant: v1::PublishCredit,
        mut frames: Streaming<v1::PublishFrame>,
    ) -> Result<Result<(), Refusal>, Gone> {
        self.send(Reply::Credit(grant)).await?;
        let stop = self.context.tasks.stop().clone();
        let mut told = false;
        let mut end: Option<Result<(), Refusal>> = None;
        loop {
            if self.is_idle()
                && let Some(end) = end
            {
                return Ok(end);
            }
            let room = self.pending.len() < FRAMES_MAX && self.sending.is_none();
            let listening = end.is_none() && room;
            tokio::select! {
                biased;
                () = stop.ended() => return Ok(Err(self.undecided())),
                () = self.outbox.closed() => return Err(Gone),
                () = stop.draining(), if !told => {
                    told = true;
                    let reason = "the node is going down".to_owned();
                    self.send(Reply::Drain(v1::Drain { reason })).await?;
                }
                Some(decided) = self.pending.next(), if !self.pending.is_empty() => {
                    let broken = decided.broken.clone();
                    self.tell(decided).await?;
                    if let (None, Some(why)) = (&end, broken) {
                        end = Some(Err(cut(&why)));
                    }
                }
                sent = sending(&mut self.sending) => self.sent(sent),
                frame = frames.message(), if listening => end = self.take(frame),
            }
        }
    }

    /// Takes what came from the client; `Some` when it is the last thing taken.
    fn take(
        &mut self,
        frame: Result<Option<v1::PublishFrame>, Status>,
    ) -> Option<Result<(), Refusal>> {
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return Some(Ok(())),
            Err(status) => return Some(Err(super::unreadable(&status))),
        };
        let cost = Amount::of(&frame);
        if let Err(refusal) = self.check(&frame, cost) {
            let sequence = frame.sequence.to_string();
            return Some(Err(refusal.with("sequence", sequence)));
        }
        let sequence = frame.sequence;
        self.sequence = sequence;
        let address = validate::address(&frame.address);
        let (context, lanes) = (self.context.clone(), self.lanes.clone());
        self.sending = Some(Box::pin(async move {
            let decision = send(context, lanes, address, frame).await;
            Sent {
                sequence,
                decision,
                cost,
            }
        }));
        None
    }

    fn sent(&mut self, sent: Sent) {
        self.sending = None;
        let Sent {
            sequence,
            decision,
            cost,
        } = sent;
        self.pending.push_back(Box::pin(async move {
            let (results, broken) = decision.await;
            Decided {
                sequence,
                results,
                broken,
                cost,
            }
        }));
    }

    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.sending.is_none()
    }

    fn check(&mut self, frame: &v1::PublishFrame, cost: Amount) -> Result<(), Refusal> {
        let expected = self.sequence + 1;
        if frame.sequence != expected {
            let text = format!("is {}; want {expected}", frame.sequence);
            return Err(validate::invalid("sequence", text));
        }
        shape(frame)?;
        self.account.spend(cost)
    }

    async fn tell(&mut self, decided: Decided) -> Result<(), Gone> {
        let Decided {
            sequence,
            results,
            cost,
            broken: _,
        } = decided;
        let decision = v1::PublishDecision { sequence, results };
        self.send(Reply::Decision(decision)).await?;
        let idle = if self.is_idle() { Idle::Yes } else { Idle::No };
        match self.account.decide(cost, idle) {
            Some(grant) => self.send(Reply::Credit(grant)).await,
            None => Ok(()),
        }
    }

    /// Why the stream ends with frames not decided: they may happen yet.
    fn undecided(&self) -> Refusal {
        if self.is_idle() {
            draining()
        } else {
            let frames = self.pending.len() + usize::from(self.sending.is_some());
            draining().unknown().with("frames", frames.to_string())
        }
    }

    async fn send(&mut self, reply: Reply) -> Result<(), Gone> {
        self.outbox
            .send(v1::PublishReply { reply: Some(reply) })
            .await
    }
}
