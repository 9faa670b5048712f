//! What the operator does: declares, changes and removes objects, one change at a time.

use millrace_engine::catalogue::Removed;
use millrace_node::TopologyDelta;

use super::{Client, answer};
use crate::declared;
use crate::event::{Answer, Event};
use crate::plan::Shape;

impl Client {
    /// Whether a change is on its way.
    #[must_use]
    pub(crate) fn is_declaring(&self) -> bool {
        self.lasting.numbers().declaring
    }

    /// Changes objects, unless a change is on its way. `None` removes one.
    pub(crate) fn declare(&self, changes: Vec<(usize, Option<Shape>)>) {
        if std::mem::replace(&mut self.lasting.numbers().declaring, true) {
            return;
        }
        let client = self.clone();
        self.run(async move {
            client.change(&changes).await;
            client.lasting.numbers().declaring = false;
        });
    }

    async fn change(&self, changes: &[(usize, Option<Shape>)]) {
        let Ok(metadata) = self.broker.metadata().await else {
            return;
        };
        self.note_logs();
        for (object, shape) in changes {
            self.tell(&Event::Declaring {
                object: *object,
                shape: shape.clone(),
            });
        }
        let delta = self.delta(metadata.revision, changes);
        let result = self.broker.apply_topology(delta).await;
        let answer = answer(result);
        if let Answer::Done(revision) = answer {
            self.tell(&Event::Confirmed { revision });
            // In force only where every shard has it.
            let mut view = self.broker.catalogue();
            let applied = view.wait_for(|view| view.applied_revision() >= revision);
            if applied.await.is_err() {
                return;
            }
            self.note_logs();
        }
        for (object, _) in changes {
            self.tell(&Event::Declared {
                object: *object,
                answer: answer.clone(),
            });
        }
    }

    fn delta(&self, base_revision: u64, changes: &[(usize, Option<Shape>)]) -> TopologyDelta {
        let generation = {
            let mut numbers = self.lasting.numbers();
            numbers.generation += 1;
            numbers.generation
        };
        let objects = &self.lasting.objects;
        let (mut upserts, mut removals) = (Vec::new(), Vec::new());
        for (object, shape) in changes {
            match shape {
                Some(shape) => {
                    upserts.push(declared::declared(*object, shape, objects, generation));
                }
                None => removals.push(Removed {
                    address: self.address(*object),
                    uid: declared::uid(*object),
                }),
            }
        }
        TopologyDelta {
            cluster_id: None,
            base_revision,
            upserts,
            removals,
        }
    }
}
