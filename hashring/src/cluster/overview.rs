//! What people are shown of the ring itself.

use super::status::{EpochStatus, PoolStatus, TokenStatus};
use crate::ring::{Mapping, MappingChange, RingState};

/// The tokens, without anything that is secret.
pub fn tokens(state: &RingState) -> Vec<TokenStatus> {
    let shown = state.tokens().iter().map(|(id, token)| TokenStatus {
        id: id.clone(),
        expires: token.expires,
        uses_left: token.uses.saturating_sub(token.used),
    });
    shown.collect()
}

/// The latest epochs, the newest last.
pub fn epochs(state: &RingState) -> Vec<EpochStatus> {
    let shown = state.deltas().map(|delta| EpochStatus {
        epoch: delta.epoch,
        digest: delta.digest,
        change: change(&delta.change),
        reason: state.reason_of(delta.epoch).map(str::to_owned),
    });
    shown.collect()
}

/// The pools, and what is wrong with them.
pub fn pools(state: &RingState) -> Vec<PoolStatus> {
    let Mapping { pools, .. } = state.mapping();
    let shown = pools.iter().map(|(name, pool)| PoolStatus {
        name: name.clone(),
        nodes: state.nodes().filter(|node| node.pool == *name).count(),
        members: state.members(name).len(),
        replicas: pool.table.replicas().map(|replicas| replicas.get()),
        problems: state.pool_problems(name),
    });
    shown.collect()
}

fn change(change: &MappingChange) -> String {
    match change {
        MappingChange::Founded => "the cluster was founded".to_owned(),
        MappingChange::Moved { pool, replicas_before: None, moves, .. } => {
            format!("first table of pool {pool}, {} cells", moves.len())
        }
        MappingChange::Moved { pool, moves, .. } => format!("{} cells of pool {pool} moved", moves.len()),
        MappingChange::PoolSet { name, .. } => format!("pool {name} was set"),
        MappingChange::PoolDeleted { name, .. } => format!("pool {name} was deleted"),
        MappingChange::TenantSet { tenant, .. } => format!("tenant {tenant} was set"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        cluster::join_token::new_join_token,
        ids::UnixMillis,
        ring::tests::{cluster_of, golden_log, replay},
    };

    #[test]
    fn epochs_with_their_reasons() {
        let found: Vec<(u64, String, Option<String>)> = epochs(&replay(&golden_log()))
            .into_iter()
            .map(|epoch| (epoch.epoch.0, epoch.change, epoch.reason))
            .collect();
        let expected = [
            (1, "the cluster was founded", None),
            (2, "first table of pool default, 768 cells", Some("golden")),
            (3, "1 cells of pool default moved", Some("golden")),
            (4, "128 cells of pool default moved", Some("node-9 took over from node-6")),
            (5, "pool big was set", None),
            (6, "pool small was set", None),
            (7, "tenant ä was set", None),
            (8, "pool small was deleted", None),
        ];
        let expected: Vec<(u64, String, Option<String>)> = expected
            .map(|(epoch, change, reason)| (epoch, change.to_owned(), reason.map(str::to_owned)))
            .to_vec();
        assert_eq!(found, expected);
    }

    #[test]
    fn tokens_without_secrets() {
        let mut state = cluster_of(3);
        let (token, add) = new_join_token(Duration::from_secs(1), 2, UnixMillis(5)).expect("it makes sense");
        state.apply(&add).expect("the token is new");
        let id = token.id().clone();
        assert_eq!(tokens(&state), [TokenStatus { id, expires: UnixMillis(1005), uses_left: 2 }]);
    }
}
