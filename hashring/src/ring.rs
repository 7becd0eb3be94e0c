//! The state that all nodes agree on, and how commands change it.
//!
//! [`RingState::apply`] is a pure function of the state and a command: no clock, no chance, no floats,
//! no map whose order is not fixed. So all who apply the same log have the same state, and it is total:
//! a command that does not fit is [`Rejected`] and leaves the state as it was. Whoever proposes
//! commands looks at clocks, plans moves and decides; here it is only checked whether what was decided
//! still fits.
//!
//! What decides where series go is the [`Mapping`]: pools with their tables and matchers, and what
//! is set for tenants. Each change of it raises the epoch by one and is kept as a [`RingDelta`] for eight
//! epochs, for watchers and for [`crate::fencing`]. Everything else, like the addresses of nodes,
//! has versions of its own. A [`Digest`](crate::ids::Digest) over the mapping goes with each epoch;
//! equal epochs with different digests are a bug.
//!
//! The life of a node:
//!
//! ```text
//! Joining ──▶ Active ◀──▶ Draining ──▶ Drained ──▶ Left
//!    ╰───────────┴────────────┴───────────┴──────▶ Lost      Joining may also go straight to Left
//! ```
//!
//! Left and Lost are final: the node's identity is kept as a tombstone and may never come back. A lost
//! node that still holds slots stays in the list of nodes until they are moved; nothing is moved by
//! itself, neither because a node is down nor because it is lost, but only when somebody gave it up by
//! [`Command::ForgetNode`].

mod apply;
mod apply_nodes;
mod check;
mod command;
mod delta;
mod encoding;
mod mapping;
mod node;
mod pool_problems;
mod rejected;
mod state;
mod tenants;

pub(crate) use apply::TOKENS_MAX;
pub use check::Inconsistent;
pub use command::{
    Addresses, Applied, Command, InitCluster, NodeRegistration, NodeUpdate, PlanCommand, Setting,
};
pub use delta::{MappingChange, RingDelta};
pub use mapping::{Mapping, Pool, TenantMapping};
pub use node::{Node, NodeState, OpenLoss, Tombstone};
pub use rejected::{Field, Rejected, TokenFault};
pub use state::{Cluster, ConfigValue, HashFunction, JoinToken, RingState};
pub use tenants::TenantMatcher;

#[cfg(test)]
pub(crate) mod tests;
