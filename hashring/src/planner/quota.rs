//! How many slots each node shall own.
//!
//! In proportion to weights, except that a node owns a slot at most once and a domain at most as
//! often as the rule of spread allows. What one of them cannot take is shared by the others. Shares
//! are computed exactly and then rounded down or up. Who has more than the lower bound already
//! keeps the odd slot; else the first nodes of each domain get one, so that equal domains are equal
//! node by node.

use std::collections::BTreeMap;

use crate::{ids::Weight, spread::Domain};

/// A node as it counts for quotas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// What it may fail with.
    pub(super) domain: Domain,
    /// Its weight.
    pub(super) weight: Weight,
    /// How many cells it has that it may keep.
    pub(super) held: u64,
}

/// The size of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// How many rows.
    pub(super) slots: u64,
    /// How many cells in a row.
    pub(super) replicas: u64,
    /// How many of these may be of one domain.
    pub(super) domain_nodes_max: u64,
}

/// What decides the number of a node's slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Limit {
    /// Its weight among all that have no other limit.
    Common,
    /// Its weight among the nodes of its domain, which is full.
    Domain(Domain),
    /// There are no more: it owns every slot.
    EverySlot,
}

/// Cells that are shared by weight.
#[derive(Clone, Copy, Debug, Default)]
struct Pot {
    cells: u64,
    weights: u64,
}

impl Pot {
    /// True if a share of that weight is at least every slot.
    fn gives_all(self, weight: Weight, slots: u64) -> bool {
        u128::from(self.cells) * u128::from(weight.get()) >= u128::from(slots) * u128::from(self.weights)
    }

    /// A share, rounded down, and whether that lost anything.
    fn share(self, weight: Weight) -> (u64, bool) {
        let product = u128::from(self.cells) * u128::from(weight.get());
        let weights = u128::from(self.weights.max(1));
        ((product / weights) as u64, product % weights != 0)
    }
}

/// For each claim the number of cells it shall own. They add up to all cells.
///
/// There must be so many nodes that rows can be filled with `domain_nodes_max` of each domain.
pub(super) fn targets(claims: &[Claim], size: Size) -> Vec<u64> {
    let limits = limits(claims, size);
    let mut pots: BTreeMap<Limit, Pot> =
        limits.iter().map(|&limit| (limit, pot(claims, &limits, limit, size))).collect();

    let mut of_domains: BTreeMap<Domain, u64> = BTreeMap::new();
    let mut odd: Vec<(bool, usize, usize)> = Vec::new();
    let mut targets = Vec::with_capacity(claims.len());
    let mut ranks: BTreeMap<Domain, usize> = BTreeMap::new();
    for (index, (claim, limit)) in claims.iter().zip(&limits).enumerate() {
        let rank = ranks.entry(claim.domain).or_default();
        *rank += 1;
        let (cells, is_odd) = match limit {
            Limit::EverySlot => (size.slots, false),
            _ => pots[limit].share(claim.weight),
        };
        if is_odd {
            odd.push((claim.held <= cells, *rank, index));
        }
        *of_domains.entry(claim.domain).or_default() += cells;
        targets.push(cells);
    }
    for (limit, &cells) in limits.iter().zip(&targets) {
        pots.entry(*limit).and_modify(|pot| pot.cells = pot.cells.saturating_sub(cells));
    }

    odd.sort_unstable();
    for (_, _, index) in odd {
        let left = pots.entry(limits[index]).or_default();
        let of_domain = of_domains.entry(claims[index].domain).or_default();
        if left.cells > 0 && *of_domain < size.slots * size.domain_nodes_max {
            left.cells -= 1;
            *of_domain += 1;
            targets[index] += 1;
        }
    }
    targets
}

/// Finds what limits whom. Each limit that is found leaves more for each of the others, so one that
/// holds keeps holding; except that a node with every slot may be in a domain that is found full.
fn limits(claims: &[Claim], size: Size) -> Vec<Limit> {
    let mut limits = vec![Limit::Common; claims.len()];
    loop {
        let common = pot(claims, &limits, Limit::Common, size);
        if !limits.contains(&Limit::Common) {
            break;
        }
        // What each domain would own, times the sum of weights, so that it is a whole number.
        let mut wanted: BTreeMap<Domain, u128> = BTreeMap::new();
        let every_slot = u128::from(size.slots) * u128::from(common.weights);
        for (claim, limit) in claims.iter().zip(&limits) {
            if !matches!(limit, Limit::Domain(_)) {
                let by_weight = u128::from(common.cells) * u128::from(claim.weight.get());
                let own = if *limit == Limit::EverySlot { every_slot } else { by_weight.min(every_slot) };
                *wanted.entry(claim.domain).or_default() += own;
            }
        }
        wanted.retain(|_, own| *own >= every_slot * u128::from(size.domain_nodes_max));
        let mut changed = !wanted.is_empty();
        for (claim, limit) in claims.iter().zip(&mut limits) {
            if wanted.contains_key(&claim.domain) {
                *limit = Limit::Domain(claim.domain);
            }
        }
        if !changed {
            changed = mark_every_slot(claims, &mut limits, Limit::Common, common, size);
        }
        if !changed {
            break;
        }
    }
    let domains: Vec<Limit> =
        limits.iter().copied().filter(|limit| matches!(limit, Limit::Domain(_))).collect();
    for domain in domains {
        loop {
            let left = pot(claims, &limits, domain, size);
            if !mark_every_slot(claims, &mut limits, domain, left, size) {
                break;
            }
        }
    }
    limits
}

/// Finds the nodes of a pot whose share is every slot; false if there is none.
fn mark_every_slot(claims: &[Claim], limits: &mut [Limit], of: Limit, pot: Pot, size: Size) -> bool {
    let mut found = false;
    for (claim, limit) in claims.iter().zip(limits) {
        if *limit == of && pot.gives_all(claim.weight, size.slots) {
            *limit = Limit::EverySlot;
            found = true;
        }
    }
    found
}

/// What is left for those with this limit, after all that others own.
fn pot(claims: &[Claim], limits: &[Limit], limit: Limit, size: Size) -> Pot {
    let of_limit = claims.iter().zip(limits).filter(|(_, own)| **own == limit);
    let weights = of_limit.map(|(claim, _)| u64::from(claim.weight.get())).sum();
    let full_domains: BTreeMap<Domain, ()> = limits
        .iter()
        .filter_map(|own| if let Limit::Domain(domain) = own { Some((*domain, ())) } else { None })
        .collect();
    let domain_cells_max = size.slots * size.domain_nodes_max;
    let every_slot = |counts: &dyn Fn(Domain) -> bool| {
        let nodes = claims
            .iter()
            .zip(limits)
            .filter(|(claim, own)| **own == Limit::EverySlot && counts(claim.domain));
        nodes.count() as u64 * size.slots
    };
    let cells = match limit {
        Limit::Common => {
            let full = full_domains.len() as u64 * domain_cells_max;
            let elsewhere = every_slot(&|domain| !full_domains.contains_key(&domain));
            (size.slots * size.replicas).saturating_sub(full + elsewhere)
        }
        Limit::Domain(domain) => domain_cells_max.saturating_sub(every_slot(&|other| other == domain)),
        Limit::EverySlot => size.slots,
    };
    Pot { cells, weights }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(replicas: u64, domain_nodes_max: u64, nodes: &[(u32, u32, u64)], expected: &[u64]) {
        let claims: Vec<Claim> = nodes
            .iter()
            .map(|&(domain, weight, held)| {
                let weight = Weight::new(weight).expect("a test's weight is not zero");
                Claim { domain: Domain(domain), weight, held }
            })
            .collect();
        let found = targets(&claims, Size { slots: 300, replicas, domain_nodes_max });
        assert_eq!(found, expected, "{replicas} replicas, {domain_nodes_max} of a domain: {nodes:?}");
    }

    #[test]
    fn follows_weights_within_limits() {
        check(3, 1, &[(0, 1, 0), (1, 1, 0), (2, 1, 0)], &[300, 300, 300]);
        // As many domains as replicas: each gets every slot once.
        check(3, 1, &[(0, 1, 0), (1, 1, 0), (2, 1, 0), (2, 1, 0)], &[300, 300, 150, 150]);
        check(3, 1, &[(0, 5, 0), (1, 1, 0), (2, 1, 0), (2, 2, 0)], &[300, 300, 100, 200]);
        // More domains than replicas.
        check(3, 1, &[(0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0)], &[225; 4]);
        check(3, 1, &[(0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 3, 0)], &[200, 200, 200, 300]);
        check(2, 1, &[(0, 1, 0), (0, 1, 0), (1, 1, 0), (2, 1, 0)], &[150; 4]);
        check(2, 1, &[(0, 1, 0), (0, 1, 0), (0, 1, 0), (1, 1, 0), (2, 1, 0)], &[100, 100, 100, 150, 150]);
        // Fewer domains than replicas.
        check(3, 2, &[(0, 1, 0), (0, 1, 0), (1, 1, 0), (1, 1, 0)], &[225; 4]);
        check(3, 2, &[(0, 1, 0), (1, 1, 0), (1, 1, 0), (1, 1, 0)], &[300, 200, 200, 200]);
        // A heavy node is full, so its domain is not, though its weight would fill it.
        check(3, 2, &[(0, 100, 0), (0, 1, 0), (1, 1, 0), (1, 1, 0), (1, 1, 0)], &[300, 150, 150, 150, 150]);
        // Two heavy nodes fill their domain, and neither of them is full.
        check(3, 1, &[(0, 100, 0), (0, 100, 0), (1, 1, 0), (2, 1, 0)], &[150, 150, 300, 300]);
        // One of them is.
        check(3, 2, &[(0, 9, 0), (0, 1, 0), (0, 2, 0), (1, 1, 0)], &[300, 100, 200, 300]);
    }

    #[test]
    fn odd_slots_stay_where_they_are() {
        check(
            1,
            1,
            &[(0, 1, 43), (1, 1, 42), (2, 1, 43), (3, 1, 43), (4, 1, 43), (5, 1, 43), (6, 1, 43)],
            &[43, 42, 43, 43, 43, 43, 43],
        );
        check(
            1,
            1,
            &[(0, 1, 0), (1, 1, 42), (2, 1, 50), (3, 1, 43), (4, 1, 43), (5, 1, 43), (6, 1, 43)],
            &[43, 42, 43, 43, 43, 43, 43],
        );
        // A full domain adds up although its shares are not whole.
        check(3, 1, &[(0, 1, 0), (1, 1, 0), (2, 3, 0), (2, 3, 0), (2, 1, 200)], &[300, 300, 129, 128, 43]);
    }
}
