//! The command line: from arguments to the values of known flags.
//!
//! The flags themselves stand in [`flags`]. What is read here is text only; [`crate::config`]
//! judges it.

pub mod flags;

use std::{collections::HashMap, ffi::OsString, path::PathBuf, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, value_parser};

use self::flags::{Flag, Kind, Standing};
use crate::{
    admin::args::{self as admin_args, AdminArgs},
    duration::parse_duration,
};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run a node.
    Receive(Values),
    /// Run a node on this machine to try it out.
    Dev(DevArgs),
    /// Ask a cluster something, or change something in it.
    Admin(AdminArgs),
}

/// Arguments of `weir dev`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevArgs {
    /// Directory for data and logs.
    pub data: PathBuf,
    /// Added to the ports 19291, 10901 and 10902.
    pub port_offset: u16,
    /// How often the node's own metrics are written into it.
    pub scrape_interval: Duration,
    /// How long a node may take until it is ready.
    pub ready_timeout: Duration,
    /// Pause before a node that has ended is started again.
    pub restart_pause: Duration,
}

/// Reads the command line, program name first.
///
/// # Errors
/// What clap found wrong, or the text of `--help` and `--version`; [`clap::Error::exit`] prints
/// either to the right place and with the right code.
pub fn parse<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Result<Invocation, clap::Error> {
    let arguments = arguments.into_iter().map(|argument| without_negatives(argument.into()));
    let matches = command().try_get_matches_from(arguments)?;
    match matches.subcommand() {
        Some(("dev", matches)) => Ok(Invocation::Dev(dev_args(matches))),
        Some(("receive", matches)) => Ok(Invocation::Receive(Values::from_matches(matches))),
        Some((name, matches)) if let Some(args) = AdminArgs::from_matches(name, matches) => {
            args.map(Invocation::Admin)
        }
        _ => unreachable!("clap demands one of the subcommands that command() lists"),
    }
}

/// Values of the flags that were given to `weir receive`.
#[derive(Clone, Debug, Default)]
pub struct Values {
    given: HashMap<&'static str, Vec<String>>,
}

impl Values {
    fn from_matches(matches: &ArgMatches) -> Self {
        let mut given = HashMap::new();
        for flag in flags::all() {
            if let Some(values) = matches.get_many::<String>(flag.name) {
                given.insert(flag.name, values.cloned().collect());
            }
        }
        Self { given }
    }

    /// What was given for the flag `name`, in order; empty if it was not given.
    pub fn given(&self, name: &str) -> &[String] {
        self.given.get(name).map_or(&[], Vec::as_slice)
    }

    /// Sets a flag as if it had been given once more.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.given.entry(flags::find(name).name).or_default().push(value.into());
    }
}

fn command() -> clap::Command {
    clap::Command::new("weir")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The push side of Prometheus: takes remote write, stores it, serves it, ships blocks.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(receive_command())
        .subcommand(dev_command())
        .subcommands(admin_args::commands())
}

fn receive_command() -> clap::Command {
    let mut command =
        clap::Command::new("receive").about("Runs a node with the flags of `thanos receive`.").after_help(
            "Durations are written like 15d, 1h30m or 500ms, sizes like 512MiB. Switches take the forms \
             --x, --no-x and --x=false. -h leaves out what is not built yet.",
        );
    for group in flags::GROUPS {
        for flag in group.flags {
            command = command.arg(argument(flag).help_heading(group.heading));
        }
    }
    command
}

fn argument(flag: &'static Flag) -> Arg {
    let action = if flag.repeat { ArgAction::Append } else { ArgAction::Set };
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .action(action)
        .value_parser(value_parser!(String))
        .help(help(flag))
        .hide(flag.hidden)
        .hide_short_help(flag.standing != Standing::Built);
    match flag.kind {
        Kind::Switch => {
            let arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
            arg.overrides_with(flag.name).value_name("BOOL")
        }
        Kind::Text => arg.value_name("TEXT"),
        Kind::Address => arg.value_name("HOST:PORT"),
        Kind::Duration => arg.value_name("DURATION"),
        Kind::Bytes => arg.value_name("BYTES"),
        Kind::Count | Kind::Number => arg.value_name("N"),
        Kind::Choice(_) => arg.value_name("WORD"),
    }
}

fn help(flag: &Flag) -> String {
    let mut help = flag.help.to_owned();
    if let Kind::Choice(words) = flag.kind {
        let words: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
        help.push_str(&format!(" [one of: {}]", words.join(", ")));
    }
    if !flag.default.is_empty() {
        help.push_str(&format!(" [default: {}]", flag.default));
    }
    match flag.standing {
        Standing::Built => {}
        Standing::NotBuilt => help.push_str(" [not built yet]"),
        Standing::NoEffect(why) => help.push_str(&format!(" [no effect: {why}]")),
    }
    help
}

/// Turns `--no-x` of a switch into `--x=false`, so that of several forms the last one counts.
fn without_negatives(argument: OsString) -> OsString {
    let name = argument.to_str().and_then(|text| text.strip_prefix("--no-"));
    let switch = flags::all().find(|flag| flag.kind == Kind::Switch && Some(flag.name) == name);
    switch.map_or(argument, |flag| format!("--{}=false", flag.name).into())
}

fn dev_command() -> clap::Command {
    let duration = |text: &str| parse_duration(text).map_err(|error| error.to_string());
    clap::Command::new("dev")
        .about(
            "Runs three nodes on this machine, with their own metrics written into them. Ctrl-C stops them.",
        )
        .arg(
            Arg::new("data")
                .long("data")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .default_value("./weir-data")
                .help("Where data and logs go; they are found again at the next start."),
        )
        .arg(
            Arg::new("port-offset")
                .long("port-offset")
                .value_name("N")
                .value_parser(value_parser!(u16).range(0..=40_000))
                .default_value("0")
                .help(
                    "Added to the ports 19291 (write), 10901 (gRPC) and 10902 (HTTP); nodes lie 100 apart.",
                ),
        )
        .arg(
            Arg::new("scrape-interval")
                .long("scrape-interval")
                .value_name("DURATION")
                .value_parser(duration)
                .default_value("15s")
                .help("How often the nodes' own metrics are written into them."),
        )
        .arg(
            Arg::new("ready-timeout")
                .long("ready-timeout")
                .value_name("DURATION")
                .value_parser(duration)
                .default_value("1m")
                .help("How long the nodes may take until they are ready."),
        )
        .arg(
            Arg::new("restart-pause")
                .long("restart-pause")
                .value_name("DURATION")
                .value_parser(duration)
                .default_value("10s")
                .help("Pause before a node that has ended is started again."),
        )
}

fn dev_args(matches: &ArgMatches) -> DevArgs {
    const DEFAULTED: &str = "clap fills in the default";
    DevArgs {
        data: matches.get_one::<PathBuf>("data").expect(DEFAULTED).clone(),
        port_offset: *matches.get_one("port-offset").expect(DEFAULTED),
        scrape_interval: *matches.get_one("scrape-interval").expect(DEFAULTED),
        ready_timeout: *matches.get_one("ready-timeout").expect(DEFAULTED),
        restart_pause: *matches.get_one("restart-pause").expect(DEFAULTED),
    }
}

#[cfg(test)]
mod tests;
