//! What a node finds around it: other nodes, a disk, chance and time.
//!
//! A program has [`Surroundings::default`]. A simulation makes all of it up, so that a run can be
//! repeated.

use std::{fmt, sync::Arc, time::SystemTime};

use ulid::Ulid;

use super::{
    channels::{Dialer, OverTcp},
    discovery::{Resolver, StaticPeers},
    founding::FoundingGuard,
};
use crate::{
    ids::{Uid, UnixMillis},
    raft::store::{OnDisk, Storage},
};

/// What is around a node. Clones are the same surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Turns what people wrote for peers into addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Keeps a cluster from being founded twice.
    pub guard: Option<Arc<dyn FoundingGuard>>,
    /// Reaches other nodes.
    pub dialer: Arc<dyn Dialer>,
    /// Where vote and log of Raft are kept.
    pub storage: Arc<dyn Storage>,
    /// Chance and time.
    pub nature: Arc<dyn Nature>,
}

impl Default for Surroundings {
    fn default() -> Surroundings {
        Surroundings {
            resolver: Arc::new(StaticPeers),
            guard: None,
            dialer: Arc::new(OverTcp),
            storage: Arc::new(OnDisk),
            nature: Arc::new(RealNature),
        }
    }
}

/// Chance and the time of day.
pub trait Nature: fmt::Debug + Send + Sync {
    /// Any number, each as likely as the others.
    fn random(&self) -> u128;

    /// The time of day.
    fn now(&self) -> UnixMillis;

    /// The identity of a new node: a ULID.
    fn new_uid(&self) -> Uid {
        let now = u64::try_from(self.now().0).unwrap_or_default();
        Uid(Ulid::from_parts(now, self.random()).0)
    }
}

/// Chance and time of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealNature;

impl Nature for RealNature {
    fn random(&self) -> u128 {
        rand::random()
    }

    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

impl dyn Nature {
    /// Brings something that chance decides to the front.
    pub(super) fn rotate<T>(&self, items: &mut [T]) {
        let count = items.len().max(1) as u128;
        // What is left of a division by some count of items fits their count.
        items.rotate_left((self.random() % count) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_ulids_of_their_time() {
        let nature: &dyn Nature = &RealNature;
        let before = nature.now().0 as u64;
        let (first, second) = (nature.new_uid(), nature.new_uid());
        let after = nature.now().0 as u64;
        assert!((before..=after).contains(&Ulid(first.0).timestamp_ms()), "{first}");
        assert_ne!(first.raft_id(), second.raft_id());
    }

    #[test]
    fn everything_comes_to_the_front_at_times() {
        let nature: &dyn Nature = &RealNature;
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 3 {
            let mut items = [1, 2, 3];
            nature.rotate(&mut items);
            seen.insert(items);
        }
        assert_eq!(seen, [[1, 2, 3], [2, 3, 1], [3, 1, 2]].into());
        nature.rotate::<u8>(&mut []);
    }
}
