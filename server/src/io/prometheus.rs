//! Metrics over HTTP, at `/metrics`.

use super::facts::Registry;
use crate::metrics::Publisher;
use metrics_exporter_prometheus::PrometheusBuilder;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often what Prometheus reads is brought up to date.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Serve metrics from now on.
///
/// # Errors
/// When the address cannot be bound.
pub(super) fn serve(
    registry: Arc<Registry>,
    metrics: Arc<crate::metrics::Metrics>,
    addr: SocketAddr,
) -> std::io::Result<()> {
    // The exporter binds in its task, where an error is seen too late; so try it here first.
    drop(std::net::TcpListener::bind(addr)?);
    let (recorder, exporter) =
        PrometheusBuilder::new().with_http_listener(addr).build().map_err(std::io::Error::other)?;
    metrics::set_global_recorder(recorder).map_err(std::io::Error::other)?;
    tokio::spawn(async move {
        if exporter.await.is_err() {
            tracing::error!("metrics are no longer served");
        }
    });
    let mut publisher = Publisher::register(metrics);
    tokio::spawn(async move {
        let mut timer = tokio::time::interval(PUBLISH_EVERY);
        loop {
            timer.tick().await;
            registry.measure();
            publisher.publish(Instant::now());
        }
    });
    Ok(())
}
