//! Frames that say what one before them in their stream said: idle shards have the same heartbeats
//! and answers every time, so that those of thousands of shards take a few bytes.
//!
//! Decides what is remembered: small frames of the lane of votes, the ones used last. Promises that
//! both sides agree, since a stream loses and reorders nothing, and both begin anew with the next
//! one. Bounded in frames and bytes on both sides.

use millrace_replica::{Lane, ShardMessage};
use prost::Message as _;

use crate::convert::{Frame, Sealed};
use crate::error::{Reason, Refusal};

/// Frames remembered for a stream: heartbeats and answers, of some workers each, alone and
/// together, as they happen to meet.
const PLACES: usize = 16;
/// A frame that is remembered, encoded: more than a thousand heartbeats. A node that leads more
/// shards sends the rest whole, and both sides remember a megabyte at most.
const REMEMBERED_BYTES_MAX: usize = 64 << 10;
/// What a frame's number adds to it.
const NUMBER_BYTES: usize = 2;

/// What a sender has said in a stream.
#[derive(Debug)]
pub(crate) struct Said {
    lane: Lane,
    /// By place; the tick of its last use says which is given up first.
    places: Vec<(u64, Vec<Sealed>)>,
    uses: u64,
}

impl Said {
    /// Nothing yet.
    pub(crate) const fn new(lane: Lane) -> Self {
        Self {
            lane,
            places: Vec::new(),
            uses: 0,
        }
    }

    /// The frame as it is to be sent: itself, or the number of one that said the same.
    pub(crate) fn shorten(&mut self, mut frame: Frame) -> Frame {
        let is_short = || frame.encoded_len() <= REMEMBERED_BYTES_MAX - NUMBER_BYTES;
        if self.lane != Lane::Votes || frame.messages.is_empty() || !is_short() {
            return frame;
        }
        self.uses += 1;
        let same = |(_, said): &(u64, Vec<_>)| *said == frame.messages;
        if let Some(place) = self.places.iter().position(same) {
            self.places[place].0 = self.uses;
            frame.messages = Vec::new();
            frame.repeat = number(place);
            return frame;
        }
        let place = self.free();
        let said = (self.uses, frame.messages.clone());
        if place == self.places.len() {
            self.places.push(said);
        } else {
            self.places[place] = said;
        }
        frame.remember = number(place);
        frame
    }

    /// The place for what is new.
    fn free(&self) -> usize {
        if self.places.len() < PLACES {
            return self.places.len();
        }
        let places = self.places.iter().enumerate();
        let oldest = places.min_by_key(|(_, (used, _))| *used);
        oldest.map_or(0, |(place, _)| place)
    }
}

/// What a frame says of itself; 0 is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    /// Its messages are to be remembered here.
    pub(crate) remember: u32,
    /// It says what is remembered here.
    pub(crate) repeat: u32,
}

impl Numbers {
    /// A frame's.
    pub(crate) const fn of(frame: &Frame) -> Self {
        Self {
            remember: frame.remember,
            repeat: frame.repeat,
        }
    }
}

/// What a receiver has heard in a stream.
#[derive(Debug, Default)]
pub(crate) struct Heard([Option<Vec<ShardMessage>>; PLACES]);

impl Heard {
    /// What a frame of so many bytes says, given its numbers and the messages it has itself.
    ///
    /// # Errors
    /// When it repeats what was not said, or wants more remembered than it may.
    pub(crate) fn resolve(
        &mut self,
        numbers: Numbers,
        frame_bytes: usize,
        messages: Vec<ShardMessage>,
    ) -> Result<Vec<ShardMessage>, Refusal> {
        let Numbers { remember, repeat } = numbers;
        let refused = |text: &str| Refusal::new(Reason::Protocol, text);
        if repeat != 0 {
            let heard = place(repeat).and_then(|place| self.0[place].clone());
            return match heard {
                Some(heard) if messages.is_empty() && remember == 0 => Ok(heard),
                _ => Err(refused("a frame repeats what was not said")),
            };
        }
        if remember != 0 {
            let place = place(remember).filter(|_| frame_bytes <= REMEMBERED_BYTES_MAX);
            let place = place.ok_or_else(|| refused("a frame is not to be remembered"))?;
            self.0[place] = Some(messages.clone());
        }
        Ok(messages)
    }
}

/// On the wire, places count from 1: 0 is none.
fn number(place: usize) -> u32 {
    u32::try_from(place + 1).unwrap_or_default()
}

fn place(number: u32) -> Option<usize> {
    let place = usize::try_from(number).ok()?.checked_sub(1)?;
    (place < PLACES).then_some(place)
}

#[cfg(test)]
mod tests {
    use millrace_replica::{Body, Message, Payload, Round};
    use millrace_types::{LogIndex, ReplicaId, ShardId, Term};

    use super::*;
    use crate::convert::{sealed, unpacked};

    /// A heartbeat of each of these shards.
    fn beats(shards: std::ops::Range<u32>, commit: u64) -> Vec<ShardMessage> {
        let beat = |shard| ShardMessage {
            shard: ShardId::new(shard),
            body: Body::Raft(Message {
                from: ReplicaId::new(1 << 60),
                to: ReplicaId::new(1 << 61),
                term: Term::new(7),
                payload: Payload::Heartbeat {
                    commit: LogIndex::new(commit),
                    round: Round(0),
                },
            }),
        };
        shards.map(beat).collect()
    }

    /// Sends and receives; what came, and how long it was on its way.
    fn pass(said: &mut Said, heard: &mut Heard, sent: &[ShardMessage]) -> usize {
        let packed = sent.iter().cloned().map(Into::into).collect();
        let frame = said.shorten(sealed(None, packed));
        let bytes = frame.encoded_len();
        let numbers = Numbers::of(&frame);
        let messages = frame.messages.into_iter().map(|m| unpacked(m).unwrap());
        let came = heard.resolve(numbers, bytes, messages.collect()).unwrap();
        assert_eq!(came, sent);
        bytes
    }

    #[test]
    fn what_was_said_before_takes_two_bytes_however_much_it_was() {
        let (mut said, mut heard) = (Said::new(Lane::Votes), Heard::default());
        let (few, many) = (beats(1..5, 9), beats(1..500, 9));
        assert!(pass(&mut said, &mut heard, &many) > 10_000);
        assert!(pass(&mut said, &mut heard, &few) > 100);
        for _ in 0..3 {
            assert_eq!(pass(&mut said, &mut heard, &many), 2);
            assert_eq!(pass(&mut said, &mut heard, &few), 2);
        }
        assert!(pass(&mut said, &mut heard, &beats(1..5, 10)) > 100);
    }

    #[test]
    fn what_was_not_used_for_longest_is_forgotten_first() {
        let (mut said, mut heard) = (Said::new(Lane::Votes), Heard::default());
        let frames = (0..=PLACES as u64).map(|commit| beats(1..3, commit));
        let frames: Vec<_> = frames.collect();
        for frame in &frames[..PLACES] {
            pass(&mut said, &mut heard, frame);
        }
        // The first is used again, so that the second one goes.
        assert_eq!(pass(&mut said, &mut heard, &frames[0]), 2);
        pass(&mut said, &mut heard, &frames[PLACES]);
        assert_eq!(pass(&mut said, &mut heard, &frames[0]), 2);
        assert!(pass(&mut said, &mut heard, &frames[1]) > 2);
    }

    #[test]
    fn other_lanes_and_long_frames_go_as_they_are() {
        let (mut appends, mut heard) = (Said::new(Lane::Appends), Heard::default());
        let few = beats(1..5, 9);
        let whole = pass(&mut appends, &mut heard, &few);
        assert_eq!(pass(&mut appends, &mut heard, &few), whole);
        let mut said = Said::new(Lane::Votes);
        let long = beats(1..4_000, 9);
        let whole = pass(&mut said, &mut heard, &long);
        assert!(whole > REMEMBERED_BYTES_MAX);
        assert_eq!(pass(&mut said, &mut heard, &long), whole);
    }

    #[test]
    fn a_frame_that_repeats_what_was_not_said_is_refused() {
        let mut heard = Heard::default();
        let mut hear = |remember, repeat, bytes, messages| {
            let numbers = Numbers { remember, repeat };
            heard.resolve(numbers, bytes, messages)
        };
        let beyond = u32::try_from(PLACES + 1).unwrap();
        for repeat in [1, beyond, u32::MAX] {
            hear(0, repeat, 2, Vec::new()).unwrap_err();
        }
        hear(beyond, 0, 90, beats(1..3, 1)).unwrap_err();
        hear(1, 0, REMEMBERED_BYTES_MAX + 1, beats(1..3, 1)).unwrap_err();
        hear(1, 0, 90, beats(1..3, 1)).unwrap();
        hear(0, 1, 90, beats(1..3, 1)).unwrap_err();
        hear(2, 1, 4, Vec::new()).unwrap_err();
        assert_eq!(hear(0, 1, 2, Vec::new()), Ok(beats(1..3, 1)));
    }
}
