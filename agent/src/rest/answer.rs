//! Answers: status, content type and body, and JSON in the notation that Patroni's clients have seen so far.

use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    kind: Option<&'static str>,
    pub(super) body: Bytes,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    /// Only a status.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            kind: None,
            body: Bytes::new(),
            headers: Vec::new(),
        }
    }

    /// A JSON document.
    pub(super) fn json(status: StatusCode, value: &Value) -> Self {
        Self::typed(status, "application/json", render(value))
    }

    /// A line for people. Texts may quote the request, so they are not HTML, unlike Patroni's.
    pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::typed(status, "text/plain; charset=utf-8", text.into().into_bytes())
    }

    /// Prometheus' text format.
    pub(super) fn metrics(text: String) -> Self {
        Self::typed(StatusCode::OK, "text/plain", text.into_bytes())
    }

    fn typed(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Self {
        Self {
            status,
            kind: Some(kind),
            body: body.into(),
            headers: Vec::new(),
        }
    }

    /// Adds a header.
    pub(super) fn with(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// As the reply on the wire; `bodiless` for HEAD and OPTIONS.
    pub(super) fn into_response(self, bodiless: bool) -> Response<Full<Bytes>> {
        let body = if bodiless { Bytes::new() } else { self.body };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        if let (Some(kind), false) = (self.kind, bodiless) {
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        response.headers_mut().extend(self.headers);
        response
    }
}

/// JSON with `", "` and `": "` between the parts and everything beyond ASCII escaped: some checks compare text.
pub(super) fn render(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, Spaced);
    value
        .serialize(&mut serializer)
        .expect("a JSON value is written to memory without fail");
    bytes
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        if text.is_ascii() {
            return writer.write_all(text.as_bytes());
        }
        let mut units = [0; 2];
        for character in text.chars() {
            if character.is_ascii() {
                writer.write_all(&[character as u8])?;
            } else {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_spaced_and_ascii() {
        let value = serde_json::json!({"a": [1, 2, {"b": null}], "c": "é\u{1F418}\"\n", "d": {}});
        assert_eq!(
            String::from_utf8(render(&value)).unwrap(),
            r#"{"a": [1, 2, {"b": null}], "c": "\u00e9\ud83d\udc18\"\n", "d": {}}"#
        );
    }
}
