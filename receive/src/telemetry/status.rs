//! Metrics of the node as such: its phase and its build.

use super::{Collect, Exposition, exposition::Kind};
use crate::readiness::Readiness;

/// Writes `thanos_status` and `weir_build_info`.
#[derive(Clone, Debug)]
pub struct StatusCollector {
    /// What the probes look at.
    pub readiness: Readiness,
}

impl Collect for StatusCollector {
    fn collect(&self, out: &mut Exposition) {
        let ready = if self.readiness.is_ready() { 1.0 } else { 0.0 };
        // A process that can answer is healthy.
        out.family("thanos_status", Kind::Gauge, "1 if the check passes.")
            .sample(&[("check", "healthy"), ("component", "receive")], 1.0)
            .sample(&[("check", "ready"), ("component", "receive")], ready);
        out.family("weir_build_info", Kind::Gauge, "1, with what was built.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    }
}
