//! What the operator does: declares, changes and removes objects, one change at a time.

use millrace_engine::catalogue::Removed;
use millrace_node::TopologyDelta;

use super::{Client, answer};
use crate::declared;
use crate::event::{Answer, Event};
use crate::plan::Shape;

/// Where a change is that no node has been given.
const ON_ITS_WAY: usize = usize::MAX;

impl Client {
    /// Whether a change is on its way.
    #[must_use]
    pub(crate) fn is_declaring(&self) -> bool {
        self.lasting.numbers().declaring.is_some()
    }

    /// Changes objects, unless a change is on its way. `None` removes one. The number of the
    /// change, by which `is_in_force` knows it.
    pub(crate) fn declare(&self, changes: Vec<(usize, Option<Shape>)>) -> Option<u64> {
        if self.is_declaring() {
            return None;
        }
        let number = {
            let mut numbers = self.lasting.numbers();
            numbers.declaration += 1;
            numbers.declaration
        };
        self.declare_here(changes, 0);
        Some(number)
    }

    /// Whether a change was confirmed, and everybody has it.
    #[must_use]
    pub(crate) fn is_in_force(&self, declaration: u64) -> bool {
        self.lasting.numbers().in_force == declaration
    }

    fn declare_here(&self, changes: Vec<(usize, Option<Shape>)>, tries: u32) {
        self.lasting.numbers().declaring = Some(self.place.node);
        let client = self.clone();
        self.run(async move {
            if !client.change(changes, tries).await {
                client.lasting.numbers().declaring = None;
            }
        });
    }

    /// Whether it goes on elsewhere.
    async fn change(&self, changes: Vec<(usize, Option<Shape>)>, tries: u32) -> bool {
        let Ok(metadata) = self.broker.metadata().await else {
            return false;
        };
        self.note_logs();
        if tries == 0 {
            for (object, shape) in &changes {
                self.tell(&Event::Declaring {
                    object: *object,
                    shape: shape.clone(),
                });
            }
        }
        let delta = self.delta(metadata.revision, &changes);
        let result = self.broker.apply_topology(delta).await;
        if let Err(refusal) = &result {
            let changes = changes.clone();
            let again = move |client: &Self| client.declare_here(changes, tries + 1);
            if self.elsewhere(refusal, tries, again) {
                self.lasting.numbers().declaring = Some(ON_ITS_WAY);
                return true;
            }
        }
        let answer = answer(result);
        if let Answer::Done(revision) = answer {
            self.tell(&Event::Confirmed { revision });
            // In force only where every shard has it.
            let mut view = self.broker.catalogue();
            let applied = view.wait_for(|view| view.applied_revision() >= revision);
            if applied.await.is_err() {
                return false;
            }
            self.note_logs();
            // Only one is on its way at a time.
            let mut numbers = self.lasting.numbers();
            numbers.in_force = numbers.declaration;
        }
        for (object, _) in &changes {
            self.tell(&Event::Declared {
                object: *object,
                answer: answer.clone(),
            });
        }
        false
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
