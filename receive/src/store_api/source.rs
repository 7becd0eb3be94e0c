//! What the read services need from the databases, as traits: they do not know how many tenants
//! there are, where they lie or who opens them.

use std::sync::Arc;

use weir_tsdb::{
    Result,
    db::{Db, Selection},
    labels::Labels,
    query::{Chunk, Query},
};

/// Gives the tenants of this node.
pub trait TenantSource: Send + Sync + 'static {
    /// False until every tenant found at start is open (or set aside as broken). Until then every
    /// call is answered with `Unavailable`.
    fn ready(&self) -> bool;

    /// The tenants as they are now. Called once per request; must be cheap and must not block.
    fn tenants(&self) -> Vec<TenantView>;
}

/// One tenant, as the read services see it.
#[derive(Clone)]
pub struct TenantView {
    /// Name of the tenant, for warnings and errors.
    pub tenant: String,
    /// Labels added to every series: those of the node, those of the ring and the tenant label.
    pub external_labels: Labels,
    /// The tenant's series. A tenant that cannot be read is given as a source that fails: its
    /// errors become warnings or fail the request, as the request wishes.
    pub db: Arc<dyn SeriesSource>,
}

/// Series of one tenant. All calls may block on the disk; they are made on threads for that.
pub trait SeriesSource: Send + Sync {
    /// Series with samples in the query's range, ascending by stored labels.
    ///
    /// # Errors
    /// [`weir_tsdb::Error::QueryLimit`] if there are more than the query's limit; damage and I/O
    /// errors.
    fn select(&self, query: &Query) -> Result<Box<dyn SelectedSet>>;

    /// Label names of the series that match, ascending.
    ///
    /// # Errors
    /// Damage and I/O errors.
    fn label_names(&self, query: &Query) -> Result<Vec<String>>;

    /// Values of the label `name` of the series that match, ascending.
    ///
    /// # Errors
    /// Damage and I/O errors.
    fn label_values(&self, name: &str, query: &Query) -> Result<Vec<String>>;

    /// Times of the oldest and the newest sample in milliseconds, if there are samples.
    fn time_range(&self) -> Option<(i64, i64)>;
}

/// Selected series: labels in memory, chunks read when asked for.
pub trait SelectedSet: Send {
    /// Number of series.
    fn len(&self) -> usize;

    /// True if nothing was selected.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stored labels of series number `index`; they ascend with it.
    fn labels(&self, index: usize) -> &Labels;

    /// Whole chunks of series number `index` that overlap the range, ascending by first sample.
    ///
    /// # Errors
    /// Damage and I/O errors; they concern this series only.
    fn chunks(&self, index: usize) -> Result<Vec<Chunk>>;
}

impl SeriesSource for Db {
    fn select(&self, query: &Query) -> Result<Box<dyn SelectedSet>> {
        Ok(Box::new(Db::select(self, query)?))
    }

    fn label_names(&self, query: &Query) -> Result<Vec<String>> {
        Db::label_names(self, query)
    }

    fn label_values(&self, name: &str, query: &Query) -> Result<Vec<String>> {
        Db::label_values(self, name, query)
    }

    fn time_range(&self) -> Option<(i64, i64)> {
        Db::time_range(self)
    }
}

impl SelectedSet for Selection {
    fn len(&self) -> usize {
        Selection::len(self)
    }

    fn labels(&self, index: usize) -> &Labels {
        Selection::labels(self, index)
    }

    fn chunks(&self, index: usize) -> Result<Vec<Chunk>> {
        Selection::chunks(self, index)
    }
}
