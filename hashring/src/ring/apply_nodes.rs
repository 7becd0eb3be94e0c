//! Commands about nodes.

use std::collections::BTreeSet;

use super::{
    Addresses, Applied, Cluster, Field, MappingChange, Node, NodeRegistration, NodeState, NodeUpdate,
    OpenLoss, Rejected, RingState, TokenFault, Tombstone,
    apply::{NAME_BYTES_MAX, check_length, check_name},
};
use crate::{
    ids::{FeatureLevel, NodeNumber, NodesVersion, RingEpoch, TokenId, Uid, UnixMillis},
    planner::MEMBERS_MAX,
    table::Move,
};

impl RingState {
    pub(super) fn register_node(&mut self, registration: &NodeRegistration) -> Result<Applied, Rejected> {
        let uid = registration.uid;
        if self.tombstones.contains_key(&uid) {
            return Err(Rejected::Gone(uid));
        }
        if let Some(known) = self.nodes.get(&uid) {
            return Ok(Applied::Node { number: known.number, raft_id: uid.raft_id() });
        }
        check_name(Field::Node, &registration.name, NAME_BYTES_MAX)?;
        check_length(Field::Zone, &registration.zone, NAME_BYTES_MAX)?;
        check_length(Field::Version, &registration.version, NAME_BYTES_MAX)?;
        check_addresses(&registration.addresses)?;
        if !self.mapping.pools.contains_key(&registration.pool) {
            return Err(Rejected::UnknownPool(registration.pool.clone()));
        }
        self.check_features(registration.features)?;
        if let Some(other) = self.same_raft_id(uid) {
            return Err(Rejected::RaftIdTaken(other));
        }
        if let Some(other) = self.same_name(uid, &registration.name)
            && registration.replaces != Some(other)
        {
            return Err(Rejected::NameTaken(other));
        }
        if self.nodes.len() >= MEMBERS_MAX {
            return Err(Rejected::TooMany(Field::Node));
        }
        let number = self.last_number.checked_add(1).ok_or(Rejected::TooMany(Field::Node))?;
        if let Some(token) = &registration.token {
            self.use_token(token, registration.at)?;
        }
        self.last_number = number;
        let since = self.nodes_changed();
        let node = Node {
            uid,
            number: NodeNumber(number),
            name: registration.name.clone(),
            zone: registration.zone.clone(),
            pool: registration.pool.clone(),
            weight: registration.weight,
            addresses: registration.addresses.clone(),
            version: registration.version.clone(),
            features: registration.features,
            state: NodeState::Joining,
            since,
            no_slots_since: RingEpoch(0),
            forgotten: false,
        };
        self.nodes.insert(uid, node);
        Ok(Applied::Node { number: NodeNumber(number), raft_id: uid.raft_id() })
    }

    pub(super) fn update_node(&mut self, update: &NodeUpdate) -> Result<Applied, Rejected> {
        let known = self.live_node(update.uid)?;
        if let Some(zone) = &update.zone {
            check_length(Field::Zone, zone, NAME_BYTES_MAX)?;
        }
        if let Some(version) = &update.version {
            check_length(Field::Version, version, NAME_BYTES_MAX)?;
        }
        if let Some(addresses) = &update.addresses {
            check_addresses(addresses)?;
        }
        if let Some(features) = update.features {
            self.check_features(features)?;
        }
        let mut node = known.clone();
        node.zone = update.zone.clone().unwrap_or(node.zone);
        node.pool = update.pool.clone().unwrap_or(node.pool);
        node.weight = update.weight.unwrap_or(node.weight);
        node.addresses = update.addresses.clone().unwrap_or(node.addresses);
        node.version = update.version.clone().unwrap_or(node.version);
        node.features = update.features.unwrap_or(node.features);
        if node == *known {
            return Ok(Applied::Unchanged);
        }
        if node.pool != known.pool && !self.mapping.pools.contains_key(&node.pool) {
            return Err(Rejected::UnknownPool(node.pool));
        }
        if (node.pool != known.pool || node.zone != known.zone) && self.holds_slots(node.number) {
            return Err(Rejected::HoldsSlots(node.number));
        }
        self.nodes.insert(update.uid, node);
        self.nodes_changed();
        Ok(Applied::Done)
    }

    pub(super) fn set_node_state(
        &mut self,
        uid: Uid,
        from: NodeState,
        to: NodeState,
    ) -> Result<Applied, Rejected> {
        match self.tombstones.get(&uid) {
            Some(tombstone) if tombstone.state == to => return Ok(Applied::Unchanged),
            Some(_) => return Err(Rejected::Gone(uid)),
            None => {}
        }
        let node = self.live_node(uid)?;
        let (number, state, no_slots_since) = (node.number, node.state, node.no_slots_since);
        if state == to {
            return Ok(Applied::Unchanged);
        }
        if state != from {
            return Err(Rejected::WrongState { state });
        }
        if !state.may_become(to) {
            return Err(Rejected::IllegalTransition { from: state, to });
        }
        let holds_slots = self.holds_slots(number);
        match to {
            NodeState::Active => {
                if let Some(other) = self.same_name(uid, &node.name) {
                    return Err(Rejected::NameTaken(other));
                }
                if !self.mapping.pools.contains_key(&node.pool) {
                    return Err(Rejected::UnknownPool(node.pool.clone()));
                }
            }
            NodeState::Drained | NodeState::Left if holds_slots => return Err(Rejected::HoldsSlots(number)),
            _ => {}
        }
        if to == NodeState::Lost {
            self.note_loss(uid, None);
        }
        let since = self.nodes_changed();
        if to.is_final() {
            self.raise_min_write_epoch(if holds_slots { self.epoch() } else { no_slots_since });
            self.tombstones.insert(uid, Tombstone { number, state: to, successor: None });
        }
        if to.is_final() && !holds_slots {
            self.nodes.remove(&uid);
        } else if let Some(node) = self.nodes.get_mut(&uid) {
            node.state = to;
            node.since = since;
        }
        Ok(Applied::Done)
    }

    pub(super) fn replace_node(
        &mut self,
        cluster: &Cluster,
        dead: Uid,
        new: Uid,
        force: bool,
        at: Option<UnixMillis>,
    ) -> Result<Applied, Rejected> {
        if self.tombstones.get(&dead).is_some_and(|tombstone| tombstone.successor == Some(new)) {
            return Ok(Applied::Unchanged);
        }
        // One that is lost already may be replaced as long as it holds slots.
        let Some(old) = self.nodes.get(&dead) else { return Err(self.not_found(dead)) };
        let successor = self.live_node(new)?;
        if !matches!(successor.state, NodeState::Joining | NodeState::Active) || new == dead {
            return Err(Rejected::WrongState { state: successor.state });
        }
        if self.holds_slots(successor.number) {
            return Err(Rejected::HoldsSlots(successor.number));
        }
        if old.pool != successor.pool {
            return Err(Rejected::PoolDiffers);
        }
        if old.zone != successor.zone && !force {
            return Err(Rejected::ZoneDiffers);
        }
        if let Some(other) = self.same_name(new, &successor.name)
            && other != dead
        {
            return Err(Rejected::NameTaken(other));
        }
        if let Some((gone, _)) = self.open_loss_near(dead)
            && !force
        {
            return Err(Rejected::ReplacedLately(gone));
        }
        let reason = format!("{} took over from {}", successor.name, old.name);
        let (old_number, no_slots_since, old_state) = (old.number, old.no_slots_since, old.state);
        // Of one that is lost already it is known.
        if old_state != NodeState::Lost {
            self.note_loss(dead, at);
        }
        let (applied, min_write_epoch) = match self.inheritance(dead, new) {
            Some(change) => {
                let applied = self.change_mapping(cluster, change)?;
                self.note_reason(reason);
                (applied, self.epoch())
            }
            None => (Applied::Done, no_slots_since),
        };
        self.raise_min_write_epoch(min_write_epoch);
        let since = self.nodes_changed();
        self.nodes.remove(&dead);
        let tombstone = Tombstone { number: old_number, state: NodeState::Lost, successor: Some(new) };
        self.tombstones.insert(dead, tombstone);
        if let Some(node) = self.nodes.get_mut(&new).filter(|node| node.state != NodeState::Active) {
            node.state = NodeState::Active;
            node.since = since;
        }
        Ok(applied)
    }

    pub(super) fn forget_node(&mut self, uid: Uid) -> Result<Applied, Rejected> {
        let Some(node) = self.nodes.get(&uid) else {
            let is_gone = self.tombstones.contains_key(&uid);
            return if is_gone { Ok(Applied::Unchanged) } else { Err(Rejected::UnknownNode(uid)) };
        };
        let was_forgotten = node.forgotten;
        let (state, goes) = (
            node.state,
            match node.state {
                NodeState::Joining | NodeState::Drained => NodeState::Left,
                _ => NodeState::Lost,
            },
        );
        if state != NodeState::Lost {
            self.set_node_state(uid, state, goes)?;
        }
        // It is listed only as long as it holds slots.
        if let Some(node) = self.nodes.get_mut(&uid) {
            node.forgotten = true;
            if state == NodeState::Lost && !was_forgotten {
                self.nodes_changed();
            }
        }
        Ok(if was_forgotten { Applied::Unchanged } else { Applied::Done })
    }

    pub(super) fn date_loss(&mut self, uid: Uid, at: UnixMillis) -> Applied {
        let undated = self.open_losses.get_mut(&uid).filter(|loss| loss.at.is_none());
        let Some(loss) = undated else { return Applied::Unchanged };
        loss.at = Some(at);
        self.nodes_changed();
        Applied::Done
    }

    pub(super) fn close_loss(&mut self, uid: Uid, at: UnixMillis) -> Applied {
        if self.open_losses.get(&uid).is_none_or(|loss| loss.at != Some(at)) {
            return Applied::Unchanged;
        }
        self.open_losses.remove(&uid);
        self.nodes_changed();
        Applied::Done
    }

    /// Who is gone with data of which this node may have the last copy: together with that one's loss its
    /// own may be one too many. Of a node that is lost itself nothing more can be lost.
    pub fn take_over_near(&self, uid: Uid) -> Option<&OpenLoss> {
        self.open_loss_near(uid).map(|(_, loss)| loss)
    }

    fn open_loss_near(&self, uid: Uid) -> Option<(Uid, &OpenLoss)> {
        self.nodes.get(&uid).filter(|node| !node.state.is_final())?;
        let near = self.open_losses.iter().find(|(_, loss)| loss.waits_for.contains(&uid));
        near.map(|(gone, loss)| (*gone, loss))
    }

    /// Remembers that a node is gone with what it held, if anybody else has that too.
    fn note_loss(&mut self, uid: Uid, at: Option<UnixMillis>) {
        let Some(node) = self.nodes.get(&uid) else { return };
        let (name, waits_for) = (node.name.clone(), self.co_owners(node));
        if !waits_for.is_empty() {
            self.open_losses.insert(uid, OpenLoss { name, at, waits_for });
        }
    }

    /// Who shares any slot with a node, but for those that are lost themselves.
    fn co_owners(&self, node: &Node) -> BTreeSet<Uid> {
        let tables = self.mapping.pools.values().map(|pool| &pool.table);
        let rows = tables.flat_map(|table| table.rows()).filter(|(_, owners)| owners.contains(&node.number));
        let numbers: BTreeSet<NodeNumber> = rows.flat_map(|(_, owners)| owners).copied().collect();
        let others = self.nodes.values().filter(|other| numbers.contains(&other.number));
        let others = others.filter(|other| other.uid != node.uid && other.state != NodeState::Lost);
        others.map(|other| other.uid).collect()
    }

    /// The change that gives every cell of one node to another; none if it has no cell.
    fn inheritance(&self, dead: Uid, new: Uid) -> Option<MappingChange> {
        let (dead, new) = (self.nodes.get(&dead)?, self.nodes.get(&new)?);
        let table = &self.mapping.pools.get(&dead.pool)?.table;
        let mut moves = Vec::new();
        for (slot, owners) in table.rows() {
            let place = (0..).zip(owners).find(|(_, owner)| **owner == dead.number);
            if let Some((position, _)) = place {
                moves.push(Move { slot, position, from: Some(dead.number), to: new.number });
            }
        }
        let replicas = table.replicas()?;
        (!moves.is_empty()).then(|| MappingChange::Moved {
            pool: dead.pool.clone(),
            replicas_before: Some(replicas),
            replicas,
            moves,
        })
    }

    /// Remembers since when nodes have no slots. With its last slot a lost node goes from the list.
    pub(super) fn lost_last_slot(&mut self, numbers: &BTreeSet<NodeNumber>, epoch: RingEpoch) {
        let mut gone = Vec::new();
        for node in self.nodes.values_mut().filter(|node| numbers.contains(&node.number)) {
            node.no_slots_since = epoch;
            if node.state == NodeState::Lost {
                gone.push(node.uid);
            }
        }
        for uid in gone {
            self.nodes.remove(&uid);
            self.nodes_changed();
            self.raise_min_write_epoch(epoch);
        }
    }

    /// A node that is not gone.
    fn live_node(&self, uid: Uid) -> Result<&Node, Rejected> {
        let live = self.nodes.get(&uid).filter(|node| !node.state.is_final());
        live.ok_or_else(|| self.not_found(uid))
    }

    fn not_found(&self, uid: Uid) -> Rejected {
        if self.tombstones.contains_key(&uid) { Rejected::Gone(uid) } else { Rejected::UnknownNode(uid) }
    }

    /// Another node of that name which is not gone.
    fn same_name(&self, uid: Uid, name: &str) -> Option<Uid> {
        let is_same = |node: &&Node| node.uid != uid && node.name == name && !node.state.is_final();
        self.nodes.values().find(is_same).map(|node| node.uid)
    }

    /// Another node that has or had the same Raft id.
    fn same_raft_id(&self, uid: Uid) -> Option<Uid> {
        let mut known = self.nodes.keys().chain(self.tombstones.keys());
        known.find(|&&other| other != uid && other.raft_id() == uid.raft_id()).copied()
    }

    fn check_features(&self, features: FeatureLevel) -> Result<(), Rejected> {
        if features < self.feature_level { Err(Rejected::FeatureLevel) } else { Ok(()) }
    }

    fn use_token(&mut self, id: &TokenId, at: UnixMillis) -> Result<(), Rejected> {
        let token = self.tokens.get_mut(id).ok_or_else(|| TokenFault::Unknown(id.clone()))?;
        token.check(id, at)?;
        token.used += 1;
        Ok(())
    }

    fn nodes_changed(&mut self) -> NodesVersion {
        self.nodes_version.0 += 1;
        self.nodes_version
    }
}

fn check_addresses(addresses: &Addresses) -> Result<(), Rejected> {
    check_length(Field::Address, &addresses.grpc, NAME_BYTES_MAX)?;
    check_length(Field::Address, &addresses.http, NAME_BYTES_MAX)?;
    check_length(Field::Address, &addresses.cluster, NAME_BYTES_MAX)
}
