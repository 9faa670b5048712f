//! How much memory the broker may plan with, unless it is told: a share of what its cgroup or the
//! machine has. Reads `/proc` and `/sys/fs/cgroup`; anything unreadable is as if it were not there.

use std::fs;
use std::path::Path;

/// Share of the memory found that message bodies may take: the rest is for state, what is on its
/// way to the disk, sockets, and the page cache, without which segments read slowly.
const SHARE_PERCENT: u64 = 50;
/// Planned with when nothing can be read: small enough for any machine that runs containers.
const FALLBACK_BYTES: u64 = 512 << 20;
/// A cgroup "limit" above this is no limit (version 1 writes a number near 2^63 for none).
const UNLIMITED_BYTES: u64 = 1 << 60;

/// The default for `--memory-limit`, in bytes.
#[must_use]
pub(crate) fn limit_default() -> u64 {
    let cgroup = cgroup_limit(Path::new("/sys/fs/cgroup"), Path::new("/proc/self/cgroup"));
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_of(&text));
    let found = match (cgroup, machine) {
        (Some(a), Some(b)) => a.min(b),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => FALLBACK_BYTES,
    };
    found / 100 * SHARE_PERCENT
}

/// The smallest limit on the way from our cgroup to the root; version 2, then version 1.
fn cgroup_limit(mount: &Path, membership: &Path) -> Option<u64> {
    let membership = fs::read_to_string(membership).unwrap_or_default();
    let own = |prefix: &str| {
        let mut lines = membership.lines();
        lines.find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
    };
    let v2 = smallest(mount, &own("0::").unwrap_or_default(), "memory.max");
    v2.or_else(|| {
        let line = membership.lines().find(|line| line.contains(":memory:"));
        let path = line.and_then(|line| line.rsplit(':').next()).unwrap_or("/");
        smallest(&mount.join("memory"), path, "memory.limit_in_bytes")
    })
}

fn smallest(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let group = mount.join(group.trim_start_matches('/'));
    group
        .ancestors()
        .take_while(|path| path.starts_with(mount))
        .filter_map(|path| fs::read_to_string(path.join(file)).ok())
        .filter_map(|text| text.trim().parse().ok())
        .filter(|bytes| *bytes < UNLIMITED_BYTES)
        .min()
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_between_our_cgroup_and_the_root_counts() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("kubepods/pod1/container");
        fs::create_dir_all(&pod).unwrap();
        fs::write(pod.join("memory.max"), "max\n").unwrap();
        let parent = dir.path().join("kubepods/pod1/memory.max");
        fs::write(parent, "1073741824\n").unwrap();
        fs::write(dir.path().join("kubepods/memory.max"), "4294967296\n").unwrap();
        let membership = dir.path().join("membership");
        fs::write(&membership, "0::/kubepods/pod1/container\n").unwrap();
        assert_eq!(cgroup_limit(dir.path(), &membership), Some(1 << 30));
    }

    #[test]
    fn version_1_without_a_limit_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("memory/app");
        fs::create_dir_all(&group).unwrap();
        let file = group.join("memory.limit_in_bytes");
        fs::write(&file, "9223372036854771712\n").unwrap();
        let membership = dir.path().join("membership");
        fs::write(&membership, "5:memory:/app\n").unwrap();
        assert_eq!(cgroup_limit(dir.path(), &membership), None);
        fs::write(&file, "2097152\n").unwrap();
        assert_eq!(cgroup_limit(dir.path(), &membership), Some(2 << 20));
    }

    #[test]
    fn the_machine_total_is_read_from_meminfo() {
        let text = "MemTotal:       24566 kB\nMemFree: 1 kB\n";
        assert_eq!(total_of(text), Some(24566 * 1024));
        assert_eq!(total_of("nothing"), None);
    }
}
