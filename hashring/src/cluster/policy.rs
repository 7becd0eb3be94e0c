//! What a leader decides by rules that people choose. Nodes of one cluster should have the same.

use crate::ids::ReplicaCount;

/// The rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterPolicies {
    /// Who may join.
    pub join: JoinPolicy,
    /// Whether nodes of the same name replace dead ones by themselves.
    pub replace: ReplacePolicy,
    /// Whether fewer copies are kept than the cluster was founded with as long as there are too few
    /// nodes. Without it nothing is written then.
    pub rf_allow_degraded: bool,
    /// How many copies of each series the node expects of a cluster that it joins; none for any number.
    pub expected_replicas: Option<ReplicaCount>,
}

/// Who may join a cluster that it did not found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinPolicy {
    /// Whoever reaches it. A token is not looked at.
    #[default]
    Open,
    /// Whoever has a token of the cluster.
    Token,
}

/// How a node with an empty disk takes the place of the dead one of the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplacePolicy {
    /// By itself, once the other has been silent for long enough.
    #[default]
    Auto,
    /// When somebody proposes it.
    Manual,
}
