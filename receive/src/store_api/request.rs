//! Requests, read and checked. A field with a value we cannot honour is refused by name.

use tonic::Status;
use weir_proto::thanos as pb;
use weir_tsdb::matchers::Matcher;

use super::{matching, shard::Shard};

/// What a part of the data that cannot be read means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Answer with the rest and a warning.
    Warn,
    /// Fail the call.
    Abort,
}

impl OnFailure {
    fn from_wire(partial_response_disabled: bool, strategy: i32) -> Result<Self, Status> {
        match pb::PartialResponseStrategy::try_from(strategy) {
            Ok(pb::PartialResponseStrategy::Abort) => Ok(Self::Abort),
            Ok(pb::PartialResponseStrategy::Warn) if partial_response_disabled => Ok(Self::Abort),
            Ok(pb::PartialResponseStrategy::Warn) => Ok(Self::Warn),
            Err(_) => {
                Err(Status::invalid_argument(format!("partial_response_strategy: {strategy} is not known")))
            }
        }
    }
}

/// What all three calls have in common.
#[derive(Clone, Debug)]
pub struct Scope {
    /// First millisecond, inclusive.
    pub mint: i64,
    /// Last millisecond, inclusive. If it is before the first, nothing is selected.
    pub maxt: i64,
    /// All must match.
    pub matchers: Vec<Matcher>,
    /// Names of labels to take off.
    pub removed: Vec<String>,
    /// Most series, names or values; `None` for no limit.
    pub limit: Option<usize>,
    /// What to do about a tenant that fails.
    pub on_failure: OnFailure,
}

impl Scope {
    /// True if no time can be in the range.
    pub fn is_empty(&self) -> bool {
        self.mint > self.maxt
    }
}

/// A `SeriesRequest`. `max_resolution_window` and `aggregates` are not kept, as all our data is raw;
/// nor are `hints`, `step`, `range` and `query_hints`, which never change the answer.
#[derive(Clone, Debug)]
pub struct SeriesCall {
    /// Range, matchers and the like.
    pub scope: Scope,
    /// The shard asked for, if the request is sharded.
    pub shard: Option<Shard>,
    /// Labels only.
    pub skip_chunks: bool,
    /// Series per frame; below two each has its own.
    pub batch_size: usize,
}

impl SeriesCall {
    /// Reads a request.
    ///
    /// # Errors
    /// `InvalidArgument` naming the field.
    pub fn from_wire(request: &pb::SeriesRequest) -> Result<Self, Status> {
        if request.matchers.is_empty() {
            return Err(no_matchers());
        }
        Ok(Self {
            scope: Scope {
                mint: request.min_time,
                maxt: request.max_time,
                matchers: matching::from_wire(&request.matchers)?,
                removed: request.without_replica_labels.clone(),
                limit: limit(request.limit)?,
                on_failure: OnFailure::from_wire(
                    request.partial_response_disabled,
                    request.partial_response_strategy,
                )?,
            },
            shard: Shard::from_request(request.shard_info.as_ref())?,
            skip_chunks: request.skip_chunks,
            batch_size: count("response_batch_size", request.response_batch_size)?,
        })
    }
}

/// Reads a `LabelNamesRequest`.
///
/// # Errors
/// `InvalidArgument` naming the field.
pub fn label_names(request: &pb::LabelNamesRequest) -> Result<Scope, Status> {
    Ok(Scope {
        mint: request.start,
        maxt: request.end,
        matchers: matching::from_wire(&request.matchers)?,
        removed: request.without_replica_labels.clone(),
        limit: limit(request.limit)?,
        on_failure: OnFailure::from_wire(
            request.partial_response_disabled,
            request.partial_response_strategy,
        )?,
    })
}

/// Reads a `LabelValuesRequest` but for its label.
///
/// # Errors
/// `InvalidArgument` naming the field.
pub fn label_values(request: &pb::LabelValuesRequest) -> Result<Scope, Status> {
    if request.label.is_empty() {
        return Err(Status::invalid_argument("label: must not be empty"));
    }
    Ok(Scope {
        mint: request.start,
        maxt: request.end,
        matchers: matching::from_wire(&request.matchers)?,
        removed: request.without_replica_labels.clone(),
        limit: limit(request.limit)?,
        on_failure: OnFailure::from_wire(
            request.partial_response_disabled,
            request.partial_response_strategy,
        )?,
    })
}

/// The answer to a request that would select everything.
pub fn no_matchers() -> Status {
    Status::invalid_argument("matchers: none is left besides those on external labels")
}

fn limit(limit: i64) -> Result<Option<usize>, Status> {
    let limit = count("limit", limit)?;
    Ok((limit > 0).then_some(limit))
}

fn count(field: &str, value: i64) -> Result<usize, Status> {
    if value < 0 {
        return Err(Status::invalid_argument(format!("{field}: {value} is negative")));
    }
    Ok(usize::try_from(value).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn request() -> pb::SeriesRequest {
        let matcher = pb::LabelMatcher { r#type: 0, name: "a".to_owned(), value: "b".to_owned() };
        pb::SeriesRequest { matchers: vec![matcher], ..Default::default() }
    }

    #[test]
    fn names_the_field_it_refuses() {
        let check = |change: &dyn Fn(&mut pb::SeriesRequest), field: &str| {
            let mut request = request();
            change(&mut request);
            let status = SeriesCall::from_wire(&request).unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().starts_with(field), "{}", status.message());
        };
        check(&|request| request.matchers.clear(), "matchers: ");
        check(&|request| request.matchers[0].r#type = 4, "matchers[0].type: ");
        check(&|request| request.partial_response_strategy = 2, "partial_response_strategy: ");
        check(&|request| request.limit = -1, "limit: ");
        check(&|request| request.response_batch_size = -1, "response_batch_size: ");
        let shard = pb::ShardInfo { shard_index: 3, total_shards: 3, by: true, labels: Vec::new() };
        check(&|request| request.shard_info = Some(shard.clone()), "shard_info.shard_index: ");

        let status = label_values(&pb::LabelValuesRequest::default()).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "label: must not be empty"));
    }

    #[test]
    fn either_field_asks_to_abort() {
        let check = |disabled, strategy, want| {
            let request = pb::SeriesRequest {
                partial_response_disabled: disabled,
                partial_response_strategy: strategy,
                ..request()
            };
            assert_eq!(SeriesCall::from_wire(&request).unwrap().scope.on_failure, want);
        };
        check(false, 0, OnFailure::Warn);
        check(true, 0, OnFailure::Abort);
        check(false, 1, OnFailure::Abort);
        check(true, 1, OnFailure::Abort);
    }

    #[test]
    fn zero_is_no_limit() {
        let limit =
            |limit| SeriesCall::from_wire(&pb::SeriesRequest { limit, ..request() }).unwrap().scope.limit;
        assert_eq!(limit(0), None);
        assert_eq!(limit(5), Some(5));
    }
}
