//! Messages of PostgreSQL's protocol, version 3: those that the agent's client library sends, and the answers it expects.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::net::Stream;

/// The request for TLS in place of a startup message.
const SSL_REQUEST: u32 = 80_877_103;
/// The longest message taken: what the agent sends is shorter by far.
const LONGEST: usize = 1 << 20;

/// A column's type, by its number in every PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bool = 16,
    Name = 19,
    Int4 = 23,
    Text = 25,
    TextArray = 1009,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    Int4(i32),
    Text(String),
    Texts(Vec<String>),
}

impl Value {
    fn write(&self, binary: bool, to: &mut Vec<u8>) {
        match self {
            Self::Text(text) => to.extend_from_slice(text.as_bytes()),
            Self::Bool(value) if binary => to.push(u8::from(*value)),
            Self::Bool(value) => to.push(if *value { b't' } else { b'f' }),
            Self::Int4(value) if binary => to.extend_from_slice(&value.to_be_bytes()),
            Self::Int4(value) => to.extend_from_slice(value.to_string().as_bytes()),
            Self::Texts(texts) if binary => {
                let dimensions = u32::from(!texts.is_empty());
                for word in [dimensions, 0, Type::Text as u32] {
                    to.extend_from_slice(&word.to_be_bytes());
                }
                if !texts.is_empty() {
                    to.extend_from_slice(&length(texts.len()));
                    to.extend_from_slice(&1_u32.to_be_bytes());
                }
                for text in texts {
                    to.extend_from_slice(&length(text.len()));
                    to.extend_from_slice(text.as_bytes());
                }
            }
            Self::Texts(texts) => to.extend_from_slice(format!("{{{}}}", texts.join(",")).as_bytes()),
        }
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// The columns of an answer.
pub(super) type Columns = &'static [(&'static str, Type)];

/// A row of an answer.
pub(super) type Row = Vec<Option<Value>>;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    Query(String),
    Parse {
        name: String,
        sql: String,
    },
    Bind {
        portal: String,
        statement: String,
        parameters: Vec<Option<Vec<u8>>>,
        binary: bool,
    },
    Describe {
        statement: bool,
        name: String,
    },
    Execute {
        portal: String,
    },
    Close {
        statement: bool,
        name: String,
    },
    Sync,
    Flush,
    Terminate,
}

/// Takes a message apart.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, tail) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(io::ErrorKind::InvalidData)?;
        self.0 = tail;
        Ok(*head)
    }

    fn short(&mut self) -> io::Result<u16> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn text(&mut self) -> io::Result<String> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(io::ErrorKind::InvalidData)?;
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = &self.0[end + 1..];
        Ok(text)
    }

    fn bytes(&mut self) -> io::Result<Option<Vec<u8>>> {
        let length = i32::from_be_bytes(self.take()?);
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        if self.0.len() < length {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (head, tail) = self.0.split_at(length);
        self.0 = tail;
        Ok(Some(head.to_vec()))
    }
}

fn said(tag: u8, body: &[u8]) -> io::Result<Said> {
    let mut body = Reader(body);
    Ok(match tag {
        b'Q' => Said::Query(body.text()?),
        b'P' => Said::Parse {
            name: body.text()?,
            sql: body.text()?,
        },
        b'B' => {
            let (portal, statement) = (body.text()?, body.text()?);
            for _ in 0..body.short()? {
                body.short()?;
            }
            let parameters = (0..body.short()?)
                .map(|_| body.bytes())
                .collect::<io::Result<_>>()?;
            let formats = body.short()?;
            let binary = formats == 0 || body.short()? == 1;
            Said::Bind {
                portal,
                statement,
                parameters,
                binary,
            }
        }
        b'D' | b'C' => {
            let statement = body.take::<1>()? == *b"S";
            let name = body.text()?;
            if tag == b'D' {
                Said::Describe { statement, name }
            } else {
                Said::Close { statement, name }
            }
        }
        b'E' => Said::Execute { portal: body.text()? },
        b'S' => Said::Sync,
        b'H' => Said::Flush,
        b'X' => Said::Terminate,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    })
}

/// A connection, with what is to be sent next.
pub(super) struct Wire {
    stream: Stream,
    out: Vec<u8>,
}

impl Wire {
    /// Reads the startup message; its parameters by name and value, one after the other.
    pub(super) async fn accept(mut stream: Stream) -> io::Result<(Self, Vec<String>)> {
        loop {
            let size = usize::try_from(stream.read_u32().await?).unwrap_or(0);
            let code = stream.read_u32().await?;
            if code == SSL_REQUEST {
                stream.write_all(b"N").await?;
                continue;
            }
            if !(8..=LONGEST).contains(&size) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut body = vec![0; size - 8];
            stream.read_exact(&mut body).await?;
            let mut reader = Reader(&body);
            let mut parameters = Vec::new();
            while let Ok(text) = reader.text() {
                parameters.push(text);
            }
            let out = Vec::new();
            return Ok((Self { stream, out }, parameters));
        }
    }

    /// The client's next message.
    pub(super) async fn next(&mut self) -> io::Result<Said> {
        let tag = self.stream.read_u8().await?;
        let size = usize::try_from(self.stream.read_u32().await?).unwrap_or(0);
        if !(4..=LONGEST).contains(&size) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; size - 4];
        self.stream.read_exact(&mut body).await?;
        said(tag, &body)
    }

    fn message(&mut self, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(tag);
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        body(&mut self.out);
        let size = length(self.out.len() - start);
        self.out[start..start + 4].copy_from_slice(&size);
    }

    /// The client is let in.
    pub(super) fn welcome(&mut self, pid: u32) {
        self.message(b'R', |out| out.extend_from_slice(&0_u32.to_be_bytes()));
        for (name, value) in [
            ("client_encoding", "UTF8"),
            ("server_version", "15.18"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
        ] {
            self.message(b'S', |out| {
                out.extend_from_slice(name.as_bytes());
                out.push(0);
                out.extend_from_slice(value.as_bytes());
                out.push(0);
            });
        }
        self.message(b'K', |out| {
            out.extend_from_slice(&pid.to_be_bytes());
            out.extend_from_slice(&pid.to_be_bytes());
        });
        self.ready();
    }

    /// The server waits for the next question.
    pub(super) fn ready(&mut self) {
        self.message(b'Z', |out| out.push(b'I'));
    }

    /// An acknowledgement without content: `1` parsed, `2` bound, `3` closed, `n` no columns.
    pub(super) fn bare(&mut self, tag: u8) {
        self.message(tag, |_| {});
    }

    /// The types of a statement's parameters.
    pub(super) fn parameters(&mut self, types: &[Type]) {
        self.message(b't', |out| {
            out.extend_from_slice(&short(types.len()));
            for kind in types {
                out.extend_from_slice(&(*kind as u32).to_be_bytes());
            }
        });
    }

    /// The columns of an answer.
    pub(super) fn columns(&mut self, columns: Columns, binary: bool) {
        if columns.is_empty() {
            return self.bare(b'n');
        }
        self.message(b'T', |out| {
            out.extend_from_slice(&short(columns.len()));
            for (name, kind) in columns {
                out.extend_from_slice(name.as_bytes());
                out.push(0);
                out.extend_from_slice(&[0; 6]);
                out.extend_from_slice(&(*kind as u32).to_be_bytes());
                out.extend_from_slice(&u16::MAX.to_be_bytes());
                out.extend_from_slice(&u32::MAX.to_be_bytes());
                out.extend_from_slice(&u16::from(binary).to_be_bytes());
            }
        });
    }

    /// A row.
    pub(super) fn row(&mut self, row: &Row, binary: bool) {
        self.message(b'D', |out| {
            out.extend_from_slice(&short(row.len()));
            for value in row {
                let Some(value) = value else {
                    out.extend_from_slice(&u32::MAX.to_be_bytes());
                    continue;
                };
                let start = out.len();
                out.extend_from_slice(&[0; 4]);
                value.write(binary, out);
                let size = length(out.len() - start - 4);
                out[start..start + 4].copy_from_slice(&size);
            }
        });
    }

    /// A statement is done.
    pub(super) fn complete(&mut self, tag: &str) {
        self.message(b'C', |out| {
            out.extend_from_slice(tag.as_bytes());
            out.push(0);
        });
    }

    /// An error.
    pub(super) fn error(&mut self, severity: &str, code: &str, text: &str) {
        self.message(b'E', |out| {
            for (field, value) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', text)] {
                out.push(field);
                out.extend_from_slice(value.as_bytes());
                out.push(0);
            }
            out.push(0);
        });
    }

    /// Sends what has been said.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        self.stream.write_all(&out).await
    }
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}
