//! The slow path of one series: its labels decoded, judged and put in order.

use std::fmt::Write as _;

use weir_proto::remote_write::{SeriesWire, WireError};
use weir_tsdb::labels::Labels;

use crate::answer::Refusal;

/// What labels may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelLimits {
    /// Most labels of a series, empty ones included.
    pub count_max: usize,
    /// Most bytes of a label name.
    pub name_bytes_max: usize,
    /// Most bytes of a label value.
    pub value_bytes_max: usize,
}

/// Upstream has no limits here, so these only keep absurd input out.
impl Default for LabelLimits {
    fn default() -> Self {
        Self { count_max: 1024, name_bytes_max: 4 << 10, value_bytes_max: 64 << 10 }
    }
}

/// Labels as they lie on the wire; ascending by name once parsed.
pub type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// Decodes and judges the labels of `series` into `pairs`. Labels in any order are accepted and
/// sorted. Empty values count as absent and are left out, yet their names must be unique too. A
/// `__name__` is not demanded.
pub fn parse<'a>(
    series: &SeriesWire<'a>,
    limits: &LabelLimits,
    pairs: &mut Pairs<'a>,
) -> Result<Result<(), Refusal>, WireError> {
    pairs.clear();
    // The walk goes on behind a fault: the whole message must be sound.
    let mut refusal = None;
    for (index, label) in series.labels().enumerate() {
        let (name, value) = label?;
        if refusal.is_some() {
            continue;
        }
        match judge(name, value, limits) {
            Ok(_) if index >= limits.count_max => refusal = Some(Refusal::LabelCount),
            Ok(pair) => pairs.push(pair),
            Err(found) => refusal = Some(found),
        }
    }
    if let Some(refusal) = refusal {
        return Ok(Err(refusal));
    }
    if !pairs.is_sorted_by(|left, right| left.0 < right.0) {
        pairs.sort_unstable_by_key(|(name, _)| *name);
        if pairs.windows(2).any(|two| matches!(two, [left, right] if left.0 == right.0)) {
            return Ok(Err(Refusal::LabelNameDuplicate));
        }
    }
    pairs.retain(|(_, value)| !value.is_empty());
    Ok(if pairs.is_empty() { Err(Refusal::NoLabels) } else { Ok(()) })
}

/// The label set of `pairs` as [`parse`] left them.
pub fn build(pairs: &Pairs<'_>) -> Labels {
    Labels::from_sorted(pairs.iter().copied()).expect("names ascend, and nothing is empty")
}

fn judge<'a>(name: &'a [u8], value: &'a [u8], limits: &LabelLimits) -> Result<(&'a str, &'a str), Refusal> {
    if name.is_empty() {
        return Err(Refusal::LabelNameEmpty);
    }
    if name.len() > limits.name_bytes_max {
        return Err(Refusal::LabelNameLength);
    }
    if value.len() > limits.value_bytes_max {
        return Err(Refusal::LabelValueLength);
    }
    match (std::str::from_utf8(name), std::str::from_utf8(value)) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(Refusal::LabelNotUtf8),
    }
}

/// The labels of `series` as they came, for people: good or bad, in the order of the wire, cut
/// where it gets long.
pub fn describe(series: &SeriesWire<'_>) -> String {
    const BYTES_MAX: usize = 512;
    let mut text = String::from("{");
    for (index, (name, value)) in series.labels().flatten().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let cut = |bytes: &[u8]| -> String {
            String::from_utf8_lossy(bytes.get(..BYTES_MAX).unwrap_or(bytes)).into_owned()
        };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{}={:?}", cut(name).escape_debug(), cut(value));
        if text.len() > BYTES_MAX {
            text.truncate(text.floor_char_boundary(BYTES_MAX));
            text.push('…');
            break;
        }
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use weir_proto::remote_write::WriteRequestWalker;

    use super::{super::test_message::Message, *};

    fn parsed(limits: &LabelLimits, pairs: &[(&[u8], &[u8])]) -> Result<String, Refusal> {
        let message = Message::default().series(pairs, &[]).encode();
        let series = WriteRequestWalker::new(&message).next().unwrap().unwrap();
        let mut pairs = Vec::new();
        parse(&series, limits, &mut pairs).unwrap().map(|()| build(&pairs).to_string())
    }

    #[test]
    fn judges_and_sorts() {
        let limits = LabelLimits { count_max: 3, name_bytes_max: 8, value_bytes_max: 5 };
        let check = |pairs: &[(&str, &str)], expected: Result<&str, Refusal>| {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            assert_eq!(parsed(&limits, &pairs), expected.map(str::to_owned), "{pairs:?}");
        };
        check(&[("__name__", "up"), ("job", "a")], Ok(r#"{__name__="up", job="a"}"#));
        check(&[("job", "a"), ("__name__", "up")], Ok(r#"{__name__="up", job="a"}"#));
        check(&[("job", "a")], Ok(r#"{job="a"}"#));
        check(&[("ä", "ö")], Ok(r#"{ä="ö"}"#));
        check(&[("b", "1"), ("a", "")], Ok(r#"{b="1"}"#));
        check(&[], Err(Refusal::NoLabels));
        check(&[("a", "")], Err(Refusal::NoLabels));
        check(&[("", "x")], Err(Refusal::LabelNameEmpty));
        check(&[("", "")], Err(Refusal::LabelNameEmpty));
        check(&[("a", "1"), ("a", "2")], Err(Refusal::LabelNameDuplicate));
        check(&[("a", "1"), ("a", "1")], Err(Refusal::LabelNameDuplicate));
        check(&[("b", "1"), ("a", "1"), ("b", "")], Err(Refusal::LabelNameDuplicate));
        // Each limit, at it and beyond.
        check(&[("a", "1"), ("b", "1"), ("c", "1")], Ok(r#"{a="1", b="1", c="1"}"#));
        check(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")], Err(Refusal::LabelCount));
        check(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "")], Err(Refusal::LabelCount));
        check(&[("12345678", "1")], Ok(r#"{12345678="1"}"#));
        check(&[("123456789", "1")], Err(Refusal::LabelNameLength));
        check(&[("a", "12345")], Ok(r#"{a="12345"}"#));
        check(&[("a", "123456")], Err(Refusal::LabelValueLength));
        assert_eq!(parsed(&limits, &[(b"a", b"\xff")]), Err(Refusal::LabelNotUtf8));
        assert_eq!(parsed(&limits, &[(b"\xc3", b"1")]), Err(Refusal::LabelNotUtf8));
        // The first fault is told.
        check(&[("", "1"), ("a", "123456")], Err(Refusal::LabelNameEmpty));
    }

    #[test]
    fn a_sound_refusal_needs_a_sound_message() {
        // An empty name first, then a label cut off.
        let mut message = vec![0x0a, 0x07];
        message.extend_from_slice(&[0x0a, 0x03, 0x12, 0x01, b'x', 0x0a, 0x09]);
        let series = WriteRequestWalker::new(&message).next().unwrap();
        if let Ok(series) = series {
            assert!(parse(&series, &LabelLimits::default(), &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn describes_also_what_is_wrong() {
        let describe_pairs = |pairs: &[(&[u8], &[u8])]| {
            let message = Message::default().series(pairs, &[]).encode();
            describe(&WriteRequestWalker::new(&message).next().unwrap().unwrap())
        };
        assert_eq!(describe_pairs(&[(b"job", b"a\nb"), (b"", b"\xff")]), "{job=\"a\\nb\", =\"\u{fffd}\"}");
        let long = describe_pairs(&[(b"a", &[b'x'; 600])]);
        assert!(long.len() <= 520 && long.ends_with("x…}"), "{long}");
        let wide = describe_pairs(&[(b"a", "ü".repeat(600).as_bytes())]);
        assert!(wide.len() <= 520, "{wide}");
    }
}
