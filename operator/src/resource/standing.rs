//! What the status of a Queue or Topic says. Pure.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use millrace_crds::{Queue, Topic};
use serde::Serialize;

use super::HasStanding;
use crate::condition::{Truth, Verdict, conditions};
use crate::reasons::{self, condition};
use crate::topology::declared::Declares;
use crate::topology::report::{Broker, Held, Report};
use crate::topology::resolve::Unresolved;

/// Stands in status where no cluster is known, as the definitions' default does.
const NO_CLUSTER: &str = "unknown";

/// Status of a Queue or Topic; both have the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    /// Generation the rest is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` and `Synced`.
    pub conditions: Vec<Condition>,
    /// Generation that every shard works by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied_generation: Option<i64>,
    /// What clients call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The cluster that holds it.
    pub cluster: String,
}

/// Status as last written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Previous {
    /// `None`: never.
    pub standing: Option<Standing>,
}

/// Where a resource belongs.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// It cannot be read or compiled.
    Invalid(String),
    /// Its reference leads to no cluster.
    Nowhere(Unresolved),
    /// It belongs to a cluster.
    In {
        /// Name of the cluster.
        cluster: String,
        /// What its broker said last; `None` when this operator has not asked it yet.
        report: Option<Arc<Report>>,
    },
}

impl HasStanding for Queue {
    fn previous(&self) -> Previous {
        let standing = self.status.clone().map(|status| Standing {
            observed_generation: status.observed_generation,
            conditions: status.conditions,
            applied_generation: status.applied_generation,
            address: status.address,
            cluster: status.cluster,
        });
        Previous { standing }
    }
}

impl HasStanding for Topic {
    fn previous(&self) -> Previous {
        let standing = self.status.clone().map(|status| Standing {
            observed_generation: status.observed_generation,
            conditions: status.conditions,
            applied_generation: status.applied_generation,
            address: status.address,
            cluster: status.cluster,
        });
        Previous { standing }
    }
}

/// Decides what status says.
#[must_use]
pub(crate) fn standing<K: Declares>(
    meta: &ObjectMeta,
    place: &Place,
    previous: &Previous,
    now: Timestamp,
) -> Standing {
    let before = previous.standing.as_ref();
    let (Place::In { report: None, .. }, Some(before)) = (place, before) else {
        return decided::<K>(meta, place, before, now);
    };
    // An operator that has just started knows less than the one before it.
    before.clone()
}

fn decided<K: Declares>(
    meta: &ObjectMeta,
    place: &Place,
    before: Option<&Standing>,
    now: Timestamp,
) -> Standing {
    let generation = meta.generation.unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let address = K::KIND.address(namespace, name);
    let held = match place {
        Place::In { report, .. } => report
            .as_ref()
            .and_then(|report| report.answer())
            .and_then(|a| a.objects.get(&address)),
        Place::Invalid(_) | Place::Nowhere(_) => None,
    };
    let held = held.filter(|held| Some(held.uid.as_str()) == meta.uid.as_deref());
    let verdicts = match place {
        Place::Invalid(problem) => both(reasons::INVALID, problem),
        Place::Nowhere(unresolved) => both(unresolved.reason, &unresolved.message),
        Place::In { report: None, .. } => {
            both(reasons::BROKER_UNAVAILABLE, "the broker was not asked yet")
        }
        Place::In {
            report: Some(report),
            cluster,
        } => match &report.broker {
            Broker::Unavailable { reason, .. } => {
                let message = format!("see condition Synced of BrokerCluster {cluster}");
                both(reason, &message)
            }
            Broker::Answered(_) => in_cluster(report, &address, generation, held),
        },
    };
    let applied = held.filter(|held| held.applied && !held.orphaned);
    let applied = applied.map(|held| held.generation);
    Standing {
        observed_generation: Some(generation),
        conditions: conditions(
            before.map_or(&[], |before| before.conditions.as_slice()),
            verdicts,
            generation,
            now,
        ),
        applied_generation: applied.or_else(|| before.and_then(|b| b.applied_generation)),
        address: Some(address),
        cluster: match place {
            Place::In { cluster, .. } => cluster.clone(),
            Place::Invalid(_) | Place::Nowhere(_) => NO_CLUSTER.to_owned(),
        },
    }
}

/// Neither ready nor synced, for one reason.
fn both(reason: &str, message: &str) -> Vec<Verdict> {
    [condition::READY, condition::SYNCED]
        .map(|type_| Verdict::new(type_, Truth::False, reason, message))
        .into()
}

fn in_cluster(
    report: &Report,
    address: &str,
    generation: i64,
    held: Option<&Held>,
) -> Vec<Verdict> {
    if let Some(refused) = report.refused.get(address)
        && refused.generation == generation
    {
        return both(reasons::REFUSED, &refused.message);
    }
    let current =
        held.filter(|held| held.generation == generation && held.applied && !held.orphaned);
    let Some(held) = current else {
        return both(
            reasons::SYNCING,
            "the broker has not applied this generation yet",
        );
    };
    let synced = Verdict::new(
        condition::SYNCED,
        Truth::True,
        reasons::READY,
        "every shard works by this generation",
    );
    let ready = match held.problems.first() {
        None if !report.serves => Verdict::new(
            condition::READY,
            Truth::False,
            reasons::BROKER_UNAVAILABLE,
            "the broker pod is not ready",
        ),
        None => Verdict::new(
            condition::READY,
            Truth::True,
            reasons::READY,
            "it works as declared",
        ),
        Some(first) => {
            let messages: Vec<&str> = held.problems.iter().map(|p| p.message.as_str()).collect();
            let message = messages.join("; ");
            Verdict::new(
                condition::READY,
                Truth::False,
                first.reason.clone(),
                message,
            )
        }
    };
    vec![ready, synced]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::find;
    use crate::topology::report::{Answer, Problem, Refused};

    fn meta() -> ObjectMeta {
        ObjectMeta {
            namespace: Some("shop".to_owned()),
            name: Some("orders".to_owned()),
            uid: Some("u1".to_owned()),
            generation: Some(3),
            ..ObjectMeta::default()
        }
    }

    fn held() -> Held {
        Held {
            uid: "u1".to_owned(),
            generation: 3,
            applied: true,
            orphaned: false,
            problems: Vec::new(),
        }
    }

    fn holding(held: Held) -> Report {
        let objects = [("queue/shop/orders".to_owned(), held)].into();
        Report {
            broker: Broker::Answered(Answer {
                objects,
                ..Answer::default()
            }),
            serves: true,
            refused: [].into(),
            unsent: 0,
            resent_at: None,
            sent: 0,
            frozen: None,
        }
    }

    fn within(report: Report) -> Standing {
        let place = Place::In {
            cluster: "main".to_owned(),
            report: Some(Arc::new(report)),
        };
        standing::<Queue>(&meta(), &place, &Previous::default(), Timestamp::UNIX_EPOCH)
    }

    fn says<'a>(standing: &'a Standing, type_: &str) -> (&'a str, &'a str) {
        let condition = find(&standing.conditions, type_).unwrap();
        (&condition.status, &condition.reason)
    }

    #[test]
    fn a_queue_that_the_broker_has_applied_is_ready_and_says_its_address() {
        let standing = within(holding(held()));

        assert_eq!(says(&standing, "Ready"), ("True", reasons::READY));
        assert_eq!(says(&standing, "Synced"), ("True", reasons::READY));
        assert_eq!(standing.address.as_deref(), Some("queue/shop/orders"));
        assert_eq!(standing.cluster, "main");
        assert_eq!(standing.applied_generation, Some(3));
        assert_eq!(standing.observed_generation, Some(3));
    }

    #[test]
    fn what_the_broker_has_of_an_older_generation_or_another_uid_is_still_syncing() {
        for other in [
            Held {
                generation: 2,
                ..held()
            },
            Held {
                uid: "older".to_owned(),
                ..held()
            },
            Held {
                applied: false,
                ..held()
            },
            Held {
                orphaned: true,
                ..held()
            },
        ] {
            let standing = within(holding(other));

            assert_eq!(says(&standing, "Ready"), ("False", reasons::SYNCING));
        }
    }

    #[test]
    fn a_queue_is_not_ready_before_clients_can_reach_the_broker() {
        let starting = Report {
            serves: false,
            ..holding(held())
        };

        let standing = within(starting);

        assert_eq!(says(&standing, "Synced"), ("True", reasons::READY));
        let expected = ("False", reasons::BROKER_UNAVAILABLE);
        assert_eq!(says(&standing, "Ready"), expected);
    }

    #[test]
    fn a_problem_keeps_a_synced_queue_from_being_ready() {
        let problem = |reason: &str, message: &str| Problem {
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let problems = vec![
            problem("TopicNotFound", "no a"),
            problem("TargetFull", "b is full"),
        ];

        let standing = within(holding(Held { problems, ..held() }));

        assert_eq!(says(&standing, "Synced"), ("True", reasons::READY));
        assert_eq!(says(&standing, "Ready"), ("False", "TopicNotFound"));
        let ready = find(&standing.conditions, "Ready").unwrap();
        assert_eq!(ready.message, "no a; b is full");
    }

    #[test]
    fn a_refusal_counts_only_for_the_generation_that_was_refused() {
        for (generation, reason) in [(3, reasons::REFUSED), (2, reasons::SYNCING)] {
            let mut report = holding(Held {
                generation: 1,
                ..held()
            });
            let refused = Refused {
                generation,
                message: "too many".to_owned(),
            };
            report
                .refused
                .insert("queue/shop/orders".to_owned(), refused);

            let standing = within(report);

            assert_eq!(says(&standing, "Ready"), ("False", reason));
            assert_eq!(standing.applied_generation, Some(1));
        }
    }

    #[test]
    fn what_was_applied_stays_known_while_the_broker_is_away() {
        let previous = Previous {
            standing: Some(within(holding(held()))),
        };
        let gone = Report::unavailable(reasons::BROKER_UNAVAILABLE, "gone");
        let place = Place::In {
            cluster: "main".to_owned(),
            report: Some(Arc::new(gone)),
        };

        let after = standing::<Queue>(&meta(), &place, &previous, Timestamp::UNIX_EPOCH);

        assert_eq!(
            says(&after, "Ready"),
            ("False", reasons::BROKER_UNAVAILABLE)
        );
        assert_eq!(after.applied_generation, Some(3));
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_the_reason() {
        let place = Place::Nowhere(Unresolved {
            reason: reasons::CLUSTER_NOT_FOUND,
            message: "none".to_owned(),
        });

        let standing =
            standing::<Topic>(&meta(), &place, &Previous::default(), Timestamp::UNIX_EPOCH);

        assert_eq!(
            says(&standing, "Ready"),
            ("False", reasons::CLUSTER_NOT_FOUND)
        );
        assert_eq!(standing.cluster, NO_CLUSTER);
        assert_eq!(standing.address.as_deref(), Some("topic/shop/orders"));
    }

    #[test]
    fn an_operator_that_has_not_asked_yet_leaves_what_the_one_before_it_wrote() {
        let ready = within(holding(held()));
        let place = Place::In {
            cluster: "main".to_owned(),
            report: None,
        };
        let standing = |previous| {
            standing::<Queue>(
                &meta(),
                &place,
                &Previous { standing: previous },
                Timestamp::now(),
            )
        };

        assert_eq!(standing(Some(ready.clone())), ready);
        assert_eq!(
            says(&standing(None), "Ready"),
            ("False", reasons::BROKER_UNAVAILABLE)
        );
    }
}
