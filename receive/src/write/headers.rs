//! What the head of a write request says: whose it is, and how its body is to be read.

use http::{HeaderMap, HeaderName, header};

use crate::{
    answer::WriteError,
    tenants::{InvalidTenantName, TenantName},
};

/// Upstream's tenant header. Looked at after the configured one.
pub const THANOS_TENANT: HeaderName = HeaderName::from_static("thanos-tenant");
/// The tenant header of Mimir and Cortex. Looked at last.
pub const SCOPE_ORG_ID: HeaderName = HeaderName::from_static("x-scope-orgid");

/// The tenant of a request: the first of the configured header, `THANOS-TENANT` and
/// `X-Scope-OrgID` that is there and not empty, else `default`.
pub fn tenant(
    headers: &HeaderMap,
    configured: &HeaderName,
    default: &TenantName,
) -> Result<TenantName, WriteError> {
    let set = |name: &HeaderName| headers.get(name).filter(|value| !value.is_empty());
    let Some(value) = set(configured).or_else(|| set(&THANOS_TENANT)).or_else(|| set(&SCOPE_ORG_ID)) else {
        return Ok(default.clone());
    };
    // The usual case allocates nothing.
    if value.as_bytes() == default.as_str().as_bytes() {
        return Ok(default.clone());
    }
    TenantName::from_bytes(value.as_bytes()).map_err(|cause: InvalidTenantName| {
        let name = shortened(value.as_bytes());
        WriteError::InvalidTenant { name, cause }
    })
}

/// The number of the replica header, 0 without one: which copy this is, counted from 1, of a request
/// that another router has replicated. Without a ring it means nothing, yet it must be a number, as
/// upstream demands.
pub fn replica(headers: &HeaderMap, name: &HeaderName) -> Result<u64, WriteError> {
    let Some(value) = headers.get(name).filter(|value| !value.is_empty()) else { return Ok(0) };
    let number = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    number.ok_or_else(|| WriteError::ReplicaHeader(shortened(value.as_bytes())))
}

/// Judges `Content-Encoding`: snappy, or nothing said, which means snappy too.
pub fn content_encoding(headers: &HeaderMap) -> Result<(), WriteError> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(()) };
    let encoding = value.as_bytes().trim_ascii();
    if encoding.is_empty() || encoding.eq_ignore_ascii_case(b"snappy") {
        return Ok(());
    }
    Err(WriteError::ContentEncoding(shortened(value.as_bytes())))
}

/// Judges `Content-Type`: `application/x-protobuf`, with `proto=prometheus.WriteRequest` or no
/// such parameter, in any case and spacing; or nothing said, as of some home-grown senders.
pub fn content_type(headers: &HeaderMap) -> Result<(), WriteError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let unsupported = || WriteError::ContentType(shortened(value.as_bytes()));
    let text = value.to_str().map_err(|_| unsupported())?;
    if text.trim_ascii().is_empty() {
        return Ok(());
    }
    let mut parts = text.split(';').map(str::trim_ascii);
    if !parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/x-protobuf")) {
        return Err(unsupported());
    }
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if !name.trim_ascii().eq_ignore_ascii_case("proto") {
            continue;
        }
        let message = value.trim_ascii().trim_matches('"');
        if message.eq_ignore_ascii_case("io.prometheus.write.v2.Request") {
            return Err(WriteError::RemoteWrite2);
        }
        if !message.eq_ignore_ascii_case("prometheus.WriteRequest") {
            return Err(unsupported());
        }
    }
    Ok(())
}

/// Text from a stranger, cut to what an answer should carry.
fn shortened(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 200;
    String::from_utf8_lossy(bytes.get(..BYTES_MAX).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap())
        });
        pairs.collect()
    }

    #[test]
    fn tenants() {
        let configured: HeaderName = "x-team".parse().unwrap();
        let default = TenantName::new("default-tenant").unwrap();
        let check = |pairs: &[(&str, &[u8])], expected: Result<&str, InvalidTenantName>| {
            let found = match tenant(&headers(pairs), &configured, &default) {
                Ok(name) => Ok(name.as_str().to_owned()),
                Err(WriteError::InvalidTenant { cause, .. }) => Err(cause),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, expected.map(str::to_owned), "{pairs:?}");
        };
        check(&[], Ok("default-tenant"));
        check(&[("x-team", b"a")], Ok("a"));
        check(&[("X-Team", b"a"), ("thanos-tenant", b"b"), ("x-scope-orgid", b"c")], Ok("a"));
        check(&[("thanos-tenant", b"b"), ("x-scope-orgid", b"c")], Ok("b"));
        check(&[("THANOS-TENANT", b"b")], Ok("b"));
        check(&[("X-Scope-OrgID", b"c")], Ok("c"));
        check(&[("x-team", b""), ("x-scope-orgid", b"c")], Ok("c"));
        check(&[("x-team", b"")], Ok("default-tenant"));
        check(&[("x-team", b"default-tenant")], Ok("default-tenant"));
        check(&[("x-team", b".")], Err(InvalidTenantName::Reserved));
        check(&[("x-team", b"..")], Err(InvalidTenantName::Reserved));
        check(&[("x-team", b"../b")], Err(InvalidTenantName::Separator));
        check(&[("x-team", b"a\xff")], Err(InvalidTenantName::NotUtf8));
        check(&[("x-team", b"a\tb")], Err(InvalidTenantName::Control));
        check(&[("x-team", &[b'x'; 151])], Err(InvalidTenantName::TooLong(151)));
        // The first header that is set decides, also when it is wrong.
        check(&[("x-team", b"a/b"), ("thanos-tenant", b"b")], Err(InvalidTenantName::Separator));
    }

    #[test]
    fn replicas() {
        let name: HeaderName = "thanos-replica".parse().unwrap();
        let check = |value: &[u8], good: bool| {
            let verdict = replica(&headers(&[("thanos-replica", value)]), &name);
            assert_eq!(verdict.is_ok(), good, "{value:?}");
            assert!(verdict.is_ok() || matches!(verdict, Err(WriteError::ReplicaHeader(_))));
        };
        assert!(replica(&HeaderMap::new(), &name).is_ok());
        check(b"", true);
        check(b"0", true);
        check(b"3", true);
        check(b"18446744073709551615", true);
        check(b"18446744073709551616", false);
        check(b"-1", false);
        check(b"a", false);
        check(b"1 ", false);
        check(b"\xff", false);
    }

    #[test]
    fn encodings() {
        let check = |value: &[u8], good: bool| {
            let verdict = content_encoding(&headers(&[("content-encoding", value)]));
            assert_eq!(verdict.is_ok(), good, "{value:?}");
            assert!(verdict.is_ok() || matches!(verdict, Err(WriteError::ContentEncoding(_))));
        };
        assert!(content_encoding(&HeaderMap::new()).is_ok());
        check(b"snappy", true);
        check(b"Snappy ", true);
        check(b"", true);
        check(b"zstd", false);
        check(b"gzip", false);
        check(b"snappy, gzip", false);
        check(b"identity", false);
    }

    #[test]
    fn types() {
        #[derive(PartialEq, Debug)]
        enum Verdict {
            Good,
            Version2,
            Unknown,
        }
        use Verdict::*;
        let check = |value: &[u8], expected: Verdict| {
            let verdict = match content_type(&headers(&[("content-type", value)])) {
                Ok(()) => Good,
                Err(WriteError::RemoteWrite2) => Version2,
                Err(WriteError::ContentType(_)) => Unknown,
                Err(other) => panic!("{other}"),
            };
            assert_eq!(verdict, expected, "{:?}", String::from_utf8_lossy(value));
        };
        assert!(content_type(&HeaderMap::new()).is_ok());
        check(b"", Good);
        check(b"application/x-protobuf", Good);
        check(b"APPLICATION/X-Protobuf", Good);
        check(b"application/x-protobuf;proto=prometheus.WriteRequest", Good);
        check(b"application/x-protobuf ; Proto = \"prometheus.WriteRequest\"", Good);
        check(b"application/x-protobuf; charset=utf-8", Good);
        check(b"application/x-protobuf;", Good);
        check(b"application/x-protobuf;proto=io.prometheus.write.v2.Request", Version2);
        check(b"application/x-protobuf ; PROTO=io.prometheus.write.v2.request", Version2);
        check(b"application/x-protobuf;proto=io.prometheus.write.v3.Request", Unknown);
        check(b"application/x-protobuf;proto=", Unknown);
        check(b"application/json", Unknown);
        check(b"application/x-protobuf2", Unknown);
        check(b"text/plain", Unknown);
        check(b"\xff", Unknown);
    }
}
