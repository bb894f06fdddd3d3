//! As much of PostgreSQL's protocol as a router has to know: what a client says first, what a server answers first, and where the start
//! of a session ends. Everything else is bytes.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest first packet that PostgreSQL takes.
const LONGEST_GREETING: usize = 10_000;
/// The longest answer that is looked into; what is longer is no refusal of a server that is starting or stopping.
const LONGEST_ANSWER: usize = 16_384;
/// Codes in the place of a protocol version.
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// Cannot connect now (starting up, shutting down, in recovery), admin shutdown, crash shutdown: the server takes nobody, and whoever
/// comes again a little later, or elsewhere, may be taken.
const COME_AGAIN: [&[u8]; 3] = [b"57P03", b"57P01", b"57P02"];

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeting {
    /// All of it, to be passed on.
    pub(super) bytes: Vec<u8>,
    /// What it is.
    pub(super) kind: Kind,
}

/// The kinds of a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A session, in the clear.
    Startup,
    /// Asks for TLS or GSSAPI; the server answers with one byte.
    Encryption,
    /// TLS without asking (`sslnegotiation=direct`).
    Tls,
    /// Asks to cancel a statement of another session; nothing is answered.
    Cancel,
}

/// Why there is no greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoGreeting {
    /// The client closed the connection, or it broke.
    Gone,
    /// Nothing whole came within the limit.
    Late,
    /// It does not speak PostgreSQL's protocol.
    Foreign,
}

/// Reads a client's next first packet.
pub(super) async fn greeting(
    client: &mut (impl AsyncRead + Unpin),
    limit: Duration,
) -> Result<Greeting, NoGreeting> {
    match tokio::time::timeout(limit, read_greeting(client)).await {
        Ok(result) => result,
        Err(_) => Err(NoGreeting::Late),
    }
}

async fn read_greeting(client: &mut (impl AsyncRead + Unpin)) -> Result<Greeting, NoGreeting> {
    let mut bytes = vec![0; 8];
    let first = client.read_u8().await.map_err(|_| NoGreeting::Gone)?;
    if first == 0x16 {
        // A TLS handshake record. The rest of it follows as it comes.
        return Ok(Greeting {
            bytes: vec![first],
            kind: Kind::Tls,
        });
    }
    bytes[0] = first;
    // Who sends less than this and closes is a check that the port is open.
    client
        .read_exact(&mut bytes[1..])
        .await
        .map_err(|_| NoGreeting::Gone)?;
    let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (length, code) = (number(0) as usize, number(4));
    let kind = match code {
        SSL | GSS if length == 8 => Kind::Encryption,
        CANCEL if length > 12 => Kind::Cancel,
        code if code >> 16 == 3 && length > 8 => Kind::Startup,
        _ => return Err(NoGreeting::Foreign),
    };
    if length > LONGEST_GREETING {
        return Err(NoGreeting::Foreign);
    }
    bytes.resize(length, 0);
    client
        .read_exact(&mut bytes[8..])
        .await
        .map_err(|_| NoGreeting::Gone)?;
    Ok(Greeting { bytes, kind })
}

impl Greeting {
    /// The key of the session that a [`Kind::Cancel`] is about: process and secret.
    pub(super) fn cancel_key(&self) -> &[u8] {
        self.bytes.get(8..).unwrap_or_default()
    }
}

/// A server's first answer to a startup packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// To be passed on as far as it has come.
    Pass(Vec<u8>),
    /// The server takes nobody at present, in its own words.
    ComeAgain(String),
}

/// Reads a server's first answer. No byte before the end, or a connection that breaks, is `ComeAgain` too: nothing has happened yet that a
/// client could know of.
pub(super) async fn answer(server: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::with_capacity(512);
    loop {
        if let Some(answer) = judge(&bytes) {
            return answer;
        }
        match server.read_buf(&mut bytes).await {
            Ok(0) | Err(_) if bytes.is_empty() => {
                return Answer::ComeAgain("the server closed the connection without an answer".to_owned());
            }
            Ok(0) | Err(_) => return Answer::Pass(bytes),
            Ok(_) => {}
        }
    }
}

/// What `bytes` are the beginning of; `None` until that can be told.
fn judge(bytes: &[u8]) -> Option<Answer> {
    let first = *bytes.first()?;
    if first != b'E' {
        return Some(Answer::Pass(bytes.to_vec()));
    }
    let length = bytes.get(1..5)?;
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if !(4..=LONGEST_ANSWER).contains(&length) {
        return Some(Answer::Pass(bytes.to_vec()));
    }
    let body = bytes.get(5..=length)?;
    let field = |wanted: u8| {
        body.split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&wanted))
            .map(|field| &field[1..])
    };
    let code = field(b'C').unwrap_or_default();
    if COME_AGAIN.contains(&code) {
        let text = field(b'M').unwrap_or_default();
        return Some(Answer::ComeAgain(String::from_utf8_lossy(text).into_owned()));
    }
    Some(Answer::Pass(bytes.to_vec()))
}

/// A FATAL error as PostgreSQL would send it.
pub(super) fn fatal(code: &str, text: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', text)] {
        body.push(field);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut message = vec![b'E'];
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&body);
    message
}

/// What the start of a session tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// The key with which the session's statements can be cancelled.
    Key(Vec<u8>),
    /// The server is a standby (told since PostgreSQL 14).
    Standby,
}

/// Goes through what a server sends until the session has begun.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// The part of a message that has come, if it is one to be looked into.
    message: Vec<u8>,
    /// So many bytes of the present message are still to come and not looked into.
    skip: usize,
    done: bool,
}

impl Opening {
    /// True once the session has begun, or what came is no such start: nothing will be told any more.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Takes in what the server sent next.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Told)) {
        while !self.done && !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if self.message.len() < 5 {
                let wanted = (5 - self.message.len()).min(bytes.len());
                self.message.extend_from_slice(&bytes[..wanted]);
                bytes = &bytes[wanted..];
                if self.message.len() < 5 {
                    continue;
                }
            }
            let kind = self.message[0];
            let length =
                u32::from_be_bytes([self.message[1], self.message[2], self.message[3], self.message[4]])
                    as usize;
            if kind == b'Z' || kind == b'E' || length < 4 {
                self.done = true;
                return;
            }
            if !matches!(kind, b'K' | b'S') || length > LONGEST_ANSWER {
                self.skip = length - 4;
                self.message.clear();
                continue;
            }
            let wanted = (length + 1 - self.message.len()).min(bytes.len());
            self.message.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if self.message.len() == length + 1 {
                let body = &self.message[5..];
                if kind == b'K' {
                    tell(Told::Key(body.to_vec()));
                } else if body == b"in_hot_standby\0on\0" {
                    tell(Told::Standby);
                }
                self.message.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(rest.len() + 8).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(rest);
        bytes
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    async fn read(mut bytes: &[u8]) -> Result<Kind, NoGreeting> {
        greeting(&mut bytes, Duration::from_secs(1))
            .await
            .map(|greeting| greeting.kind)
    }

    #[tokio::test]
    async fn first_packets_are_told_apart() {
        assert_eq!(read(&packet(196_608, b"user\0a\0\0")).await, Ok(Kind::Startup));
        assert_eq!(read(&packet(196_610, b"user\0a\0\0")).await, Ok(Kind::Startup));
        assert_eq!(read(&packet(SSL, b"")).await, Ok(Kind::Encryption));
        assert_eq!(read(&packet(GSS, b"")).await, Ok(Kind::Encryption));
        assert_eq!(read(&packet(CANCEL, b"12345678")).await, Ok(Kind::Cancel));
        assert_eq!(read(&[0x16, 3, 1]).await, Ok(Kind::Tls));
        assert_eq!(read(b"GET / HTTP/1.1\r\n").await, Err(NoGreeting::Foreign));
        assert_eq!(
            read(&packet(196_608, &[0; 20_000])).await,
            Err(NoGreeting::Foreign)
        );
        assert_eq!(read(b"").await, Err(NoGreeting::Gone));
        assert_eq!(
            read(&packet(196_608, b"user\0a\0\0")[..10]).await,
            Err(NoGreeting::Gone)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_not_waited_for() {
        let (mut silent, _other) = tokio::io::duplex(16);
        let answer = greeting(&mut silent, Duration::from_secs(5)).await;
        assert_eq!(answer, Err(NoGreeting::Late));
    }

    #[tokio::test]
    async fn a_server_that_is_going_or_coming_is_asked_again() {
        for code in ["57P03", "57P01", "57P02"] {
            let bytes = fatal(code, "the database system is shutting down");
            let again = Answer::ComeAgain("the database system is shutting down".to_owned());
            assert_eq!(answer(&mut &bytes[..]).await, again);
        }
        assert!(matches!(answer(&mut &b""[..]).await, Answer::ComeAgain(_)));
    }

    #[tokio::test]
    async fn every_other_answer_is_passed_on_as_it_is() {
        let wrong_password = fatal("28P01", "password authentication failed");
        let truncated = &fatal("57P03", "the database system is starting up")[..20];
        for bytes in [
            &wrong_password[..],
            b"R\0\0\0\x08\0\0\0\0",
            b"Ecould not fork\n",
            truncated,
        ] {
            assert_eq!(answer(&mut &bytes[..]).await, Answer::Pass(bytes.to_vec()));
        }
    }

    #[test]
    fn the_start_of_a_session_is_understood_however_it_is_cut() {
        let mut stream = message(b'R', &[0, 0, 0, 0]);
        stream.extend(message(b'S', b"server_version\x0015.18\0"));
        stream.extend(message(b'S', b"in_hot_standby\0on\0"));
        stream.extend(message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]));
        stream.extend(message(b'Z', b"I"));
        stream.extend(message(b'K', &[9; 8]));
        let expected = vec![Told::Standby, Told::Key(vec![0, 0, 0, 7, 1, 2, 3, 4])];
        for step in 1..=stream.len() {
            let (mut opening, mut told) = (Opening::default(), Vec::new());
            for piece in stream.chunks(step) {
                opening.take(piece, |fact| told.push(fact));
            }
            assert!(opening.is_done());
            assert_eq!(told, expected, "cut every {step} bytes");
        }
    }

    #[test]
    fn a_primary_is_no_standby() {
        let (mut opening, mut told) = (Opening::default(), Vec::new());
        opening.take(&message(b'S', b"in_hot_standby\0off\0"), |fact| told.push(fact));
        assert_eq!(told, []);
        assert!(!opening.is_done());
    }
}
