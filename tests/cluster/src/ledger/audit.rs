//! Closing the books.

use std::collections::BTreeMap;

use super::{At, Copies, Ending, Id, Ledger, Place, Publish, Story, Verdict};

/// Problems told; the counts have all of them.
const PROBLEMS_MAX: usize = 50;

/// Compares what was acknowledged with what was seen.
pub(super) fn audit(ledger: &Ledger) -> Verdict {
    let mut audit = Audit {
        ledger,
        verdict: Verdict::default(),
        copies: copies(ledger),
    };
    audit.messages();
    for (place, stories) in &ledger.places {
        for (&at, story) in stories {
            audit.origin(place, at, story);
            audit.history(place, at, story);
        }
    }
    audit.lanes();
    audit.deaths();
    audit.verdict
}

struct Audit<'a> {
    ledger: &'a Ledger,
    verdict: Verdict,
    /// Where each message is in each place, dead letters apart.
    copies: BTreeMap<(&'a str, Id), Vec<At>>,
}

fn copies(ledger: &Ledger) -> BTreeMap<(&str, Id), Vec<At>> {
    let mut copies: BTreeMap<(&str, Id), Vec<At>> = BTreeMap::new();
    for (place, stories) in &ledger.places {
        for (&at, story) in stories {
            if let (Some(id), None) = (story.id, &story.death) {
                copies.entry((place, id)).or_default().push(at);
            }
        }
    }
    copies
}

impl Audit<'_> {
    fn problem(&mut self, text: String) {
        if self.verdict.problems.len() < PROBLEMS_MAX {
            self.verdict.problems.push(text);
        }
    }

    /// Every acknowledged message is where it has to be, and as often as it may be.
    fn messages(&mut self) {
        let ledger = self.ledger;
        for (&id, sent) in &ledger.sent {
            self.verdict.unknown += u64::from(sent.publish == Publish::Unknown);
            for place in &sent.plan.places {
                let at = self
                    .copies
                    .get(&(place.as_str(), id))
                    .cloned()
                    .unwrap_or_default();
                if sent.publish == Publish::Acknowledged {
                    self.verdict.acknowledged += 1;
                    if at.is_empty() {
                        self.verdict.lost += 1;
                        self.problem(format!("lost: {id} was acknowledged and is not in {place}"));
                    } else {
                        self.verdict.delivered += 1;
                    }
                }
                let extra = u64::try_from(at.len().saturating_sub(1)).unwrap_or(u64::MAX);
                match sent.plan.copies {
                    Copies::OneOrMore => self.verdict.repeated += extra,
                    Copies::One if extra > 0 => {
                        self.verdict.duplicated += extra;
                        self.problem(format!("duplicated: {id} is in {place} at {at:?}"));
                    }
                    Copies::One => {}
                }
            }
        }
    }

    /// Whatever is in a place was sent there.
    fn origin(&mut self, place: &Place, at: At, story: &Story) {
        let sent = story.id.and_then(|id| self.ledger.sent.get(&id));
        let Some(sent) = sent else {
            self.verdict.misrouted += 1;
            self.problem(format!("misrouted: {place} {at:?} is no message of ours"));
            return;
        };
        let id = story.id.unwrap_or_default();
        if sent.publish == Publish::Refused {
            self.verdict.misrouted += 1;
            self.problem(format!(
                "misrouted: {id} was refused and is in {place} {at:?}"
            ));
        }
        let from = match &story.death {
            Some((queue, _)) => match self.ledger.dead_letters.get(queue) {
                Some(rule) if rule.to == *place => queue,
                _ => {
                    self.verdict.misrouted += 1;
                    self.problem(format!("misrouted: {id} died in {queue} and is in {place}"));
                    return;
                }
            },
            None => place,
        };
        if !sent.plan.places.contains(from) {
            self.verdict.misrouted += 1;
            self.problem(format!(
                "misrouted: {id} is in {place} {at:?}, sent to {:?}",
                sent.plan.places
            ));
        }
    }

    /// Hand-outs and settlements of one message in one place agree.
    fn history(&mut self, place: &Place, at: At, story: &Story) {
        if story.is_mixed_up {
            self.problem(format!("{place} {at:?}: not the same message each time"));
        }
        let mut handed_out = story.handed_out.clone();
        handed_out.sort_unstable();
        let extra = handed_out.len().saturating_sub(1);
        self.verdict.redelivered += u64::try_from(extra).unwrap_or(u64::MAX);
        for pair in handed_out.windows(2) {
            let [(acquired, attempts), (next_acquired, next_attempts)] = pair else {
                continue;
            };
            if acquired == next_acquired {
                self.problem(format!("{place} {at:?}: hand-out {acquired} came twice"));
            }
            if next_attempts < attempts {
                self.problem(format!("{place} {at:?}: attempts fell: {handed_out:?}"));
            }
        }
        for settled in story.settled.iter().filter(|settled| settled.is_confirmed) {
            let later = handed_out
                .iter()
                .filter(|(acquired, _)| *acquired > settled.acquired);
            let is_over = match settled.ending {
                Ending::Accept | Ending::Reject => true,
                Ending::Retry => self.kills(place, settled.attempts),
                Ending::Release => false,
            };
            let counted = settled.attempts + u32::from(settled.ending == Ending::Retry);
            for (acquired, attempts) in later {
                if is_over {
                    self.verdict.duplicated += 1;
                    self.problem(format!(
                        "duplicated: {place} {at:?} was settled ({:?}) as hand-out {}, and handed \
                         out again as {acquired}",
                        settled.ending, settled.acquired
                    ));
                } else if *attempts < counted {
                    self.problem(format!(
                        "{place} {at:?}: {counted} failures were confirmed, hand-out {acquired} \
                         says {attempts}"
                    ));
                }
            }
        }
    }

    fn kills(&self, place: &str, attempts: u32) -> bool {
        let rule = self.ledger.dead_letters.get(place);
        rule.is_some_and(|rule| attempts + 1 >= rule.deliveries_max)
    }

    /// A topic has the messages of a lane in the order they were sent, those sent again apart.
    fn lanes(&mut self) {
        let ledger = self.ledger;
        let topics = ledger
            .places
            .iter()
            .filter(|(place, _)| place.starts_with("topic/"));
        for (place, stories) in topics {
            let mut newest: BTreeMap<&str, Id> = BTreeMap::new();
            for (at, id) in stories
                .iter()
                .filter_map(|(at, story)| Some((at, story.id?)))
            {
                let sent = ledger
                    .sent
                    .get(&id)
                    .filter(|sent| sent.plan.copies == Copies::One);
                let Some(sent) = sent else {
                    continue;
                };
                let newest = newest.entry(&sent.plan.lane).or_insert(id);
                if id < *newest {
                    self.problem(format!("{place} {at:?}: {id} comes after {newest}"));
                }
                *newest = id.max(*newest);
            }
        }
    }

    /// Every message that had to die is a dead letter once, and no other one is.
    fn deaths(&mut self) {
        let ledger = self.ledger;
        let mut dead: BTreeMap<(&str, u64), Vec<(&str, At)>> = BTreeMap::new();
        for (place, stories) in &ledger.places {
            for (&at, story) in stories {
                if let Some((queue, offset)) = &story.death {
                    dead.entry((queue, *offset)).or_default().push((place, at));
                }
            }
        }
        for (&(queue, offset), found) in &dead {
            let extra = u64::try_from(found.len() - 1).unwrap_or(u64::MAX);
            if extra > 0 {
                self.verdict.duplicated += extra;
                self.problem(format!(
                    "duplicated: {queue} {offset} died several times: {found:?}"
                ));
            }
            let story = ledger
                .places
                .get(queue)
                .and_then(|stories| stories.get(&(0, offset)));
            let settled = story
                .map(|story| story.settled.as_slice())
                .unwrap_or_default();
            let is_due = settled.iter().any(|settled| match settled.ending {
                Ending::Reject => true,
                Ending::Retry => self.kills(queue, settled.attempts),
                Ending::Accept | Ending::Release => false,
            });
            if !is_due {
                self.verdict.misrouted += 1;
                self.problem(format!(
                    "misrouted: {queue} {offset} died without a reason: {story:?}"
                ));
            }
        }
        for (place, stories) in &ledger.places {
            if !ledger.dead_letters.contains_key(place) {
                continue;
            }
            for (&(_, offset), story) in stories {
                let is_due = story.settled.iter().any(|settled| {
                    settled.is_confirmed
                        && match settled.ending {
                            Ending::Reject => true,
                            Ending::Retry => self.kills(place, settled.attempts),
                            Ending::Accept | Ending::Release => false,
                        }
                });
                if !is_due {
                    continue;
                }
                self.verdict.acknowledged += 1;
                if dead.contains_key(&(place.as_str(), offset)) {
                    self.verdict.delivered += 1;
                } else {
                    self.verdict.lost += 1;
                    self.problem(format!("lost: {place} {offset} died and is nowhere"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DeadLetters, Plan, Seen};
    use super::*;
    use millrace_client::{Ack, Durability, Error};

    const QUEUE: &str = "queue/a/b";
    const DEAD: &str = "queue/a/b/dead";

    fn books() -> Ledger {
        let rule = DeadLetters {
            to: DEAD.into(),
            deliveries_max: 2,
        };
        let mut ledger = Ledger::new([(QUEUE.to_owned(), rule)].into());
        ledger.sending(1, plan(QUEUE));
        ledger.published(
            1,
            &Ok(Ack {
                partition: 0,
                offset: Some(0),
                durability: Durability::MajoritySynced,
                replicas: 1,
                duplicate: false,
            }),
        );
        ledger
    }

    fn plan(place: &str) -> Plan {
        Plan {
            places: vec![place.to_owned()],
            copies: Copies::One,
            lane: "lane".to_owned(),
        }
    }

    fn seen(offset: u64, acquired: u32, attempts: u32) -> Seen {
        Seen {
            at: (0, offset),
            id: Some(1),
            attempts,
            acquired,
            death: None,
        }
    }

    fn settle(ledger: &mut Ledger, seen: &Seen, ending: Ending, outcome: Result<(), Error>) {
        ledger.seen(QUEUE, seen.clone());
        ledger.settled(QUEUE, seen, ending, &outcome);
    }

    #[test]
    fn a_message_that_is_not_there_is_lost() {
        let verdict = books().verdict();
        assert_eq!((verdict.acknowledged, verdict.lost), (1, 1));
        assert!(!verdict.is_good());
    }

    #[test]
    fn a_message_delivered_and_accepted_is_fine() {
        let mut ledger = books();
        settle(&mut ledger, &seen(0, 1, 0), Ending::Accept, Ok(()));
        let verdict = ledger.verdict();
        assert!(verdict.is_good(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.delivered), (1, 1));
    }

    #[test]
    fn a_second_copy_and_a_delivery_after_the_end_are_duplicates() {
        let mut ledger = books();
        settle(&mut ledger, &seen(0, 1, 0), Ending::Accept, Ok(()));
        ledger.seen(QUEUE, seen(0, 2, 0));
        ledger.seen(QUEUE, seen(5, 1, 0));
        assert_eq!(ledger.verdict().duplicated, 2);
    }

    #[test]
    fn a_redelivery_before_the_settlement_was_confirmed_is_allowed() {
        let mut ledger = books();
        let lost = Error {
            reason: Error::CONNECTION_LOST.into(),
            message: String::new(),
            applied: millrace_client::Applied::Unknown,
            retry_after: None,
            code: millrace_client::Code::Unavailable,
            metadata: Default::default(),
        };
        settle(&mut ledger, &seen(0, 1, 0), Ending::Accept, Err(lost));
        settle(&mut ledger, &seen(0, 2, 0), Ending::Accept, Ok(()));
        let verdict = ledger.verdict();
        assert!(verdict.is_good(), "{verdict:?}");
        assert_eq!(verdict.redelivered, 1);
    }

    #[test]
    fn attempts_that_fall_are_a_problem() {
        let mut ledger = books();
        settle(&mut ledger, &seen(0, 1, 1), Ending::Release, Ok(()));
        settle(&mut ledger, &seen(0, 2, 0), Ending::Accept, Ok(()));
        assert!(!ledger.verdict().is_good());
    }

    #[test]
    fn a_rejected_message_is_dead_exactly_once() {
        let mut ledger = books();
        settle(&mut ledger, &seen(0, 1, 0), Ending::Reject, Ok(()));
        assert_eq!(ledger.verdict().lost, 1);

        let mut letter = seen(0, 1, 0);
        letter.death = Some((QUEUE.into(), 0));
        ledger.seen(DEAD, letter.clone());
        assert!(ledger.verdict().is_good(), "{:?}", ledger.verdict());

        letter.at = (0, 1);
        ledger.seen(DEAD, letter);
        assert_eq!(ledger.verdict().duplicated, 1);
    }

    #[test]
    fn a_message_nobody_sent_or_sent_elsewhere_is_misrouted() {
        let mut ledger = books();
        settle(&mut ledger, &seen(0, 1, 0), Ending::Accept, Ok(()));
        ledger.seen("queue/a/other", seen(0, 1, 0));
        let mut foreign = seen(1, 1, 0);
        foreign.id = None;
        ledger.seen(QUEUE, foreign);
        assert_eq!(ledger.verdict().misrouted, 2);
    }

    #[test]
    fn messages_of_a_lane_out_of_order_are_a_problem() {
        let topic = "topic/a/b";
        let mut ledger = Ledger::default();
        for id in [1, 2] {
            ledger.sending(id, plan(topic));
        }
        for (offset, id) in [(0, Some(2)), (1, Some(1))] {
            ledger.seen(
                topic,
                Seen {
                    id,
                    ..seen(offset, 0, 0)
                },
            );
        }
        assert!(!ledger.verdict().is_good());
    }
}
