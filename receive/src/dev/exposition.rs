//! Reads the text exposition format 0.0.4, as far as it is needed to write a node's own metrics
//! into it: types and help are passed over.

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedSample {
    /// Name of the metric.
    pub name: String,
    /// Labels in the order they stand in, unescaped.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
    /// Unix milliseconds, if the line has them.
    pub timestamp_ms: Option<i64>,
}

/// A line that is not of the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Reads a whole exposition.
///
/// # Errors
/// The first line that is neither a sample, nor a comment, nor empty.
pub fn parse(text: &str) -> Result<Vec<ParsedSample>, ParseError> {
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches([' ', '\t']);
        if !line.is_empty() && !line.starts_with('#') {
            samples.push(parse_line(line).map_err(|what| ParseError { line: index + 1, what })?);
        }
    }
    Ok(samples)
}

fn parse_line(line: &str) -> Result<ParsedSample, &'static str> {
    let name_end =
        line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(line.len());
    let (name, rest) = line.split_at(name_end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a metric name is expected");
    }
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(inside) => parse_labels(inside)?,
        None => (Vec::new(), rest),
    };
    if !rest.starts_with([' ', '\t']) {
        return Err("a blank is expected before the value");
    }
    let mut numbers = rest.split_ascii_whitespace();
    let value = numbers.next().and_then(parse_value).ok_or("a value is expected")?;
    let timestamp_ms = match numbers.next() {
        Some(number) => Some(number.parse().map_err(|_| "the time is not a whole number")?),
        None => None,
    };
    match numbers.next() {
        Some(_) => Err("there is more after the time"),
        None => Ok(ParsedSample { name: name.to_owned(), labels, value, timestamp_ms }),
    }
}

fn parse_value(text: &str) -> Option<f64> {
    // Rust takes inf, infinity and nan in any case, as Go does.
    text.parse().ok()
}

/// Labels and what follows them.
type Labels<'a> = (Vec<(String, String)>, &'a str);

/// Reads from behind the opening brace to behind the closing one.
fn parse_labels(mut rest: &str) -> Result<Labels<'_>, &'static str> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once('=').ok_or("an equals sign is expected after a label's name")?;
        let name = name.trim_end();
        if !crate::config::external_labels::is_label_name(name) {
            return Err("a label name is expected");
        }
        let quoted = after.trim_start().strip_prefix('"').ok_or("a label's value must be quoted")?;
        let (value, after) = unquote(quoted)?;
        labels.push((name.to_owned(), value));
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err("a comma or a closing brace is expected after a label"),
        }
    }
}

/// Reads from behind the opening quote to behind the closing one.
fn unquote(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((value, chars.as_str())),
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some(c @ ('\\' | '"')) => value.push(c),
                _ => return Err("unknown escape in a label's value"),
            },
            c => value.push(c),
        }
    }
    Err("a label's value has no closing quote")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::{self, Exposition};

    fn sample(name: &str, labels: &[(&str, &str)], value: f64, timestamp_ms: Option<i64>) -> ParsedSample {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ParsedSample { name: name.to_owned(), labels, value, timestamp_ms }
    }

    #[test]
    fn lines_are_read() {
        let check = |text: &str, expected: &[ParsedSample]| {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}")
        };
        check("", &[]);
        check("\n# HELP a b\n# TYPE a gauge\n#\n", &[]);
        check("a 1", &[sample("a", &[], 1.0, None)]);
        check("  a:b_1\t-2.5e3 \n", &[sample("a:b_1", &[], -2500.0, None)]);
        check("a{} +Inf 1700000000000", &[sample("a", &[], f64::INFINITY, Some(1_700_000_000_000))]);
        check("a{x=\"1\"} -Inf -5", &[sample("a", &[("x", "1")], f64::NEG_INFINITY, Some(-5))]);
        check(
            "a { x = \"1\" , _y=\"a\\\\b\\\"c\\nd {},= \" , } 0x\nb 1".replace("0x", "0").as_str(),
            &[sample("a", &[("x", "1"), ("_y", "a\\b\"c\nd {},= ")], 0.0, None), sample("b", &[], 1.0, None)],
        );
        assert!(parse("a NaN").expect("is a value")[0].value.is_nan());
    }

    #[test]
    fn what_is_no_line_is_refused_with_its_number() {
        let check = |line: &str, what: &'static str| {
            assert_eq!(parse(&format!("ok 1\n{line}\n")), Err(ParseError { line: 2, what }), "{line}");
        };
        check("1a 1", "a metric name is expected");
        check("{x=\"1\"} 1", "a metric name is expected");
        check("a", "a blank is expected before the value");
        check("a{x=\"1\"}1", "a blank is expected before the value");
        check("a x", "a value is expected");
        check("a 1 1.5", "the time is not a whole number");
        check("a 1 2 3", "there is more after the time");
        check("a{x} 1", "an equals sign is expected after a label's name");
        check("a{1x=\"1\"} 1", "a label name is expected");
        check("a{x=1} 1", "a label's value must be quoted");
        check("a{x=\"1} 1", "a label's value has no closing quote");
        check("a{x=\"\\t\"} 1", "unknown escape in a label's value");
        check("a{x=\"1\" y=\"2\"} 1", "a comma or a closing brace is expected after a label");
        check("a{x=\"1\",", "an equals sign is expected after a label's name");
    }

    #[test]
    fn what_telemetry_renders_is_read() {
        let (telemetry, recorder) = telemetry::Telemetry::build().expect("valid buckets");
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("c_total", "tenant" => "a\"b\\c\nd").increment(3);
            metrics::histogram!("http_request_size_bytes").record(100.0);
        });
        let samples = parse(&telemetry.render()).expect("is of the format");
        assert!(samples.contains(&sample("c_total", &[("tenant", "a\"b\\c\nd")], 3.0, None)), "{samples:?}");
        assert!(samples.contains(&sample("http_request_size_bytes_bucket", &[("le", "+Inf")], 1.0, None)));
        assert!(samples.contains(&sample("http_request_size_bytes_sum", &[], 100.0, None)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any::<f64>(), text in "[^\\x00]{0,12}", more in "[\"\\\\\n,={} a]{0,8}") {
            let labels = [("x", text.as_str()), ("y", more.as_str())];
            let mut out = Exposition::default();
            out.family("a", telemetry::exposition::Kind::Gauge, &text).sample(&labels, value).sample(&[], value);
            let written = out.into_text();
            let samples = parse(&written).map_err(|error| TestCaseError::fail(format!("{error} in {written:?}")))?;
            prop_assert_eq!(samples.len(), 2);
            prop_assert_eq!(&samples[0].labels, &sample("a", &labels, value, None).labels);
            for sample in samples {
                prop_assert!(sample.value == value || (sample.value.is_nan() && value.is_nan()));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a{}=\",\\\\ \n1-]{0,24}", wild in ".{0,16}") {
            let (_, _) = (parse(&text), parse(&wild));
        }
    }
}
