//! LabelNames and LabelValues. Both block on the disk.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;
use tonic::Status;
use weir_proto::thanos as pb;
use weir_tsdb::{Error, query::Query};

use super::{
    composition::Composition,
    request::{self, Scope},
    select::for_each_tenant,
    source::{SeriesSource, TenantView},
};

/// Names of labels of the series that match, external ones included. A tenant of which nothing
/// matches adds none.
///
/// # Errors
/// The status of the call.
pub fn label_names(
    tenants: Vec<TenantView>,
    request: &pb::LabelNamesRequest,
    stop: &CancellationToken,
) -> Result<pb::LabelNamesResponse, Status> {
    let scope = request::label_names(request)?;
    let mut names = BTreeSet::new();
    let warnings = for_each_tenant(tenants, &scope, stop, |view, query| {
        let stored = view.db.label_names(query)?;
        if !stored.is_empty() {
            let composition = Composition::new(&view.external_labels, &scope.removed);
            names.extend(composition.external().iter().map(|(name, _)| name.to_owned()));
            names.extend(stored.into_iter().filter(|name| !scope.removed.contains(name)));
        }
        Ok(())
    })?;
    Ok(pb::LabelNamesResponse { names: first(names, &scope), warnings, hints: None })
}

/// Values of one label of the series that match. For an external label that is its value, if the
/// matchers select anything. A label that the request takes off has none.
///
/// # Errors
/// The status of the call.
pub fn label_values(
    tenants: Vec<TenantView>,
    request: &pb::LabelValuesRequest,
    stop: &CancellationToken,
) -> Result<pb::LabelValuesResponse, Status> {
    let scope = request::label_values(request)?;
    if scope.removed.contains(&request.label) {
        return Ok(pb::LabelValuesResponse::default());
    }
    let mut values = BTreeSet::new();
    let warnings = for_each_tenant(tenants, &scope, stop, |view, query| {
        match view.external_labels.get(&request.label) {
            None => values.extend(view.db.label_values(&request.label, query)?),
            Some(value) if selects_any(&*view.db, query)? => {
                values.insert(value.to_owned());
            }
            Some(_) => {}
        }
        Ok(())
    })?;
    Ok(pb::LabelValuesResponse { values: first(values, &scope), warnings, hints: None })
}

/// True if the query selects a series. Without matchers the tenant's being there is enough, which
/// makes the list of tenants cheap.
fn selects_any(db: &dyn SeriesSource, query: &Query) -> weir_tsdb::Result<bool> {
    if query.matchers.is_empty() {
        return Ok(true);
    }
    match db.select(&Query { series_limit: Some(1), ..query.clone() }) {
        Ok(set) => Ok(!set.is_empty()),
        Err(Error::QueryLimit { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

fn first(sorted: BTreeSet<String>, scope: &Scope) -> Vec<String> {
    sorted.into_iter().take(scope.limit.unwrap_or(usize::MAX)).collect()
}
