//! Tenants in memory.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio_util::sync::{CancellationToken, DropGuard};
use weir::store_api::{SelectedSet, SeriesSource, TenantSource, TenantView};
use weir_tsdb::{
    Error, Result,
    chunkenc::Encoding,
    labels::Labels,
    query::{Chunk, Query},
};

/// A stored series.
#[derive(Clone, Debug)]
pub struct Series {
    pub labels: Labels,
    pub chunks: Vec<Chunk>,
    /// Its chunks cannot be read.
    pub damaged: bool,
}

/// A chunk over the times given, inclusive, with `samples` in its header and no samples in it.
pub fn chunk(mint: i64, maxt: i64, samples: u16) -> Chunk {
    Chunk { mint, maxt, encoding: Encoding::Xor, data: samples.to_be_bytes().to_vec() }
}

/// A series from pairs like `("job", "a")`.
pub fn series(labels: &[(&str, &str)], chunks: Vec<Chunk>) -> Series {
    Series { labels: Labels::from_pairs(labels.iter().copied()), chunks, damaged: false }
}

/// One tenant's series.
#[derive(Default)]
pub struct MemoryDb {
    pub series: Vec<Series>,
    /// Every call fails.
    pub broken: bool,
    /// How often chunks were read.
    pub reads: Arc<AtomicU64>,
    /// Cancelled when a selection is dropped.
    pub dropped: CancellationToken,
}

impl MemoryDb {
    pub fn new(mut series: Vec<Series>) -> Self {
        series.sort_by(|left, right| left.labels.cmp(&right.labels));
        series.dedup_by(|left, right| left.labels == right.labels);
        Self { series, ..Self::default() }
    }

    fn matching(&self, query: &Query) -> Result<Vec<Series>> {
        if self.broken {
            return Err(Error::corrupt("index", 7, "no such thing"));
        }
        let matches = |series: &&Series| {
            let value = |name| series.labels.get(name).unwrap_or_default();
            let mut chunks = series.chunks.iter();
            chunks.any(|chunk| chunk.mint <= query.maxt && chunk.maxt >= query.mint)
                && query.matchers.iter().all(|matcher| matcher.matches(value(matcher.name())))
        };
        let selected: Vec<Series> = self.series.iter().filter(matches).cloned().collect();
        match query.series_limit {
            Some(limit) if selected.len() > limit => {
                Err(Error::QueryLimit { what: "series", limit: limit as u64 })
            }
            _ => Ok(selected),
        }
    }
}

impl SeriesSource for MemoryDb {
    fn select(&self, query: &Query) -> Result<Box<dyn SelectedSet>> {
        Ok(Box::new(MemorySet {
            series: self.matching(query)?,
            mint: query.mint,
            maxt: query.maxt,
            reads: Arc::clone(&self.reads),
            _dropped: self.dropped.clone().drop_guard(),
        }))
    }

    fn label_names(&self, query: &Query) -> Result<Vec<String>> {
        let series = self.matching(query)?;
        let mut names: Vec<String> =
            series.iter().flat_map(|series| series.labels.iter()).map(|(name, _)| name.to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn label_values(&self, name: &str, query: &Query) -> Result<Vec<String>> {
        let series = self.matching(query)?;
        let mut values: Vec<String> =
            series.iter().filter_map(|series| series.labels.get(name)).map(str::to_owned).collect();
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }

    fn time_range(&self) -> Option<(i64, i64)> {
        let chunks = || self.series.iter().flat_map(|series| &series.chunks);
        Some((chunks().map(|chunk| chunk.mint).min()?, chunks().map(|chunk| chunk.maxt).max()?))
    }
}

struct MemorySet {
    series: Vec<Series>,
    mint: i64,
    maxt: i64,
    reads: Arc<AtomicU64>,
    _dropped: DropGuard,
}

impl SelectedSet for MemorySet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> &Labels {
        &self.series[index].labels
    }

    fn chunks(&self, index: usize) -> Result<Vec<Chunk>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let series = &self.series[index];
        if series.damaged {
            return Err(Error::corrupt("chunks/000001", 8, "bad checksum"));
        }
        let overlaps = |chunk: &&Chunk| chunk.mint <= self.maxt && chunk.maxt >= self.mint;
        Ok(series.chunks.iter().filter(overlaps).cloned().collect())
    }
}

/// The tenants of a server under test.
pub struct MemorySource {
    ready: AtomicBool,
    tenants: Mutex<Vec<TenantView>>,
}

impl MemorySource {
    pub fn new(tenants: Vec<TenantView>) -> Arc<Self> {
        Arc::new(Self { ready: AtomicBool::new(true), tenants: Mutex::new(tenants) })
    }

    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::SeqCst);
    }

    pub fn set_tenants(&self, tenants: Vec<TenantView>) {
        *self.tenants.lock().unwrap() = tenants;
    }
}

impl TenantSource for MemorySource {
    fn ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    fn tenants(&self) -> Vec<TenantView> {
        self.tenants.lock().unwrap().clone()
    }
}

/// A tenant with the tenant label and further external labels.
pub fn tenant(name: &str, external: &[(&str, &str)], db: MemoryDb) -> TenantView {
    let external = external.iter().copied().chain([("tenant_id", name)]);
    TenantView { tenant: name.to_owned(), external_labels: Labels::from_pairs(external), db: Arc::new(db) }
}
