use super::*;
use crate::objstore::{Bucket, BucketOptions};

/// A configuration with these lines below `config`.
fn of_type(kind: &str, lines: &str) -> String {
    let mut yaml = format!("type: {kind}\nconfig:\n");
    for line in lines.lines() {
        yaml.push_str("  ");
        yaml.push_str(line);
        yaml.push('\n');
    }
    yaml
}

fn parsed(yaml: &str) -> BucketConfig {
    match BucketConfig::parse(yaml) {
        Ok(config) => config,
        Err(error) => panic!("{yaml}\n{error}"),
    }
}

/// The configuration is good, makes a client, and gives these warnings.
fn check_good(yaml: &str, warnings: &[&str]) {
    let config = parsed(yaml);
    assert_eq!(config.warnings, warnings, "{yaml}");
    if !matches!(config.provider, Provider::Filesystem(_)) {
        let bucket = Bucket::open_with_env(&config, &BucketOptions::default(), &|_| None);
        assert_eq!(bucket.unwrap_or_else(|error| panic!("{yaml}\n{error}")).name(), "thanos");
    }
}

fn check_bad(yaml: &str, message: &str) {
    match BucketConfig::parse(yaml) {
        Ok(config) => panic!("accepted: {yaml}\n{config:?}"),
        Err(error) => assert_eq!(error.to_string(), message, "{yaml}"),
    }
}

/// As [`check_bad`], for what shows only when the client is made.
fn check_bad_at_open(yaml: &str, message: &str) {
    match Bucket::open_with_env(&parsed(yaml), &BucketOptions::default(), &|_| None) {
        Ok(_) => panic!("opened: {yaml}"),
        Err(error) => assert_eq!(error.to_string(), message, "{yaml}"),
    }
}

/// The section that Thanos documents, with all its defaults.
const HTTP_DEFAULTS: &str = "\
http_config:
  idle_conn_timeout: 1m30s
  response_header_timeout: 2m
  insecure_skip_verify: false
  tls_handshake_timeout: 10s
  expect_continue_timeout: 1s
  max_idle_conns: 100
  max_idle_conns_per_host: 100
  max_conns_per_host: 0
  tls_config:
    ca_file: \"\"
    cert_file: \"\"
    key_file: \"\"
    server_name: \"\"
    insecure_skip_verify: false
  disable_compression: false
";

#[test]
fn documented_defaults_are_accepted() {
    let s3 = "\
bucket: thanos
endpoint: s3.example.net
region: \"\"
disable_dualstack: false
aws_sdk_auth: false
access_key: \"\"
insecure: false
signature_version2: false
secret_key: \"\"
session_token: \"\"
put_user_metadata: {}
trace:
  enable: false
list_objects_version: \"\"
bucket_lookup_type: auto
send_content_md5: true
disable_multipart: false
part_size: 67108864
sse_config:
  type: \"\"
  kms_key_id: \"\"
  kms_encryption_context: {}
  encryption_key: \"\"
sts_endpoint: \"\"
max_retries: 0
";
    check_good(&(of_type("S3", &format!("{s3}{HTTP_DEFAULTS}")) + "prefix: \"\"\n"), &[]);

    let gcs = "\
bucket: thanos
service_account: \"\"
use_grpc: false
grpc_conn_pool_size: 0
chunk_size_bytes: 0
max_retries: 0
";
    check_good(&of_type("GCS", &format!("{gcs}{HTTP_DEFAULTS}")), &[]);

    let azure = "\
storage_account: acc
storage_account_key: a2V5
storage_connection_string: \"\"
storage_create_container: false
az_tenant_id: \"\"
client_id: \"\"
client_secret: \"\"
container: thanos
endpoint: \"\"
user_assigned_id: \"\"
max_retries: 0
reader_config:
  max_retry_requests: 0
pipeline_config:
  max_tries: 0
  try_timeout: 0s
  retry_delay: 0s
  max_retry_delay: 0s
msi_resource: \"\"
";
    check_good(&of_type("AZURE", &format!("{azure}{HTTP_DEFAULTS}")), &[]);
    check_good(&(of_type("FILESYSTEM", "directory: /b") + "prefix: \"\"\n"), &[]);
}

#[test]
fn keys_without_a_value_are_as_if_left_out() {
    check_good(&of_type("S3", "bucket: thanos\nendpoint: h\nregion:\nsse_config:\nhttp_config:\n"), &[]);
}

#[test]
fn types_and_prefixes() {
    for kind in ["FILESYSTEM", "filesystem", "FileSystem"] {
        let config = parsed(&of_type(kind, "directory: /b"));
        let directory = FilesystemConfig { directory: Some("/b".to_owned()) };
        assert_eq!(config.provider, Provider::Filesystem(directory));
    }
    let prefix =
        |text: &str| parsed(&format!("{}prefix: {text}\n", of_type("FILESYSTEM", "directory: /b"))).prefix;
    assert_eq!(prefix("a"), "a");
    assert_eq!(prefix("/a/b/"), "a/b");
    assert_eq!(prefix("/"), "");
    assert_eq!(prefix("'a b%2f'"), "a b%2f");
    check_bad(
        "type: FILESYSTEM\nconfig: {directory: /b}\nprefix: a/../b\n",
        "prefix: Error parsing Path \"a/../b\": Encountered illegal character sequence \"..\" whilst parsing path segment \"..\"",
    );

    check_bad(
        "type: HDFS\n",
        "type: unknown object storage type \"HDFS\"; known are FILESYSTEM, S3, GCS and AZURE",
    );
    check_bad(
        "type: cos\nconfig: {bucket: b, app_id: '1'}\n",
        "type: object storage type COS is not supported; use type S3 with endpoint cos.<region>.myqcloud.com",
    );
    check_bad(
        "type: ALIYUNOSS\n",
        "type: object storage type ALIYUNOSS is not supported; use type S3 with endpoint oss-<region>.aliyuncs.com and bucket_lookup_type virtual-hosted",
    );
    check_bad(
        "type: OBS\n",
        "type: object storage type OBS is not supported; use type S3 with endpoint obs.<region>.myhuaweicloud.com",
    );
    check_bad(
        "type: BOS\n",
        "type: object storage type BOS is not supported; use type S3 with endpoint s3.<region>.bcebos.com",
    );
    check_bad(
        "type: OCI\n",
        "type: object storage type OCI is not supported; use type S3 with endpoint <namespace>.compat.objectstorage.<region>.oraclecloud.com and a customer secret key",
    );
    check_bad(
        "type: SWIFT\n",
        "type: object storage type SWIFT is not supported; use type S3 with the S3 API of Swift (s3api)",
    );
}

#[test]
fn the_file_as_a_whole() {
    check_bad("", "type: must be set");
    check_bad("type: ''\n", "type: must be set");
    check_bad("config: {}\n", "type: must be set");
    check_bad(
        "type: S3\nconfigs: {}\n",
        "line 2, column 1: unknown field `configs`, expected one of type, config, prefix",
    );
    check_bad(
        "type: S3\ntype: S3\n",
        "line 2, column 1: duplicate mapping key: type, set DuplicateKeyPolicy in Options if acceptable",
    );
    check_bad("type: [S3\n", "line 1, column 7: expected string scalar");
    check_bad("type: S3\nconfig: 5\n", "line 2, column 9: expected mapping start");
    check_bad("type: FILESYSTEM\n", "config.directory: must be set");
    check_bad("type: FILESYSTEM\nconfig:\n", "config.directory: must be set");
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    let check = |yaml: &str, beginning: &str| {
        let error = BucketConfig::parse(yaml).unwrap_err().to_string();
        assert!(error.starts_with(beginning), "{yaml}\n{error}");
    };
    check(
        &of_type("FILESYSTEM", "directory: /b\nbucket: b"),
        "line 4, column 3: unknown field `bucket`, expected one of directory",
    );
    check(&of_type("S3", "bucket: b\nbuckets: b"), "line 4, column 3: unknown field `buckets`, ");
    check(
        &of_type("S3", "bucket: b\nsse_config:\n  kind: SSE-S3"),
        "line 5, column 5: unknown field `kind`, expected one of type, kms_key_id",
    );
    check(
        &of_type("S3", "bucket: b\nhttp_config:\n  tls_config:\n    ca: x"),
        "line 6, column 7: unknown field `ca`, expected one of ca_file, ",
    );
    check(
        &of_type("GCS", "project: b"),
        "line 3, column 3: unknown field `project`, expected one of bucket, ",
    );
    check(&of_type("AZURE", "account: b"), "line 3, column 3: unknown field `account`, ");
}

#[test]
fn values_of_the_wrong_kind() {
    check_bad(&of_type("S3", "insecure: 7"), "line 3, column 13: invalid boolean");
    check_bad(&of_type("S3", "part_size: 64MiB"), "line 3, column 14: invalid u64");
    check_bad(&of_type("S3", "part_size: -1"), "line 3, column 14: invalid u64");
    check_bad(&of_type("S3", "put_user_metadata: [a]"), "line 3, column 22: expected mapping start");
    check_bad(&of_type("S3", "secret_key: {a: hunter2}"), "line 3, column 15: expected string scalar");
    check_bad(
        &of_type("S3", "http_config:\n  idle_conn_timeout: 90"),
        "line 4, column 24: \"90\" is not a duration such as 1m30s: units are y, w, d, h, m, s and ms, in this order",
    );
    check_bad(
        &of_type("S3", "http_config:\n  response_header_timeout: 2 minutes"),
        "line 4, column 30: \"2 minutes\" is not a duration such as 1m30s: units are y, w, d, h, m, s and ms, in this order",
    );
    check_bad(
        &of_type("AZURE", "pipeline_config:\n  try_timeout: 1s1m"),
        "line 4, column 18: \"1s1m\" is not a duration such as 1m30s: units are y, w, d, h, m, s and ms, in this order",
    );
    check_bad(&of_type("S3", "http_config:\n  max_idle_conns: many"), "line 4, column 21: invalid u64");
}

#[test]
fn a_value_is_never_quoted_next_to_a_secret() {
    let yaml = of_type("S3", "bucket: b\nsecret_key: hunter2\nbuckets: b\n");
    let error = BucketConfig::parse(&yaml).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let good = parsed(&of_type("S3", "bucket: b\nendpoint: h\naccess_key: a\nsecret_key: hunter2\n"));
    assert!(!format!("{good:?}").contains("hunter2"));
}

#[test]
fn s3_keys() {
    let s3 = |lines: &str| of_type("S3", &format!("bucket: thanos\nendpoint: h:9000\n{lines}"));
    let good = |lines: &str| check_good(&s3(lines), &[]);
    let bad = |lines: &str, message: &str| check_bad(&s3(lines), message);

    check_bad(&of_type("S3", "endpoint: h"), "config.bucket: must be set");
    check_bad(&of_type("S3", "bucket: b"), "config.endpoint: must be set");
    let scheme = "config.endpoint: must be a host with an optional port, without a scheme or a path; set insecure: true for plain HTTP";
    check_bad(&of_type("S3", "bucket: b\nendpoint: https://h"), scheme);
    check_bad(&of_type("S3", "bucket: b\nendpoint: h/path"), scheme);

    good("access_key: a\nsecret_key: s\nsession_token: t");
    good("aws_sdk_auth: true");
    bad("access_key: a", "config.secret_key (beside access_key): must be set");
    bad("secret_key: s", "config.access_key (beside secret_key): must be set");
    bad(
        "aws_sdk_auth: true\naccess_key: a\nsecret_key: s",
        "config.aws_sdk_auth: cannot be used together with access_key and secret_key",
    );
    bad(
        "signature_version2: true",
        "config.signature_version2: not supported: requests are signed by version 4 only",
    );

    good("list_objects_version: v2");
    bad(
        "list_objects_version: v1",
        "config.list_objects_version: not supported: objects are listed by version 2 only",
    );
    bad("list_objects_version: v3", "config.list_objects_version: \"v3\" is neither v1 nor v2");
    bad(
        "trace:\n  enable: true",
        "config.trace.enable: not supported: requests are not printed; they are counted by the metrics thanos_objstore_bucket_*",
    );

    for style in ["auto", "path", "virtual-hosted"] {
        good(&format!("bucket_lookup_type: {style}"));
    }
    bad(
        "bucket_lookup_type: dns",
        "config.bucket_lookup_type: \"dns\" is none of auto, path and virtual-hosted",
    );

    good("part_size: 5242880");
    bad(
        "part_size: 5242879",
        "config.part_size: 5242879 is less than the 5242880 bytes (5 MiB) that S3 asks for",
    );
    check_good(
        &s3("disable_multipart: true"),
        &["config.disable_multipart: each file (up to 512 MiB) is held in memory while it is sent"],
    );
    good("insecure: true\nsend_content_md5: false\ndisable_dualstack: true\nmax_retries: -1");
    good("put_user_metadata: {X-Amz-Acl: private}\nsts_endpoint: https://sts.example.net");

    good("sse_config: {type: SSE-S3}");
    good("sse_config: {type: SSE-KMS, kms_key_id: k}");
    bad("sse_config: {type: SSE-KMS}", "config.sse_config.kms_key_id: must be set");
    bad("sse_config: {type: SSE-C}", "config.sse_config.encryption_key: must be set");
    bad("sse_config: {type: AES}", "config.sse_config.type: \"AES\" is none of SSE-S3, SSE-KMS and SSE-C");
    bad(
        "sse_config: {type: SSE-KMS, kms_key_id: k, kms_encryption_context: {a: b}}",
        "config.sse_config.kms_encryption_context: not supported: an encryption context cannot be sent",
    );
    check_bad_at_open(
        &s3("sse_config: {type: SSE-C, encryption_key: /nowhere/key}"),
        "config.sse_config.encryption_key: /nowhere/key: No such file or directory (os error 2)",
    );
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, [7; 31]).unwrap();
    let yaml = s3(&format!("sse_config: {{type: SSE-C, encryption_key: {}}}", key.display()));
    check_bad_at_open(&yaml, "config.sse_config.encryption_key: the file must hold 32 bytes and has 31");
    std::fs::write(&key, [7; 32]).unwrap();
    check_good(&yaml, &[]);
}

#[test]
fn aws_endpoints_name_their_region_and_want_virtual_hosts() {
    let check = |endpoint: &str, region: Option<&str>, aws: bool| {
        assert_eq!(s3::region_and_style(endpoint), (region, aws), "{endpoint}");
    };
    check("s3.amazonaws.com", None, true);
    check("s3.eu-west-1.amazonaws.com", Some("eu-west-1"), true);
    check("s3.eu-west-1.amazonaws.com:443", Some("eu-west-1"), true);
    check("s3.dualstack.us-east-2.amazonaws.com", Some("us-east-2"), true);
    check("s3-ap-southeast-2.amazonaws.com", Some("ap-southeast-2"), true);
    check("s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1"), true);
    check("s3.eu-west-1.example.net", None, false);
    check("127.0.0.1:9000", None, false);
}

#[test]
fn http_keys() {
    let s3 = |lines: &str| {
        let mut all = "bucket: thanos\nendpoint: h\nhttp_config:\n".to_owned();
        for line in lines.lines() {
            all.push_str(&format!("  {line}\n"));
        }
        of_type("S3", &all)
    };
    check_good(&s3("insecure_skip_verify: true\nmax_conns_per_host: 3\nidle_conn_timeout: 0"), &[]);
    let client_certificates = |name: &str| {
        check_bad(
            &s3(&format!("tls_config: {{{name}: /x}}")),
            &format!(
                "config.http_config.tls_config.{name}: not supported: client certificates cannot be used towards a bucket; use access keys"
            ),
        );
    };
    client_certificates("cert_file");
    client_certificates("key_file");
    check_bad(
        &s3("tls_config: {server_name: x}"),
        "config.http_config.tls_config.server_name: not supported: the name in the certificate must be the endpoint's; give the endpoint that name",
    );
    check_bad_at_open(
        &s3("tls_config: {ca_file: /nowhere/ca}"),
        "config.http_config.tls_config.ca_file: /nowhere/ca: No such file or directory (os error 2)",
    );
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    std::fs::write(&ca, "no certificate\n").unwrap();
    check_bad_at_open(
        &s3(&format!("tls_config: {{ca_file: {}}}", ca.display())),
        &format!("config.http_config.tls_config.ca_file: {}: there is no certificate in it", ca.display()),
    );
}

#[test]
fn gcs_keys() {
    let gcs = |lines: &str| of_type("GCS", &format!("bucket: thanos\n{lines}"));
    check_bad(&of_type("GCS", "use_grpc: false"), "config.bucket: must be set");
    check_good(
        &gcs("use_grpc: true\ngrpc_conn_pool_size: 4\nchunk_size_bytes: 262144"),
        &[
            "config.use_grpc: has no effect, the bucket is spoken to by HTTP",
            "config.grpc_conn_pool_size: has no effect without gRPC",
            "config.chunk_size_bytes: parts have at least 5242880 bytes (5 MiB), not 262144",
        ],
    );
    let account = r#"{"private_key":"k","private_key_id":"i","client_email":"e","disable_oauth":true}"#;
    check_good(&gcs(&format!("service_account: '{account}'")), &[]);
    check_good(&gcs(&format!("service_account: |-\n  {account}")), &[]);
    check_bad(
        &gcs("service_account: hunter2"),
        "config.service_account: is not the JSON text of a service account's key",
    );
}

#[test]
fn azure_keys() {
    let azure = |lines: &str| of_type("AZURE", &format!("container: thanos\n{lines}"));
    let good = |lines: &str| check_good(&azure(lines), &[]);
    let bad = |lines: &str, message: &str| check_bad(&azure(lines), message);

    check_bad(&of_type("AZURE", "storage_account: a"), "config.container: must be set");
    bad("storage_account_key: a2V5", "config.storage_account: must be set");
    good("storage_account: a\nstorage_account_key: a2V5");
    good("storage_account: a\nendpoint: blob.core.usgovcloudapi.net");
    good("storage_account: a\nuser_assigned_id: 8e9c2f6a-0000-0000-0000-000000000000");
    good("storage_account: a\naz_tenant_id: t\nclient_id: c\nclient_secret: s");
    bad(
        "storage_account: a\nclient_id: c\nclient_secret: s",
        "config.az_tenant_id (az_tenant_id, client_id and client_secret go together): must be set",
    );
    bad(
        "storage_account: a\nstorage_account_key: k\nuser_assigned_id: u",
        "config.user_assigned_id: cannot be used together with a storage account key or a connection string",
    );
    good("storage_connection_string: UseDevelopmentStorage=true");
    good("storage_connection_string: AccountName=a;SharedAccessSignature=sv=2020&sig=x");
    bad(
        "storage_connection_string: AccountKey=hunter2",
        "config.storage_connection_string: AccountName is missing",
    );
    bad(
        "storage_connection_string: hunter2",
        "config.storage_connection_string: must be of pairs Name=value with ; between them",
    );
    bad(
        "storage_connection_string: AccountName=a;AccountKey=k\nstorage_account_key: k",
        "config.storage_connection_string: cannot be used together with storage_account_key",
    );
    check_good(
        &azure(
            "storage_account: a\nstorage_create_container: true\nmsi_resource: r\nreader_config: {max_retry_requests: 3}\npipeline_config: {max_tries: 3, try_timeout: 1m, retry_delay: 1s, max_retry_delay: 5s}",
        ),
        &[
            "config.storage_create_container: the container is not created; it must exist",
            "config.msi_resource: has no effect",
            "config.reader_config.max_retry_requests: has no effect",
        ],
    );
}
