//! The smallest HTTP client that health checks need: one request, one answer, one connection.
//!
//! It speaks HTTP/1.0 as HAProxy's checks do, so an answer ends where the connection does and is never chunked.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// `GET path`, at most `limit` long.
///
/// # Errors
/// Whatever the connection suffered; `InvalidData` if what came is no HTTP answer.
pub async fn get(at: SocketAddrV4, path: &str, limit: Duration) -> Result<Answer> {
    request(at, "GET", path, "", limit).await
}

/// A request with a JSON body, at most `limit` long.
///
/// # Errors
/// As [`get`].
pub async fn request(
    at: SocketAddrV4,
    method: &str,
    path: &str,
    body: &str,
    limit: Duration,
) -> Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(at).await?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {at}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        Ok::<_, Error>(bytes)
    };
    let bytes = tokio::time::timeout(limit, exchange)
        .await
        .map_err(|_| Error::from(ErrorKind::TimedOut))??;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| Error::from(ErrorKind::InvalidData))?;
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| Error::from(ErrorKind::InvalidData))?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}
