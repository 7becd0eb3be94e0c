//! The Raft node: how the members of a cluster agree on one order of commands.
//!
//! A command is handed to the leader, lies in the logs of a majority before it counts, and is then
//! applied by every member to its own copy of a [`Machine`]. What the commands mean is the
//! machine's business; this module carries, keeps and orders them. Its parts, from the disk up:
//!
//! - [`store`]: vote and log on disk. What it acknowledged survives a power cut.
//! - `snapshots`: states of the machine as files, so that the log can be short.
//! - `log` and `machine`: what the Raft library asks of a store and of a machine.
//! - `network`: the library's requests as bytes, carried by a [`Transport`]. Requests of other
//!   clusters, or of another life of this one, are refused.
//! - [`offline`]: the state of a member that does not run.
//! - [`RaftNode`]: all of it put together; the only part that most callers see.
//!
//! Rules that hold everywhere:
//!
//! - An id of a member is used once. A member whose disk is gone or damaged comes back as another
//!   member: it may have voted and does not know for whom.
//! - A failed write ends the member. What a disk did with data whose sync failed is not known, so
//!   there is nothing to retry; [`RaftNode::failed`] tells, and the process must end.
//! - The library's own types stay inside: its next version may look different.

mod config;
pub(crate) mod files;
#[expect(clippy::result_large_err, reason = "the library's errors are as large as they are")]
mod log;
#[expect(clippy::result_large_err, reason = "the library's errors are as large as they are")]
mod machine;
mod membership;
pub mod memory;
mod network;
mod node;
pub mod offline;
mod snapshots;
pub mod store;
mod types;

pub use config::{Identity, RaftConfig};
pub use machine::{Machine, Published, RestoreError};
pub use membership::{ChangeError, Members};
pub use network::{RaftRequest, RaftResponse, Refusal, RequestKind, Transport, TransportError};
pub use node::{Begun, COMMAND_BYTES_MAX, InitializeFailed, ProposeError, RaftNode, StartError, Status};
pub use types::{LogPlace, Peer, RaftId};
