//! What the kernel knows of a process: memory, bytes written to devices, time on the processor.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Ticks of `/proc/PID/stat` in a second: `USER_HZ`, 100 on every Linux there is.
const TICKS: u64 = 100;

/// A process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in use.
    pub rss_bytes: u64,
    /// The most that ever was.
    pub rss_bytes_peak: u64,
    /// Charged for writes to devices, without what was dropped before it got there. Kernels with
    /// large folios charge whole ones: more than is written.
    pub written_bytes: u64,
    /// On the processor, user and system.
    pub cpu: Duration,
}

/// Looks at a process.
///
/// # Errors
/// When it is gone, or another user's.
pub fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let (status, io, stat) = (read("status")?, read("io")?, read("stat")?);
    let kib = |name| field(&status, name).map(|kib| kib * 1024);
    let cancelled = field(&io, "cancelled_write_bytes")?;
    Ok(Usage {
        rss_bytes: kib("VmRSS")?,
        rss_bytes_peak: kib("VmHWM")?,
        written_bytes: field(&io, "write_bytes")?.saturating_sub(cancelled),
        cpu: cpu(&stat).with_context(|| format!("cannot understand /proc/{pid}/stat"))?,
    })
}

/// Bytes that a process has handed to the TCP connections it has, as the kernel counts them:
/// without what IP adds. `None` where `ss` cannot be asked.
#[must_use]
pub fn sent_bytes(pid: u32) -> Option<u64> {
    let asked = Command::new("ss").arg("-tinpHO").output().ok()?;
    let text = String::from_utf8_lossy(&asked.stdout);
    asked.status.success().then(|| sent(&text, pid))
}

/// Of `ss`, a connection a line.
fn sent(text: &str, pid: u32) -> u64 {
    let owner = format!("pid={pid},");
    let lines = text.lines().filter(|line| line.contains(&owner));
    let sent = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        words.find_map(|word| word.strip_prefix("bytes_sent:")?.parse::<u64>().ok())
    });
    sent.sum()
}

/// How many wanted a processor in the last minute, on average; `None` where nobody tells.
#[must_use]
pub fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Bytes that everybody wrote to the device under a directory; `None` where the kernel does not
/// tell, as for the layers of a container's image.
#[must_use]
pub fn device_written_bytes(dir: &Path) -> Option<u64> {
    /// The kernel counts in these, whatever the device has.
    const SECTOR_BYTES: u64 = 512;
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * SECTOR_BYTES)
}

/// The number behind `name:`.
fn field(text: &str, name: &str) -> Result<u64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {name} in {text:?}"))
}

/// Fields 14 and 15, counted from behind the name, which may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0 && usage.rss_bytes_peak >= usage.rss_bytes);
    }

    #[test]
    fn what_a_process_sent_is_the_sum_over_its_connections() {
        let line = |pid: u32, sent: u32| {
            format!(
                "ESTAB 0 0 127.0.0.1:1 127.0.0.1:2 users:((\"m\",pid={pid},fd=9)) \
                 cubic rto:200 bytes_sent:{sent} bytes_acked:1 bytes_received:5\n"
            )
        };
        let text = [line(7, 100), line(77, 1_000), line(7, 20)].concat();
        assert_eq!(sent(&text, 7), 120);
        assert_eq!(sent(&text, 8), 0);
    }

    #[test]
    fn a_name_with_brackets_and_spaces_hides_no_time() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
    }
}
