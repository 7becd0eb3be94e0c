//! Writes the text exposition format, and takes it apart by family.

use std::fmt::Write as _;

/// Metrics being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// What a family's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up, until the process or the tenant starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Exposition {
    /// Starts the family `name`; its samples are written to what is returned. A family without
    /// samples is not shown.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &'a str) -> Family<'a> {
        Family { out: self, name, kind, help, started: false }
    }

    /// A gauge with one sample and no labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    /// A counter with one sample and no labels.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, Kind::Counter, help).sample(&[], value);
    }

    /// What was written.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// One family being written.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut Exposition,
    name: &'a str,
    kind: Kind,
    help: &'a str,
    started: bool,
}

impl Family<'_> {
    /// Writes one sample. Label names must be valid and in a fixed order; values may be any text.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.start_sample(labels);
        let text = &mut self.out.text;
        // Writing to a string cannot fail.
        let _ = match value {
            f64::INFINITY => writeln!(text, "+Inf"),
            f64::NEG_INFINITY => writeln!(text, "-Inf"),
            value => writeln!(text, "{value}"),
        };
        self
    }

    /// Writes one sample with a whole number, exact beyond 2^53.
    pub fn integer(&mut self, labels: &[(&str, &str)], value: i128) -> &mut Self {
        self.start_sample(labels);
        let _ = writeln!(self.out.text, "{value}");
        self
    }

    fn start_sample(&mut self, labels: &[(&str, &str)]) {
        let text = &mut self.out.text;
        if !self.started {
            self.started = true;
            let kind = match self.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            let help = self.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(text, "# HELP {} {help}\n# TYPE {} {kind}", self.name, self.name);
        }
        text.push_str(self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            text.push(if index == 0 { '{' } else { ',' });
            text.push_str(name);
            text.push_str("=\"");
            push_escaped(text, value);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        text.push(' ');
    }
}

fn push_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// Splits a whole exposition into families: the lines from one `# HELP` (or a `# TYPE` without
/// one) to the next, without empty lines between families.
pub(super) fn families(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim_start_matches('\n');
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        let mut previous_is_help = false;
        for line in rest.split_inclusive('\n') {
            let is_help = line.starts_with("# HELP ");
            let starts_family = is_help || (line.starts_with("# TYPE ") && !previous_is_help);
            if line == "\n" || (end > 0 && starts_family) {
                break;
            }
            previous_is_help = is_help;
            end += line.len();
        }
        let (family, after) = rest.split_at(end);
        rest = after.trim_start_matches('\n');
        Some(family)
    })
}

/// The name in the first line of a family.
pub(super) fn family_name(family: &str) -> &str {
    let line = family.lines().next().unwrap_or_default();
    let comment = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
    comment.unwrap_or(line).split([' ', '{']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written() {
        let mut out = Exposition::default();
        out.gauge("a", "What a\nis\\was.", 0.5);
        out.family("b_total", Kind::Counter, "B.")
            .integer(&[("tenant", "x\"y\\z\n")], u64::MAX.into())
            .sample(&[("tenant", "t"), ("type", "float")], f64::INFINITY);
        let _ = out.family("never", Kind::Gauge, "Without samples.");
        out.counter("c_total", "C.", f64::NAN);
        let expected = "# HELP a What a\\nis\\\\was.\n# TYPE a gauge\na 0.5\n\
            # HELP b_total B.\n# TYPE b_total counter\n\
            b_total{tenant=\"x\\\"y\\\\z\\n\"} 18446744073709551615\n\
            b_total{tenant=\"t\",type=\"float\"} +Inf\n\
            # HELP c_total C.\n# TYPE c_total counter\nc_total NaN\n";
        assert_eq!(out.into_text(), expected);
    }

    #[test]
    fn families_are_told_apart() {
        let text = "\n# HELP a A.\n# TYPE a gauge\na 1\n\n# TYPE b counter\nb 2\nb{x=\"y\"} 3\n# HELP c C.\n# TYPE c gauge\nc 1\n";
        let found: Vec<_> = families(text).collect();
        let expected = [
            "# HELP a A.\n# TYPE a gauge\na 1\n",
            "# TYPE b counter\nb 2\nb{x=\"y\"} 3\n",
            "# HELP c C.\n# TYPE c gauge\nc 1\n",
        ];
        assert_eq!(found, expected);
        assert_eq!(found.into_iter().map(family_name).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(families("").count(), 0);
    }
}
