//! Every metric, declared once in the table below: its name (ZooKeeper's own where the meaning is the same, else
//! `warren_…`), kind, unit and help. From the same figures come `mntr` and what Prometheus reads.
//!
//! Figures live here and not in the exporter, because both readers need them, and because the hot path may not wait:
//! counting is one relaxed addition on a cache line that seldom leaves its core, timing is two. Once a second the
//! daemon calls [`Publisher::publish`], which hands the sums to the `metrics` facade. A caller that handles requests
//! in batches counts once per batch: `add(n)`, `record_many(latency, n)`.
//!
//! To serve them, `io` installs the exporter's recorder (`PrometheusBuilder`, plain names: neither unit suffix nor
//! recommended naming, for ZooKeeper's dashboards know the bare ones), then calls [`Publisher::register`], then
//! `publish` on a timer.

mod figures;
mod publisher;

pub use figures::{Counter, Gauge, Tally, Timing};
pub use publisher::Publisher;

use crate::words::LatencyMs;
use figures::Summary;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// A gauge that is worked out from the latencies.
    Derived,
    /// Only goes up.
    Counter,
    /// Count, sum and median.
    Summary,
    /// Count, sum and quantiles.
    AdvancedSummary,
    /// Count, sum, and how many were at or below each of some bounds; for Prometheus alone.
    Histogram,
}

impl Kind {
    /// The names of the series that Prometheus has of a metric of this kind.
    pub fn series(self, name: &str) -> Vec<String> {
        let with = |ends: &[&str]| ends.iter().map(|end| format!("{name}{end}")).collect();
        match self {
            Kind::Gauge | Kind::Derived | Kind::Counter => with(&[""]),
            Kind::Summary | Kind::AdvancedSummary => with(&["", "_count", "_sum"]),
            Kind::Histogram => with(&["_bucket", "_count", "_sum"]),
        }
    }
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// 0 or 1.
    Flag,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Ms,
    /// Seconds since 1970.
    Seconds,
}

/// A metric as declared.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// As Prometheus sees it; `mntr` puts `zk_` before it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// What it tells, and what to do about it.
    pub help: &'static str,
}

macro_rules! metrics {
    (
        gauges { $($gauge:ident $gauge_unit:ident $gauge_help:literal)+ }
        derived { $($derived:ident $derived_unit:ident $derived_help:literal)+ }
        counters { $($counter:ident $counter_unit:ident $counter_help:literal)+ }
        tallies { $($tally:ident $tally_unit:ident $tally_help:literal)+ }
        timings { $($timing:ident $timing_help:literal)+ }
        advanced_timings { $($advanced:ident $advanced_help:literal)+ }
        rooms { $($room:ident $room_help:literal)+ }
        views { $($view:ident $viewed:ident $view_help:literal)+ }
    ) => {
        /// Every metric, in the order of the table.
        pub const DECLARED: &[Declared] = &[
            $( declared(stringify!($gauge), Kind::Gauge, Unit::$gauge_unit, $gauge_help), )+
            $( declared(stringify!($derived), Kind::Derived, Unit::$derived_unit, $derived_help), )+
            $( declared(stringify!($counter), Kind::Counter, Unit::$counter_unit, $counter_help), )+
            $( declared(stringify!($tally), Kind::Summary, Unit::$tally_unit, $tally_help), )+
            $( declared(stringify!($timing), Kind::Summary, Unit::Ms, $timing_help), )+
            $( declared(stringify!($advanced), Kind::AdvancedSummary, Unit::Ms, $advanced_help), )+
            $( declared(stringify!($room), Kind::Histogram, Unit::Ms, $room_help), )+
            $( declared(stringify!($view), Kind::Histogram, Unit::Ms, $view_help), )+
        ];

        /// All figures of a server, each in a field by its name. Shared by whoever counts.
        #[derive(Debug)]
        pub struct Metrics {
            $( #[doc = $gauge_help] pub $gauge: Gauge, )+
            $( #[doc = $counter_help] pub $counter: Counter, )+
            $( #[doc = $tally_help] pub $tally: Tally, )+
            $( #[doc = $timing_help] pub $timing: Timing, )+
            $( #[doc = $advanced_help] pub $advanced: Timing, )+
            $( #[doc = $room_help] pub $room: Timing, )+
        }

        impl Default for Metrics {
            fn default() -> Metrics {
                Metrics {
                    $( $gauge: Gauge::default(), )+
                    $( $counter: Counter::default(), )+
                    $( $tally: Tally::rare(), )+
                    $( $timing: Timing::rare(), )+
                    $( $advanced: Timing::frequent(), )+
                    $( $room: Timing::frequent(), )+
                }
            }
        }

        impl Metrics {
            /// The figure of each row of [`DECLARED`], in its order.
            fn figures(&self) -> Vec<Figure<'_>> {
                vec![
                    $( Figure::Gauge(&self.$gauge), )+
                    $( Figure::Derived(stringify!($derived)), )+
                    $( Figure::Counter(&self.$counter), )+
                    $( Figure::Summary(self.$tally.summary()), )+
                    $( Figure::Summary(self.$timing.summary()), )+
                    $( Figure::Summary(self.$advanced.summary()), )+
                    $( Figure::Histogram(self.$room.summary()), )+
                    $( Figure::Histogram(self.$viewed.summary()), )+
                ]
            }
        }
    };
}

metrics! {
    gauges {
        znode_count Count "Znodes, counted as ZooKeeper does: a fresh server has 5."
        watch_count Count "Watches set by the clients of this server."
        ephemerals_count Count "Ephemeral znodes."
        approximate_data_size Bytes "Bytes of paths and data of all znodes."
        outstanding_requests Count "Requests that wait for their answer; when it stays high, the disk or the machine is too slow."
        num_alive_connections Count "Open client connections; compare with client.connections_max."
        local_sessions Count "Sessions that only this server knows: read-only ones, while it has no leader and sessions.read_only allows them."
        global_sessions Count "Sessions of the whole service; compare with limits.sessions_max."
        open_file_descriptor_count Count "Open file descriptors."
        max_file_descriptor_count Count "File descriptors that the process may open; raise LimitNOFILE before it is reached."
        quorum_size Count "Servers that vote; 0 on a server that stands alone."
        synced_followers Count "On the leader: followers that take entries as they come. Below quorum_size - 1 one of them is down or catching up."
        synced_observers Count "Observers that this server feeds and that have all that is committed here. Summed over all servers it is how many are up to date."
        warren_observers_fed Count "Observers that this server feeds."
        synced_non_voting_followers Count "On the leader: servers that join, and take entries as they come."
        pending_syncs Count "On the leader: syncs, and other questions whether it still leads, that wait for the quorum's answer."
        learners Count "On the leader: voters and joining servers that were heard of since it last looked for its quorum, and observers that it feeds."
        warren_tree_differs Flag "1 while this server's tree is not what the log makes and a majority has: it serves nobody, and has to be rebuilt."
        leader_uptime Ms "On the leader: how long it leads."
        last_proposal_size Bytes "On the leader: the last log entry that it proposed; -1 when there was none since it leads, or since a reset."
        min_proposal_size Bytes "The same, of the smallest."
        max_proposal_size Bytes "The same, of the largest."
        warren_feeder_id Count "On an observer: the server that feeds it; 0 while none does, and on servers that vote."
        leader_id Count "The server that leads, as this one knows it; 0 when it knows none."
        warren_is_leader Flag "1 on the leader; summed over an ensemble it is 1, but for the moment of an election."
        warren_clock Ms "This server's wall clock, since 1970: `warren doctor` compares it with the other servers'."
        uptime Ms "Time since the server began to serve."
        process_resident_memory_bytes Bytes "Memory of the process that is in RAM."
        warren_disk_free_bytes Bytes "Free space on the disk of the data folder."
        warren_disk_below_reserve Flag "1 when free space is below storage.disk_reserve_mb and writes that grow data are refused: free space now."
        warren_disk_set_aside_bytes Bytes "Space that is set aside in the data folder, so that a checkpoint under way on a full disk can be finished; at 0 it is used up, or the file system cannot do it."
        warren_disk_waiting Flag "1 while the log or a checkpoint waits because the disk is full and nothing is set aside any more, and with it every write: free space now."
        warren_log_bytes Bytes "Size of the log's segments on disk."
        warren_tree_bytes Bytes "Size of the znode tree on disk."
        warren_tree_free_bytes Bytes "Space in the tree's file that new znodes take before it grows, at least; deletes add to it, and the disk's reserve counts it as free."
        warren_overlay_bytes Bytes "Memory of changes that wait for a checkpoint; writes slow down when it fills limits.memory_mb."
        warren_cache_bytes Bytes "Memory of cached znodes."
        warren_serving Flag "1 while clients are served: a leader was found since the start, and no stop has begun."
        warren_read_only Flag "1 while this server has no leader and serves reads alone, to clients that accept it."
        warren_links_up Count "Other servers to which the link is up."
        warren_links_down Count "Other servers to which there should be a link and is none; `warren status` says why. Observers need none to each other."
        warren_committed_index Count "The last log entry that this server knows to be committed, in an ensemble; behind the largest of them by how far the server lags."
        warren_connections_max Count "The limit client.connections_max; 0 is none."
        warren_sessions_max Count "The limit limits.sessions_max."
        warren_watches_max Count "The limit limits.watches_max."
        warren_outstanding_max Count "The limit limits.outstanding_max."
        process_start_time_seconds Seconds "When the process started, as seconds since 1970."
        warren_last_backup_timestamp_seconds Seconds "When the last backup of this server was begun that became a whole file, as seconds since 1970; 0 when there was none. Of an ensemble the newest counts."
        warren_last_backup_bytes Bytes "Size of that backup's file."
        warren_certificate_expires_seconds Seconds "When this server's certificate for the others ends, as seconds since 1970; 0 on a server that stands alone. Renew it before: the file is read again without a restart."
    }
    derived {
        avg_latency Ms "Time from a request's arrival to its answer, on average, since start or reset."
        min_latency Ms "The same, of the quickest request."
        max_latency Ms "The same, of the slowest request."
    }
    counters {
        packets_received Count "Packets that clients sent, four-letter words included."
        packets_sent Count "Packets sent to clients, watch events included."
        bytes_received_count Bytes "Bytes that clients sent."
        response_bytes Bytes "Bytes of answers."
        watch_bytes Bytes "Bytes of watch events."
        connection_request_count Count "Sessions asked for, new or to be renewed."
        connection_revalidate_count Count "Sessions that were renewed by a client that came back."
        connection_rejected Count "Connections closed at once because of client.connections_max or connections_per_address_max."
        connection_drop_count Count "Connections closed by the server or lost, for any reason but the client's closing of its session."
        sessionless_connections_expired Count "Connections closed because no session was asked for in time."
        warren_sessions_cut_off_total Count "Connections closed because this server had no contact with a leader for two thirds of their session's timeout, or 10 s: check the links between the servers."
        stale_sessions_expired Count "Sessions ended because their client was silent for longer than their timeout."
        auth_failed_count Count "Failed attempts to authenticate."
        large_requests_rejected Count "Connections closed because of a request above limits.packet_bytes_max."
        digest_mismatches_count Count "Other servers that were found to have another tree than this one behind the same log entry, each counted once until it agrees again. One of the two is wrong: see warren_tree_differs on both."
        looking_count Count "Times that this server looked for a leader; when it rises without restarts, the network or the disk is too slow for ensemble.tick_ms."
        warren_stalls_total Count "Times that the consensus thread came to its turn late, by half an election timeout or more: the machine stood still or is too busy, or a disk kept it waiting. An election may follow."
        snap_count Count "Whole trees that were sent to servers far behind."
        warren_snapshots_failed_total Count "Whole trees that could not be sent to the end; they are sent again."
        cnxn_closed_without_zk_server_running Count "Connections closed because this server had not found a leader yet."
        warren_cpu_ms_total Ms "Time that the process computed, on all cores together."
        warren_peers_refused_total Count "Links and messages of other servers that were refused; the log has the reasons."
        warren_certificates_reloaded_total Count "Times that changed certificates were taken into use."
        warren_certificate_failures_total Count "Times that changed certificates could not be used; those from before stay, and the log says why."
        warren_backups_failed_total Count "Backups of this server that were asked for and did not become a whole file: `warren backup` said why."
        proposal_count Count "Log entries proposed; each carries one request or many."
        commit_count Count "Log entries committed."
        warren_znode_too_large_total Count "Writes refused because a znode's data was above limits.znode_bytes_max; the log names the path."
        warren_quota_exceeded_total Count "Writes refused by a hard quota."
        warren_disk_refusals_total Count "Writes refused because the disk was below its reserve."
        warren_session_refusals_total Count "Sessions refused because of limits.sessions_max."
        warren_watch_refusals_total Count "Watches refused because of limits.watches_max."
        warren_reads_paused_total Count "Times that a connection was not read from because too many requests were outstanding."
        warren_cache_misses_total Count "Znodes that were read from disk; when they are many, raise limits.memory_mb."
    }
    tallies {
        node_created_watch_count Count "Watches that fired at a creation, for each that had any."
        node_deleted_watch_count Count "Watches that fired at a deletion, for each that had any."
        node_changed_watch_count Count "Watches that fired at a change of data, for each that had any."
        node_children_watch_count Count "Watches that fired at a change of children, for each that had any."
        sync_processor_batch_size Count "Requests that went to disk in one sync."
        startup_txns_loaded Count "Log entries replayed at start."
    }
    timings {
        fsynctime "Time to sync the log; above 100 ms the disk is too slow or shared."
        election_time "Time from the look for a leader to finding one."
        unavailable_time "Time without a leader that takes writes."
        snapshottime "Time to write a checkpoint; neither reads nor writes wait for it."
        dbinittime "Time to open the store at start."
        startup_txns_load_time "Time to replay the log at start."
    }
    advanced_timings {
        quorum_ack_latency "On the leader: time from the proposal of an entry to its quorum."
        proposal_latency "Time from the arrival of a write to its commit."
        readlatency "Time from a read's arrival to its answer; pings count too."
        updatelatency "Time from a write's arrival to its answer."
    }
    rooms {
        warren_admission_ms "The rooms of a write's walk, one: how long the oldest request of a batch waited for the consensus thread."
        warren_apply_ms "Five: time to apply a batch of committed entries."
        warren_reply_ms "Six: from the application of a batch to the turn of a connection that answers a write in it."
    }
    views {
        warren_log_sync_ms fsynctime "Two: time to write and sync the log, as in fsynctime."
        warren_quorum_ms quorum_ack_latency "Three, on the leader: from the proposal of an entry to its quorum, as in quorum_ack_latency."
        warren_commit_ms proposal_latency "Four: from the consensus thread's taking of a request to its commit, as in proposal_latency."
        warren_write_ms updatelatency "The whole walk: from a write's arrival to its answer, as in updatelatency."
        warren_read_ms readlatency "From a read's arrival to its answer, as in readlatency."
    }
}

const fn declared(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Declared {
    Declared { name, kind, unit, help }
}

/// Where a metric's value is.
#[derive(Clone, Copy)]
enum Figure<'a> {
    Gauge(&'a Gauge),
    Derived(&'static str),
    Counter(&'a Counter),
    Summary(&'a Summary),
    Histogram(&'a Summary),
}

impl Metrics {
    /// All requests since start or [`Metrics::reset`], as `srvr` tells them.
    pub fn request_latency(&self) -> LatencyMs {
        let (read, update) =
            (self.readlatency.summary().since_reset(), self.updatelatency.summary().since_reset());
        let both = read.merged(update);
        LatencyMs { min: both.min_whole(), avg: both.avg(), max: both.max_whole() }
    }

    /// Syncs of the log, likewise.
    pub fn sync_latency(&self) -> LatencyMs {
        let seen = self.fsynctime.summary().since_reset();
        LatencyMs { min: seen.min_whole(), avg: seen.avg(), max: seen.max_whole() }
    }

    /// A leader proposed an entry of so many bytes.
    pub fn proposed(&self, bytes: usize) {
        let bytes = bytes as i64;
        self.last_proposal_size.set(bytes);
        self.max_proposal_size.set(bytes.max(self.max_proposal_size.value()));
        let min = self.min_proposal_size.value();
        self.min_proposal_size.set(if min < 0 { bytes } else { bytes.min(min) });
    }

    /// This server begins to lead, or to count anew.
    pub fn forget_proposals(&self) {
        for size in [&self.last_proposal_size, &self.min_proposal_size, &self.max_proposal_size] {
            size.set(-1);
        }
    }

    /// For `mntr`: name without `zk_`, and value as ZooKeeper's default provider prints it. Times are whole
    /// milliseconds, averages have four places.
    pub fn mntr_lines(&self) -> Vec<(String, String)> {
        let latency = self.request_latency();
        let mut lines = Vec::new();
        for (declared, figure) in DECLARED.iter().zip(self.figures()) {
            let name = declared.name;
            match figure {
                Figure::Gauge(gauge) => lines.push((name.to_owned(), gauge.value().to_string())),
                Figure::Counter(counter) => lines.push((name.to_owned(), counter.since_reset().to_string())),
                Figure::Derived("avg_latency") => {
                    lines.push((name.to_owned(), crate::words::decimal(latency.avg)))
                }
                Figure::Derived("min_latency") => lines.push((name.to_owned(), latency.min.to_string())),
                Figure::Derived(_) => lines.push((name.to_owned(), latency.max.to_string())),
                Figure::Histogram(_) => {}
                Figure::Summary(summary) => {
                    let seen = summary.since_reset();
                    lines.push((format!("avg_{name}"), crate::words::decimal(seen.avg())));
                    lines.push((format!("min_{name}"), seen.min_whole().to_string()));
                    lines.push((format!("max_{name}"), seen.max_whole().to_string()));
                    lines.push((format!("cnt_{name}"), seen.count().to_string()));
                    lines.push((format!("sum_{name}"), seen.sum_whole().to_string()));
                    if declared.kind == Kind::AdvancedSummary {
                        for (label, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)]
                        {
                            // A bucket's middle can lie above the largest value in it.
                            let value = seen.quantile(quantile).unwrap_or(0.0).round() as u64;
                            lines.push((format!("{label}_{name}"), value.min(seen.max_whole()).to_string()));
                        }
                    }
                }
            }
        }
        lines
    }

    /// `srst`: begin anew for `mntr` and `srvr`. Prometheus goes on counting, for a counter that falls is a restart
    /// to it.
    pub fn reset(&self) {
        for figure in self.figures() {
            match figure {
                Figure::Counter(counter) => counter.reset(),
                Figure::Summary(summary) => summary.reset(),
                Figure::Gauge(_) | Figure::Derived(_) | Figure::Histogram(_) => {}
            }
        }
        self.forget_proposals();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn every_metric_has_a_name_of_its_own_and_says_what_it_tells() {
        let mut names = BTreeSet::new();
        for Declared { name, unit, help, kind } in DECLARED {
            assert!(names.insert(name), "{name} is declared twice");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            assert!(help.ends_with('.') && help.len() > 15, "{name}: {help}");
            let ours = name.starts_with("warren_");
            if *kind == Kind::Counter && ours {
                assert!(name.ends_with("_total"), "{name}");
            }
            if *unit == Unit::Bytes && ours {
                assert!(name.ends_with("_bytes"), "{name}");
            }
        }
        assert_eq!(Metrics::default().figures().len(), DECLARED.len());
        // What dashboards and alerts ask for.
        for asked in "znode_count watch_count ephemerals_count approximate_data_size outstanding_requests avg_latency \
            min_latency max_latency num_alive_connections global_sessions packets_received packets_sent uptime \
            open_file_descriptor_count max_file_descriptor_count fsynctime snapshottime dbinittime readlatency \
            updatelatency connection_rejected connection_drop_count stale_sessions_expired bytes_received_count"
            .split_whitespace()
        {
            assert!(names.contains(&asked), "{asked}");
        }
    }

    fn line<'a>(lines: &'a [(String, String)], name: &str) -> &'a str {
        &lines.iter().find(|(key, _)| key == name).unwrap_or_else(|| panic!("no {name}")).1
    }

    #[test]
    fn mntr_says_what_was_counted() {
        let metrics = Metrics::default();
        metrics.znode_count.set(5);
        metrics.packets_received.add(3);
        metrics.fsynctime.record(Duration::from_micros(1_300));
        metrics.fsynctime.record(Duration::from_micros(2_000));
        metrics.readlatency.record_many(Duration::from_millis(1), 99);
        metrics.readlatency.record(Duration::from_millis(40));
        metrics.updatelatency.record(Duration::from_micros(10));
        metrics.node_changed_watch_count.record(1_000);
        let lines = metrics.mntr_lines();
        for (name, value) in [
            ("znode_count", "5"),
            ("packets_received", "3"),
            ("avg_fsynctime", "1.65"),
            ("min_fsynctime", "1"),
            ("max_fsynctime", "2"),
            ("cnt_fsynctime", "2"),
            ("sum_fsynctime", "3"),
            ("avg_readlatency", "1.39"),
            ("max_readlatency", "40"),
            ("p50_readlatency", "1"),
            ("p99_readlatency", "1"),
            ("p999_readlatency", "40"),
            ("min_latency", "0"),
            ("max_latency", "40"),
            ("avg_latency", "1.3763"),
            ("sum_node_changed_watch_count", "1000"),
            ("avg_dbinittime", "0.0"),
            ("min_dbinittime", "0"),
        ] {
            assert_eq!(line(&lines, name), value, "{name}");
        }
        assert!(!lines.iter().any(|(name, _)| name == "p50_fsynctime"), "a basic summary has no quantiles");
    }

    #[test]
    fn proposals_are_told_by_size() {
        let metrics = Metrics::default();
        let sizes = || {
            let sizes = [&metrics.last_proposal_size, &metrics.min_proposal_size, &metrics.max_proposal_size];
            sizes.map(Gauge::value)
        };
        metrics.forget_proposals();
        assert_eq!(sizes(), [-1, -1, -1]);
        for bytes in [70, 30, 50] {
            metrics.proposed(bytes);
        }
        assert_eq!(sizes(), [50, 30, 70]);
        metrics.reset();
        assert_eq!(sizes(), [-1, -1, -1]);
    }

    #[test]
    fn a_reset_begins_anew_but_keeps_gauges() {
        let metrics = Metrics::default();
        metrics.znode_count.set(5);
        metrics.packets_sent.add(7);
        metrics.readlatency.record(Duration::from_millis(9));
        metrics.reset();
        metrics.readlatency.record(Duration::from_millis(2));
        metrics.packets_sent.add(1);
        let lines = metrics.mntr_lines();
        assert_eq!(line(&lines, "znode_count"), "5");
        assert_eq!(line(&lines, "packets_sent"), "1");
        assert_eq!((line(&lines, "max_readlatency"), line(&lines, "cnt_readlatency")), ("2", "1"));
        assert_eq!((line(&lines, "sum_readlatency"), line(&lines, "p50_readlatency")), ("2", "2"));
        assert_eq!((metrics.packets_sent.value(), metrics.request_latency().max), (8, 2));
    }
}
