//! What other programs rely on by name and number.

use prost::Message as _;
use prost_types::{Any, FileDescriptorSet};
use weir_proto::thanos::{LabelMatcher, QueryHints, SeriesRequest, ShardInfo, label_matcher};
use weir_proto::{FILE_DESCRIPTOR_SET, info, thanos};

#[test]
fn descriptors_list_every_service_and_import() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                methods.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
        for import in &file.dependency {
            assert!(set.file.iter().any(|other| other.name() == import), "{import} is missing");
        }
    }
    methods.sort();
    assert_eq!(
        methods,
        [
            "/thanos.Store/LabelNames",
            "/thanos.Store/LabelValues",
            "/thanos.Store/Series",
            "/thanos.info.Info/Info",
            "/weir.cluster.Cluster/Administer",
            "/weir.cluster.Cluster/Heartbeat",
            "/weir.cluster.Cluster/Info",
            "/weir.cluster.Cluster/Join",
            "/weir.cluster.Cluster/LastRing",
            "/weir.cluster.Cluster/Propose",
            "/weir.cluster.Cluster/StartRaft",
            "/weir.cluster.Cluster/Status",
            "/weir.cluster.Cluster/WatchRing",
            "/weir.cluster.Raft/Call",
            "/weir.replication.Replication/Ping",
            "/weir.replication.Replication/Replicate",
        ]
    );
    assert_eq!(thanos::store_server::SERVICE_NAME, "thanos.Store");
    assert_eq!(info::info_server::SERVICE_NAME, "thanos.info.Info");
}

#[test]
fn a_series_request_has_the_known_bytes() {
    let request = SeriesRequest {
        min_time: 1,
        max_time: 2,
        matchers: vec![LabelMatcher {
            r#type: label_matcher::Type::Nre.into(),
            name: "a".into(),
            value: "b".into(),
        }],
        max_resolution_window: 4,
        aggregates: vec![thanos::Aggr::Counter.into()],
        partial_response_disabled: true,
        partial_response_strategy: thanos::PartialResponseStrategy::Abort.into(),
        skip_chunks: true,
        hints: Some(Any { type_url: "h".into(), value: vec![] }),
        step: 10,
        range: 11,
        query_hints: Some(QueryHints {
            step_millis: 1,
            grouping: Some(thanos::Grouping { by: true, labels: vec!["g".into()] }),
            ..QueryHints::default()
        }),
        shard_info: Some(ShardInfo { shard_index: 1, total_shards: 2, by: true, labels: vec!["s".into()] }),
        without_replica_labels: vec!["r".into()],
        limit: 15,
        response_batch_size: 16,
    };
    let wanted =
        b"\x08\x01\x10\x02\x1a\x08\x08\x03\x12\x01a\x1a\x01b\x20\x04\x2a\x01\x05\x30\x01\x38\x01\x40\x01\
        \x4a\x03\x0a\x01h\x50\x0a\x58\x0b\x62\x09\x08\x01\x22\x05\x08\x01\x1a\x01g\
        \x6a\x09\x08\x01\x10\x02\x18\x01\x22\x01s\x72\x01r\x78\x0f\x80\x01\x10";
    assert_eq!(request.encode_to_vec(), wanted);
    assert_eq!(SeriesRequest::decode(wanted.as_slice()), Ok(request));
}
