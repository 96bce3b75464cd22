//! Kinds of meters: one for each value of a closed label, a distribution, and a value that may be
//! unknown. None of them takes a lock.

use std::fmt::{Debug, Error};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::label::Labels;

/// One meter for each value of `L`, all there from the start: a series that begins with its first
/// event hides that event from whoever looks at rates.
#[derive(Debug)]
pub struct Table<L, M> {
    meters: Arc<[M]>,
    kept: fn(L) -> bool,
}

impl<L: Labels, M: Default> Table<L, M> {
    /// A meter for every value.
    pub(super) fn new() -> Self {
        Self::of(|_| true, M::default)
    }
}

impl<L: Labels, M> Table<L, M> {
    /// A meter for each value that is `kept`; the others can be counted, but nobody sees them.
    pub(super) fn of(kept: fn(L) -> bool, meter: impl Fn() -> M) -> Self {
        Self { meters: (0..L::COUNT).map(|_| meter()).collect(), kept }
    }

    /// The meter of `label`.
    pub fn at(&self, label: L) -> &M {
        // Every label's place is below `COUNT`: a test goes through all of them.
        &self.meters[label.place()]
    }
}

impl<L, M> Clone for Table<L, M> {
    fn clone(&self) -> Self {
        Self { meters: Arc::clone(&self.meters), kept: self.kept }
    }
}

impl<L: Labels, M: EncodeMetric + TypedMetric> EncodeMetric for Table<L, M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        for (place, meter) in self.meters.iter().enumerate() {
            let label = L::at(place);
            if (self.kept)(label) {
                meter.encode(encoder.encode_family(&label.pairs())?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// One meter for each configured project.
#[derive(Debug)]
pub struct ByPid<M>(Arc<[(i64, M)]>);

impl<M: Default> ByPid<M> {
    pub(super) fn new(pids: &[i64]) -> Self {
        Self(pids.iter().map(|pid| (*pid, M::default())).collect())
    }

    /// The meter of the project `pid`, where it is configured.
    pub fn at(&self, pid: i64) -> Option<&M> {
        self.0.iter().find(|(known, _)| *known == pid).map(|(_, meter)| meter)
    }
}

impl<M> Clone for ByPid<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for ByPid<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        self.0.iter().try_for_each(|(pid, meter)| {
            meter.encode(encoder.encode_family(&[("pid", pid.to_string())])?)
        })
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// A whole number that nobody knows until it is first set; until then there is no sample.
#[derive(Clone, Debug)]
pub struct Known(Arc<AtomicI64>);

impl Known {
    const UNKNOWN: i64 = i64::MIN;

    /// Sets it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Default for Known {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(Self::UNKNOWN)))
    }
}

impl TypedMetric for Known {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Known {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        match self.0.load(Ordering::Relaxed) {
            Self::UNKNOWN => Ok(()),
            value => encoder.encode_gauge(&value),
        }
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A distribution over fixed bounds. Values are whole: nanoseconds, or things counted.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Distribution>);

#[derive(Debug)]
struct Distribution {
    bounds: &'static [u64],
    /// Values up to each bound and above the one before; the last one holds what is above all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// How many of the values' unit make one of the unit that is shown.
    scale: f64,
}

/// Nanoseconds of a second.
const SECOND: f64 = 1e9;

/// Bounds for everything that takes time, in nanoseconds: from a fast commit to a slow call.
pub(super) const SECONDS: &[u64] = &[
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

impl Histogram {
    /// Of durations: bounds and values in nanoseconds, shown in seconds.
    pub(super) fn of_seconds(bounds: &'static [u64]) -> Self {
        Self::new(bounds, SECOND)
    }

    /// Of counts.
    pub(super) fn of_counts(bounds: &'static [u64]) -> Self {
        Self::new(bounds, 1.0)
    }

    fn new(bounds: &'static [u64], scale: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Distribution { bounds, counts, sum: AtomicU64::new(0), scale }))
    }

    /// Counts one value.
    pub fn observe(&self, value: u64) {
        let all = &self.0;
        let place = all.bounds.partition_point(|bound| *bound < value);
        all.counts[place].fetch_add(1, Ordering::Relaxed);
        all.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts one duration.
    pub fn took(&self, duration: std::time::Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    #[expect(clippy::float_arithmetic, reason = "time and counts, never money")]
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        let all = &self.0;
        let shown = |value: u64| value as f64 / all.scale;
        let bounds = all.bounds.iter().map(|bound| shown(*bound)).chain([f64::INFINITY]);
        let counts = all.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = shown(all.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::attention::Attention;

    fn page(metric: impl EncodeMetric + Debug + Send + Sync + 'static) -> String {
        let mut registry = Registry::default();
        registry.register("m", "help", metric);
        let mut page = String::new();
        encode(&mut page, &registry).expect("encoded");
        page
    }

    #[test]
    fn a_distribution_counts_each_value_once_up_to_its_bound_and_the_sum_is_whole() {
        let histogram = Histogram::of_seconds(&[1_000_000_000, 2_500_000_000]);
        for millis in [1, 1_000, 1_001, 2_500, 9_000] {
            histogram.took(Duration::from_millis(millis));
        }
        assert_eq!(
            page(histogram),
            "# HELP m help.\n# TYPE m histogram\nm_sum 13.502\nm_count 5\n\
             m_bucket{le=\"1.0\"} 2\nm_bucket{le=\"2.5\"} 4\nm_bucket{le=\"+Inf\"} 5\n# EOF\n"
        );
    }

    #[test]
    fn every_value_of_a_label_is_there_from_the_start_and_counted_apart() {
        let table = Table::<Attention, Counter>::new();
        table.at(Attention::Age).inc();
        let page = page(table);
        assert_eq!(page.matches("m_total{").count(), 6, "{page}");
        assert!(page.contains("m_total{attention=\"AGE\"} 1\n"), "{page}");
        assert!(page.contains("m_total{attention=\"CONTRADICTION\"} 0\n"), "{page}");
    }

    #[test]
    fn what_nobody_knows_has_no_sample_and_what_is_known_has_one() {
        let known = Known::default();
        assert_eq!(page(known.clone()), "# HELP m help.\n# TYPE m gauge\n# EOF\n");
        known.set(-7);
        assert!(page(known).contains("\nm -7\n"));
    }

    #[test]
    fn a_project_that_is_not_configured_has_no_meter() {
        let by_pid = ByPid::<Counter>::new(&[7, 9]);
        by_pid.at(9).expect("configured").inc();
        assert!(by_pid.at(8).is_none());
        let page = page(by_pid);
        assert!(page.contains("m_total{pid=\"7\"} 0\nm_total{pid=\"9\"} 1\n"), "{page}");
    }
}
