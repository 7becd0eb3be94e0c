//! `weir ring where`

use std::fmt;

use serde::Serialize;
use weir_hashring::{placement::jump, ring::RingState, series_hash, view::RingView};

use super::{error::AdminError, node_list::state_text, series::Series, table::Table};

/// Where a series is, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Whereabouts {
    /// Its tenant.
    pub tenant: String,
    /// Its labels.
    pub series: String,
    /// The pool of the tenant.
    pub pool: String,
    /// Its hash with the tenant and the cluster's seed, as 16 hexadecimal digits.
    pub hash: String,
    /// How many slots the tenant has.
    pub tenant_slots: u32,
    /// Which of them the hash leads to, from 0.
    pub index: u32,
    /// The slot at that index.
    pub slot: u32,
    /// How many slots there are.
    pub slots: u32,
    /// The epoch of the ring.
    pub epoch: u64,
    /// The digest of the ring.
    pub digest: String,
    /// The owners of the slot, the preferred coordinator first.
    pub owners: Vec<Owner>,
    /// Why it may be otherwise by now.
    pub warnings: Vec<String>,
}

/// A node that owns a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// What it may fail with.
    pub zone: String,
    /// Where it is in its life.
    pub state: &'static str,
    /// Where it takes copies and is read.
    pub address: String,
}

/// Where the ring places a series.
///
/// # Errors
/// If nobody owns the slots of the tenant yet.
pub fn whereabouts(state: &RingState, tenant: &str, series: &Series) -> Result<Whereabouts, AdminError> {
    let not_yet = |what: &str| AdminError::NotPossible(what.to_owned());
    let view = RingView::new(state).ok_or_else(|| not_yet("the ring is not founded yet"))?;
    let pool = view.pool_of(tenant);
    let placement =
        view.tenant(tenant).ok_or_else(|| not_yet(&format!("nobody owns the slots of pool {pool:?} yet")))?;
    let hash = series_hash(view.hash_seed().0, tenant, series.labels());
    let slot = placement.slot(hash);
    let owners = placement.owners_of(slot).iter().filter_map(|&index| view.node(index)).map(|node| Owner {
        name: node.name.clone(),
        uid: node.uid.to_string(),
        zone: node.zone.clone(),
        state: state_text(node.state),
        address: node.addresses.grpc.clone(),
    });
    Ok(Whereabouts {
        tenant: tenant.to_owned(),
        series: series.to_string(),
        pool: pool.to_owned(),
        hash: format!("{hash:016x}"),
        tenant_slots: placement.k().get(),
        index: jump(hash, placement.k().0),
        slot: slot.0,
        slots: view.slots().get(),
        epoch: view.epoch().0,
        digest: view.digest().to_string(),
        owners: owners.collect(),
        warnings: Vec::new(),
    })
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tenant, series, pool, hash, tenant_slots, index, slot, slots, epoch, digest, owners, ..
        } = self;
        writeln!(out, "series  {series} of tenant {tenant}")?;
        writeln!(out, "hash    {hash}")?;
        writeln!(out, "slot    {slot} of {slots}: number {index} of the tenant's {tenant_slots}")?;
        writeln!(out, "pool    {pool}")?;
        writeln!(out, "epoch   {epoch}, digest {digest}")?;
        let mut table = Table::new(&["OWNER", "ZONE", "STATE", "ADDRESS", "UID"]);
        for owner in owners {
            table.row([&owner.name, &owner.zone, owner.state, &owner.address, &owner.uid]);
        }
        write!(out, "\n{table}")?;
        self.warnings.iter().try_for_each(|warning| write!(out, "\nwarning: {warning}"))
    }
}

#[cfg(test)]
mod tests {
    use weir_hashring::{
        ids::{PoolName, TenantName, TenantSlots},
        placement::slot_of,
        ring::{Command, Setting},
    };

    use super::{super::samples::ring, *};

    #[test]
    fn it_is_where_the_table_says() {
        let mut state = ring(7);
        let set = Command::SetTenant {
            tenant: TenantName::from("t"),
            pool: Setting::Keep,
            slots: Setting::Set(TenantSlots::new(9).expect("it is not zero")),
            limits: Setting::Keep,
        };
        state.apply(&set).expect("there are as many slots");
        let cluster = state.cluster().expect("it is founded");
        let table = &state.mapping().pools[&PoolName::from("default")].table;
        let mut indexes = std::collections::BTreeSet::new();
        for n in 0..50 {
            let series: Series = format!("up{{n=\"{n}\"}}").parse().expect("it is a series");
            let found = whereabouts(&state, "t", &series).expect("there is a table");
            let n = n.to_string();
            let hash = series_hash(cluster.hash_seed.0, "t", [("__name__", "up"), ("n", n.as_str())]);
            let slot = slot_of("t", hash, TenantSlots::new(9).expect("9"), cluster.slots, cluster.hash_seed);
            assert_eq!((found.slot, found.hash.clone()), (slot.0, format!("{hash:016x}")));
            let owners: Vec<String> = table.owners(slot).iter().map(|node| format!("n{}", node.0)).collect();
            assert_eq!(found.owners.iter().map(|owner| owner.name.clone()).collect::<Vec<_>>(), owners);
            assert!(found.index < 9 && found.tenant_slots == 9);
            indexes.insert(found.index);
        }
        assert!(indexes.len() > 5, "{indexes:?}");
    }

    #[test]
    fn without_a_table_nobody_owns_it() {
        let series: Series = "up".parse().expect("it is a series");
        let error = |state: &RingState| whereabouts(state, "t", &series).expect_err("there is no table");
        assert_eq!(error(&RingState::default()).to_string(), "the ring is not founded yet");
        assert_eq!(error(&ring(0)).to_string(), "nobody owns the slots of pool \"default\" yet");
    }

    #[test]
    fn it_is_told_to_people() {
        let series: Series = "up".parse().expect("it is a series");
        let mut found = whereabouts(&ring(3), "t", &series).expect("there is a table");
        let owner = |name: &str| Owner {
            name: name.to_owned(),
            uid: "1".to_owned(),
            zone: "z".to_owned(),
            state: "active",
            address: "a:1".to_owned(),
        };
        found.owners = vec![owner("n1"), owner("n2")];
        (found.slot, found.index, found.hash) = (7, 1, "00ff".to_owned());
        let digest = found.digest.clone();
        let expected = format!(
            "\
series  {{__name__=\"up\"}} of tenant t
hash    00ff
slot    7 of 1024: number 1 of the tenant's 2
pool    default
epoch   2, digest {digest}

OWNER  ZONE  STATE   ADDRESS  UID
n1     z     active  a:1      1
n2     z     active  a:1      1
"
        );
        assert_eq!(found.to_string(), expected);
    }
}
