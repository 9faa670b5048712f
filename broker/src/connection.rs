//! How the verbs that talk to brokers reach them.

use std::path::PathBuf;

use clap::Args;
use millrace_client::{Client, ClientOptions, Control, Error};
use millrace_proto::v1::Node;

use crate::exit::Failure;

/// How to reach a server; part of every verb that needs one.
#[derive(Debug, Default, Args)]
pub(crate) struct Connection {
    /// Where the broker listens for clients; of several nodes, with commas between, the next is
    /// used when one cannot be reached
    #[arg(
        long,
        value_name = "URL",
        env = "MILLRACE_SERVER",
        default_value = "http://127.0.0.1:7070"
    )]
    pub(crate) server: String,
    /// Send everything to --server, which forwards it, and nothing to other nodes directly: for
    /// when only that one can be reached, as through kubectl port-forward
    #[arg(long, env = "MILLRACE_NO_DIRECT", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_direct: bool,
}

impl Connection {
    /// There, and nowhere else.
    pub(crate) fn go(&mut self, url: String) {
        self.server = url;
        self.no_direct = true;
    }

    /// A client of that server.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let options = ClientOptions {
            direct: !self.no_direct,
            ..ClientOptions::new(&self.server)
        };
        Client::connect(options).map_err(Failure::usage)
    }
}

/// How to reach a control port; part of every verb that needs one.
#[derive(Debug, Args)]
pub(crate) struct ControlPort {
    /// Where any broker of the cluster listens for control
    #[arg(
        long,
        value_name = "URL",
        env = "MILLRACE_CONTROL",
        default_value = "http://127.0.0.1:7071"
    )]
    control: String,
    /// The file with the control token; a broker that listens on loopback may have none
    #[arg(long, value_name = "FILE", env = "MILLRACE_CONTROL_TOKEN_FILE")]
    control_token_file: Option<PathBuf>,
    #[arg(skip)]
    token: Option<String>,
}

impl ControlPort {
    /// There, with this token.
    pub(crate) fn go(&mut self, url: String, token: String) {
        self.control = url;
        self.token = Some(token);
    }

    /// A connection to it.
    pub(crate) fn open(&self) -> Result<Control, Failure> {
        let read = |file: &PathBuf| {
            std::fs::read_to_string(file).map_err(|error| {
                let doing = format!("cannot read the control token from {}", file.display());
                Failure::local(&doing, &error)
            })
        };
        let token = match (&self.token, &self.control_token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => read(file)?,
            (None, None) => String::new(),
        };
        Control::connect(ClientOptions::new(&self.control), &token).map_err(Failure::usage)
    }

    /// A call that failed.
    pub(crate) fn failed(&self, doing: &str, error: &Error) -> Failure {
        Failure::call(doing, &self.control, error)
    }

    /// The id of a node that is named by it, by its first digits or by its host.
    pub(crate) async fn node(&self, control: &Control, name: &str) -> Result<String, Failure> {
        let all = control.nodes().await;
        let all = all.map_err(|error| self.failed("cannot list nodes", &error))?;
        pick(&all.nodes, name)
    }
}

/// The only node of that name.
fn pick(nodes: &[Node], name: &str) -> Result<String, Failure> {
    let digits = name.to_ascii_lowercase();
    let fits = |node: &&Node| node.node_id.starts_with(&digits) || is_host(node, name);
    let mut fits = nodes.iter().filter(fits);
    match (fits.next(), fits.next()) {
        (Some(node), None) if !digits.is_empty() => Ok(node.node_id.clone()),
        (Some(_), _) => Err(Failure::usage(format!("several nodes fit {name:?}"))),
        (None, _) => Err(Failure::usage(format!(
            "no node has an id that begins with {name:?}, nor that host; `nodes` lists them"
        ))),
    }
}

/// Whether that is the host of a node, whole or its first label.
fn is_host(node: &Node, name: &str) -> bool {
    let address = node.peer_address.rsplit("://").next().unwrap_or_default();
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let rest = host.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || (is_label(name) && rest.starts_with('.')))
}

/// The first of a name's labels, and not the first number of an address.
fn is_label(name: &str) -> bool {
    !name.is_empty() && name.parse::<u8>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes() -> Vec<Node> {
        let node = |(id, peer): (&str, &str)| Node {
            node_id: id.to_owned(),
            peer_address: peer.to_owned(),
            ..Node::default()
        };
        let hosts = ["main-0.main-nodes.shop:7073", "127.0.0.1:7073"];
        let others = ["main-10.main-nodes.shop:7073"];
        let hosts = hosts.into_iter().chain(others);
        ["00aa", "00ab", "01aa"]
            .into_iter()
            .zip(hosts)
            .map(node)
            .collect()
    }

    #[test]
    fn a_node_is_named_by_digits_that_tell_it_from_the_others() {
        assert_eq!(pick(&nodes(), "01").unwrap(), "01aa");
        assert_eq!(pick(&nodes(), "00AB").unwrap(), "00ab");
        for wrong in ["", "00", "02"] {
            assert!(pick(&nodes(), wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn a_node_is_named_by_its_host() {
        assert_eq!(pick(&nodes(), "main-0").unwrap(), "00aa");
        assert_eq!(pick(&nodes(), "main-10").unwrap(), "01aa");
        assert_eq!(pick(&nodes(), "main-0.main-nodes.shop").unwrap(), "00aa");
        assert_eq!(pick(&nodes(), "127.0.0.1").unwrap(), "00ab");
        for wrong in ["main", "main-1", "127"] {
            assert!(pick(&nodes(), wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
