//! From the hash of a series to its slot.
//!
//! A tenant's series are spread over `k` slots by jump hash, and a permutation of the tenant's own
//! says which of the cluster's slots these are:
//!
//! ```text
//! i    = jump(series hash, k)      0..k
//! slot = permutation of tenant(i)  0..S
//! ```
//!
//! So the list of a tenant's slots is implied, and going from `k` to `k + 1` appends one slot to it
//! and moves 1/(k + 1) of the tenant's series, all of them into that slot.

mod jump;
mod permutation;

use crate::ids::{HashSeed, Slot, SlotCount, TenantSlots};

pub use jump::jump;
pub use permutation::Permutation;

/// The slot of a series of a tenant with `k` slots. `series_hash` is what
/// [`crate::series_hash()`] gave with the same tenant and seed.
///
/// Callers that place many series keep the tenant's [`Permutation`], or the slots of all indexes.
pub fn slot_of(tenant: &str, series_hash: u64, k: TenantSlots, slots: SlotCount, seed: HashSeed) -> Slot {
    Permutation::of_tenant(tenant, slots, seed).slot(jump(series_hash, k.0))
}

#[cfg(test)]
mod tests;
