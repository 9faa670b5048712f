//! What the disk gives by itself: small synced writes to a file that is already there, as the
//! journal makes them. Disks of virtual machines have two moods, ten to forty times apart; a figure
//! without its disk's mood says nothing.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::report::{Figure, quantile};

/// As one sector of a journal's batch.
const WRITE_BYTES: usize = 4096;
/// Prepared and written round and round.
const FILE_BYTES: usize = 16 << 20;
/// Long enough for thousands of syncs on a good disk and some on a bad one.
pub const DURATION: Duration = Duration::from_secs(2);

/// Syncs of a disk.
#[derive(Clone, Debug)]
pub struct Baseline {
    took: Vec<Duration>,
}

/// Measures the disk under `dir` for a while.
///
/// # Errors
/// When it cannot be written.
pub fn measure(dir: &Path, duration: Duration) -> io::Result<Baseline> {
    let mut file: File = tempfile::tempfile_in(dir)?;
    file.write_all(&vec![0; FILE_BYTES])?;
    file.sync_all()?;
    let block = [1_u8; WRITE_BYTES];
    let (started, mut took, mut at) = (Instant::now(), Vec::new(), 0);
    while started.elapsed() < duration {
        let before = Instant::now();
        file.write_all_at(&block, at)?;
        file.sync_data()?;
        took.push(before.elapsed());
        at = (at + WRITE_BYTES as u64) % FILE_BYTES as u64;
    }
    took.sort_unstable();
    Ok(Baseline { took })
}

impl Baseline {
    /// Its figures, named for when it was measured.
    #[must_use]
    pub fn figures(&self, when: &str) -> Vec<Figure> {
        let name = |what: &str| format!("disk_{when}_{what}");
        let total: Duration = self.took.iter().sum();
        let each = total.as_secs_f64() / self.took.len().max(1) as f64;
        vec![
            Figure::rate(name("syncs"), 1.0 / each.max(f64::EPSILON)),
            Figure::time(name("sync_p50"), quantile(&self.took, 0.50)),
            Figure::time(name("sync_p99"), quantile(&self.took, 0.99)),
            Figure::time(name("sync_longest"), quantile(&self.took, 1.0)),
        ]
    }
}
