//! Whose end of a TCP connection that is, among processes of this machine: the kernel lists each
//! connection with the number of its socket, and each process with the sockets it has.

use std::fs;
use std::net::SocketAddr;

use tokio::sync::Mutex;

/// The kernel's list as it was read last. Reading it takes long on a machine with much to do: those
/// that called meanwhile are found in what one of them reads.
#[derive(Debug, Default)]
pub(super) struct Callers(Mutex<String>);

impl Callers {
    /// Which of the processes called from this port; IPv4 on loopback.
    pub(super) async fn find(
        &self,
        (from, to): (SocketAddr, SocketAddr),
        pids: &[Option<u32>],
    ) -> Option<usize> {
        let mut table = self.0.lock().await;
        if let Some(known) = of(&table, (from, to), pids) {
            return Some(known);
        }
        *table = tokio::fs::read_to_string("/proc/net/tcp").await.ok()?;
        of(&table, (from, to), pids)
    }
}

fn of(table: &str, (from, to): (SocketAddr, SocketAddr), pids: &[Option<u32>]) -> Option<usize> {
    let socket = socket(table, from.port(), to.port())?;
    let name = format!("socket:[{socket}]");
    pids.iter()
        .position(|pid| pid.is_some_and(|pid| has_open(pid, &name)))
}

/// The number of the socket with these ports.
fn socket(table: &str, from: u16, to: u16) -> Option<&str> {
    let (from, to) = (format!(":{from:04X}"), format!(":{to:04X}"));
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        let is_it = local.ends_with(&from) && remote.ends_with(&to);
        // State, queues, timer, retransmits, user, timeout.
        is_it.then(|| fields.nth(6)).flatten()
    })
}

fn has_open(pid: u32, name: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files
        .flatten()
        .any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_pair_of_ports_is_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
                     uid  timeout inode\n   \
                     0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     \
                     0        0 4711 1 0000 20 4 30 10 -1\n";
        assert_eq!(socket(table, 8080, 50000), Some("4711"));
        assert_eq!(socket(table, 50000, 8080), None);
    }
}
