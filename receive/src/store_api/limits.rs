//! How much one request may read.

use metrics::Counter;
use tonic::Status;

/// Limits of one Series request; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreLimits {
    /// Most series (`--store.limits.request-series`).
    pub request_series: u64,
    /// Most samples in the chunks sent (`--store.limits.request-samples`). Whole chunks count, as
    /// their headers say, also where they reach beyond the range.
    pub request_samples: u64,
}

/// `thanos_store_selects_dropped_total`: requests that failed at a limit. Both reasons are there
/// from the start.
#[derive(Clone)]
pub struct Dropped {
    series: Counter,
    chunks: Counter,
}

impl Dropped {
    pub fn new() -> Self {
        metrics::describe_counter!(
            "thanos_store_selects_dropped_total",
            "Series requests that failed because they asked for more than the limits allow."
        );
        Self {
            series: metrics::counter!("thanos_store_selects_dropped_total", "reason" => "series"),
            chunks: metrics::counter!("thanos_store_selects_dropped_total", "reason" => "chunks"),
        }
    }
}

/// What one request has used of its limits.
pub struct Budget {
    limits: StoreLimits,
    dropped: Dropped,
    series: u64,
    samples: u64,
}

impl Budget {
    pub fn new(limits: StoreLimits, dropped: Dropped) -> Self {
        Self { limits, dropped, series: 0, samples: 0 }
    }

    /// Series that may still be taken; `None` is no limit.
    pub fn series_left(&self) -> Option<u64> {
        (self.limits.request_series > 0).then(|| self.limits.request_series - self.series)
    }

    /// Takes `count` series.
    pub fn take_series(&mut self, count: u64) -> Result<(), Status> {
        self.series = match self.series_left() {
            Some(left) if count > left => return Err(self.too_many_series()),
            _ => self.series.saturating_add(count),
        };
        Ok(())
    }

    /// Counts the request as dropped for its series. Returns its answer.
    pub fn too_many_series(&self) -> Status {
        self.dropped.series.increment(1);
        Status::resource_exhausted(format!(
            "the request selects more than {} series (--store.limits.request-series)",
            self.limits.request_series
        ))
    }

    /// Takes `count` samples.
    pub fn take_samples(&mut self, count: u64) -> Result<(), Status> {
        self.samples = self.samples.saturating_add(count);
        let limit = self.limits.request_samples;
        if limit > 0 && self.samples > limit {
            self.dropped.chunks.increment(1);
            return Err(Status::resource_exhausted(format!(
                "the request selects more than {limit} samples (--store.limits.request-samples)"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn budget(series: u64, samples: u64) -> Budget {
        let limits = StoreLimits { request_series: series, request_samples: samples };
        Budget::new(limits, Dropped::new())
    }

    #[test]
    fn a_limit_may_be_used_up_but_not_passed() {
        let mut budget = budget(3, 10);
        budget.take_series(2).unwrap();
        assert_eq!(budget.series_left(), Some(1));
        budget.take_series(1).unwrap();
        assert_eq!(budget.series_left(), Some(0));
        assert_eq!(budget.take_series(1).unwrap_err().code(), Code::ResourceExhausted);
        budget.take_samples(10).unwrap();
        budget.take_samples(0).unwrap();
        assert_eq!(budget.take_samples(1).unwrap_err().code(), Code::ResourceExhausted);
    }

    #[test]
    fn zero_is_no_limit() {
        let mut budget = budget(0, 0);
        budget.take_series(u64::MAX).unwrap();
        budget.take_series(1).unwrap();
        assert_eq!(budget.series_left(), None);
        budget.take_samples(u64::MAX).unwrap();
        budget.take_samples(1).unwrap();
    }
}
