//! The ring of a node: read at start, and again when its file changes.
//!
//! The content of the file is compared, not its time or its name: so a swapped symbolic link, as of a
//! mounted ConfigMap, is noticed like a write. A file that cannot be read or used changes nothing;
//! the ring before it goes on, and metrics and log say so.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use metrics::{Gauge, counter, gauge};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use weir_hashring::static_ring::{RingFile, StaticRing};

use crate::{
    config::{RingFileConfig, RingText},
    replicate::{Peers, fence::WriteFence, routing::Routing},
    write::WriteState,
};

/// The longest time between two looks at the file.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Keeps the routing of a node as its ring file says.
#[derive(Debug)]
pub struct RingFileKeeper {
    config: RingFileConfig,
    replication_factor: usize,
    peers: Arc<Peers>,
    fence: Arc<WriteFence>,
    /// Rings that were put in force so far.
    epoch: u64,
    /// The text of the newest ring that was looked at, and whether it is in force.
    seen: Option<(String, bool)>,
    successful: Gauge,
    success_time: Gauge,
    hash: Gauge,
}

impl RingFileKeeper {
    /// Nothing is read yet.
    pub fn new(
        config: RingFileConfig,
        replication_factor: usize,
        peers: Arc<Peers>,
        fence: Arc<WriteFence>,
    ) -> Self {
        for name in ["changes", "errors", "refreshes"] {
            counter!(format!("thanos_receive_hashrings_file_{name}_total")).increment(0);
        }
        Self {
            config,
            replication_factor,
            peers,
            fence,
            epoch: 0,
            seen: None,
            successful: gauge!("thanos_receive_config_last_reload_successful"),
            success_time: gauge!("thanos_receive_config_last_reload_success_timestamp_seconds"),
            hash: gauge!("thanos_receive_config_hash"),
        }
    }

    /// Reads the ring, on a thread for blocking work: a large one takes a while to build. `None` if it
    /// is the one that was read last, else the routing, or what is wrong with it, for people.
    pub async fn read(mut self) -> (Self, Result<Option<Arc<Routing>>, String>) {
        let work = move || {
            let read = self.read_now();
            (self, read)
        };
        tokio::task::spawn_blocking(work).await.expect("reading a ring does not panic")
    }

    fn read_now(&mut self) -> Result<Option<Arc<Routing>>, String> {
        counter!("thanos_receive_hashrings_file_refreshes_total").increment(1);
        let read = self.read_text();
        let changed = match read {
            Ok(text) => {
                if let Some((seen, is_good)) = &self.seen
                    && *seen == text
                {
                    // It could not be read in between, maybe.
                    self.successful.set(f64::from(u8::from(*is_good)));
                    return Ok(None);
                }
                counter!("thanos_receive_hashrings_file_changes_total").increment(1);
                let built = self.build(&text);
                self.seen = Some((text, built.is_ok()));
                built
            }
            Err(error) => Err(error),
        };
        self.successful.set(f64::from(u8::from(changed.is_ok())));
        match changed {
            Ok(routing) => {
                self.export(&routing);
                Ok(Some(routing))
            }
            Err(error) => {
                counter!("thanos_receive_hashrings_file_errors_total").increment(1);
                Err(error)
            }
        }
    }

    fn read_text(&self) -> Result<String, String> {
        match &self.config.text {
            RingText::Inline(text) => Ok(text.clone()),
            RingText::File(path) => {
                fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
            }
        }
    }

    fn build(&mut self, text: &str) -> Result<Arc<Routing>, String> {
        let file = RingFile::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        for warning in file.warnings() {
            tracing::warn!(%warning, "ring file");
        }
        let rings = StaticRing::build(&file, self.replication_factor, self.config.algorithm)
            .map_err(|error| error.to_string())?;
        let local = self.config.local_endpoint.as_deref();
        let routing = Routing::of_file(rings, self.epoch + 1, local, &self.peers)?;
        self.epoch += 1;
        self.fence.set_file(routing.stamp().digest);
        Ok(routing)
    }

    fn export(&self, routing: &Routing) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.success_time.set(now.as_secs_f64());
        // As upstream: 48 bits, which a float holds exactly.
        self.hash.set((routing.stamp().digest >> 16) as f64);
        for ring in routing.rings().into_iter().flat_map(StaticRing::rings) {
            let labels = [("name", ring.name().to_owned())];
            gauge!("thanos_receive_hashring_nodes", &labels).set(ring.endpoints().len() as f64);
            let tenants = ring.tenants().map_or(0, |tenants| tenants.len());
            gauge!("thanos_receive_hashring_tenants", &labels).set(tenants as f64);
        }
    }

    /// Watches the file until `stop` is cancelled.
    pub async fn watch(mut self, write: Arc<WriteState>, stop: CancellationToken) {
        if matches!(self.config.text, RingText::Inline(_)) {
            return stop.cancelled().await;
        }
        let mut ticks = interval(self.config.refresh_interval.min(LOOK_INTERVAL_MAX));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let read;
            (self, read) = self.read().await;
            match read {
                Ok(None) => {}
                Ok(Some(routing)) => {
                    let stamp = routing.stamp();
                    tracing::info!(epoch = stamp.epoch, digest = stamp.digest, "a new ring is in force");
                    write.set_routing(routing);
                }
                Err(error) => {
                    tracing::error!(error, "the ring file cannot be used, the ring before it goes on")
                }
            }
        }
    }
}
