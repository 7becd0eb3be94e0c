//! The control plane of a node: how it comes into a cluster, and how it knows the ring.
//!
//! [`ClusterNode`] puts together what the rest of this crate only computes. From the disk up:
//!
//! - `identity`: who the node is, and that its data belongs together.
//! - `ring_file` and `publisher`: the last ring on disk, written before it is used. A node that starts
//!   alone serves with it, for ever if need be.
//! - `machine`, `channels`, `transport`: the ring as the machine of [`crate::raft`], over gRPC.
//! - [`resolve`]: the addresses that names of peers stand for.
//! - [`bootstrap`] and `discovery`: whether a node without a cluster founds one, joins one or waits.
//! - `presence`: the node registers itself, says what changed about it, and how it is doing.
//! - [`duties`], [`node_steps`] and `leader`: what the leader proposes by itself.
//! - `objections`: what it is not talked into without force.
//! - `follow`: voters take the ring from Raft, all others watch a voter.
//! - `admission`, `join_token` and `policy`: whom the leader lets join.
//! - `status` and `overview`: what people are shown.
//! - `raft_part`: how a node begins and ends to take part in Raft, and `autopilot`, with the choice in
//!   [`voters`]: the leader decides who does.
//! - [`force_new()`]: the next generation of a cluster whose voters are gone for good; nodes of the
//!   one before go over to it when they meet it.
//! - `founding`: a name is used for one cluster only.
//! - `heartbeat` and `clocks`: what the leader learns from all, and tells them.
//! - `admin`: what people ask about the members of Raft, and change by hand.
//! - `services` and `leader_client`: the two sides of the messages.
//!
//! The founders of a cluster are its first voters. Nodes that join later watch, until the leader makes
//! voters of some of them.
//!
//! What a node does on its own it does in one task, whose parts are dropped together. Nothing that the
//! write path needs waits for any of it: it reads the view that was published last.

mod admin;
mod admission;
mod autopilot;
pub mod bootstrap;
mod channels;
mod clocks;
mod config;
mod data_lock;
mod discovery;
pub mod duties;
mod follow;
mod force_new;
mod founding;
mod heartbeat;
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
mod raft_part;
pub mod resolve;
mod ring_file;
mod services;
mod shared;
mod soft;
mod status;
mod surroundings;
mod transport;
pub mod voters;
mod wire;

pub use admin::{AdminAnswer, AdminQuestion, AdminRefused, MemberStatus, MembersStatus};
pub use autopilot::AUTOPILOT_SETTING;
pub use channels::{BadAddress, Channel, Dialer, OverTcp};
pub use clocks::Median;
pub use config::{CELLS_MAX, ClusterConfig, ClusterTimers};
pub use discovery::{Resolved, Resolver, StaticPeers};
pub use force_new::{ForceNewError, ForcedCluster, force_new};
pub use founding::{FoundingGuard, GuardError};
pub use identity::{Founder, IdentityError, Membership};
pub use join_token::{BadTokenText, TokenRequestFault, TokenText, new_join_token};
pub use leader_client::ProposeFailed;
pub use machine::{Outcome, RingMachine};
pub use node::{ClusterFailure, ClusterNode, StartError};
pub use policy::{ClusterPolicies, JoinPolicy, ReplacePolicy};
pub use publisher::ViewReceiver;
pub use ring_file::{RingFileError, RingRecord, decode as decode_backup};
pub use soft::Report;
pub use status::{ClusterStatus, EpochStatus, NodeStatus, PoolStatus, RaftStatus, ReportStatus, TokenStatus};
pub use surroundings::{Nature, RealNature, Surroundings};
pub use wire::{MESSAGE_BYTES_MAX, VERSION as MESSAGE_VERSION};
