//! The smallest HTTP client that health checks need: one request, one answer, one connection.
//!
//! It speaks HTTP/1.0 as HAProxy's checks do, so an answer ends where the connection does and is never chunked.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
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
        let mut stream = asked(at, method, path, body).await?;
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

/// An answer that goes on, line by line, until one side ends the connection.
#[derive(Debug)]
pub struct Lines(BufReader<TcpStream>);

impl Lines {
    /// Posts a JSON body; status and head of the answer have to come within `limit`.
    ///
    /// # Errors
    /// As [`get`]; `InvalidData` also for another status than 200.
    pub async fn post(at: SocketAddrV4, path: &str, body: &str, limit: Duration) -> Result<Self> {
        let opening = async {
            let mut lines = Self(BufReader::new(asked(at, "POST", path, body).await?));
            let first = lines.next().await?;
            if first.split_whitespace().nth(1) != Some("200") {
                return Err(Error::new(ErrorKind::InvalidData, first.trim_end().to_owned()));
            }
            while !lines.next().await?.trim_end().is_empty() {}
            Ok(lines)
        };
        tokio::time::timeout(limit, opening)
            .await
            .map_err(|_| Error::from(ErrorKind::TimedOut))?
    }

    /// The next line, however long it takes.
    ///
    /// # Errors
    /// Whatever the connection suffered; `UnexpectedEof` at its end.
    pub async fn next(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line).await? {
            0 => Err(Error::from(ErrorKind::UnexpectedEof)),
            _ => Ok(line),
        }
    }
}

/// A connection on which a request has been sent.
async fn asked(at: SocketAddrV4, method: &str, path: &str, body: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {at}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}
