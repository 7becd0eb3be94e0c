//! `weir ring` and `weir node`: what people and scripts ask of a cluster, and change in it.
//!
//! Everything goes through the address for the cluster of any node, by the messages that nodes use
//! among themselves. What a change would move is planned here, with the planner of the leader and the ring
//! as it tells it; nothing is changed by looking, and looking needs no leader. A change is one command of the ring, which
//! whoever leads has applied; `rebalance` alone is a series of them, each made from the epoch
//! that it was planned from, so that it can be broken off and begun again at any time.
//!
//! A command makes one report on standard output: text for people, or JSON with `--json`, whose fields
//! are those of the report's type. What goes on meanwhile, and what is asked, goes to standard error.

pub mod args;
mod balance;
mod change;
mod client;
pub mod console;
mod drain;
mod error;
mod forecast;
mod names;
mod node_list;
mod plan;
mod raft;
mod raft_change;
mod rebalance;
mod ring_status;
#[cfg(test)]
mod samples;
mod series;
mod show;
mod table;
mod token;
mod whereabouts;

pub use error::AdminError;

use self::{
    args::{AdminArgs, AdminCommand, NodeCommand, OnOff, RaftCommand, RingCommand},
    client::Client,
    console::{Console, Output},
};

/// Does what an administrator wants.
///
/// # Errors
/// If it is not done, or not as a whole; [`AdminError::exit_code`] tells the exit code.
pub async fn run(args: AdminArgs, console: &mut dyn Console) -> Result<(), AdminError> {
    let client = Client::new(args.connection.address, args.connection.timeout);
    let mut output = Output::new(console, args.connection.json);
    match args.command {
        AdminCommand::Ring(command) => ring(&client, &mut output, command).await,
        AdminCommand::Node(command) => node(&client, &mut output, command).await,
    }
}

async fn ring(client: &Client, output: &mut Output<'_>, command: RingCommand) -> Result<(), AdminError> {
    match command {
        RingCommand::Status => output.report(&ring_status::ring_status(client).await?),
        RingCommand::Plan(args) => output.report(&plan::plan(client, &args).await?),
        RingCommand::Where { tenant, series } => {
            let ring = client.known_ring().await?;
            let mut found = whereabouts::whereabouts(&ring.state, &tenant, &series)?;
            found.warnings.extend(ring.doubt);
            output.report(&found);
        }
        RingCommand::Rebalance(args) => rebalance::rebalance(client, output, &args).await?,
        RingCommand::Raft(command) => raft(client, output, command).await?,
    }
    Ok(())
}

async fn raft(client: &Client, output: &mut Output<'_>, command: RaftCommand) -> Result<(), AdminError> {
    match command {
        RaftCommand::Status => output.report(&raft::raft_status(client).await?),
        RaftCommand::Voters => output.report(&raft::voters(client).await?),
        RaftCommand::Promote { name, consent } => {
            raft_change::set_voter(client, output, &name, true, consent).await?;
        }
        RaftCommand::Demote { name, consent } => {
            raft_change::set_voter(client, output, &name, false, consent).await?;
        }
        RaftCommand::Autopilot { switch, consent } => {
            raft_change::set_autopilot(client, output, switch == OnOff::On, consent).await?;
        }
        RaftCommand::Snapshot => raft_change::snapshot(client, output).await?,
        RaftCommand::ForceNew { data_path, consent } => {
            raft_change::force(output, &data_path, consent).await?;
        }
    }
    Ok(())
}

async fn node(client: &Client, output: &mut Output<'_>, command: NodeCommand) -> Result<(), AdminError> {
    match command {
        NodeCommand::List => {
            output.report(&node_list::node_list(&client.picture().await?));
            Ok(())
        }
        NodeCommand::Drain { name, wait, pace, consent } => {
            drain::drain(client, output, &name, wait, pace, consent).await
        }
        NodeCommand::Undrain { name, pace, consent } => {
            change::undrain(client, output, &name, pace, consent).await
        }
        NodeCommand::Replace { old, new, force, consent } => {
            change::replace(client, output, [&old, &new], force, consent).await
        }
        NodeCommand::Forget { name, force, consent } => {
            change::forget(client, output, &name, force, consent).await
        }
        NodeCommand::Weight { name, weight, pace, consent } => {
            change::weight(client, output, &name, weight, pace, consent).await
        }
        NodeCommand::Token(command) => token::token(client, output, command).await,
    }
}
