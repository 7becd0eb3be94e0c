//! `thanos.info.Info`: what a Querier knows about this node before it asks.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_proto::{
    info::{self, info_server},
    thanos as pb,
};
use weir_tsdb::labels::Labels;

use super::{TenantSource, not_ready};

/// The Info service.
#[derive(Clone)]
pub struct InfoApi {
    source: Arc<dyn TenantSource>,
}

impl InfoApi {
    /// A service over the tenants of `source`.
    pub fn new(source: Arc<dyn TenantSource>) -> Self {
        Self { source }
    }
}

#[tonic::async_trait]
impl info_server::Info for InfoApi {
    async fn info(
        &self,
        _request: Request<info::InfoRequest>,
    ) -> Result<Response<info::InfoResponse>, Status> {
        if !self.source.ready() {
            return Err(not_ready());
        }
        let source = Arc::clone(&self.source);
        let answer = tokio::task::spawn_blocking(move || describe(&*source)).await;
        answer.map(Response::new).map_err(|panic| super::broke_off("Info", &panic))
    }
}

/// A Querier leaves out a node, or a tenant of it, if the range it wants lies outside the times told
/// here, and it asks for them only now and then. So the newest time is always open, and the oldest
/// one of a tenant without samples too: its first samples may be of any time.
fn describe(source: &dyn TenantSource) -> info::InfoResponse {
    let tenants = source.tenants();
    let entry = |labels: &Labels, min_time: i64| info::TsdbInfo {
        labels: Some(label_set(labels)),
        min_time,
        max_time: i64::MAX,
    };
    let tsdb_infos: Vec<info::TsdbInfo> = tenants
        .iter()
        .map(|view| entry(&view.external_labels, view.db.time_range().map_or(i64::MIN, |range| range.0)))
        .collect();
    info::InfoResponse {
        label_sets: tenants.iter().map(|view| label_set(&view.external_labels)).collect(),
        component_type: "receive".to_owned(),
        store: Some(info::StoreInfo {
            min_time: tsdb_infos.iter().map(|entry| entry.min_time).min().unwrap_or(i64::MIN),
            max_time: i64::MAX,
            supports_sharding: true,
            supports_without_replica_labels: true,
            tsdb_infos,
            supports_projections: false,
        }),
        ..Default::default()
    }
}

fn label_set(labels: &Labels) -> pb::ZLabelSet {
    let labels = labels.iter();
    pb::ZLabelSet {
        labels: labels
            .map(|(name, value)| pb::Label { name: name.to_owned(), value: value.to_owned() })
            .collect(),
    }
}
