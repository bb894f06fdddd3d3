//! Which handler answers: the first component of the path for some, everything else is a health check.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, DATE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::Value;

use super::answer::Answer;
use super::body::{self, Need};
use super::health;
use super::metrics::metrics;
use super::query::Query;
use super::server::{Connection, Shared};
use super::status_json::status_json;
use super::{actions, dynamic, failover, restart, security, time_text};
use crate::topology::cluster_json;

/// Answers a request.
pub(super) async fn handle(
    shared: &Shared,
    connection: &Connection,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let bodiless = method == Method::HEAD || method == Method::OPTIONS;
    let answer = if bodiless || method == Method::GET {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        read(shared, &path, &query, request.headers()).await
    } else {
        match Deed::of(&method, first_component(&path)) {
            Some(deed) => execute(shared, connection, deed, request)
                .await
                .unwrap_or_else(|refusal| refusal),
            None => Answer::text(
                StatusCode::NOT_IMPLEMENTED,
                format!("Unsupported method ('{method}') for {path}"),
            ),
        }
    };
    tracing::debug!(peer = %connection.peer, %method, path, status = answer.status.as_u16(), "request");
    let mut response = answer.into_response(bodiless);
    let headers = response.headers_mut();
    headers.extend(shared.live().headers(connection.tls).clone());
    if let Ok(date) = HeaderValue::try_from(time_text::http(shared.backend.wall())) {
        headers.insert(DATE, date);
    }
    response
}

fn first_component(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

async fn read(shared: &Shared, path: &str, query: &Query, headers: &HeaderMap) -> Answer {
    if first_component(path) == "patroni" && query.get("fresh").is_some() {
        shared.backend.look().await;
    }
    let status = shared.status();
    let now = shared.backend.now();
    let document = || status_json(&status, now, shared.restarts.document());
    match first_component(path) {
        "liveness" => Answer::empty(health::liveness(&status, now)),
        "readiness" => Answer::empty(health::readiness(query, &status, now)),
        "patroni" => Answer::json(StatusCode::OK, &document()),
        "metrics" => Answer::metrics(metrics(&status, now)),
        "cluster" => match shared.read_cluster().await {
            Ok(snapshot) => Answer::json(StatusCode::OK, &cluster_json(&snapshot.raw, &status.scope)),
            Err(error) => Answer::text(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        },
        "history" => {
            let history = status
                .cluster
                .as_ref()
                .map_or(Value::Array(Vec::new()), |seen| seen.value.history());
            Answer::json(StatusCode::OK, &history)
        }
        "config" => dynamic::get(shared).await,
        "failsafe" => actions::failsafe_members(&status),
        "explain" => {
            let Some(explanation) = shared.backend.explain().await else {
                return Answer::text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the agent does not answer: it is starting, ending, or kept from running",
                );
            };
            let wants_text = query.names("text")
                || headers
                    .get(ACCEPT)
                    .and_then(|accept| accept.to_str().ok())
                    .is_some_and(|accept| accept.trim_start().starts_with("text/plain"));
            if wants_text {
                Answer::text(StatusCode::OK, explanation.text)
            } else {
                Answer::json(StatusCode::OK, &explanation.json)
            }
        }
        _ => Answer::json(health::health(path, query, &status, now), &document()),
    }
}

/// What an unsafe method does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    PatchConfig,
    PutConfig,
    Switchover,
    Failover,
    DeleteSwitchover,
    Restart,
    DeleteRestart,
    Reload,
    Reinitialize,
    Failsafe,
}

impl Deed {
    fn of(method: &Method, component: &str) -> Option<Self> {
        Some(match (method.as_str(), component) {
            ("PATCH", "config") => Self::PatchConfig,
            ("PUT", "config") => Self::PutConfig,
            ("POST", "switchover") => Self::Switchover,
            ("POST", "failover") => Self::Failover,
            ("DELETE", "switchover") => Self::DeleteSwitchover,
            ("POST", "restart") => Self::Restart,
            ("DELETE", "restart") => Self::DeleteRestart,
            ("POST", "reload") => Self::Reload,
            ("POST", "reinitialize") => Self::Reinitialize,
            ("POST", "failsafe") => Self::Failsafe,
            _ => return None,
        })
    }

    fn body(self) -> Option<Need> {
        match self {
            Self::PatchConfig | Self::PutConfig | Self::Switchover | Self::Failover | Self::Failsafe => {
                Some(Need::Required)
            }
            Self::Restart | Self::Reinitialize => Some(Need::Optional),
            Self::DeleteSwitchover | Self::DeleteRestart | Self::Reload => None,
        }
    }
}

async fn execute(
    shared: &Shared,
    connection: &Connection,
    deed: Deed,
    request: Request<Incoming>,
) -> Result<Answer, Answer> {
    security::admit(shared, connection, request.headers(), deed == Deed::Failsafe).await?;
    let body = match deed.body() {
        Some(need) => body::object(request, need, shared).await?,
        None => serde_json::Map::new(),
    };
    // Failsafe questions decide whether a primary lives: they do not queue with what people order.
    let _permit = if deed == Deed::Failsafe {
        None
    } else {
        let permit = shared.orders.try_acquire().map_err(|_| {
            Answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many orders are being carried out: try again when some have ended",
            )
        })?;
        Some(permit)
    };
    let _busy = connection.busy();
    match deed {
        Deed::PatchConfig => dynamic::patch(shared, body).await,
        Deed::PutConfig => dynamic::put(shared, body).await,
        Deed::Switchover => failover::request(shared, failover::Kind::Switchover, &body).await,
        Deed::Failover => failover::request(shared, failover::Kind::Failover, &body).await,
        Deed::DeleteSwitchover => failover::delete_scheduled(shared).await,
        Deed::Restart => restart::request(shared, &body).await,
        Deed::DeleteRestart => Ok(restart::delete(shared)),
        Deed::Reload => Ok(actions::reload(shared)),
        Deed::Reinitialize => actions::reinitialize(shared, &body).await,
        Deed::Failsafe => actions::failsafe(shared, &body).await,
    }
}
