use proptest::prelude::*;

use super::*;

/// Collects what was logged.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line that `log` writes, without its time and caller.
fn logged(format: LogFormat, name: &str, log: impl FnOnce()) -> String {
    let sink = Sink::default();
    let layer = LineLayer::new(format, name, sink.clone()).with_filter(targets(Level::INFO));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
    let text = String::from_utf8(sink.0.lock().clone()).expect("UTF-8");
    if format == LogFormat::Json || text.is_empty() {
        return text;
    }
    let (time, rest) = text.split_once(' ').expect("a time and more");
    let time = time.strip_prefix("ts=").expect("time comes first");
    assert_eq!(time.len(), "2026-11-23T01:02:03.004Z".len(), "{time}");
    time.parse::<jiff::Timestamp>().expect("RFC 3339");
    let (caller, rest) = rest.split_once(' ').expect("a caller and more");
    assert!(caller.starts_with("caller=weir::logging::tests:"), "{caller}");
    rest.to_owned()
}

#[test]
fn a_line_has_its_parts_in_order() {
    let line = logged(LogFormat::Logfmt, "", || {
        tracing::info!(
            tenant = "team-a",
            blocks = 3_u64,
            late = -2_i64,
            ratio = 0.5,
            on = true,
            "block is cut"
        );
    });
    assert_eq!(line, "level=info msg=\"block is cut\" tenant=team-a blocks=3 late=-2 ratio=0.5 on=true\n");
    let line = logged(LogFormat::Logfmt, "n1", || tracing::warn!("careful"));
    assert_eq!(line, "level=warn msg=careful name=n1\n");
    assert_eq!(logged(LogFormat::Logfmt, "", || tracing::debug!("too much")), "");
}

#[test]
fn spans_add_fields_that_the_event_lacks() {
    let line = logged(LogFormat::Logfmt, "", || {
        let outer = tracing::info_span!("outer", tenant = "outer", request = 7_u64).entered();
        let inner = tracing::info_span!("inner", tenant = "inner", step = tracing::field::Empty).entered();
        inner.record("step", "two");
        tracing::error!(error = "x", "failed");
        drop((inner, outer));
    });
    assert_eq!(line, "level=error msg=failed error=x tenant=inner step=two request=7\n");
}

#[test]
fn values_are_quoted_where_needed() {
    let check = |value: &str, expected: &str| {
        let mut line = String::new();
        push_logfmt_value(&mut line, value).expect("a string takes it");
        assert_eq!(line, expected);
    };
    check("plain", "plain");
    check("a/b:c,d{e}", "a/b:c,d{e}");
    check("grüße", "grüße");
    check("", r#""""#);
    check("two words", r#""two words""#);
    check("a=b", r#""a=b""#);
    check(r#"say "hi""#, r#""say \"hi\"""#);
    check(r"back\slash", r#""back\\slash""#);
    check("line\nfeed\r\t", r#""line\nfeed\r\t""#);
    check("\u{0}\u{1b}\u{7f}\u{85}", r#""\u0000\u001b\u007f\u0085""#);
}

#[test]
fn keys_never_need_quotes() {
    let mut line = String::new();
    push_logfmt_key(&mut line, "a b=\"c\"\n");
    assert_eq!(line, "a_b__c__");
}

#[test]
fn errors_tell_their_causes_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the log")]
    struct Outer(#[source] io::Error);
    let error = Outer(io::Error::other("disk is gone"));
    let line = logged(LogFormat::Logfmt, "", || {
        tracing::error!(error = &error as &(dyn std::error::Error + 'static), "stopped");
    });
    assert_eq!(line, "level=error msg=stopped error=\"cannot open the log: disk is gone\"\n");
}

#[test]
fn a_json_line_is_an_object() {
    let line = logged(LogFormat::Json, "n1", || {
        tracing::info!(text = "a \"b\"\n", count = 3_u64, big = u64::MAX, ratio = f64::INFINITY, "two words");
    });
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value["msg"], "two words");
    assert_eq!(value["level"], "info");
    assert_eq!(value["name"], "n1");
    assert_eq!(value["text"], "a \"b\"\n");
    assert_eq!(value["count"], 3);
    assert_eq!(value["big"], u64::MAX);
    assert!(value["ratio"].is_null());
    assert!(line.starts_with("{\"ts\":\"2"), "{line}");
}

#[test]
fn libraries_speak_from_one_level_up() {
    let filter = targets(Level::INFO);
    assert!(filter.would_enable("weir::node", &Level::INFO));
    assert!(!filter.would_enable("hyper::proto", &Level::INFO));
    assert!(filter.would_enable("h2::client", &Level::WARN));
    assert!(!targets(Level::ERROR).would_enable("h2", &Level::WARN));
}

/// Takes a logfmt value apart again.
fn unquote(value: &str) -> String {
    match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(_) => serde_json::from_str(value).expect("escapes are those of JSON"),
        None => value.to_owned(),
    }
}

proptest! {
    #[test]
    fn any_value_is_one_token_on_one_line(value in ".{0,20}", controls in "[\\x00-\\x20\"\\\\=]{0,6}") {
        for value in [format!("{value}{controls}"), value] {
            let mut line = String::new();
            push_logfmt_value(&mut line, &value).expect("a string takes it");
            prop_assert!(!line.contains(['\n', '\r']));
            prop_assert!(line.starts_with('"') || !line.contains([' ', '=', '"']));
            prop_assert_eq!(unquote(&line), value);
        }
    }
}
