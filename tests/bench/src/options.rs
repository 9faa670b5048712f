//! What all scenarios share: where, with which binary, how large.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// File systems in memory say this of themselves (`statfs(2)`); a sync there costs nothing.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Never taken: others live on this disk too.
const SPARE_BYTES: u64 = 2 << 30;

/// Where and how.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// The millrace binary to measure
    #[arg(long, value_name = "FILE", env = "MILLRACE_BIN")]
    pub binary: PathBuf,
    /// A directory on the disk to measure; what is written there is removed at the end
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Sizes, rates and durations are divided by this: 1 for the figures, more to try things out
    #[arg(long, value_name = "N", default_value_t = 1, global = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub divide: u64,
    /// What the broker may use for message bodies: fixed, so that figures do not depend on the
    /// machine's memory
    #[arg(long, value_name = "SIZE", default_value = "1Gi")]
    pub memory_limit: String,
    /// Appended to: one line of JSON for each scenario
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// A scenario that may need more room than this is refused
    #[arg(long, value_name = "BYTES", default_value_t = 30 << 30)]
    pub disk_bytes_max: u64,
}

impl Options {
    /// A count or size, divided; never 0.
    #[must_use]
    pub const fn scaled(&self, amount: u64) -> u64 {
        let scaled = amount / self.divide;
        if scaled == 0 { 1 } else { scaled }
    }

    /// A duration, divided, and at least a second.
    #[must_use]
    pub fn scaled_time(&self, time: Duration) -> Duration {
        let divide = u32::try_from(self.divide).unwrap_or(u32::MAX);
        (time / divide).max(Duration::from_secs(1))
    }

    /// Refuses a scenario that the disk has no room for, or a disk that is none.
    ///
    /// # Errors
    /// With what is missing.
    pub fn check_room(&self, bytes: u64) -> Result<()> {
        let asked = || format!("cannot ask about {}", self.dir.display());
        let found = rustix::fs::statfs(&self.dir).with_context(asked)?;
        let in_memory = u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS_MAGIC);
        if in_memory && self.divide == 1 {
            bail!(
                "{} is in memory; name a disk with --dir",
                self.dir.display()
            );
        }
        let free = rustix::fs::statvfs(&self.dir).with_context(asked)?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        let room = free.saturating_sub(SPARE_BYTES).min(self.disk_bytes_max);
        if bytes > room {
            bail!(
                "this needs {bytes} bytes on {} and may take {room}; try --divide",
                self.dir.display()
            );
        }
        Ok(())
    }
}
