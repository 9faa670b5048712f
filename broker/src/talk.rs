//! The verbs that talk to a cluster, for whoever knows how to reach one: by their own options, or
//! by a way that somebody else has made.

use clap::{ArgMatches, Command, FromArgMatches, Subcommand};

use crate::connection::{Connection, ControlPort};
use crate::exit::{EXIT_CODES, Failure};
use crate::{consume, describe, list, nodes, peek, publish, read};

/// One of the verbs, with its options.
#[derive(Debug)]
pub struct Talk(Verb);

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send messages to a queue or topic
    #[command(after_help = EXIT_CODES)]
    Publish(publish::Args),
    /// Take messages from a queue, one a line
    #[command(after_help = EXIT_CODES)]
    Consume(consume::Args),
    /// Replay a topic, one message a line
    #[command(after_help = EXIT_CODES)]
    Read(read::Args),
    /// Look at the messages of a queue without taking them
    #[command(after_help = EXIT_CODES)]
    Peek(peek::Args),
    /// Show one queue or topic: what is declared, and how it does
    #[command(after_help = EXIT_CODES)]
    Describe(describe::Args),
    /// List queues and topics
    #[command(after_help = EXIT_CODES)]
    List(list::Args),
    /// List the nodes of the cluster
    #[command(after_help = EXIT_CODES)]
    Nodes(nodes::ListArgs),
    /// List the shards, who leads them and how far their replicas are
    #[command(after_help = EXIT_CODES)]
    Shards(nodes::ListArgs),
    /// Have a node hand over what it leads, and wait until it can be stopped
    #[command(after_help = EXIT_CODES)]
    Drain(nodes::DrainArgs),
    /// Say whether a node can be stopped without harm, and what stands against it
    #[command(after_help = EXIT_CODES)]
    CanStop(nodes::ListedNodeArgs),
    /// Let a node lead again
    #[command(after_help = EXIT_CODES)]
    Undrain(nodes::NodeArgs),
    /// Have a node's replicas moved to others, and keep it from getting new ones
    #[command(after_help = EXIT_CODES)]
    Cordon(nodes::NodeArgs),
    /// Let a node have replicas again
    #[command(after_help = EXIT_CODES)]
    Uncordon(nodes::NodeArgs),
    /// Strike a node off that has no replicas any more
    #[command(after_help = EXIT_CODES)]
    Forget(nodes::NodeArgs),
    /// Have another node lead a shard
    #[command(after_help = EXIT_CODES)]
    Transfer(nodes::TransferArgs),
    /// Move a replica of a shard to another node
    #[command(after_help = EXIT_CODES)]
    Move(nodes::MoveArgs),
}

/// Which port of a broker a verb needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// That of clients.
    Clients,
    /// That which steers; it wants the control token.
    Control,
}

/// A way to one broker of a cluster, in place of the options that say it.
#[derive(Clone, Debug)]
pub struct Way {
    /// The port of that broker which the verb needs.
    pub url: String,
    /// The control token; unused on the port of clients.
    pub token: String,
    /// Of addresses that do not say it.
    pub namespace: String,
}

impl Talk {
    /// Options that say how to reach a broker: useless beside a [`Way`].
    pub const WAY_OPTIONS: [&str; 4] = ["server", "no_direct", "control", "control_token_file"];

    /// Lists queues and topics of all namespaces.
    #[must_use]
    pub fn list() -> Self {
        Self(Verb::List(list::Args::everything()))
    }

    /// Which port it needs.
    #[must_use]
    pub fn port(&mut self) -> Port {
        match self.parts() {
            (Reach::Clients(_), _) => Port::Clients,
            (Reach::Control(_), _) => Port::Control,
        }
    }

    /// Has it go that way. A namespace in its own options stays.
    pub fn go(&mut self, way: Way) {
        let (reach, namespace) = self.parts();
        if let Some(namespace) = namespace {
            namespace.get_or_insert(way.namespace);
        }
        match reach {
            Reach::Clients(connection) => connection.go(way.url),
            Reach::Control(port) => port.go(way.url, way.token),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// With what to tell people and scripts.
    pub async fn run(self) -> Result<(), Failure> {
        match self.0 {
            Verb::Publish(args) => publish::run(args).await,
            Verb::Consume(args) => consume::run(args).await,
            Verb::Read(args) => read::run(args).await,
            Verb::Peek(args) => peek::run(args).await,
            Verb::Describe(args) => describe::run(args).await,
            Verb::List(args) => list::run(args).await,
            Verb::Nodes(args) => nodes::nodes(args).await,
            Verb::Shards(args) => nodes::shards(args).await,
            Verb::CanStop(args) => nodes::can_stop(args).await,
            Verb::Drain(args) => nodes::drain(args).await,
            Verb::Undrain(args) => nodes::undrain(args).await,
            Verb::Cordon(args) => nodes::cordon(args).await,
            Verb::Uncordon(args) => nodes::uncordon(args).await,
            Verb::Forget(args) => nodes::forget(args).await,
            Verb::Transfer(args) => nodes::transfer(args).await,
            Verb::Move(args) => nodes::move_replica(args).await,
        }
    }

    /// What of its options says where.
    fn parts(&mut self) -> (Reach<'_>, Option<&mut Option<String>>) {
        let clients = |connection, namespace| (Reach::Clients(connection), Some(namespace));
        let control = |port| (Reach::Control(port), None);
        match &mut self.0 {
            Verb::Publish(args) => clients(&mut args.connection, &mut args.target.namespace),
            Verb::Consume(args) => clients(&mut args.connection, &mut args.target.namespace),
            Verb::Read(args) => clients(&mut args.connection, &mut args.target.namespace),
            Verb::Peek(args) => clients(&mut args.connection, &mut args.target.namespace),
            Verb::Describe(args) => clients(&mut args.connection, &mut args.target.namespace),
            Verb::List(args) => clients(&mut args.connection, &mut args.namespace),
            Verb::Nodes(args) | Verb::Shards(args) => control(&mut args.port),
            Verb::CanStop(args) => control(&mut args.node.port),
            Verb::Drain(args) => control(&mut args.node.port),
            Verb::Undrain(args)
            | Verb::Cordon(args)
            | Verb::Uncordon(args)
            | Verb::Forget(args) => control(&mut args.port),
            Verb::Transfer(args) => control(&mut args.port),
            Verb::Move(args) => control(&mut args.port),
        }
    }
}

enum Reach<'a> {
    Clients(&'a mut Connection),
    Control(&'a mut ControlPort),
}

impl FromArgMatches for Talk {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Verb::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Subcommand for Talk {
    fn augment_subcommands(command: Command) -> Command {
        Verb::augment_subcommands(command)
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Verb::augment_subcommands_for_update(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Verb::has_subcommand(name)
    }
}
