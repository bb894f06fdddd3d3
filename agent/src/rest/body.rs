//! Request bodies: bounded in size and time, and JSON objects or refused with a reason.

use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use hyper::{Request, StatusCode};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::server::{Limits, Shared};

/// Bytes up to which a body does not count as large: the questions between members, and most orders, are far smaller, and
/// so get through whatever others send.
const SMALL: usize = 16 << 10;

/// Whether the method can do without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// No body, and `{}`, mean "nothing special".
    Optional,
    /// An object with something in it.
    Required,
}

/// Reads a JSON object.
pub(super) async fn object(
    request: Request<Incoming>,
    need: Need,
    shared: &Shared,
) -> Result<Map<String, Value>, Answer> {
    let bytes = read(request, need, shared).await?;
    if bytes.is_empty() && need == Need::Optional {
        return Ok(Map::new());
    }
    let bad = |reason: String| Answer::text(StatusCode::BAD_REQUEST, reason);
    if bytes.is_empty() {
        return Err(bad(
            "the request body is empty: a JSON object is expected".to_owned()
        ));
    }
    match serde_json::from_slice(&bytes) {
        Err(error) => Err(bad(format!("the request body is no valid JSON: {error}"))),
        Ok(Value::Object(object)) if object.is_empty() && need == Need::Required => {
            Err(bad("the JSON object of the request body is empty".to_owned()))
        }
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(bad(format!(
            "the request body must be a JSON object, not {}",
            kind_of(&other)
        ))),
    }
}

/// Says what a value is, for messages.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

async fn read(request: Request<Incoming>, need: Need, shared: &Shared) -> Result<Vec<u8>, Answer> {
    let headers = request.headers();
    if !headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING) {
        return match need {
            Need::Optional => Ok(Vec::new()),
            Need::Required => Err(Answer::text(
                StatusCode::LENGTH_REQUIRED,
                "a request body with a Content-Length is expected",
            )),
        };
    }
    let limits = &shared.limits;
    let close = |answer: Answer| answer.with("connection", HeaderValue::from_static("close"));
    match tokio::time::timeout(
        limits.body_timeout,
        collect(request.into_body(), limits, &shared.body_bytes),
    )
    .await
    {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(refusal)) => Err(close(refusal)),
        Err(_) => Err(close(Answer::text(
            StatusCode::REQUEST_TIMEOUT,
            format!(
                "the request body did not arrive within {} s",
                limits.body_timeout.as_secs_f64()
            ),
        ))),
    }
}

async fn collect(mut body: Incoming, limits: &Limits, in_use: &AtomicUsize) -> Result<Vec<u8>, Answer> {
    let too_long = || {
        Answer::text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is longer than {} bytes", limits.max_body),
        )
    };
    if body.size_hint().lower() > limits.max_body as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let mut share = Share { in_use, held: 0 };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Answer::text(
                StatusCode::BAD_REQUEST,
                format!("the request body did not arrive whole: {error}"),
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        bytes.extend_from_slice(&data);
        if bytes.len() > limits.max_body {
            return Err(too_long());
        }
        if !share.grow(bytes.len().saturating_sub(SMALL), limits.max_body_bytes) {
            return Err(Answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many large request bodies are being received: try again later",
            ));
        }
    }
    Ok(bytes)
}

/// A body's part of what all large bodies may hold together.
struct Share<'a> {
    in_use: &'a AtomicUsize,
    held: usize,
}

impl Share<'_> {
    fn grow(&mut self, wanted: usize, limit: usize) -> bool {
        let more = wanted.saturating_sub(self.held);
        let before = self.in_use.fetch_add(more, Ordering::Relaxed);
        self.held += more;
        more == 0 || before + more <= limit
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.in_use.fetch_sub(self.held, Ordering::Relaxed);
    }
}
