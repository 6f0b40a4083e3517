//! The HTTP side of metrics: each connection is a task of one thread.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::{Scrape, render};

/// Connections at the same time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 32;

/// How long a client may take for the head of a request, and an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a report is waited for: the control loop may be building tables. Prometheus itself gives
/// up after 10 s unless told otherwise.
const REPORT_TIMEOUT: Duration = Duration::from_secs(8);

/// How long to wait after the system refused a connection, as it does when files run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The format of the page.
/// Source: Prometheus, "Exposition formats", text format 0.0.4.
const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Serves until the listener cannot be used.
pub(super) async fn serve(listener: TcpListener, ask: Sender<Scrape>) -> io::Error {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return io::ErrorKind::BrokenPipe.into();
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a scrape of the metrics was not accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let ask = ask.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, &ask));
            // What a client does wrong with HTTP is its own affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    ask: &Sender<Scrape>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = page(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    if request.uri().path() == "/health" {
        return Ok(page(StatusCode::OK, "OK"));
    }
    let (scrape, report) = oneshot::channel();
    if ask.try_send(Scrape(scrape)).is_err() {
        return Ok(page(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n"));
    }
    Ok(match timeout(REPORT_TIMEOUT, report).await {
        Ok(Ok(report)) => {
            let mut response = page(StatusCode::OK, render(&report));
            response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
            response
        }
        Ok(Err(_)) => page(StatusCode::SERVICE_UNAVAILABLE, "the router is stopping\n"),
        Err(_) => page(StatusCode::SERVICE_UNAVAILABLE, "the router is busy\n"),
    })
}

fn page(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
