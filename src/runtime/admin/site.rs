//! The admin listener's replies: what each path returns, and refusals. Reads counters; does no I/O
//! and keeps no deadlines.

use super::readiness::Readiness;
use crate::engine::observe::counters::Counters;
use crate::engine::observe::metrics;
use crate::engine::observe::snapshot::{EngineState, Facts, Rates, Sample, Snapshot};
use crate::runtime::host::proc_files;
use http_body_util::Full;
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

const INDEX: &str = "ringest admin listener\n\n\
    /metrics      metrics for Prometheus\n\
    /stats.json   the same state as JSON, with rates and percentiles\n\
    /healthz      200 while the process is up\n\
    /readyz       200 while it accepts connections, 503 once it is stopping\n";

/// What the admin listener reports on.
pub struct AdminState {
    /// All counters.
    pub counters: Arc<Counters>,
    /// Core of each worker, in the order of the counters.
    pub cores: Vec<usize>,
    /// Holds an instant once the engine has been told to stop.
    pub drain: watch::Receiver<Option<Instant>>,
    /// Whether it is about to stop, and whether anybody has asked.
    pub readiness: Arc<Readiness>,
    /// When the engine started.
    pub started: Instant,
}

/// The state to report, and the rates of the last second.
pub(crate) struct Site {
    state: AdminState,
    started: Duration,
    last: RefCell<(Sample, Rates)>,
}

impl Site {
    /// A site that reports `state`.
    pub(crate) fn new(state: AdminState) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let started = since_1970.unwrap_or_default().saturating_sub(state.started.elapsed());
        let sample = Sample::take(&state.counters, Instant::now());
        Site { state, started, last: RefCell::new((sample, Rates::default())) }
    }

    /// Sets the rates to those since the previous call.
    pub(crate) fn sample(&self, now: Instant) {
        let sample = Sample::take(&self.state.counters, now);
        self.last.replace_with(|(earlier, _)| {
            let rates = sample.since(earlier);
            (sample, rates)
        });
    }

    /// The reply to a request. Requests with a body are refused, and the body is not read.
    pub(crate) fn reply<B: Body>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/" | "/metrics" | "/stats.json" | "/healthz" | "/readyz") {
            return refused(request, StatusCode::NOT_FOUND, "no such path; / lists the paths");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response =
                refused(request, StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if has_body(request) {
            let message = "requests must have no body";
            return refused(request, StatusCode::PAYLOAD_TOO_LARGE, message);
        }
        match path {
            "/metrics" => self.metrics(),
            "/stats.json" => self.stats(),
            "/healthz" => response(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => self.readiness(),
            _ => response(StatusCode::OK, TEXT, INDEX),
        }
    }

    /// The reply on a connection that is kept for questions about health, which it ends.
    pub(crate) fn reply_about_health<B: Body>(
        &self,
        request: &Request<B>,
    ) -> Response<Full<Bytes>> {
        let mut response = match request.uri().path() {
            "/healthz" | "/readyz" => self.reply(request),
            _ => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many admin connections\n"),
        };
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    fn engine_state(&self) -> EngineState {
        match self.state.readiness.is_leaving() || self.state.drain.borrow().is_some() {
            true => EngineState::Draining,
            false => EngineState::Ready,
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        self.state.readiness.note_question();
        match self.engine_state() {
            EngineState::Ready => response(StatusCode::OK, TEXT, "ready\n"),
            EngineState::Draining => {
                let message = "draining: send new connections elsewhere\n";
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, message)
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let facts = Facts {
            state: self.engine_state(),
            uptime: self.state.started.elapsed(),
            started: self.started,
            resident_bytes: proc_files::resident_bytes(),
            cores: &self.state.cores,
        };
        Snapshot::take(&self.state.counters, &facts, &self.last.borrow().1)
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        match metrics::exposition(self.snapshot()) {
            Ok(text) => response(StatusCode::OK, metrics::CONTENT_TYPE, text),
            Err(error) => defect(&error),
        }
    }

    fn stats(&self) -> Response<Full<Bytes>> {
        match serde_json::to_string_pretty(&self.snapshot()) {
            Ok(json) => response(StatusCode::OK, JSON, json + "\n"),
            Err(error) => defect(&error),
        }
    }
}

fn has_body<B: Body>(request: &Request<B>) -> bool {
    !request.body().is_end_stream()
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A refusal. If the request has a body, the connection closes: the unread body would be taken for
/// the next request.
fn refused<B: Body>(
    request: &Request<B>,
    status: StatusCode,
    message: &str,
) -> Response<Full<Bytes>> {
    let mut response = response(status, TEXT, format!("{message}\n"));
    if has_body(request) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn defect(error: &dyn std::error::Error) -> Response<Full<Bytes>> {
    tracing::error!("cannot report the state: {error}; this is a bug, please report it");
    response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "internal error; see the engine's log\n")
}
