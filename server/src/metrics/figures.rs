//! Counters and histograms that cost nanoseconds: relaxed additions, spread over stripes so that cores do not pull at
//! one cache line.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize};
use std::time::Duration;

/// Threads share a stripe only when there are more of them than this.
const STRIPES: usize = 8;

fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) }; }
    STRIPE.with(|stripe| {
        if stripe.get() == usize::MAX {
            stripe.set(THREADS.fetch_add(1, Relaxed) % STRIPES);
        }
        stripe.get()
    })
}

/// A value that goes up and down. Whoever owns the thing sets it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// It is this now.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// It changed by this.
    pub fn add(&self, change: i64) {
        self.0.fetch_add(change, Relaxed);
    }

    /// What it is.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell128(AtomicU64);

/// A count that only rises.
#[derive(Debug, Default)]
pub struct Counter {
    stripes: [Cell128; STRIPES],
    at_reset: AtomicU64,
}

impl Counter {
    /// So many more.
    pub fn add(&self, n: u64) {
        self.stripes[stripe()].0.fetch_add(n, Relaxed);
    }

    /// Since the start.
    pub fn value(&self) -> u64 {
        self.stripes.iter().map(|cell| cell.0.load(Relaxed)).sum()
    }

    /// Since the last reset.
    pub(super) fn since_reset(&self) -> u64 {
        self.value().saturating_sub(self.at_reset.load(Relaxed))
    }

    pub(super) fn reset(&self) {
        self.at_reset.store(self.value(), Relaxed);
    }
}

/// Durations.
#[derive(Debug)]
pub struct Timing(Summary);

impl Timing {
    pub(super) fn rare() -> Timing {
        Timing(Summary::new(1, NS_PER_MS))
    }

    pub(super) fn frequent() -> Timing {
        Timing(Summary::new(STRIPES, NS_PER_MS))
    }

    /// One took so long.
    pub fn record(&self, took: Duration) {
        self.record_many(took, 1);
    }

    /// So many took so long each: those that came in one read and left in one write.
    pub fn record_many(&self, took: Duration, n: u64) {
        self.0.record_many(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), n);
    }

    pub(super) fn summary(&self) -> &Summary {
        &self.0
    }
}

/// Sizes of something that happens again and again.
#[derive(Debug)]
pub struct Tally(Summary);

impl Tally {
    pub(super) fn rare() -> Tally {
        Tally(Summary::new(1, 1))
    }

    /// One of this size.
    pub fn record(&self, size: u64) {
        self.0.record_many(size, 1);
    }

    pub(super) fn summary(&self) -> &Summary {
        &self.0
    }
}

const NS_PER_MS: u64 = 1_000_000;

/// Each doubling is cut into 16, so a bucket's middle is within 1/32 of what fell into it.
const CUT_BITS: u32 = 4;
const CUTS: usize = 1 << CUT_BITS;
/// The largest bucket ends at 2^41: 36 minutes in nanoseconds. What is above falls into it.
const VALUE_BITS: u32 = 41;
const BUCKETS: usize = (VALUE_BITS - CUT_BITS) as usize * CUTS + CUTS;

fn bucket(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    if value < CUTS as u64 {
        return value as usize;
    }
    let doubling = value.ilog2() - CUT_BITS;
    (doubling as usize + 1) * CUTS + (value >> doubling) as usize - CUTS
}

fn middle(bucket: usize) -> f64 {
    if bucket < CUTS {
        return bucket as f64;
    }
    let (doubling, cut) = (bucket / CUTS - 1, bucket % CUTS);
    let width = (1u64 << doubling) as f64;
    (CUTS + cut) as f64 * width + (width - 1.0) / 2.0
}

#[derive(Debug)]
#[repr(align(128))]
struct Stripe {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

/// Count, sum, least, most and distribution.
#[derive(Debug)]
pub(super) struct Summary {
    stripes: Box<[Stripe]>,
    /// How many recorded units make one that is told: nanoseconds in a millisecond.
    scale: u64,
    at_reset: Mutex<Option<Box<Seen>>>,
}

impl Summary {
    fn new(stripes: usize, scale: u64) -> Summary {
        let stripe = |_| Stripe {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        };
        Summary { stripes: (0..stripes).map(stripe).collect(), scale, at_reset: Mutex::new(None) }
    }

    fn record_many(&self, value: u64, n: u64) {
        let stripe = match self.stripes.len() {
            1 => &self.stripes[0],
            _ => &self.stripes[stripe()],
        };
        stripe.buckets[bucket(value)].fetch_add(n, Relaxed);
        stripe.sum.fetch_add(value.saturating_mul(n), Relaxed);
        // Once settled, these two are only read.
        if value < stripe.min.load(Relaxed) {
            stripe.min.fetch_min(value, Relaxed);
        }
        if value > stripe.max.load(Relaxed) {
            stripe.max.fetch_max(value, Relaxed);
        }
    }

    /// Since the start; but least and most since the last reset.
    pub(super) fn seen(&self) -> Seen {
        let mut seen = Seen { counts: vec![0; BUCKETS], sum: 0, min: u64::MAX, max: 0, scale: self.scale };
        for stripe in &self.stripes {
            for (count, bucket) in seen.counts.iter_mut().zip(&stripe.buckets) {
                *count += bucket.load(Relaxed);
            }
            seen.sum = seen.sum.wrapping_add(stripe.sum.load(Relaxed));
            seen.min = seen.min.min(stripe.min.load(Relaxed));
            seen.max = seen.max.max(stripe.max.load(Relaxed));
        }
        seen
    }

    pub(super) fn since_reset(&self) -> Seen {
        let seen = self.seen();
        match &*self.at_reset.lock().expect("no holder panics") {
            Some(before) => seen.since(before),
            None => seen,
        }
    }

    pub(super) fn reset(&self) {
        let mut at_reset = self.at_reset.lock().expect("no holder panics");
        *at_reset = Some(Box::new(self.seen()));
        for stripe in &self.stripes {
            stripe.min.store(u64::MAX, Relaxed);
            stripe.max.store(0, Relaxed);
        }
    }
}

/// A summary at one moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    counts: Vec<u64>,
    /// Wraps, as its differences may.
    sum: u64,
    min: u64,
    max: u64,
    scale: u64,
}

impl Seen {
    /// What came after `earlier`. Least and most stay.
    pub(super) fn since(mut self, earlier: &Seen) -> Seen {
        for (count, before) in self.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        self.sum = self.sum.wrapping_sub(earlier.sum);
        self
    }

    pub(super) fn merged(mut self, other: Seen) -> Seen {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self
    }

    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn sum_whole(&self) -> u64 {
        self.sum / self.scale
    }

    pub(super) fn min_whole(&self) -> u64 {
        if self.min == u64::MAX { 0 } else { self.min / self.scale }
    }

    pub(super) fn max_whole(&self) -> u64 {
        self.max / self.scale
    }

    pub(super) fn avg(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.sum as f64 / self.scale as f64 / count as f64,
        }
    }

    /// How many were at or below each of these values, which rise. A value within 1/16 above a bound may count as below.
    pub(super) fn below(&self, bounds: impl Iterator<Item = f64>) -> Vec<u64> {
        let (mut counted, mut sum) = (0, 0);
        bounds
            .map(|bound| {
                let end = bucket((bound * self.scale as f64) as u64) + 1;
                sum += self.counts[counted..end].iter().sum::<u64>();
                counted = end;
                sum
            })
            .collect()
    }

    /// The value that this share of all is at or below; `None` when there was none.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        found.map(|bucket| middle(bucket) / self.scale as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_near_everything_in_it() {
        for value in
            (0..100_000).chain((17..41).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 12_345]))
        {
            let near = middle(bucket(value));
            assert!((near - value as f64).abs() <= value as f64 / 32.0, "{value} is told as {near}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for pair in (0..BUCKETS).collect::<Vec<_>>().windows(2) {
            assert!(middle(pair[0]) < middle(pair[1]));
        }
    }

    #[test]
    fn quantiles_are_by_rank() {
        let timing = Timing::frequent();
        assert_eq!(timing.summary().seen().quantile(0.5), None);
        for ms in 1..=1_000 {
            timing.record(Duration::from_millis(ms));
        }
        let seen = timing.summary().seen();
        for (share, expected) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let told = seen.quantile(share).unwrap();
            assert!((told - expected).abs() <= expected / 32.0, "{share}: {told}");
        }
        assert_eq!(
            (seen.count(), seen.sum_whole(), seen.min_whole(), seen.max_whole()),
            (1_000, 500_500, 1, 1_000)
        );
    }

    #[test]
    fn what_is_below_a_bound_is_counted() {
        let timing = Timing::frequent();
        for ms in 1..=1_000 {
            timing.record(Duration::from_millis(ms));
        }
        let seen = timing.summary().seen();
        let told = seen.below([0.5, 1.0, 100.0, 1_000.0, 10_000.0].into_iter());
        assert_eq!((told[0], told[1], told[3], told[4]), (0, 1, 1_000, 1_000));
        assert!((100..=106).contains(&told[2]), "{told:?}");
    }

    #[test]
    fn threads_lose_nothing() {
        let (counter, timing) = (Counter::default(), Timing::frequent());
        std::thread::scope(|scope| {
            for _ in 0..STRIPES + 1 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        counter.add(2);
                        timing.record_many(Duration::from_micros(3), 2);
                    }
                });
            }
        });
        let all = 2_000 * (STRIPES as u64 + 1);
        assert_eq!((counter.value(), timing.summary().seen().count()), (all, all));
        assert_eq!(timing.summary().seen().sum, all * 3_000);
    }
}
