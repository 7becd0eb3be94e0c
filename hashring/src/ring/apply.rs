//! Commands about the cluster, its tables, pools, tenants and settings.

use std::collections::BTreeSet;

use super::{
    Applied, Cluster, Command, ConfigValue, Field, InitCluster, JoinToken, MappingChange, NodeState,
    PlanCommand, Rejected, RingDelta, RingState, Setting, TenantMapping, TenantMatcher,
};
use crate::{
    ids::{FeatureLevel, NodeNumber, PoolName, RingEpoch, TenantName, TenantSlots, TokenId},
    spread::SpreadRule,
    table::{Move, Table},
};

/// The longest names of nodes, zones, pools and settings, and versions and addresses, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 253;
/// The longest name of a tenant in bytes.
const TENANT_BYTES_MAX: usize = 1024;
/// The longest limits of a tenant, or value of a setting, in bytes.
const VALUE_BYTES_MAX: usize = 16 * 1024;
/// The longest reason in bytes.
const REASON_BYTES_MAX: usize = 1024;
const POOLS_MAX: usize = 256;
const POOL_MATCHERS_MAX: usize = 10_000;
const TENANTS_MAX: usize = 100_000;
const CONFIG_KEYS_MAX: usize = 1024;
/// The most tokens there may be.
pub(crate) const TOKENS_MAX: usize = 1024;
/// The most bytes of the limits of all tenants, with their names: a whole ring is one message.
const LIMITS_BYTES_MAX: usize = 8 << 20;
const FOUNDERS_MAX: usize = 64;
/// How many applied plans are remembered by their identity.
const RECENT_PLANS: usize = 64;

impl RingState {
    /// Applies a command. If it is refused, nothing has changed.
    ///
    /// The outcome depends on the state and the command alone.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, Rejected> {
        match command {
            Command::Barrier { nonce } => return Ok(Applied::Barrier { nonce: *nonce }),
            Command::InitCluster(init) => return self.init_cluster(init),
            _ => {}
        }
        let cluster = self.cluster.clone().ok_or(Rejected::NoCluster)?;
        match command {
            Command::InitCluster(_) | Command::Barrier { .. } => Ok(Applied::Unchanged),
            Command::RegisterNode(registration) => self.register_node(registration),
            Command::UpdateNode(update) => self.update_node(update),
            Command::SetNodeState { uid, from, to, reason } => {
                check_length(Field::Reason, reason, REASON_BYTES_MAX)?;
                self.set_node_state(*uid, *from, *to)
            }
            Command::ApplyPlan(plan) => self.apply_plan(&cluster, plan),
            Command::ReplaceNode { dead, new, force, at } => {
                self.replace_node(&cluster, *dead, *new, *force, *at)
            }
            Command::ForgetNode { uid, reason } => {
                check_length(Field::Reason, reason, REASON_BYTES_MAX)?;
                self.forget_node(*uid)
            }
            Command::DateLoss { uid, at } => Ok(self.date_loss(*uid, *at)),
            Command::CloseLoss { uid, at } => Ok(self.close_loss(*uid, *at)),
            Command::SetTenant { tenant, pool, slots, limits } => {
                self.set_tenant(&cluster, tenant, pool, slots, limits)
            }
            Command::DeleteTenant { tenant } => {
                self.set_tenant(&cluster, tenant, &Setting::Clear, &Setting::Clear, &Setting::Clear)
            }
            Command::SetPool { name, matchers } => self.set_pool(&cluster, name, matchers),
            Command::DeletePool { name } => self.delete_pool(&cluster, name),
            Command::SetConfig { key, value, if_version } => {
                self.set_config(key, value.as_deref(), *if_version)
            }
            Command::AddToken { id, sha256, expires, uses } => {
                self.add_token(id, JoinToken { sha256: *sha256, expires: *expires, uses: *uses, used: 0 })
            }
            Command::RevokeToken { id } => Ok(match self.tokens.remove(id) {
                Some(_) => Applied::Done,
                None => Applied::Unchanged,
            }),
            Command::SetFeatureLevel(level) => self.set_feature_level(*level),
        }
    }

    fn init_cluster(&mut self, init: &InitCluster) -> Result<Applied, Rejected> {
        let cluster = Cluster {
            id: init.cluster_id,
            hash_seed: init.hash_seed,
            hash_function: init.hash_function,
            slots: init.slots,
            replicas: init.replicas,
            founders: init.founders.clone(),
            created: init.created,
        };
        match &self.cluster {
            Some(own) if *own == cluster => return Ok(Applied::Unchanged),
            Some(_) => return Err(Rejected::ClusterExists),
            None => {}
        }
        if init.founders.len() > FOUNDERS_MAX {
            return Err(Rejected::TooMany(Field::Founder));
        }
        self.cluster = Some(cluster.clone());
        self.change_mapping(&cluster, MappingChange::Founded)
    }

    /// Changes the mapping and all that follows from it: the epoch, the digest, what is kept of earlier
    /// epochs, and nodes that have lost their last slot.
    pub(super) fn change_mapping(
        &mut self,
        cluster: &Cluster,
        change: MappingChange,
    ) -> Result<Applied, Rejected> {
        let mut losers: BTreeSet<NodeNumber> = match &change {
            MappingChange::Moved { moves, .. } => moves.iter().filter_map(|to| to.from).collect(),
            MappingChange::PoolDeleted { pool, .. } => pool.table.cells().iter().copied().collect(),
            _ => BTreeSet::new(),
        };
        self.mapping.change(&change, cluster.slots).map_err(Rejected::Move)?;
        let epoch = self.mapping.epoch;
        self.digest = self.mapping.digest(cluster);
        self.deltas.push_back(RingDelta { epoch, digest: self.digest, change });
        if self.deltas.len() > Self::EPOCHS_KEPT {
            self.deltas.pop_front();
        }
        for holder in self.mapping.pools.values().flat_map(|pool| pool.table.cells()) {
            if losers.is_empty() {
                break;
            }
            losers.remove(holder);
        }
        self.lost_last_slot(&losers, epoch);
        Ok(Applied::Ring { epoch, digest: self.digest })
    }

    fn apply_plan(&mut self, cluster: &Cluster, plan: &PlanCommand) -> Result<Applied, Rejected> {
        let known = self.recent_plans.iter().find(|(id, _, _)| *id == plan.plan_id);
        if let Some(&(_, epoch, digest)) = known {
            return Ok(Applied::Ring { epoch, digest });
        }
        check_length(Field::Reason, &plan.reason, REASON_BYTES_MAX)?;
        let epoch = self.epoch();
        if plan.base_epoch != epoch {
            return Err(Rejected::StalePlan { epoch });
        }
        let pool =
            self.mapping.pools.get(&plan.pool).ok_or_else(|| Rejected::UnknownPool(plan.pool.clone()))?;
        if plan.replicas > cluster.replicas || (plan.replicas < cluster.replicas && !plan.degraded) {
            return Err(Rejected::WrongReplicas);
        }
        if plan.moves.is_empty() {
            return Err(Rejected::EmptyPlan);
        }
        let table = pool.table.moved(cluster.slots, plan.replicas, &plan.moves).map_err(Rejected::Move)?;
        self.check_rows(&plan.pool, &table, &plan.moves)?;
        let change = MappingChange::Moved {
            pool: plan.pool.clone(),
            replicas_before: pool.table.replicas(),
            replicas: plan.replicas,
            moves: plan.moves.clone(),
        };
        let applied = self.change_mapping(cluster, change)?;
        self.note_reason(plan.reason.clone());
        self.recent_plans.push_back((plan.plan_id, self.epoch(), self.digest));
        if self.recent_plans.len() > RECENT_PLANS {
            self.recent_plans.pop_front();
        }
        Ok(applied)
    }

    /// Each row that is touched must be valid as a whole: a plan mends all of a row or leaves it alone.
    fn check_rows(&self, pool: &PoolName, table: &Table, moves: &[Move]) -> Result<(), Rejected> {
        let members = self.members(pool);
        let zones = members.iter().map(|member| (member.number, member.zone.as_str()));
        let rule = table.replicas().and_then(|replicas| SpreadRule::new(zones, replicas));
        let rule = rule.ok_or(Rejected::TooFewNodes)?;
        for &Move { slot, .. } in moves {
            rule.check(table.owners(slot)).map_err(|fault| Rejected::Row { slot, fault })?;
        }
        Ok(())
    }

    fn set_tenant(
        &mut self,
        cluster: &Cluster,
        tenant: &TenantName,
        pool: &Setting<PoolName>,
        slots: &Setting<TenantSlots>,
        limits: &Setting<String>,
    ) -> Result<Applied, Rejected> {
        check_name(Field::Tenant, tenant.as_str(), TENANT_BYTES_MAX)?;
        if let Setting::Set(pool) = pool
            && !self.mapping.pools.contains_key(pool)
        {
            return Err(Rejected::UnknownPool(pool.clone()));
        }
        if let Setting::Set(slots) = slots
            && slots.get() > cluster.slots.get()
        {
            return Err(Rejected::TooManySlots { slots: cluster.slots.get() });
        }
        if let Setting::Set(limits) = limits {
            check_length(Field::Limits, limits, VALUE_BYTES_MAX)?;
        }
        let before = self.mapping.tenants.get(tenant).cloned().unwrap_or_default();
        let limits_before = self.tenant_limits.get(tenant).cloned();
        let mapping = TenantMapping {
            pool: pool.clone().over(before.pool.clone()),
            slots: slots.clone().over(before.slots),
        };
        let limits = limits.clone().over(limits_before.clone());
        let is_new = |known: bool, wanted: bool, count: usize| !known && wanted && count >= TENANTS_MAX;
        let mapped = before != TenantMapping::default();
        if is_new(mapped, mapping != TenantMapping::default(), self.mapping.tenants.len())
            || is_new(limits_before.is_some(), limits.is_some(), self.tenant_limits.len())
        {
            return Err(Rejected::TooMany(Field::Tenant));
        }
        if limits.as_ref().is_some_and(|limits| !self.limits_fit(tenant, limits)) {
            return Err(Rejected::TooMany(Field::Limits));
        }

        let limits_changed = limits != limits_before;
        match limits {
            Some(limits) => drop(self.tenant_limits.insert(tenant.clone(), limits)),
            None => drop(self.tenant_limits.remove(tenant)),
        }
        if mapping != before {
            return self
                .change_mapping(cluster, MappingChange::TenantSet { tenant: tenant.clone(), mapping });
        }
        Ok(if limits_changed { Applied::Done } else { Applied::Unchanged })
    }

    /// Whether there is room for these limits of a tenant. Fewer than before always fit.
    fn limits_fit(&self, tenant: &TenantName, limits: &str) -> bool {
        let before = self.tenant_limits.get(tenant).map_or(0, String::len);
        let others = self.tenant_limits.iter().filter(|(name, _)| *name != tenant);
        let others: usize = others.map(|(name, limits)| name.as_str().len() + limits.len()).sum();
        limits.len() <= before || others + tenant.as_str().len() + limits.len() <= LIMITS_BYTES_MAX
    }

    fn set_pool(
        &mut self,
        cluster: &Cluster,
        name: &PoolName,
        matchers: &[TenantMatcher],
    ) -> Result<Applied, Rejected> {
        check_name(Field::Pool, name.as_str(), NAME_BYTES_MAX)?;
        if matchers.len() > POOL_MATCHERS_MAX {
            return Err(Rejected::TooMany(Field::Matcher));
        }
        for matcher in matchers {
            check_name(Field::Matcher, matcher.text(), TENANT_BYTES_MAX)?;
            if !matcher.is_understood() {
                return Err(Rejected::BadPattern);
            }
        }
        let is_exact = |matcher: &&TenantMatcher| matches!(matcher, TenantMatcher::Exact(_));
        for (other, pool) in self.mapping.pools.iter().filter(|(other, _)| *other != name) {
            let listed: BTreeSet<&TenantMatcher> = pool.matchers.iter().filter(is_exact).collect();
            if matchers.iter().any(|matcher| listed.contains(matcher)) {
                return Err(Rejected::MatcherTaken(other.clone()));
            }
        }
        match self.mapping.pools.get(name) {
            Some(pool) if pool.matchers == matchers => return Ok(Applied::Unchanged),
            None if self.mapping.pools.len() >= POOLS_MAX => return Err(Rejected::TooMany(Field::Pool)),
            _ => {}
        }
        self.change_mapping(
            cluster,
            MappingChange::PoolSet { name: name.clone(), matchers: matchers.to_vec() },
        )
    }

    fn delete_pool(&mut self, cluster: &Cluster, name: &PoolName) -> Result<Applied, Rejected> {
        let Some(pool) = self.mapping.pools.get(name) else { return Ok(Applied::Unchanged) };
        let has_tenants = self.mapping.tenants.values().any(|tenant| tenant.pool.as_ref() == Some(name));
        let stays = |state| matches!(state, NodeState::Joining | NodeState::Active);
        let has_nodes = self.nodes.values().any(|node| node.pool == *name && stays(node.state));
        if name.as_str() == PoolName::DEFAULT || has_tenants || !pool.matchers.is_empty() || has_nodes {
            return Err(Rejected::PoolInUse(name.clone()));
        }
        let change = MappingChange::PoolDeleted { name: name.clone(), pool: pool.clone() };
        self.change_mapping(cluster, change)
    }

    fn set_config(
        &mut self,
        key: &str,
        value: Option<&str>,
        if_version: Option<u64>,
    ) -> Result<Applied, Rejected> {
        check_name(Field::Config, key, NAME_BYTES_MAX)?;
        let known = self.config.get(key);
        let version = known.map_or(0, |known| known.version);
        if if_version.is_some_and(|expected| expected != version) {
            return Err(Rejected::WrongVersion { version });
        }
        if known.map(|known| known.value.as_str()) == value {
            return Ok(Applied::Unchanged);
        }
        match value {
            Some(value) => {
                check_length(Field::Config, value, VALUE_BYTES_MAX)?;
                if known.is_none() && self.config.len() >= CONFIG_KEYS_MAX {
                    return Err(Rejected::TooMany(Field::Config));
                }
                self.config_version += 1;
                let value = ConfigValue { value: value.to_owned(), version: self.config_version };
                self.config.insert(key.to_owned(), value);
            }
            None => drop(self.config.remove(key)),
        }
        Ok(Applied::Done)
    }

    fn add_token(&mut self, id: &TokenId, token: JoinToken) -> Result<Applied, Rejected> {
        check_name(Field::Token, id.as_str(), NAME_BYTES_MAX)?;
        match self.tokens.get(id) {
            Some(known) if JoinToken { used: 0, ..known.clone() } == token => return Ok(Applied::Unchanged),
            Some(_) => return Err(Rejected::TokenExists(id.clone())),
            None if self.tokens.len() >= TOKENS_MAX => return Err(Rejected::TooMany(Field::Token)),
            None => {}
        }
        self.tokens.insert(id.clone(), token);
        Ok(Applied::Done)
    }

    fn set_feature_level(&mut self, level: FeatureLevel) -> Result<Applied, Rejected> {
        if level == self.feature_level {
            return Ok(Applied::Unchanged);
        }
        let all_can = self.nodes.values().all(|node| node.state == NodeState::Lost || node.features >= level);
        if level < self.feature_level || !all_can {
            return Err(Rejected::FeatureLevel);
        }
        self.feature_level = level;
        Ok(Applied::Done)
    }

    /// Remembers why the current epoch came about.
    pub(super) fn note_reason(&mut self, reason: String) {
        self.reasons.push_back((self.epoch(), reason));
        if self.reasons.len() > Self::EPOCHS_KEPT {
            self.reasons.pop_front();
        }
    }

    /// Raises the epoch below which writes are refused.
    pub(super) fn raise_min_write_epoch(&mut self, epoch: RingEpoch) {
        self.min_write_epoch = self.min_write_epoch.max(epoch);
    }
}

/// Checks a text that may be empty.
pub(super) fn check_length(field: Field, text: &str, bytes_max: usize) -> Result<(), Rejected> {
    if text.len() > bytes_max { Err(Rejected::BadText(field)) } else { Ok(()) }
}

/// Checks a text that may not be empty.
pub(super) fn check_name(field: Field, text: &str, bytes_max: usize) -> Result<(), Rejected> {
    if text.is_empty() { Err(Rejected::BadText(field)) } else { check_length(field, text, bytes_max) }
}
