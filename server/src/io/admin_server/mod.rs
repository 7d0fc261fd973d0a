//! The AdminServer's socket; see [`crate::admin_server`]. A connection is one request, so that what it may cost is bounded
//! by a few limits: how many there are at a time, how long its head may be and take, and how long all of it may take.

mod answers;

use super::facts::Registry;
use crate::admin_server::{self, Answer, Method};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 32;
/// A request's head at most, bytes. A longer one is answered with status 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A request's head must be here by then.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// A connection lasts no longer, however slowly its other end reads.
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
/// After a failed accept (no more file descriptors, say) the next try comes this much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Answer from now on, on a listener that is bound.
pub(super) fn serve(registry: Arc<Registry>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let Ok((stream, peer)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                tracing::debug!(%peer, "the AdminServer has too many connections");
                continue;
            };
            let registry = registry.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| answer(&registry, request));
                let talk = hyper::server::conn::http1::Builder::new()
                    .keep_alive(false)
                    .max_buf_size(HEAD_BYTES_MAX)
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_WITHIN)
                    .serve_connection(TokioIo::new(stream), service);
                match tokio::time::timeout(CONNECTION_WITHIN, talk).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => tracing::debug!(%peer, "a request to the AdminServer failed: {e}"),
                    Err(_) => tracing::debug!(%peer, "a request to the AdminServer took too long"),
                }
                drop(place);
            });
        }
    });
}

async fn answer(
    registry: &Registry,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = match *request.method() {
        hyper::Method::GET | hyper::Method::HEAD => Method::Get,
        hyper::Method::POST => Method::Post,
        _ => Method::Other,
    };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let asked = admin_server::route(&registry.config.admin.command_url, method, path);
    let Answer { status, content_type, body } = registry.answer_http(asked).await;
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).expect("ours are HTTP's");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type.parse().expect("plain ASCII"));
    headers.insert(CACHE_CONTROL, "no-store".parse().expect("plain ASCII"));
    Ok(response)
}
