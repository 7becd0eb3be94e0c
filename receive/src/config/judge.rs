//! Reads values of flags by kind and collects what is wrong with them.
//!
//! A getter that finds a value it cannot use returns a stand-in: the values are only looked at
//! when nothing was wrong.

use std::{env, fs, path::PathBuf, time::Duration};

use weir_tsdb::Labels;

use super::{
    ConfigError, ListenAddress, LogFormat, ObjstoreText, Problem,
    external_labels::{is_label_name, parse_external_labels},
    objstore_text::expand_environment,
};
use crate::{
    cli::{
        Values,
        flags::{self, Flag, Kind, Standing},
    },
    duration::{parse_bytes, parse_duration},
    objstore::Secret,
};

/// The label with the name of the node.
const REPLICA_LABEL: &str = "receive_replica";

/// Collects problems and notices while a configuration is read.
pub(super) struct Judge<'a> {
    values: &'a Values,
    problems: Vec<Problem>,
    notices: Vec<String>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(values: &'a Values) -> Self {
        Self { values, problems: Vec::new(), notices: Vec::new() }
    }

    /// Checks the form of every value given, and what stands behind its flag.
    pub(super) fn check_all_flags(&mut self) {
        for flag in flags::all() {
            let given = self.values.given(flag.name);
            let causes: Vec<String> =
                given.iter().filter_map(|value| check_form(flag.kind, value).err()).collect();
            if !causes.is_empty() {
                let problems = causes.into_iter().map(|cause| Problem::Invalid { flag: flag.name, cause });
                self.problems.extend(problems);
                continue;
            }
            let differs = given.iter().any(|value| !same_value(flag, value));
            match flag.standing {
                Standing::Built => {}
                Standing::NotBuilt if differs => {
                    self.problems.push(Problem::NotBuilt { flag: flag.name.to_owned() });
                }
                Standing::NoEffect(why) if !given.is_empty() => {
                    self.notices.push(format!("--{} has no effect: {why}", flag.name));
                }
                Standing::NotBuilt | Standing::NoEffect(_) => {}
            }
        }
    }

    /// The configuration if nothing was wrong.
    pub(super) fn finish(self, config: super::Config) -> Result<super::Config, ConfigError> {
        if self.problems.is_empty() {
            Ok(super::Config { notices: self.notices, ..config })
        } else {
            Err(ConfigError { problems: self.problems })
        }
    }

    pub(super) fn invalid(&mut self, name: &str, cause: impl Into<String>) {
        self.problems.push(Problem::Invalid { flag: flags::find(name).name, cause: cause.into() });
    }

    /// What is worth a line in the log.
    pub(super) fn notice(&mut self, text: String) {
        self.notices.push(text);
    }

    /// All values given.
    pub(super) fn given(&self, name: &str) -> &'a [String] {
        self.values.given(flags::find(name).name)
    }

    /// The last value given, else the default.
    pub(super) fn text(&self, name: &str) -> &'a str {
        self.values.given(name).last().map_or(flags::find(name).default, String::as_str)
    }

    pub(super) fn path(&mut self, name: &str) -> PathBuf {
        let text = self.text(name);
        if text.is_empty() {
            self.invalid(name, "must not be empty");
        }
        PathBuf::from(text)
    }

    // The getters below pass over values of wrong form: check_all_flags has reported them.

    pub(super) fn duration(&mut self, name: &str) -> Duration {
        parse_duration(self.text(name)).unwrap_or_default()
    }

    /// The time between two rounds of something, more than 0.
    pub(super) fn interval(&mut self, name: &str) -> Duration {
        let interval = self.duration(name);
        if interval.is_zero() {
            self.invalid(name, "must be more than 0");
        }
        interval
    }

    pub(super) fn duration_unless_zero(&mut self, name: &str) -> Option<Duration> {
        Some(self.duration(name)).filter(|duration| !duration.is_zero())
    }

    pub(super) fn bytes(&mut self, name: &str) -> u64 {
        parse_bytes(self.text(name)).unwrap_or_default()
    }

    pub(super) fn count(&mut self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or_default()
    }

    pub(super) fn count_unless_zero(&mut self, name: &str) -> Option<u64> {
        Some(self.count(name)).filter(|count| *count > 0)
    }

    /// Late samples in a chunk: a chunk of Prometheus' takes up to 255.
    pub(super) fn out_of_order_cap(&mut self) -> u8 {
        const DEFAULT: u8 = 32;
        let name = "tsdb.out-of-order.cap-max";
        match u8::try_from(self.count(name)) {
            Ok(0) => DEFAULT,
            Ok(cap) => cap,
            Err(_) => {
                self.invalid(name, "must be at most 255");
                DEFAULT
            }
        }
    }

    /// A limit, more than 0.
    pub(super) fn limit(&mut self, name: &str) -> usize {
        let limit = self.count(name);
        self.more_than_zero(name, limit)
    }

    /// A limit in bytes, more than 0.
    pub(super) fn bytes_limit(&mut self, name: &str) -> usize {
        let limit = self.bytes(name);
        self.more_than_zero(name, limit)
    }

    fn more_than_zero(&mut self, name: &str, limit: u64) -> usize {
        if limit == 0 {
            self.invalid(name, "must be more than 0");
        }
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// A count of things that exist at once, bounded so that a typing error cannot ask for more
    /// than a machine has.
    pub(super) fn size(&mut self, name: &str) -> usize {
        const MAX: usize = 1 << 20;
        let count = usize::try_from(self.count(name)).unwrap_or(usize::MAX);
        if count > MAX {
            self.invalid(name, format!("must not exceed {MAX}"));
        }
        count.min(MAX)
    }

    pub(super) fn switch(&mut self, name: &str) -> bool {
        self.text(name) == "true"
    }

    pub(super) fn address(&mut self, name: &str) -> ListenAddress {
        ListenAddress::parse(self.text(name)).unwrap_or(ListenAddress { host: String::new(), port: 0 })
    }

    pub(super) fn header(&mut self, name: &str) -> http::HeaderName {
        http::HeaderName::from_bytes(self.text(name).as_bytes()).unwrap_or_else(|_| {
            self.invalid(name, "is not the name of a header");
            http::header::HOST
        })
    }

    pub(super) fn label_name(&mut self, name: &str) -> String {
        let text = self.text(name);
        if !is_label_name(text) {
            self.invalid(name, format!("{text:?} is not a label name"));
        }
        text.to_owned()
    }

    /// The default tenant becomes a directory like any other.
    pub(super) fn default_tenant(&mut self) -> String {
        let name = "receive.default-tenant-id";
        let tenant = self.text(name);
        if tenant.is_empty() || tenant == "." || tenant == ".." || tenant.contains(['/', '\\', '\0']) {
            self.invalid(name, format!("{tenant:?} cannot be the name of a directory"));
        }
        tenant.to_owned()
    }

    pub(super) fn block_duration(&mut self) -> Duration {
        let (min, max) = ("tsdb.min-block-duration", "tsdb.max-block-duration");
        let length = self.duration(min);
        if length != self.duration(max) {
            self.invalid(max, "must equal --tsdb.min-block-duration: blocks are not compacted here");
        }
        if length.is_zero() {
            self.invalid(min, "must be more than 0");
        }
        length
    }

    pub(super) fn external_labels(&mut self) -> Labels {
        let given = self.values.given("label");
        let is_cluster = self.is_cluster();
        if given.is_empty() && !is_cluster {
            self.invalid(
                "label",
                "at least one external label is needed, another on each node, as in \
                 --label='receive_replica=\"a\"'; without one, readers cannot tell nodes apart",
            );
        }
        let labels = parse_external_labels(given).unwrap_or_else(|error| {
            self.invalid("label", error.to_string());
            Labels::empty()
        });
        // The name of the node tells its data from others'.
        let labels = if is_cluster && labels.get(REPLICA_LABEL).is_none() {
            let name = self.node_name();
            Labels::from_pairs(labels.iter().chain([(REPLICA_LABEL, name.as_str())]))
        } else {
            labels
        };
        let tenant_label = self.text("receive.tenant-label-name");
        if labels.get(tenant_label).is_some() {
            self.notices.push(format!("--label {tenant_label} gives way to the tenant's name"));
        }
        labels
    }

    pub(super) fn log_level(&mut self) -> tracing::Level {
        match self.text("log.level") {
            "debug" => tracing::Level::DEBUG,
            "warn" => tracing::Level::WARN,
            "error" => tracing::Level::ERROR,
            _ => tracing::Level::INFO,
        }
    }

    pub(super) fn log_format(&mut self) -> LogFormat {
        match self.text("log.format") {
            "json" => LogFormat::Json,
            "journald" => {
                self.problems.push(Problem::NotBuilt { flag: "log.format=journald".to_owned() });
                LogFormat::Logfmt
            }
            _ => LogFormat::Logfmt,
        }
    }

    /// Content of `--objstore.config` or of the file that `--objstore.config-file` names.
    pub(super) fn objstore(&mut self) -> Option<ObjstoreText> {
        let (inline, path) = (self.text("objstore.config"), self.text("objstore.config-file"));
        let (name, text, file) = match (inline, path) {
            ("", "") => return None,
            (text, "") => ("objstore.config", text.to_owned(), None),
            ("", path) => match fs::read_to_string(path) {
                Ok(text) => ("objstore.config-file", text, Some(PathBuf::from(path))),
                Err(error) => {
                    self.invalid("objstore.config-file", format!("cannot read {path}: {error}"));
                    return None;
                }
            },
            (..) => {
                self.invalid("objstore.config", "and --objstore.config-file must not both be given");
                return None;
            }
        };
        match expand_environment(&text, |variable| env::var(variable).ok()) {
            // An empty file is how a deployment says that it has no bucket.
            Ok(yaml) if yaml.trim().is_empty() => None,
            Ok(yaml) => Some(ObjstoreText { yaml: Secret::new(yaml), file }),
            Err(variable) => {
                self.invalid(name, format!("environment variable {variable} is not set"));
                None
            }
        }
    }
}

/// Whether `value` has the form its kind demands.
fn check_form(kind: Kind, value: &str) -> Result<(), String> {
    match kind {
        Kind::Text => Ok(()),
        Kind::Address => ListenAddress::parse(value).map(drop),
        Kind::Duration => parse_duration(value).map(drop).map_err(|error| error.to_string()),
        Kind::Bytes => parse_bytes(value).map(drop).map_err(|error| error.to_string()),
        Kind::Count => value.parse::<u64>().map(drop).map_err(|_| format!("{value:?} is not a whole number")),
        Kind::Number => value.parse::<f64>().map(drop).map_err(|_| format!("{value:?} is not a number")),
        Kind::Switch if matches!(value, "true" | "false") => Ok(()),
        Kind::Switch => Err(format!("{value:?} is neither true nor false")),
        Kind::Choice(words) if words.contains(&value) => Ok(()),
        Kind::Choice(words) => Err(format!("{value:?} is none of {}", words.join(", "))),
    }
}

/// Whether `value` means the same as the flag's default, as `60m` and `1h` do.
pub(super) fn same_value(flag: &Flag, value: &str) -> bool {
    match flag.kind {
        Kind::Duration => parse_duration(value).ok() == parse_duration(flag.default).ok(),
        Kind::Bytes => parse_bytes(value).ok() == parse_bytes(flag.default).ok(),
        Kind::Count => value.parse::<u64>().ok() == flag.default.parse::<u64>().ok(),
        _ => value == flag.default,
    }
}
