//! One HTTP exchange: connect, handshake if https, one request, one reply, all within one time limit.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use crate::config::settings::BasicAuth;
use crate::net::{Dial, Stream};

/// Bytes of a reply that are read at most; a cluster of a thousand members has a smaller one.
const MAX_REPLY: usize = 4 << 20;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Response {
    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The address is no http or https URL with a host.
    #[error("{0:?} is no http or https address: check the member's restapi.connect_address")]
    Url(String),
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("no secure connection to {address}: check ctl.cacert, ctl.certfile and the member's certificate")]
    Tls {
        /// Host and port.
        address: String,
        /// What TLS says.
        #[source]
        source: io::Error,
    },
    /// The peer does not speak HTTP, or hung up.
    #[error("no valid reply from {address}")]
    Http {
        /// Host and port.
        address: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("no reply from {url} within {} s", limit.as_secs_f64())]
    Timeout {
        /// The request's address.
        url: String,
        /// The time limit.
        limit: Duration,
    },
}

/// An HTTP client for members' REST APIs.
#[derive(Clone)]
pub struct Client {
    dial: Arc<dyn Dial>,
    tls: Arc<ClientConfig>,
    auth: Option<BasicAuth>,
}

impl Client {
    /// A client that shows `auth` with unsafe methods.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, tls: Arc<ClientConfig>, auth: Option<BasicAuth>) -> Self {
        Self { dial, tls, auth }
    }

    /// Sends one request and reads the whole reply, whatever its status.
    ///
    /// # Errors
    /// There is no whole reply within `timeout`. An unsafe request may have had its effect nevertheless, unless the error is
    /// [`RequestError::Url`], [`RequestError::Connect`] or [`RequestError::Tls`].
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Response, RequestError> {
        match tokio::time::timeout(timeout, self.exchange(method, url, body)).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Timeout {
                url: url.to_owned(),
                limit: timeout,
            }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<Response, RequestError> {
        let bad_url = || RequestError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad_url())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad_url()),
        };
        let authority = uri.authority().ok_or_else(bad_url)?;
        let host = authority.host().trim_matches(['[', ']']);
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let request = self.build(method, &uri, body).ok_or_else(bad_url)?;

        let address = authority.to_string();
        let stream = self
            .dial
            .dial(host, port)
            .await
            .map_err(|source| RequestError::Connect {
                address: address.clone(),
                source,
            })?;
        let stream: Stream = if secure {
            let server_name = ServerName::try_from(host.to_owned()).map_err(|_| bad_url())?;
            let connector = TlsConnector::from(self.tls.clone());
            let stream =
                connector
                    .connect(server_name, stream)
                    .await
                    .map_err(|source| RequestError::Tls {
                        address: address.clone(),
                        source,
                    })?;
            Box::new(stream)
        } else {
            stream
        };
        send(stream, request)
            .await
            .map_err(|source| RequestError::Http { address, source })
    }

    fn build(&self, method: Method, uri: &Uri, body: Option<&Value>) -> Option<Request<Full<Bytes>>> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let safe = method == Method::GET || method == Method::HEAD || method == Method::OPTIONS;
        let authority = uri.authority()?;
        let host = authority
            .as_str()
            .rsplit_once('@')
            .map_or(authority.as_str(), |(_, host)| host);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(CONNECTION, "close")
            .header(USER_AGENT, concat!("surus/", env!("CARGO_PKG_VERSION")));
        if let (Some(auth), false) = (&self.auth, safe) {
            let credentials = format!("{}:{}", auth.username, auth.password);
            let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
            request = request.header(AUTHORIZATION, format!("Basic {encoded}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request.body(Full::new(bytes)).ok()
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn send(stream: Stream, request: Request<Full<Bytes>>) -> Result<Response, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_REPLY).collect().await?.to_bytes();
        Ok::<_, Failure>(Response {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    };
    // The connection is driven here and not by a task of its own, so that nothing outlives the exchange.
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        biased;
        result = &mut exchange => return result,
        // The reply may be read and the connection closed before its body was taken.
        _ = &mut connection => {}
    }
    exchange.await
}
