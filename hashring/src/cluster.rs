//! The control plane of a node: how it comes into a cluster, and how it knows the ring.
//!
//! [`ClusterNode`] puts together what the rest of this crate only computes. From the disk up:
//!
//! - `identity`: who the node is, and that its data belongs together.
//! - `ring_file` and `publisher`: the last ring on disk, written before it is used. A node that starts
//!   alone serves with it, for ever if need be.
//! - `machine`, `channels`, `transport`: the ring as the machine of [`crate::raft`], over gRPC.
//! - [`bootstrap`] and `discovery`: whether a node without a cluster founds one, joins one or waits.
//! - `presence`: the node registers itself, says what changed about it, and how it is doing.
//! - [`duties`], [`node_steps`] and `leader`: what the leader proposes by itself.
//! - `objections`: what it is not talked into without force.
//! - `follow`: voters take the ring from Raft, all others watch a voter.
//! - `admission`, `join_token` and `policy`: whom the leader lets join.
//! - `status` and `overview`: what people are shown.
//! - `services` and `leader_client`: the two sides of the messages.
//!
//! The founders of a cluster are its voters. Nodes that join later watch; making voters of them is
//! not done here yet.
//!
//! What a node does on its own it does in one task, whose parts are dropped together. Nothing that the
//! write path needs waits for any of it: it reads the view that was published last.

mod admission;
pub mod bootstrap;
mod channels;
mod config;
mod discovery;
pub mod duties;
mod follow;
mod identity;
mod join_token;
mod leader;
mod leader_client;
mod machine;
mod node;
pub mod node_steps;
mod objections;
mod overview;
mod policy;
mod presence;
mod publisher;
mod ring_file;
mod services;
mod shared;
mod soft;
mod status;
mod surroundings;
mod transport;
mod wire;

pub use channels::{BadAddress, Channel, Dialer, OverTcp};
pub use config::{CELLS_MAX, ClusterConfig, ClusterTimers};
pub use discovery::{Resolved, Resolver, StaticPeers};
pub use identity::{Founder, IdentityError, Membership, NodeIdentity};
pub use join_token::{BadTokenText, TokenRequestFault, TokenText, new_join_token};
pub use leader_client::ProposeFailed;
pub use machine::{Outcome, RingMachine};
pub use node::{ClusterFailure, ClusterNode, StartError};
pub use policy::{ClusterPolicies, JoinPolicy, ReplacePolicy};
pub use publisher::ViewReceiver;
pub use ring_file::RingRecord;
pub use soft::Report;
pub use status::{ClusterStatus, EpochStatus, NodeStatus, PoolStatus, RaftStatus, ReportStatus, TokenStatus};
pub use surroundings::{Nature, RealNature, Surroundings};
pub use wire::{MESSAGE_BYTES_MAX, VERSION as MESSAGE_VERSION};
