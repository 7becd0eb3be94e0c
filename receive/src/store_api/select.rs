//! First half of a Series request: which series, in which order.

use tokio_util::sync::CancellationToken;
use tonic::Status;
use weir_tsdb::{Error, labels::Labels, query::Query};

use super::{
    composition::{Composition, compare},
    limits::Budget,
    matching,
    request::{OnFailure, Scope, SeriesCall, no_matchers},
    source::{SelectedSet, TenantView},
};

/// The series of one tenant.
pub struct TenantSelection {
    /// Name of the tenant.
    pub tenant: String,
    /// How its label sets are composed.
    pub composition: Composition,
    /// Its series, in order of their stored labels.
    pub set: Box<dyn SelectedSet>,
}

/// Where a series is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    tenant: u32,
    series: u32,
}

/// The series of a request over all tenants, in the order they are sent: ascending by composed
/// labels, sets that are equal after composition next to each other.
#[derive(Default)]
pub struct Selected {
    tenants: Vec<TenantSelection>,
    /// Eight bytes per series; the labels stay where they were selected.
    order: Vec<Place>,
}

impl Selected {
    /// Number of series to send.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Tenant of series number `position` in the order, and the series' index in its set.
    pub fn get(&self, position: usize) -> Option<(&TenantSelection, usize)> {
        let place = self.order.get(position)?;
        Some((self.tenants.get(place.tenant as usize)?, place.series as usize))
    }

    fn parts(&self, place: Place) -> (&Composition, &Labels) {
        let tenant = &self.tenants[place.tenant as usize];
        (&tenant.composition, tenant.set.labels(place.series as usize))
    }

    /// Adding and removing labels may swap neighbours, and tenants interleave. What comes in is a
    /// few ascending runs, which the stable sort finds and merges.
    fn sort(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.sort_by(|left, right| compare(self.parts(*left), self.parts(*right)));
        self.order = order;
    }

    /// Keeps the series with the first `limit` different label sets.
    fn truncate(&mut self, limit: usize) {
        let mut sets = 0;
        let end = (0..self.order.len()).find(|&position| {
            let is_new = position == 0
                || compare(self.parts(self.order[position - 1]), self.parts(self.order[position])).is_ne();
            sets += usize::from(is_new);
            sets > limit
        });
        self.order.truncate(end.unwrap_or(self.order.len()));
    }
}

/// The tenants whose external labels match, each with the query for its stored labels.
///
/// # Errors
/// `InvalidArgument` if matchers are `required` and a tenant has none left for its stored labels.
pub fn tenant_queries(
    tenants: Vec<TenantView>,
    scope: &Scope,
    required: bool,
) -> Result<Vec<(TenantView, Query)>, Status> {
    let mut queries = Vec::new();
    for tenant in tenants {
        let Some(matchers) = matching::answer_external(&scope.matchers, &tenant.external_labels) else {
            continue;
        };
        if required && matchers.is_empty() {
            return Err(no_matchers());
        }
        let query = Query { mint: scope.mint, maxt: scope.maxt, matchers, series_limit: None };
        queries.push((tenant, query));
    }
    Ok(queries)
}

/// What a failing part means: the text of a warning, or the end of the call.
///
/// # Errors
/// `Internal` with the text, if the request wants failures to end it.
pub fn warn_or_abort(on_failure: OnFailure, text: String) -> Result<String, Status> {
    match on_failure {
        OnFailure::Warn => Ok(text),
        OnFailure::Abort => Err(Status::internal(text)),
    }
}

/// Selects and orders the series of `call`. Blocks on the disk. Returns them with warnings about
/// tenants that failed. Ends early, with whatever it has, once `stop` is cancelled.
///
/// The request's limit counts different label sets and is applied before sharding, so that the
/// shards of a limited request together are what it gives without shards.
pub fn select(
    tenants: Vec<TenantView>,
    call: &mut SeriesCall,
    budget: &mut Budget,
    stop: &CancellationToken,
) -> Result<(Selected, Vec<String>), Status> {
    let mut selected = Selected::default();
    let mut warnings = Vec::new();
    let queries = tenant_queries(tenants, &call.scope, true)?;
    if call.scope.is_empty() {
        return Ok((selected, warnings));
    }
    // Only if each selected series will be sent may the database stop at the limit.
    let all_are_sent = call.scope.limit.is_none() && call.shard.is_none();
    for (view, mut query) in queries {
        if stop.is_cancelled() {
            return Ok((selected, warnings));
        }
        if all_are_sent && let Some(left) = budget.series_left() {
            query.series_limit = Some(left.saturating_sub(selected.len() as u64) as usize);
        }
        match view.db.select(&query) {
            Ok(set) => add_tenant(&mut selected, view, &call.scope, set),
            Err(Error::QueryLimit { .. }) => return Err(budget.too_many_series()),
            Err(error) => {
                let text = format!("tenant {}: {error}", view.tenant);
                warnings.push(warn_or_abort(call.scope.on_failure, text)?);
            }
        }
    }
    selected.sort();
    if let Some(limit) = call.scope.limit {
        selected.truncate(limit);
    }
    if let Some(shard) = &mut call.shard {
        let mut order = std::mem::take(&mut selected.order);
        order.retain(|place| {
            let (composition, labels) = selected.parts(*place);
            shard.keeps(composition.labels(labels))
        });
        selected.order = order;
    }
    budget.take_series(selected.len() as u64)?;
    Ok((selected, warnings))
}

fn add_tenant(selected: &mut Selected, view: TenantView, scope: &Scope, set: Box<dyn SelectedSet>) {
    let tenant = u32::try_from(selected.tenants.len()).expect("fewer than 2^32 tenants");
    let series = u32::try_from(set.len()).expect("fewer than 2^32 series in a tenant");
    selected.order.extend((0..series).map(|series| Place { tenant, series }));
    let composition = Composition::new(&view.external_labels, &scope.removed);
    selected.tenants.push(TenantSelection { tenant: view.tenant, composition, set });
}

/// Asks every tenant that matches and collects answers and warnings. Blocks on the disk.
pub fn for_each_tenant(
    tenants: Vec<TenantView>,
    scope: &Scope,
    stop: &CancellationToken,
    mut ask: impl FnMut(&TenantView, &Query) -> weir_tsdb::Result<()>,
) -> Result<Vec<String>, Status> {
    let mut warnings = Vec::new();
    for (view, query) in tenant_queries(tenants, scope, false)? {
        if scope.is_empty() || stop.is_cancelled() {
            break;
        }
        if let Err(error) = ask(&view, &query) {
            let text = format!("tenant {}: {error}", view.tenant);
            warnings.push(warn_or_abort(scope.on_failure, text)?);
        }
    }
    Ok(warnings)
}
