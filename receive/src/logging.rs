//! Log lines on standard error, as logfmt or JSON.
//!
//! A line carries, in this order: `ts`, `caller` (module and line), `level`, `msg`, the fields of
//! the event, then those of the spans it happened in, outermost last. Keys that a line has already
//! are not written again, so that an event's own field wins over its span's.

use std::{
    fmt::{self, Write as _},
    io,
    sync::Arc,
};

use parking_lot::Mutex;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::config::{LogConfig, LogFormat};

/// Libraries below us tell more than an operator wants at our level; they speak from one level up.
const CHATTY: [&str; 8] =
    ["h2", "hyper", "hyper_util", "tower", "tonic", "object_store", "reqwest", "rustls"];

/// Sends log lines of this process to standard error from now on, and reports panics as errors.
///
/// # Errors
/// If a subscriber was installed before.
pub fn init(config: &LogConfig) -> Result<(), tracing_subscriber::util::TryInitError> {
    let layer = LineLayer::new(config.format, &config.name, io::stderr());
    tracing_subscriber::registry().with(layer.with_filter(targets(config.level))).try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        let backtrace = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => backtrace.to_string(),
            _ => String::new(),
        };
        tracing::error!(place, backtrace, panic = panic_text(panic.payload()), "a bug made a task panic");
    }));
    Ok(())
}

/// What a panic said.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

fn targets(level: Level) -> Targets {
    let chatty = match level {
        Level::DEBUG => Level::INFO,
        Level::INFO => Level::WARN,
        other => other,
    };
    // It takes the everyday events of an election for errors; what an operator must know we say ourselves.
    let raft = if level == Level::DEBUG { LevelFilter::INFO } else { LevelFilter::OFF };
    let chatty = CHATTY.map(|target| (target, chatty));
    Targets::new().with_default(level).with_targets(chatty).with_target("openraft", raft)
}

/// Writes each event as one line, with one call to `output`, so that lines never mix.
struct LineLayer<W> {
    format: LogFormat,
    name: String,
    output: Arc<Mutex<W>>,
}

impl<W: io::Write + Send + 'static> LineLayer<W> {
    fn new(format: LogFormat, name: &str, output: W) -> Self {
        Self { format, name: name.to_owned(), output: Arc::new(Mutex::new(output)) }
    }

    fn line(&self, now: jiff::Timestamp, metadata: &Metadata<'_>, mut fields: Fields) -> String {
        let mut head = Fields::default();
        // Always three digits, so that lines are easy to sort and to read one below the other.
        head.push("ts", Value::Text(format!("{now:.3}")));
        let caller = match metadata.line() {
            Some(line) => format!("{}:{line}", metadata.target()),
            None => metadata.target().to_owned(),
        };
        head.push("caller", Value::Text(caller));
        head.push("level", Value::Text(level_name(*metadata.level()).to_owned()));
        head.push("msg", Value::Text(std::mem::take(&mut fields.message)));
        if !self.name.is_empty() {
            head.push("name", Value::Text(self.name.clone()));
        }
        for (key, value) in fields.pairs {
            head.push(key, value);
        }
        match self.format {
            LogFormat::Logfmt => logfmt(&head.pairs),
            LogFormat::Json => json(&head.pairs),
        }
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

impl<S, W> Layer<S> for LineLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: io::Write + Send + 'static,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                for (key, value) in &of_span.pairs {
                    fields.push(key, value.clone());
                }
            }
        }
        let line = self.line(jiff::Timestamp::now(), event.metadata(), fields);
        // Nobody is left to tell when standard error is gone.
        let _ = self.output.lock().write_all(line.as_bytes());
    }
}

/// A field's value, of a JSON type.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Signed(i64),
    Unsigned(u64),
    Number(f64),
    Bool(bool),
}

/// Message and fields of an event or a span.
#[derive(Clone, Debug, Default)]
struct Fields {
    message: String,
    pairs: Vec<(&'static str, Value)>,
}

impl Fields {
    fn push(&mut self, key: &'static str, value: Value) {
        if !self.pairs.iter().any(|(own, _)| *own == key) {
            self.pairs.push((key, value));
        }
    }

    /// A value recorded later for a span replaces the earlier one.
    fn set(&mut self, key: &'static str, value: Value) {
        match self.pairs.iter_mut().find(|(own, _)| *own == key) {
            Some((_, own)) => *own = value,
            None => self.pairs.push((key, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.set(field.name(), Value::Text(text));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.set(field.name(), Value::Text(value.to_owned()));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Value::Unsigned(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), Value::Number(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Value::Bool(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let next = error.to_string();
            // Errors here mostly repeat their cause already.
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        self.set(field.name(), Value::Text(text));
    }
}

fn logfmt(pairs: &[(&'static str, Value)]) -> String {
    let mut line = String::with_capacity(256);
    for (key, value) in pairs {
        if !line.is_empty() {
            line.push(' ');
        }
        push_logfmt_key(&mut line, key);
        line.push('=');
        // Writing to a string cannot fail.
        let _ = match value {
            Value::Text(text) => push_logfmt_value(&mut line, text),
            Value::Signed(number) => write!(line, "{number}"),
            Value::Unsigned(number) => write!(line, "{number}"),
            Value::Number(number) => write!(line, "{number}"),
            Value::Bool(value) => write!(line, "{value}"),
        };
    }
    line.push('\n');
    line
}

/// Keys have no quotes in logfmt, so whatever would need them becomes an underscore.
fn push_logfmt_key(line: &mut String, key: &str) {
    let fits = |c: char| c > ' ' && !matches!(c, '=' | '"' | '\u{7f}' | '\u{fffd}');
    line.extend(key.chars().map(|c| if fits(c) { c } else { '_' }));
}

/// Quotes where a reader of logfmt could stumble; escapes as JSON does.
fn push_logfmt_value(line: &mut String, value: &str) -> fmt::Result {
    let plain = |c: char| c > ' ' && !matches!(c, '=' | '"' | '\\' | '\u{7f}'..='\u{9f}' | '\u{fffd}');
    if !value.is_empty() && value.chars().all(plain) {
        line.push_str(value);
        return Ok(());
    }
    line.push('"');
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c) => write!(line, "\\u{:04x}", u32::from(c))?,
            c => line.push(c),
        }
    }
    line.push('"');
    Ok(())
}

fn json(pairs: &[(&'static str, Value)]) -> String {
    let mut line = String::with_capacity(256);
    let mut separator = '{';
    for (key, value) in pairs {
        line.push(separator);
        separator = ',';
        let value = match value {
            Value::Text(text) => serde_json::Value::from(text.as_str()),
            Value::Signed(number) => (*number).into(),
            Value::Unsigned(number) => (*number).into(),
            // JSON has no infinity; serde_json makes null of it.
            Value::Number(number) => (*number).into(),
            Value::Bool(value) => (*value).into(),
        };
        let _ = write!(line, "{}:{value}", serde_json::Value::from(*key));
    }
    line.push_str("}\n");
    line
}

#[cfg(test)]
mod tests;
