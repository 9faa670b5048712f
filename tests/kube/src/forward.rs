//! A port of a pod or Service on this machine, by `kubectl port-forward`, or the API server's, by
//! `kubectl proxy`; gone when dropped.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::shell::Shell;
use crate::wait;

/// A pod that is just being made takes a moment.
const LIMIT: Duration = Duration::from_secs(60);

/// A forwarded port.
#[derive(Debug)]
pub(crate) struct Forward {
    child: Child,
    port: u16,
}

impl Forward {
    /// Forwards `port` of `object` (`pod/NAME`, `service/NAME`) to a free one here.
    ///
    /// # Errors
    /// When there is no pod to forward to within a minute.
    pub(crate) fn to(shell: &Shell, namespace: &str, object: &str, port: u16) -> Result<Self> {
        let what = format!("a way to {object} port {port}");
        let target = format!(":{port}");
        let arguments = ["port-forward", "-n", namespace, object, &target];
        wait::until(&what, LIMIT, || Self::once(shell, &arguments).map(Some))
    }

    /// The API server in plain HTTP, with this kubeconfig's rights.
    ///
    /// # Errors
    /// When kubectl does not start.
    pub(crate) fn api(shell: &Shell) -> Result<Self> {
        Self::once(shell, &["proxy", "--port=0"])
    }

    /// On 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn once(shell: &Shell, arguments: &[&str]) -> Result<Self> {
        let mut command = shell.kubectl_command(arguments);
        // What it has to say later is about connections that a killed pod took with it.
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("kubectl")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        // It says a line for each connection, and ends when nobody listens.
        thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
        let Some(port) = forwarded_port(&line) else {
            stop(&mut child);
            bail!("kubectl {} says {:?}", arguments.join(" "), line.trim());
        };
        Ok(Self { child, port })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

fn stop(child: &mut Child) {
    // Either it is gone already, or it goes now.
    drop(child.kill());
    drop(child.wait());
}

/// `Forwarding from 127.0.0.1:40001 -> 7070` or `Starting to serve on 127.0.0.1:40001`
fn forwarded_port(line: &str) -> Option<u16> {
    let known = [
        "Forwarding from 127.0.0.1:",
        "Starting to serve on 127.0.0.1:",
    ];
    let from = known.iter().find_map(|known| line.strip_prefix(known))?;
    from.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_what_kubectl_says() {
        assert_eq!(
            forwarded_port("Forwarding from 127.0.0.1:40001 -> 7070\n"),
            Some(40001)
        );
        assert_eq!(
            forwarded_port("Starting to serve on 127.0.0.1:40002\n"),
            Some(40002)
        );
        assert_eq!(forwarded_port("error: unable to forward\n"), None);
    }
}
