//! What `weir ring` and `weir node` are told.

use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches as _, Subcommand};

use super::series::Series;
use crate::duration::parse_duration;

/// Arguments of `weir ring` or `weir node`.
#[derive(Clone, Debug)]
pub struct AdminArgs {
    /// Whom to ask, and how to answer.
    pub connection: Connection,
    /// What to do.
    pub command: AdminCommand,
}

/// What an administrator wants.
#[derive(Clone, Debug)]
pub enum AdminCommand {
    /// Something about the ring.
    Ring(RingCommand),
    /// Something about nodes.
    Node(NodeCommand),
}

/// Whom to ask, and how to answer.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Connection {
    /// Address of any node for the cluster (its --cluster.address).
    #[arg(long, global = true, value_name = "HOST:PORT", default_value = "127.0.0.1:10903")]
    pub address: String,
    /// How long one answer of a node may take.
    #[arg(long, global = true, value_name = "DURATION", value_parser = some_time, default_value = "10s")]
    pub timeout: Duration,
    /// Print JSON for programs.
    #[arg(long, global = true)]
    pub json: bool,
}

/// How a change is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Consent {
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask. Needed where there is no terminal to ask on.
    #[arg(long, short)]
    pub yes: bool,
}

/// How fast placements move, to say how long it takes. The leader's own settings are not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Pace {
    /// Pause between two waves of moves.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub step_interval: Duration,
    /// Most moves of one wave [default: one for sixteen slots].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_moves_per_step: Option<u32>,
}

#[derive(Clone, Debug, Args)]
struct RingArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: RingCommand,
}

#[derive(Clone, Debug, Args)]
struct NodeArgs {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: NodeCommand,
}

/// `weir ring …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum RingCommand {
    /// Shows the cluster, its voters, what each node holds, and what is wrong.
    Status,
    /// Shows what would move if nodes came or went. Changes nothing.
    Plan(PlanArgs),
    /// Explains which nodes own a series.
    Where {
        /// Tenant of the series.
        #[arg(long, value_name = "NAME", default_value = "default-tenant")]
        tenant: String,
        /// The series after relabeling, like 'up{job="node"}' or '{__name__="up",job="node"}'.
        series: Series,
    },
    /// Moves what the leader does not move by itself: slots of nodes that are lost and not given up, and
    /// replica groups.
    Rebalance(RebalanceArgs),
    /// Shows the agreement below the ring.
    #[command(subcommand)]
    Raft(RaftCommand),
}

/// `weir ring plan`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct PlanArgs {
    /// The pool whose table is planned.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub pool: String,
    /// A node that would come. May be given several times.
    #[arg(long, value_name = "NAME:ZONE[:WEIGHT]")]
    pub add: Vec<NewNode>,
    /// Name or uid of a node that would go. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub remove: Vec<String>,
    /// Form replica groups anew, at the price of moves.
    #[arg(long)]
    pub regroup: bool,
    /// How fast placements move.
    #[command(flatten)]
    pub pace: Pace,
}

/// `weir ring rebalance`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct RebalanceArgs {
    /// The pool whose table is changed.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub pool: String,
    /// Form replica groups anew, at the price of moves.
    #[arg(long)]
    pub regroup: bool,
    /// How fast placements move.
    #[command(flatten)]
    pub pace: Pace,
    /// Whether it is done at all.
    #[command(flatten)]
    pub consent: Consent,
}

/// `weir ring raft …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum RaftCommand {
    /// Asks each voter how it is doing.
    Status,
    /// Lists the voters.
    Voters,
    /// Makes a node a voter. Only while the autopilot is off.
    Promote {
        /// Name or uid of the node.
        name: String,
        /// Whether it may be done.
        #[command(flatten)]
        consent: Consent,
    },
    /// Lets a voter only watch from now on. Only while the autopilot is off.
    Demote {
        /// Name or uid of the node.
        name: String,
        /// Whether it may be done.
        #[command(flatten)]
        consent: Consent,
    },
    /// Says whether the leader chooses the voters by itself, as it does unless told otherwise.
    Autopilot {
        /// Whether it does.
        #[arg(value_enum)]
        switch: OnOff,
        /// Whether it may be done.
        #[command(flatten)]
        consent: Consent,
    },
    /// Has the leader take a snapshot of the ring.
    Snapshot,
    /// Begins the cluster anew from a node that is stopped, when a majority of the voters is gone for good.
    ForceNew {
        /// What the node has as --data.path.
        #[arg(long, value_name = "DIRECTORY")]
        data_path: std::path::PathBuf,
        /// Whether it may be done.
        #[command(flatten)]
        consent: Consent,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnOff {
    /// On.
    On,
    /// Off.
    Off,
}

/// `weir node …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum NodeCommand {
    /// Lists the nodes.
    List,
    /// Has the slots of a node moved away, so that it can be deleted.
    Drain {
        /// Name or uid of the node.
        name: String,
        /// Follow it until the node can be deleted.
        #[arg(long)]
        wait: bool,
        /// How fast placements move.
        #[command(flatten)]
        pace: Pace,
        /// Whether it is done at all.
        #[command(flatten)]
        consent: Consent,
    },
    /// Takes a drain back.
    Undrain {
        /// Name or uid of the node.
        name: String,
        /// How fast placements move.
        #[command(flatten)]
        pace: Pace,
        /// Whether it is done at all.
        #[command(flatten)]
        consent: Consent,
    },
    /// Gives all slots of a dead node to a new one. Nothing else moves.
    Replace {
        /// Name or uid of the node that is gone for good.
        old: String,
        /// Name or uid of a node without any slot.
        new: String,
        /// Also if the old node answers, or is of another zone.
        #[arg(long)]
        force: bool,
        /// Whether it is done at all.
        #[command(flatten)]
        consent: Consent,
    },
    /// Gives a node up that is gone for good: its slots go to the others. It can never come back.
    Forget {
        /// Name or uid of the node.
        name: String,
        /// Also if the node answers, or the others cannot do without it.
        #[arg(long)]
        force: bool,
        /// Whether it is done at all.
        #[command(flatten)]
        consent: Consent,
    },
    /// Sets the share of a node.
    Weight {
        /// Name or uid of the node.
        name: String,
        /// Its share in proportion to other nodes.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        weight: u32,
        /// How fast placements move.
        #[command(flatten)]
        pace: Pace,
        /// Whether it is done at all.
        #[command(flatten)]
        consent: Consent,
    },
    /// Tokens with which nodes may join.
    #[command(subcommand)]
    Token(TokenCommand),
}

/// `weir node token …`
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum TokenCommand {
    /// Makes a token and prints it. It is not shown again.
    Create {
        /// How long nodes may join with it.
        #[arg(long, value_name = "DURATION", value_parser = some_time, default_value = "24h")]
        ttl: Duration,
        /// How many nodes may join with it.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), default_value = "1")]
        uses: u32,
    },
    /// Lists the tokens, without their secrets.
    List,
    /// Makes a token worthless.
    Revoke {
        /// The part of the token before the dot.
        id: String,
        /// Whether it is done at all.
        #[command(flatten)]
        consent: Consent,
    },
}

/// A node that does not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Its name.
    pub name: String,
    /// What it may fail with; empty if unknown.
    pub zone: String,
    /// Its share.
    pub weight: u32,
}

impl std::str::FromStr for NewNode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (name, zone, weight) = match parts[..] {
            [name] => (name, "", "1"),
            [name, zone] => (name, zone, "1"),
            [name, zone, weight] => (name, zone, weight),
            _ => return Err("more than NAME:ZONE:WEIGHT".to_owned()),
        };
        if name.is_empty() {
            return Err("the name is empty".to_owned());
        }
        let weight = weight.parse().ok().filter(|weight| *weight > 0);
        let weight = weight.ok_or("the weight is no number from 1 to 4294967295")?;
        Ok(Self { name: name.to_owned(), zone: zone.to_owned(), weight })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be more than nothing".to_owned()),
        duration => Ok(duration),
    }
}

/// The commands of this module, to be added to the program's.
pub fn commands() -> [clap::Command; 2] {
    let ring = clap::Command::new("ring").about("Shows and changes the ring of a cluster.");
    let node = clap::Command::new("node").about("Shows and changes the nodes of a cluster.");
    let exit_codes = "Exit codes: 0 done, 1 failed, 2 wrong usage.";
    [RingArgs::augment_args(ring), NodeArgs::augment_args(node)].map(|command| command.after_help(exit_codes))
}

impl AdminArgs {
    /// Reads what clap found behind `weir <name>`; none if `name` is none of [`commands`].
    ///
    /// # Errors
    /// As clap has it.
    pub fn from_matches(name: &str, matches: &ArgMatches) -> Option<Result<Self, clap::Error>> {
        let ring =
            |args: RingArgs| Self { connection: args.connection, command: AdminCommand::Ring(args.command) };
        let node =
            |args: NodeArgs| Self { connection: args.connection, command: AdminCommand::Node(args.command) };
        match name {
            "ring" => Some(RingArgs::from_arg_matches(matches).map(ring)),
            "node" => Some(NodeArgs::from_arg_matches(matches).map(node)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Invocation};

    fn parsed(arguments: &[&str]) -> Result<AdminArgs, clap::Error> {
        match cli::parse(["weir"].iter().chain(arguments))? {
            Invocation::Admin(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    fn node(arguments: &[&str]) -> NodeCommand {
        match parsed(arguments).map(|args| args.command) {
            Ok(AdminCommand::Node(command)) => command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn commands_are_read() {
        let args = parsed(&["ring", "status", "--address", "a:1", "--json"]).expect("it parses");
        let connection =
            Connection { address: "a:1".to_owned(), timeout: Duration::from_secs(10), json: true };
        assert_eq!(args.connection, connection);
        assert!(matches!(args.command, AdminCommand::Ring(RingCommand::Status)));
        let args = parsed(&["ring", "--timeout=3s", "raft", "voters"]).expect("it parses");
        assert_eq!(args.connection.address, "127.0.0.1:10903");
        assert_eq!(args.connection.timeout, Duration::from_secs(3));
        let pace = Pace { step_interval: Duration::from_secs(30), max_moves_per_step: None };
        let drain = |wait, dry_run, yes| NodeCommand::Drain {
            name: "a".to_owned(),
            wait,
            pace,
            consent: Consent { dry_run, yes },
        };
        assert_eq!(node(&["node", "drain", "a"]), drain(false, false, false));
        assert_eq!(node(&["node", "drain", "--wait", "-y", "a"]), drain(true, false, true));
        assert_eq!(node(&["node", "drain", "a", "--dry-run"]), drain(false, true, false));
        let create = |ttl, uses| NodeCommand::Token(TokenCommand::Create { ttl, uses });
        let hour = Duration::from_secs(3600);
        assert_eq!(node(&["node", "token", "create"]), create(24 * hour, 1));
        assert_eq!(node(&["node", "token", "create", "--ttl=1h", "--uses=7"]), create(hour, 7));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for arguments in [
            &["ring"][..],
            &["ring", "what"],
            &["ring", "where"],
            &["ring", "where", "up{"],
            &["ring", "plan", "--add=:a"],
            &["ring", "plan", "--add=n:a:0"],
            &["ring", "plan", "--add=n:a:1:2"],
            &["ring", "status", "--timeout=3"],
            &["node", "drain"],
            &["node", "weight", "a", "0"],
            &["node", "weight", "a", "-1"],
            &["node", "replace", "a"],
            &["node", "token", "create", "--uses=0"],
            &["node", "token", "create", "--ttl=x"],
            &["node", "token", "create", "--ttl=0"],
        ] {
            let error = parsed(arguments).expect_err("it is wrong");
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn nodes_that_would_come() {
        let check = |text: &str, name: &str, zone: &str, weight| {
            let expected = NewNode { name: name.to_owned(), zone: zone.to_owned(), weight };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        };
        check("n", "n", "", 1);
        check("n:a", "n", "a", 1);
        check("n::3", "n", "", 3);
        check("n:a:4294967295", "n", "a", u32::MAX);
        for text in ["", ":a", "n:a:", "n:a:-1", "n:a:4294967296", "n:a:1:"] {
            assert!(text.parse::<NewNode>().is_err(), "{text}");
        }
    }
}
