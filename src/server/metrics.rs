//! What the registry has done since it was started, in the text format of Prometheus.
//!
//! Requests by method, kind of path and status, and how long it took until their answers began; bytes on the wire, TLS
//! and headers with them. Names, tags and addresses of clients appear nowhere: what has a series is a closed set.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::{
    Registry,
    protocol::{Refusal, Reply, full},
};

/// The upper ends of the durations that are told apart, in seconds: from a small document on a fast disk to a large
/// blob on a slow line.
const LIMITS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0];

const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<Kind, u64>>,
    durations: Mutex<BTreeMap<(&'static str, &'static str), Durations>>,
    pub(super) traffic: Arc<Traffic>,
}

/// The bytes on the wire.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// Method, route and status.
type Kind = (&'static str, &'static str, u16);

#[derive(Debug, Default)]
struct Durations {
    /// How many were not over each of the limits, and over none of those before.
    counts: [u64; LIMITS.len()],
    all: u64,
    seconds: f64,
}

impl Metrics {
    /// Counts a request whose answer begins now.
    pub(super) fn count(&self, method: &Method, route: &'static str, status: StatusCode, took: Duration) {
        let (method, seconds) = (name(method), took.as_secs_f64());
        *self.requests.lock().entry((method, route, status.as_u16())).or_default() += 1;
        let mut durations = self.durations.lock();
        let durations = durations.entry((method, route)).or_default();
        if let Some(at) = LIMITS.iter().position(|limit| seconds <= *limit) {
            durations.counts[at] += 1;
        }
        durations.all += 1;
        durations.seconds += seconds;
    }

    /// Writes them down. The uploads that are open are unknown if what holds them does not answer.
    fn to_text(&self, uploads: Option<usize>) -> String {
        let mut text = String::new();
        begin(&mut text, "requests_total", "counter", "Requests by method, kind of path and status.");
        for ((method, route, status), count) in &*self.requests.lock() {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            line(&mut text, "requests_total", &labels, count);
        }
        let name = "request_duration_seconds";
        begin(&mut text, name, "histogram", "Time until the answer to a request began.");
        for ((method, route), durations) in &*self.durations.lock() {
            let labels = format!("method=\"{method}\",route=\"{route}\"");
            let mut below = 0;
            for (limit, count) in LIMITS.iter().zip(durations.counts) {
                below += count;
                line(&mut text, &format!("{name}_bucket"), &format!("{labels},le=\"{limit}\""), below);
            }
            line(&mut text, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), durations.all);
            line(&mut text, &format!("{name}_sum"), &labels, durations.seconds);
            line(&mut text, &format!("{name}_count"), &labels, durations.all);
        }
        for (name, count, help) in [
            ("received_bytes_total", &self.traffic.received, "Bytes from clients."),
            ("sent_bytes_total", &self.traffic.sent, "Bytes to clients."),
        ] {
            begin(&mut text, name, "counter", help);
            line(&mut text, name, "", count.load(Ordering::Relaxed));
        }
        if let Some(uploads) = uploads {
            begin(&mut text, "open_uploads", "gauge", "Uploads that are not finished, of all processes.");
            line(&mut text, "open_uploads", "", uploads);
        }
        text
    }
}

impl Registry {
    /// `GET /metrics`
    pub(super) async fn get_metrics(&self) -> Result<Reply, Refusal> {
        // What is counted here is most wanted where something does not answer.
        let uploads = self.storage.count_uploads().await.ok();
        Ok(full(MEDIA_TYPE, self.metrics.to_text(uploads).into()))
    }
}

/// Clients may write any method.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::DELETE => "DELETE",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PATCH => "PATCH",
        Method::POST => "POST",
        Method::PUT => "PUT",
        _ => "other",
    }
}

fn begin(text: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(text, "# HELP longshore_{name} {help}\n# TYPE longshore_{name} {kind}").unwrap_or_default();
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    writeln!(text, "longshore_{name}{braces} {value}").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told() {
        let metrics = Metrics::default();
        for milliseconds in [1, 3, 700_000] {
            metrics.count(&Method::GET, "blob", StatusCode::OK, Duration::from_millis(milliseconds));
        }
        let odd = Method::from_bytes(b"BREW\"").unwrap_or(Method::CONNECT);
        metrics.count(&odd, "none", StatusCode::METHOD_NOT_ALLOWED, Duration::ZERO);
        metrics.traffic.sent.fetch_add(7, Ordering::Relaxed);
        let text = metrics.to_text(Some(2));
        for line in [
            "# TYPE longshore_requests_total counter",
            "longshore_requests_total{method=\"GET\",route=\"blob\",status=\"200\"} 3",
            "longshore_requests_total{method=\"other\",route=\"none\",status=\"405\"} 1",
            "# TYPE longshore_request_duration_seconds histogram",
            "longshore_request_duration_seconds_bucket{method=\"GET\",route=\"blob\",le=\"0.001\"} 1",
            "longshore_request_duration_seconds_bucket{method=\"GET\",route=\"blob\",le=\"0.005\"} 2",
            "longshore_request_duration_seconds_bucket{method=\"GET\",route=\"blob\",le=\"600\"} 2",
            "longshore_request_duration_seconds_bucket{method=\"GET\",route=\"blob\",le=\"+Inf\"} 3",
            "longshore_request_duration_seconds_sum{method=\"GET\",route=\"blob\"} 700.004",
            "longshore_request_duration_seconds_count{method=\"GET\",route=\"blob\"} 3",
            "longshore_received_bytes_total 0",
            "longshore_sent_bytes_total 7",
            "longshore_open_uploads 2",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in\n{text}");
        }
        assert!(!metrics.to_text(None).contains("open_uploads"));
    }
}
