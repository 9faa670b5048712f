//! What a checkpoint says about bodies, once everything is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_types::LogId;

use super::Store;
use super::files::Known;
use super::log::Log;
use super::run::Run;
use super::spill::{Change, Spill};
use crate::checkpoint::{ListedLog, ListedSegment, Manifest};

impl Store {
    /// Lists what is alive: runs as they will be after the spill, and the segments they are in.
    /// Notes in the spill what is not listed any more.
    pub(crate) fn manifest(&self, spill: &mut Spill) -> Manifest {
        let mut changes: BTreeMap<LogId, Vec<&Change>> = BTreeMap::new();
        for change in &spill.changes {
            changes.entry(change.log.id).or_default().push(change);
        }
        let (mut logs, mut used) = (Vec::new(), BTreeSet::new());
        let (mut dead, mut idle) = (Vec::new(), Vec::new());
        for log in self.all_logs() {
            let changes = changes.get(&log.id).map_or(&[][..], Vec::as_slice);
            match list(&log, changes, &mut dead) {
                Some(listed) => {
                    used.extend(listed.runs.iter().map(|run| run.file));
                    logs.push(listed);
                }
                None if log.lock().is_empty() => idle.push(log),
                None => {}
            }
        }
        spill.dead = dead;
        self.forget_idle(idle);
        let mut files = {
            let state = self.files.lock();
            let files = state.known.iter().map(|(number, known)| (*number, *known));
            files.collect::<BTreeMap<u64, Known>>()
        };
        for touched in &spill.touched {
            let (bytes, owner, closed) = (touched.bytes, touched.owner, false);
            let known = Known {
                bytes,
                owner,
                closed,
            };
            files.insert(touched.number, known);
        }
        let (segments, retired): (Vec<_>, Vec<_>) = files
            .into_iter()
            .partition(|(number, _)| used.contains(number));
        spill.retired = retired.into_iter().map(|(number, _)| number).collect();
        Manifest {
            index: spill.index,
            next_segment: self.files.lock().next,
            segments: segments.into_iter().map(listed_segment).collect(),
            retired: spill.retired.clone(),
            logs,
        }
    }
}

fn listed_segment((number, known): (u64, Known)) -> ListedSegment {
    let Known { bytes, owner, .. } = known;
    ListedSegment {
        number,
        bytes,
        owner,
    }
}

/// A log as it will be; `None` when nothing of it is on disk.
fn list(log: &Arc<Log>, changes: &[&Change], dead: &mut Vec<(Arc<Log>, Run)>) -> Option<ListedLog> {
    let state = log.lock();
    if state.removed {
        return None;
    }
    let removed: Vec<Run> = changes
        .iter()
        .flat_map(|change| &change.removed)
        .copied()
        .collect();
    let added: Vec<Run> = changes
        .iter()
        .flat_map(|change| &change.added)
        .copied()
        .collect();
    let mut runs = state.runs_after(&removed, &added);
    runs.retain(|run| {
        let gone = state.discarded.covers(run.range());
        if gone {
            dead.push((Arc::clone(log), *run));
        }
        !gone
    });
    let (first, last) = (runs.first()?.first, runs.last()?.end);
    let discarded = state.discarded.within(first..last);
    Some(ListedLog {
        log: log.id,
        end: state.end,
        discarded: discarded
            .into_iter()
            .map(|part| (part.start, part.end))
            .collect(),
        runs,
    })
}
