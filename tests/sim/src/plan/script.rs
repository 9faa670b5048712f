//! What has to come in a certain order to mean anything, which chance alone would rarely hit: a
//! leader that is asked after it was deposed, a follower that misses more than the log keeps, and a
//! replica that is lost while another is behind and the third one away.

use super::cluster::{Between, Cut, Loses, Way, Who};
use super::{End, From, Loss, Plan, Shape, Step};
use crate::random::Random;

/// Longer than a node is waited for before the log goes on without it.
const FORGOTTEN_MS: u64 = 65_000;
/// Longer than an election takes.
const ELECTED_MS: u64 = 4_000;

/// A leader stands still or is cut off, others go on without it, and it is asked.
pub(super) fn stale(random: &mut Random, plan: &Plan) -> Vec<Step> {
    let topic = topic(random, plan);
    let millis = *random.pick(&[2_500, 4_000]);
    let trouble = match random.percent(50) {
        true => Step::Pause {
            node: Who::LeaderOfObject(topic),
            millis,
        },
        false => Step::Cut(Cut {
            between: Between::Around(Who::LeaderOfObject(topic)),
            way: *random.pick(&[Way::Both, Way::In, Way::Out]),
            millis,
        }),
    };
    let publish = publish(topic);
    let ask = Step::On {
        node: Who::FormerLeaderOfObject(topic),
        step: Box::new(read(topic, From::Latest)),
    };
    let mut steps = vec![publish.clone(), trouble];
    for _ in 0..6 {
        steps.push(Step::Wait { millis: 600 });
        steps.push(publish.clone());
        steps.push(Step::Wait { millis: 50 });
        steps.push(ask.clone());
    }
    steps
}

/// A node is away for so long that it needs snapshots, and dies soon after it is back.
pub(super) fn behind(random: &mut Random, plan: &Plan, nodes: usize) -> Vec<Step> {
    let (node, topic) = (Who::Node(random.below(nodes)), topic(random, plan));
    let mut steps = vec![Step::Down {
        node,
        loss: Loss::Everything,
        millis: FORGOTTEN_MS,
    }];
    for _ in 0..6 {
        steps.extend([publish(topic), Step::Wait { millis: 5_000 }]);
        let checkpoints = (0..nodes).map(|node| Step::On {
            node: Who::Node(node),
            step: Box::new(Step::Checkpoint),
        });
        steps.extend(checkpoints);
        steps.extend([publish(topic), Step::Wait { millis: 5_500 }]);
    }
    let back = *random.pick(&[3_000, 5_000, 9_000]);
    steps.push(Step::Wait { millis: back });
    steps.push(Step::On {
        node,
        step: Box::new(Step::Crash {
            loss: Loss::Everything,
        }),
    });
    steps.push(Step::Wait { millis: 500 });
    steps.push(Step::On {
        node,
        step: Box::new(read(topic, From::Earliest)),
    });
    steps
}

/// Of three, one is behind, one loses what it has, and the third is away: nothing may be decided
/// until that one is back. Nothing, where nothing is lost.
pub(super) fn loss(random: &mut Random, plan: &Plan, nodes: usize, losses: Loses) -> Vec<Step> {
    let topic = topic(random, plan);
    let first = random.below(nodes);
    let [behind, loses, away] = [0, 1, 2].map(|place| Who::Node((first + place) % nodes));
    let lost = match losses {
        Loses::Nothing => return Vec::new(),
        Loses::ADisk => vec![Step::Wipe {
            node: loses,
            millis: *random.pick(&[50, 50, 4_000, 70_000]),
        }],
        Loses::AReplica => {
            let at_rest = random.percent(90);
            let flips = (0..random.within(1, 4)).map(|_| Step::On {
                node: loses,
                step: Box::new(match at_rest {
                    true => Step::Flip {
                        part: "journal/",
                        at: random.bits(),
                    },
                    false => Step::Rot {
                        part: "shards/",
                        at: random.bits(),
                    },
                }),
            });
            flips.collect()
        }
    };
    let mut steps = vec![Step::Cut(Cut {
        between: Between::Around(behind),
        way: Way::Both,
        millis: 2 * ELECTED_MS,
    })];
    steps.push(Step::Wait { millis: ELECTED_MS });
    for _ in 0..4 {
        steps.extend([publish(topic), Step::Wait { millis: 300 }]);
    }
    steps.push(Step::Settle {
        count: 20,
        end: End::Accept,
        at: 0,
    });
    steps.push(Step::Wait { millis: 300 });
    steps.extend(lost);
    steps.push(Step::Down {
        node: away,
        loss: Loss::Nothing,
        millis: 5 * ELECTED_MS,
    });
    for _ in 0..4 {
        steps.extend([Step::Wait { millis: ELECTED_MS }, publish(topic)]);
    }
    steps.push(read(topic, From::Earliest));
    steps
}

fn topic(random: &mut Random, plan: &Plan) -> usize {
    let shapes = plan.objects.iter().enumerate();
    let topics = shapes.filter(|(_, shape)| matches!(shape, Shape::Topic(_)));
    let topics: Vec<usize> = topics.map(|(place, _)| place).collect();
    *random.pick(&topics)
}

fn publish(topic: usize) -> Step {
    Step::Publish {
        to: topic,
        partition: 0,
        counts: vec![2, 1],
    }
}

const fn read(topic: usize, from: From) -> Step {
    Step::Read {
        topic,
        partition: 0,
        from,
        messages_max: 1_000,
    }
}
