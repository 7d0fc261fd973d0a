//! Hands the figures to the `metrics` facade, and so to Prometheus.

use super::figures::Seen;
use super::{DECLARED, Declared, Figure, Kind, Metrics, Unit};
use ::metrics::{Key, KeyName, Label, Level, Metadata};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Quantiles are of the last ten minutes, as in ZooKeeper's exporter: those of all time show no incident.
const WINDOW: Duration = Duration::from_secs(600);
/// The window moves in steps of this.
const STEP: Duration = Duration::from_secs(60);

/// Registered names and what was published of them. One for a process; it belongs to whoever has the timer.
pub struct Publisher {
    metrics: Arc<Metrics>,
    /// In the order of [`DECLARED`].
    published: Vec<Published>,
}

enum Published {
    Gauge(::metrics::Gauge),
    Counter(::metrics::Counter),
    Summary(Summary),
    Histogram(Histogram),
}

/// Bounds of the histograms, ms: from what a sync on the best disks takes to what no client waits for.
const BOUNDS_MS: [&str; 16] = [
    "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000",
    "10000",
];

/// Series with the names of Prometheus' histograms. To the facade they are counters, for it has no way to say how many
/// there were.
struct Histogram {
    bounds: Vec<(f64, ::metrics::Counter)>,
    all: ::metrics::Counter,
    count: ::metrics::Counter,
    sum: ::metrics::Counter,
}

struct Summary {
    quantiles: Vec<(f64, ::metrics::Gauge)>,
    count: ::metrics::Counter,
    sum: ::metrics::Counter,
    /// What was seen at each step within the window, oldest first.
    steps: VecDeque<(Instant, Seen)>,
}

impl Publisher {
    /// Describes and registers every metric with the recorder that is installed.
    pub fn register(metrics: Arc<Metrics>) -> Publisher {
        let published = DECLARED.iter().map(register).collect();
        Publisher { metrics, published }
    }

    /// Brings the recorder up to date. Meant for once a second; `now` moves the window of the quantiles.
    pub fn publish(&mut self, now: Instant) {
        let latency = self.metrics.request_latency();
        for (figure, published) in self.metrics.figures().into_iter().zip(&mut self.published) {
            match (figure, published) {
                (Figure::Gauge(gauge), Published::Gauge(to)) => to.set(gauge.value() as f64),
                (Figure::Counter(counter), Published::Counter(to)) => to.absolute(counter.value()),
                (Figure::Derived("avg_latency"), Published::Gauge(to)) => to.set(latency.avg),
                (Figure::Derived("min_latency"), Published::Gauge(to)) => to.set(latency.min as f64),
                (Figure::Derived(_), Published::Gauge(to)) => to.set(latency.max as f64),
                (Figure::Summary(summary), Published::Summary(to)) => to.publish(summary.seen(), now),
                (Figure::Histogram(summary), Published::Histogram(to)) => to.publish(&summary.seen()),
                _ => unreachable!("figures and what is published of them are made from one table"),
            }
        }
    }
}

impl Histogram {
    fn publish(&self, seen: &Seen) {
        let below: Vec<u64> = seen.below(self.bounds.iter().map(|(bound, _)| *bound));
        for ((_, counter), below) in self.bounds.iter().zip(below) {
            counter.absolute(below);
        }
        self.all.absolute(seen.count());
        self.count.absolute(seen.count());
        self.sum.absolute(seen.sum_whole());
    }
}

impl Summary {
    fn publish(&mut self, seen: Seen, now: Instant) {
        self.count.absolute(seen.count());
        self.sum.absolute(seen.sum_whole());
        if self.steps.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= STEP) {
            self.steps.push_back((now, seen.clone()));
        }
        // The oldest that is kept is the last one from before the window.
        while self.steps.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.steps.pop_front();
        }
        let window = match self.steps.front() {
            Some((at, oldest)) if now.saturating_duration_since(*at) >= WINDOW => seen.since(oldest),
            _ => seen,
        };
        for (share, gauge) in &self.quantiles {
            gauge.set(window.quantile(*share).unwrap_or(f64::NAN));
        }
    }
}

fn register(declared: &Declared) -> Published {
    let Declared { name, kind, unit, help } = *declared;
    let unit = match unit {
        Unit::Count | Unit::Flag => ::metrics::Unit::Count,
        Unit::Bytes => ::metrics::Unit::Bytes,
        Unit::Ms => ::metrics::Unit::Milliseconds,
        Unit::Seconds => ::metrics::Unit::Seconds,
    };
    let metadata = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
    ::metrics::with_recorder(|recorder| match kind {
        Kind::Gauge | Kind::Derived => {
            recorder.describe_gauge(KeyName::from_const_str(name), Some(unit), help.into());
            Published::Gauge(recorder.register_gauge(&Key::from_static_name(name), &metadata))
        }
        Kind::Counter => {
            recorder.describe_counter(KeyName::from_const_str(name), Some(unit), help.into());
            Published::Counter(recorder.register_counter(&Key::from_static_name(name), &metadata))
        }
        Kind::Histogram => {
            let series = |end: &str, said: &str, labels: Vec<Label>| {
                let name = format!("{name}{end}");
                recorder.describe_counter(name.clone().into(), Some(unit), format!("{said}{help}").into());
                recorder.register_counter(&Key::from_parts(name, labels), &metadata)
            };
            let bucket = |bound| series("_bucket", "", vec![Label::from_static_parts("le", bound)]);
            let bound = |text: &&'static str| (text.parse().expect("a number"), bucket(text));
            Published::Histogram(Histogram {
                bounds: BOUNDS_MS.iter().map(bound).collect(),
                all: bucket("+Inf"),
                count: series("_count", "How many: ", Vec::new()),
                sum: series("_sum", "The sum: ", Vec::new()),
            })
        }
        Kind::Summary | Kind::AdvancedSummary => {
            let (count, sum) = (format!("{name}_count"), format!("{name}_sum"));
            recorder.describe_gauge(KeyName::from_const_str(name), Some(unit), help.into());
            let counted = format!("How many `{name}` counts.");
            recorder.describe_counter(count.clone().into(), Some(::metrics::Unit::Count), counted.into());
            let summed = format!("The sum of `{name}`.");
            recorder.describe_counter(sum.clone().into(), Some(unit), summed.into());
            // ZooKeeper's quantiles: the median, and for the advanced ones two more.
            let shares = if kind == Kind::Summary { &["0.5"][..] } else { &["0.5", "0.9", "0.99"][..] };
            let quantile = |share: &&'static str| {
                let labels = vec![Label::from_static_parts("quantile", share)];
                let key = Key::from_parts(name, labels);
                (share.parse().expect("a number"), recorder.register_gauge(&key, &metadata))
            };
            Published::Summary(Summary {
                quantiles: shares.iter().map(quantile).collect(),
                count: recorder.register_counter(&Key::from_name(count), &metadata),
                sum: recorder.register_counter(&Key::from_name(sum), &metadata),
                steps: VecDeque::new(),
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant to count from")]
    fn prometheus_reads_zookeepers_names() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = Arc::new(Metrics::default());
        let page = ::metrics::with_local_recorder(&recorder, || {
            let mut publisher = Publisher::register(metrics.clone());
            metrics.znode_count.set(5);
            metrics.packets_received.add(3);
            metrics.updatelatency.record_many(Duration::from_micros(1_500), 4);
            metrics.updatelatency.record(Duration::from_secs(60));
            publisher.publish(Instant::now());
            recorder.handle().render()
        });
        for line in [
            "# HELP znode_count Znodes, counted as ZooKeeper does: a fresh server has 5.",
            "# TYPE znode_count gauge",
            "znode_count 5",
            "# TYPE packets_received counter",
            "packets_received 3",
            "updatelatency_count 5",
            "updatelatency_sum 60006",
            "warren_write_ms_bucket{le=\"1\"} 0",
            "warren_write_ms_bucket{le=\"2.5\"} 4",
            "warren_write_ms_bucket{le=\"10000\"} 4",
            "warren_write_ms_bucket{le=\"+Inf\"} 5",
            "warren_write_ms_count 5",
            "warren_write_ms_sum 60006",
            "warren_apply_ms_bucket{le=\"0.1\"} 0",
            "fsynctime{quantile=\"0.5\"} NaN",
            "fsynctime_count 0",
            "min_latency 1",
        ] {
            assert!(page.lines().any(|said| said == line), "{line}\n{page}");
        }
        // What is declared is there, and nothing else.
        let mut told: Vec<&str> = page
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| line.split(['{', ' ']).next().unwrap())
            .collect();
        told.sort_unstable();
        told.dedup();
        let mut declared: Vec<String> = DECLARED.iter().flat_map(|d| d.kind.series(d.name)).collect();
        declared.sort_unstable();
        assert_eq!(told, declared);
        let median = page.lines().find(|line| line.starts_with("updatelatency{quantile=\"0.5\"} ")).unwrap();
        let value: f64 = median.rsplit(' ').next().unwrap().parse().unwrap();
        assert!((value - 1.5).abs() < 1.5 / 32.0, "{median}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "some instant to count from")]
    fn quantiles_forget_after_the_window() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = Arc::new(Metrics::default());
        ::metrics::with_local_recorder(&recorder, || {
            let median = || {
                let page = recorder.handle().render();
                let line = page.lines().find(|line| line.starts_with("fsynctime{quantile=\"0.5\"} "));
                line.unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap()
            };
            let mut publisher = Publisher::register(metrics.clone());
            let start = Instant::now();
            publisher.publish(start);
            metrics.fsynctime.record_many(Duration::from_millis(100), 10);
            for second in 0..=900 {
                publisher.publish(start + Duration::from_secs(second));
                match second {
                    0..=600 => assert!(median() > 90.0, "after {second} s"),
                    700.. => assert!(median().is_nan(), "after {second} s"),
                    _ => {}
                }
            }
            metrics.fsynctime.record(Duration::from_millis(1));
            publisher.publish(start + Duration::from_secs(901));
            assert!(median() < 2.0);
        });
    }
}
