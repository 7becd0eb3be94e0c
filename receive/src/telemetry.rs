//! Metrics of this process: where they are kept and how they are rendered.
//!
//! Two kinds live side by side. What happens is counted through the `metrics` crate by whoever
//! does it, with handles that are kept ([`catalog`] has help and buckets). What simply is (process,
//! phase, figures of tenants' databases) is asked for at each scrape by a [`Collect`] and written
//! straight into the answer: it has no copy that could be stale, and what is gone is gone from the
//! next scrape on. The recorder can forget a metric only after a time of silence, and a kept handle
//! does not survive that; so nothing in it ever expires, and labels in it must be bounded.

pub mod catalog;
pub mod exposition;
pub mod process;
pub mod status;
pub mod tenants;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::RwLock;

pub use self::exposition::Exposition;

/// How often histograms are drained; between two drains the recorder keeps every single value.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Something that writes its metrics when it is asked.
pub trait Collect: Send + Sync {
    /// Writes whole families; no name may be written by anyone else. Runs on a thread that may
    /// block, but a scrape waits for it.
    fn collect(&self, out: &mut Exposition);
}

/// The metrics of this process. Clones are handles to the same.
#[derive(Clone)]
pub struct Telemetry {
    recorder: PrometheusHandle,
    collectors: Arc<RwLock<Vec<Arc<dyn Collect>>>>,
}

impl Telemetry {
    /// Makes a recorder, and what renders it, without installing it; for tests.
    ///
    /// # Errors
    /// If the buckets of [`catalog`] are not valid.
    pub fn build() -> Result<(Self, PrometheusRecorder), BuildError> {
        let mut builder = PrometheusBuilder::new().set_buckets(&catalog::SECONDS_BUCKETS)?;
        for (matcher, buckets) in catalog::buckets() {
            builder = builder.set_buckets_for_metric(matcher, buckets)?;
        }
        let recorder = builder.build_recorder();
        catalog::describe(&recorder);
        let telemetry = Self { recorder: recorder.handle(), collectors: Arc::default() };
        Ok((telemetry, recorder))
    }

    /// The metrics recorded by the `metrics` crate's macros anywhere in this process, with no
    /// collectors yet. The recorder is installed at the first call.
    ///
    /// # Errors
    /// If another recorder was installed before.
    pub fn install() -> Result<Self, String> {
        static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
        let installed = RECORDER.get_or_init(|| {
            let (telemetry, recorder) = Self::build().map_err(|error| error.to_string())?;
            metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
            Ok(telemetry.recorder)
        });
        installed.clone().map(|recorder| Self { recorder, collectors: Arc::default() })
    }

    /// Asks `collector` at each scrape from now on.
    pub fn add_collector(&self, collector: impl Collect + 'static) {
        self.collectors.write().push(Arc::new(collector));
    }

    /// All metrics in the text exposition format 0.0.4, families by name. Blocks for as long as
    /// the collectors do; not for async code.
    pub fn render(&self) -> String {
        let mut collected = Exposition::default();
        let collectors = self.collectors.read().clone();
        for collector in collectors {
            collector.collect(&mut collected);
        }
        let recorded = self.recorder.render();
        let collected = collected.into_text();
        // The recorder's order is that of a hash map; people like to find things.
        let mut families: Vec<&str> = exposition::families(&recorded).collect();
        families.extend(exposition::families(&collected));
        families.sort_by_key(|family| exposition::family_name(family));
        families.concat()
    }

    /// Drains histograms every 5 seconds, for ever. Without this memory grows with each request.
    pub async fn upkeep(self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let recorder = self.recorder.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || recorder.run_upkeep()).await {
                tracing::error!(%error, "draining histograms failed");
            }
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Telemetry")
            .field("collectors", &self.collectors.read().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
