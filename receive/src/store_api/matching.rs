//! Matchers of a request: read, and answered by external labels where they can be.

use tonic::Status;
use weir_proto::thanos as pb;
use weir_tsdb::{
    labels::Labels,
    matchers::{MatchType, Matcher},
};

/// Reads the matchers of a request.
///
/// # Errors
/// `InvalidArgument` naming the matcher, if its type is not known or its expression is not valid.
pub fn from_wire(matchers: &[pb::LabelMatcher]) -> Result<Vec<Matcher>, Status> {
    let read = |(index, matcher): (usize, &pb::LabelMatcher)| {
        let match_type = match pb::label_matcher::Type::try_from(matcher.r#type) {
            Ok(pb::label_matcher::Type::Eq) => MatchType::Equal,
            Ok(pb::label_matcher::Type::Neq) => MatchType::NotEqual,
            Ok(pb::label_matcher::Type::Re) => MatchType::Regexp,
            Ok(pb::label_matcher::Type::Nre) => MatchType::NotRegexp,
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "matchers[{index}].type: {} is not known",
                    matcher.r#type
                )));
            }
        };
        Matcher::new(match_type, &matcher.name, &matcher.value)
            .map_err(|error| Status::invalid_argument(format!("matchers[{index}].value: {error}")))
    };
    matchers.iter().enumerate().map(read).collect()
}

/// Answers the matchers on labels that `external` sets. Returns those that are left for the stored
/// labels, or `None` if one failed and the tenant has nothing to give.
pub fn answer_external(matchers: &[Matcher], external: &Labels) -> Option<Vec<Matcher>> {
    let mut left = Vec::new();
    for matcher in matchers {
        match external.get(matcher.name()) {
            Some(value) if matcher.matches(value) => {}
            Some(_) => return None,
            None => left.push(matcher.clone()),
        }
    }
    Some(left)
}
