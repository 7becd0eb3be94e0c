//! What a leader decides by rules that people choose. Nodes of one cluster should have the same.

/// The rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterPolicies {
    /// Who may join.
    pub join: JoinPolicy,
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
