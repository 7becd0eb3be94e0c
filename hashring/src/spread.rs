//! The rule that keeps the replicas of a slot apart.
//!
//! A zone is what may fail as one. A row holds distinct nodes, and at most as many of a zone as
//! cannot be helped: one if there are zones enough, else as few as still allow a full row. If no node
//! has a zone, every node is its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeNumber, ReplicaCount};

/// What may fail as one: counted from 0 in the order of the zones' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Domain(pub u32);

/// The rule for the rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpreadRule {
    domains: BTreeMap<NodeNumber, Domain>,
    /// The most nodes of one domain in a row.
    domain_nodes_max: usize,
}

/// Why a row breaks the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RowFault {
    /// A node is not among those that may own slots.
    #[error("{0} may not own slots")]
    NotEligible(NodeNumber),
    /// A node is there twice.
    #[error("{0} is there twice")]
    Repeated(NodeNumber),
    /// Too many nodes of a zone.
    #[error("{0} is one too many of its zone")]
    ZoneCrowded(NodeNumber),
}

impl SpreadRule {
    /// The rule for `replicas` in each row, where the nodes that may own slots have these zones; none
    /// if they are too few.
    pub fn new<'a>(
        nodes: impl IntoIterator<Item = (NodeNumber, &'a str)>,
        replicas: ReplicaCount,
    ) -> Option<Self> {
        let nodes: BTreeMap<NodeNumber, &str> = nodes.into_iter().collect();
        let zoned = nodes.values().any(|zone| !zone.is_empty());
        let mut domains = BTreeMap::new();
        if zoned {
            let mut zones: BTreeMap<&str, Domain> = nodes.values().map(|&zone| (zone, Domain(0))).collect();
            zones.values_mut().zip(0..).for_each(|(domain, index)| *domain = Domain(index));
            domains.extend(nodes.iter().map(|(&node, zone)| (node, zones[zone])));
        } else {
            domains.extend(nodes.keys().zip(0..).map(|(&node, index)| (node, Domain(index))));
        }
        Self::with_domains(domains, replicas)
    }

    /// The rule for nodes of these domains; none if they are too few.
    pub fn with_domains(domains: BTreeMap<NodeNumber, Domain>, replicas: ReplicaCount) -> Option<Self> {
        let mut sizes: BTreeMap<Domain, usize> = BTreeMap::new();
        domains.values().for_each(|&domain| *sizes.entry(domain).or_default() += 1);
        let fits = |max: usize| sizes.values().map(|&size| size.min(max)).sum::<usize>() >= replicas.as_len();
        let domain_nodes_max = (1..=replicas.as_len()).find(|&max| fits(max))?;
        Some(Self { domains, domain_nodes_max })
    }

    /// The domain of a node that may own slots.
    pub fn domain(&self, node: NodeNumber) -> Option<Domain> {
        self.domains.get(&node).copied()
    }

    /// The most nodes of one domain in a row.
    pub fn domain_nodes_max(&self) -> usize {
        self.domain_nodes_max
    }

    /// Whether a row keeps the rule.
    pub fn check(&self, row: &[NodeNumber]) -> Result<(), RowFault> {
        for (index, &node) in row.iter().enumerate() {
            let domain = self.domain(node).ok_or(RowFault::NotEligible(node))?;
            let before = &row[..index];
            if before.contains(&node) {
                return Err(RowFault::Repeated(node));
            }
            let of_domain = before.iter().filter(|&&other| self.domain(other) == Some(domain)).count();
            if of_domain >= self.domain_nodes_max {
                return Err(RowFault::ZoneCrowded(node));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(zones: &[&'static str], replicas: u8) -> Option<SpreadRule> {
        let replicas = ReplicaCount::new(replicas).expect("a test's number of replicas is allowed");
        SpreadRule::new((1..).map(NodeNumber).zip(zones.iter().copied()), replicas)
    }

    #[test]
    fn as_few_of_a_zone_as_can_be() {
        let check = |zones: &[&'static str], replicas, expected: Option<usize>| {
            let found = rule(zones, replicas).map(|rule| rule.domain_nodes_max());
            assert_eq!(found, expected, "{replicas} of {zones:?}");
        };
        check(&["a", "b", "c"], 3, Some(1));
        check(&["a", "b", "c", "d"], 3, Some(1));
        check(&["a", "a", "b", "b"], 3, Some(2));
        check(&["a", "b", "b"], 3, Some(2));
        check(&["a", "a", "a"], 3, Some(3));
        check(&["a", "a", "b"], 1, Some(1));
        check(&["a", "a", "a", "b"], 2, Some(1));
        // Half of four is two, but zone a has one node only.
        check(&["a", "b", "b", "b"], 4, Some(3));
        check(&["", "", ""], 3, Some(1));
        // A node without a zone among others that have one: all such nodes are one zone.
        check(&["", "", "a"], 3, Some(2));
        check(&["a", "b"], 3, None);
        check(&[], 1, None);
    }

    #[test]
    fn rows_are_checked() {
        let check = |zones: &[&'static str], row: &[u32], expected: Result<(), RowFault>| {
            let rule = rule(zones, 3).expect("a test has nodes enough");
            let row: Vec<NodeNumber> = row.iter().copied().map(NodeNumber).collect();
            assert_eq!(rule.check(&row), expected, "{row:?} of {zones:?}");
        };
        let three = ["a", "b", "c", "a"];
        check(&three, &[1, 2, 3], Ok(()));
        check(&three, &[3, 4, 2], Ok(()));
        check(&three, &[1, 2, 4], Err(RowFault::ZoneCrowded(NodeNumber(4))));
        check(&three, &[1, 2, 2], Err(RowFault::Repeated(NodeNumber(2))));
        check(&three, &[1, 2, 5], Err(RowFault::NotEligible(NodeNumber(5))));
        check(&["a", "a", "b", "b", "a"], &[1, 2, 3], Ok(()));
        check(&["a", "a", "b", "b", "a"], &[1, 2, 5], Err(RowFault::ZoneCrowded(NodeNumber(5))));
        check(&["", "", "", ""], &[4, 2, 1], Ok(()));
    }
}
