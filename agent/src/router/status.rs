//! The router's own HTTP endpoint: is it alive, is it ready, what does it believe, what has it counted.
//!
//! `/liveness` is 200 while the process answers. `/` and `/readiness` are 200 while a client of each open door would be connected rather
//! than wait, else 503. `/metrics` is Prometheus' text format.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::figures::CLASSES;
use super::follow::STALE;
use super::hub::Hub;
use super::table::{Door, Refusal};
use super::target::Target;
use crate::net::Listener;
use crate::prometheus::Page;
use crate::task::Spawn;

/// Requests that are answered at once; more are closed.
const MOST: usize = 64;
/// For a request to arrive, and for a connection to be used again.
const HEADER_LIMIT: Duration = Duration::from_secs(10);

/// What the endpoint tells.
pub(super) struct Status {
    pub(super) hub: Arc<Hub>,
    pub(super) doors: Vec<Door>,
    pub(super) scope: String,
    pub(super) dropped: Arc<AtomicU64>,
}

/// Serves until the future is dropped.
pub(super) async fn serve(status: Arc<Status>, mut listener: Box<dyn Listener>, tasks: Arc<dyn Spawn>) {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the router's HTTP endpoint cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let status = Arc::clone(&status);
        tasks.spawn(Box::pin(async move {
            let service = hyper::service::service_fn(move |request| {
                let status = Arc::clone(&status);
                async move { Ok::<_, Infallible>(status.answer(&request)) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_LIMIT)
                .half_close(true)
                .auto_date_header(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection of the router's HTTP endpoint ended early");
            }
            drop(permit);
        }));
    }
}

impl Status {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let (code, kind, body) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, path) => match path.trim_end_matches('/') {
                "/liveness" => (StatusCode::OK, "text/plain", String::new()),
                "" | "/readiness" => {
                    let code = if self.ready() {
                        StatusCode::OK
                    } else {
                        StatusCode::SERVICE_UNAVAILABLE
                    };
                    (code, "application/json", format!("{}\n", self.document()))
                }
                "/metrics" => (StatusCode::OK, "text/plain; version=0.0.4", self.metrics()),
                _ => (
                    StatusCode::NOT_FOUND,
                    "text/plain",
                    "there are /, /liveness, /readiness and /metrics\n".to_owned(),
                ),
            },
            _ => (
                StatusCode::METHOD_NOT_ALLOWED,
                "text/plain",
                "GET only\n".to_owned(),
            ),
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = code;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    fn target(&self, door: Door) -> Target {
        self.hub.look(|table, now| table.target(now, door))
    }

    /// A client of each open door would be connected.
    fn ready(&self) -> bool {
        let connects = |door: &Door| matches!(self.target(*door), Target::To(_));
        self.doors.iter().all(connects)
    }

    fn document(&self) -> Value {
        let (open, waiting) = self.hub.look(|table, _| table.census());
        let door = |door: &Door| {
            let (to, why) = match self.target(*door) {
                Target::To(backend) => (Some(backend.name), None),
                Target::Try(backend) => (Some(backend.name), Some("being tried")),
                Target::Wait(why) => (None, Some(why.text())),
            };
            let sessions: serde_json::Map<String, Value> = open
                .iter()
                .filter(|((at, _), _)| at == door)
                .map(|((_, name), count)| (name.clone(), json!(count)))
                .collect();
            let fields = json!({
                "member": to, "why": why, "sessions": sessions, "waiting": waiting.get(door),
            });
            (door.name().to_owned(), fields)
        };
        let age = self.hub.age();
        json!({
            "scope": self.scope,
            "etcd": {
                "age_seconds": age.map(|age| age.as_secs_f64()),
                "stale": age.is_none_or(|age| STALE <= age),
            },
            "doors": self.doors.iter().map(door).collect::<serde_json::Map<_, _>>(),
        })
    }

    fn metrics(&self) -> String {
        let mut page = Page::new(&[("scope", &self.scope)]);
        let (figures, (open, waiting)) = self
            .hub
            .look(|table, _| (table.figures().clone(), table.census()));
        let age = self.hub.age();
        page.metric(
            "surus_router_etcd_age_seconds",
            "gauge",
            "Seconds since the cluster's keys were last known to be current; -1 if they never were.",
        );
        page.value(&[], age.map_or(-1.0, |age| age.as_secs_f64()));
        page.metric(
            "surus_router_primary",
            "gauge",
            "1 for the member that new sessions of the primary's door go to; none while they wait.",
        );
        if let Target::To(backend) | Target::Try(backend) = self.target(Door::Primary) {
            page.value(&[("member", &backend.name)], 1);
        }
        page.metric(
            "surus_router_sessions",
            "gauge",
            "Sessions that are open or being opened on a member.",
        );
        for ((door, name), count) in &open {
            page.value(&[("door", door.name()), ("member", name)], count);
        }
        page.metric("surus_router_waiting", "gauge", "Clients that wait for a member.");
        for door in &self.doors {
            page.value(&[("door", door.name())], waiting.get(door).copied().unwrap_or(0));
        }
        for (name, help, counts) in [
            (
                "surus_router_opened_total",
                "Sessions that a member took.",
                &figures.opened,
            ),
            (
                "surus_router_failed_total",
                "Attempts that a member did not take, and that were repeated.",
                &figures.failed,
            ),
        ] {
            page.metric(name, "counter", help);
            for ((door, member), count) in counts {
                page.value(&[("door", door.name()), ("member", member)], count);
            }
        }
        self.doors_metrics(&mut page, &figures);
        page.metric(
            "surus_router_dropped_total",
            "counter",
            "Connections that were closed unheard, for want of room.",
        );
        page.value(&[], self.dropped.load(Ordering::Relaxed));
        page.text()
    }

    fn doors_metrics(&self, page: &mut Page, figures: &super::figures::Figures) {
        let doors: Vec<_> = self
            .doors
            .iter()
            .map(|door| (door.name(), figures.at(*door), self.hub.traffic(*door)))
            .collect();
        page.metric(
            "surus_router_clients_total",
            "counter",
            "Clients that asked for a session.",
        );
        for (door, counts, _) in &doors {
            page.value(&[("door", door)], counts.accepted);
        }
        page.metric(
            "surus_router_refused_total",
            "counter",
            "Clients that were sent away, by reason.",
        );
        for (door, counts, _) in &doors {
            for (why, reason) in [
                (Refusal::TooMany, "max_connections"),
                (Refusal::TooManyWaiting, "max_waiting"),
                (Refusal::Expired, "hold"),
            ] {
                let count = counts.refused.get(&why).copied().unwrap_or(0);
                page.value(&[("door", door), ("reason", reason)], count);
            }
        }
        page.metric(
            "surus_router_reset_total",
            "counter",
            "Sessions that were ended because their server was deposed.",
        );
        for (door, counts, _) in &doors {
            page.value(&[("door", door)], counts.reset);
        }
        page.metric(
            "surus_router_gave_up_total",
            "counter",
            "Clients that left while they waited.",
        );
        for (door, counts, _) in &doors {
            page.value(&[("door", door)], counts.gave_up);
        }
        page.metric(
            "surus_router_bytes_total",
            "counter",
            "Bytes passed on, by direction.",
        );
        for (door, _, traffic) in &doors {
            page.value(
                &[("door", door), ("direction", "to_server")],
                traffic.sent.load(Ordering::Relaxed),
            );
            page.value(
                &[("door", door), ("direction", "to_client")],
                traffic.received.load(Ordering::Relaxed),
            );
        }
        page.metric(
            "surus_router_held_seconds",
            "histogram",
            "How long clients waited, of those that had to.",
        );
        for (door, counts, _) in &doors {
            let mut below = 0;
            for (bound, count) in CLASSES.iter().zip(counts.held.classes) {
                below += count;
                let bound = Duration::from_millis(*bound).as_secs_f64().to_string();
                page.part("_bucket", &[("door", door), ("le", &bound)], below);
            }
            page.part("_bucket", &[("door", door), ("le", "+Inf")], counts.held.count);
            page.part("_sum", &[("door", door)], counts.held.sum.as_secs_f64());
            page.part("_count", &[("door", door)], counts.held.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::{Cluster, Leader, Member, Role, State};
    use super::super::table::Rules;
    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use crate::config::settings::HostPort;

    fn status() -> Status {
        let rules = Rules {
            hold: Duration::from_secs(1),
            max_waiting: 10,
            max_connections: 10,
            maximum_lag: None,
            fall_back: false,
        };
        Status {
            hub: Hub::new(rules, Arc::new(SystemClock)),
            doors: vec![Door::Primary],
            scope: "a \"demo\"".to_owned(),
            dropped: Arc::default(),
        }
    }

    fn get(status: &Status, path: &str) -> u16 {
        status
            .answer(&Request::get(path).body(()).unwrap())
            .status()
            .as_u16()
    }

    #[tokio::test]
    async fn it_is_ready_when_a_client_would_be_connected() {
        let status = status();
        assert_eq!(
            (get(&status, "/liveness"), get(&status, "/readiness")),
            (200, 503)
        );
        assert!(
            status
                .metrics()
                .contains("surus_router_etcd_age_seconds{scope=\"a \\\"demo\\\"\"} -1\n")
        );
        let waits = status.hub.arrive(Door::Primary, true);
        let member = Member {
            at: HostPort {
                host: "10.0.0.1".to_owned(),
                port: 5432,
            },
            role: Role::Primary,
            state: State::Running,
            streaming: false,
            balanced: true,
            lag: 0,
        };
        let leader = Leader {
            name: "n1".to_owned(),
            reign: 1,
        };
        assert_eq!(status.document()["doors"]["primary"]["waiting"], 1);
        status.hub.confirm(SystemClock.now());
        status.hub.view(Cluster {
            leader: Some(leader),
            stopping: None,
            members: [("n1".to_owned(), member)].into(),
        });
        assert_eq!((get(&status, "/"), get(&status, "/readiness")), (200, 200));
        let document = status.document();
        assert_eq!(document["doors"]["primary"]["member"], "n1");
        assert_eq!(document["doors"]["primary"]["sessions"]["n1"], 1);
        assert_eq!(document["etcd"]["stale"], false);
        drop(waits);
        assert_eq!((get(&status, "/nothing"), get(&status, "/metrics")), (404, 200));
        let post = Request::post("/").body(()).unwrap();
        assert_eq!(status.answer(&post).status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn every_line_of_the_metrics_is_in_prometheus_format() {
        let page = status().metrics();
        let mut named = String::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                named = rest.split(' ').next().unwrap().to_owned();
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(series.starts_with(&named) && series.ends_with('}'), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        for name in [
            "primary",
            "sessions",
            "waiting",
            "opened_total",
            "refused_total",
            "reset_total",
            "held_seconds",
        ] {
            assert!(page.contains(&format!("# TYPE surus_router_{name} ")), "{name}");
        }
    }
}
