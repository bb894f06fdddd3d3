//! A slow, silent or malicious client costs nothing but its own connection.

use std::time::{Duration, Instant};

use surus::rest::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

#[expect(clippy::disallowed_methods, reason = "the test measures real time")]
fn instant() -> Instant {
    Instant::now()
}

fn short() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(400),
        body_timeout: Duration::from_millis(400),
        handshake_timeout: Duration::from_millis(400),
        write_timeout: Duration::from_millis(400),
        ..Limits::default()
    }
}

/// Reads to the end and says how long the server kept the connection.
async fn until_closed(stream: &mut TcpStream) -> (Vec<u8>, Duration) {
    let began = instant();
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes))
        .await
        .expect("the server hangs up");
    (bytes, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn six_hundred_silent_clients() {
    let node = Node::start(primary()).await;
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(node.address).await.unwrap());
    }
    let mut worst = Duration::ZERO;
    for _ in 0..50 {
        let began = instant();
        assert_eq!(node.get("/primary").await.status, 200);
        worst = worst.max(began.elapsed());
        // They do not go away: new silent ones keep coming.
        silent.push(TcpStream::connect(node.address).await.unwrap());
    }
    println!("/primary among 600 silent connections: worst of 50 {worst:?}");
    assert!(worst < Duration::from_millis(50), "{worst:?}");
    // The idlest went first.
    let (bytes, kept) = until_closed(&mut silent[0]).await;
    assert!(bytes.is_empty() && kept < Duration::from_secs(1), "{kept:?}");
    let newest = silent.last_mut().unwrap();
    newest.write_all(b"GET /primary HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(until_closed(newest).await.0.starts_with(b"HTTP/1.0 200 OK"));
}

#[tokio::test]
async fn silent_and_dribbling_clients_are_cut() {
    let node = Node::with(primary(), settings(), short()).await;
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    assert!(until_closed(&mut silent).await.1 < Duration::from_secs(2));

    let stream = TcpStream::connect(node.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let began = instant();
    let dribble = tokio::spawn(async move {
        for byte in b"GET /primary HTTP/1.1\r\nHost: a-very-long-name.example.com\r\n\r\n" {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut bytes = Vec::new();
    let _ = reader.read_to_end(&mut bytes).await;
    assert!(
        began.elapsed() < Duration::from_secs(2) && !bytes.starts_with(b"HTTP/1.1 200"),
        "{:?}",
        began.elapsed()
    );
    dribble.abort();

    // A body that never comes.
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream
        .write_all(b"POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        .await
        .unwrap();
    let (bytes, kept) = until_closed(&mut stream).await;
    let reply = HttpReply::parse(&bytes);
    assert_eq!(reply.status, 408, "{reply:?}");
    assert!(
        kept < Duration::from_secs(2) && reply.body.contains("did not arrive within 0.4 s"),
        "{kept:?} {reply:?}"
    );

    // Idle keep-alive.
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream
        .write_all(b"GET /primary HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let (bytes, kept) = until_closed(&mut stream).await;
    assert!(
        bytes.starts_with(b"HTTP/1.1 200 OK") && kept < Duration::from_secs(2),
        "{kept:?}"
    );
    assert_eq!(node.fake.take_calls(), Vec::<String>::new());
}

#[tokio::test]
async fn clients_that_do_not_read_are_cut() {
    let node = Node::with(primary(), settings(), short()).await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let requests = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let began = instant();
    let flood = async {
        // Until the server stops reading, then until it hangs up.
        while stream.write_all(&requests).await.is_ok() {}
    };
    tokio::time::timeout(Duration::from_secs(15), flood)
        .await
        .expect("the server hangs up");
    println!("a client that does not read was cut after {:?}", began.elapsed());
    assert_eq!(node.get("/primary").await.status, 200);
}

#[tokio::test]
async fn huge_headers_and_garbage() {
    let node = Node::with(primary(), settings(), short()).await;
    let huge = format!(
        "GET /primary HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(1 << 20)
    );
    assert_eq!(node.raw(huge.as_bytes()).await.status, 431);
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "primary".repeat(10_000));
    assert!(matches!(node.raw(long_path.as_bytes()).await.status, 414 | 431));
    let many = format!(
        "GET /primary HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "a: b\r\n".repeat(500)
    );
    assert_eq!(node.raw(many.as_bytes()).await.status, 431);
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /primary HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /primary HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ] {
        let reply = node.raw(garbage).await;
        assert!(
            matches!(reply.status, 0 | 200 | 400 | 501 | 505),
            "{garbage:?}: {reply:?}"
        );
    }
    assert_eq!(node.get("/primary").await.status, 200);
    assert_eq!(node.fake.take_calls(), Vec::<String>::new());
}

#[tokio::test]
async fn random_bytes_break_nothing() {
    let node = Node::with(primary(), settings(), short()).await;
    // A fixed generator: a failure repeats.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let parts = [
        "GET ",
        "POST ",
        "OPTIONS ",
        "/primary",
        "/replica",
        "?lag=",
        "?tag_%",
        "/config",
        "%00",
        "%ff",
        "&",
        "=",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "Host: x\r\n",
        "Content-Length: 3\r\n",
        "\r\n",
        "\r\n\r\n",
        "{}",
        "\u{e9}",
        "999999999999999999TB",
        "Expect: 100-continue\r\n",
    ];
    for _ in 0..400 {
        let mut bytes = Vec::new();
        for _ in 0..next() % 12 {
            match next() % 8 {
                0 => bytes.push((next() % 256) as u8),
                _ => bytes.extend_from_slice(parts[(next() % parts.len() as u64) as usize].as_bytes()),
            }
        }
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new()))
            .await
            .unwrap_or_else(|_| panic!("the server hangs on {:?}", String::from_utf8_lossy(&bytes)));
    }
    assert_eq!(node.get("/primary").await.status, 200);
}

#[tokio::test]
async fn old_and_modern_connections() {
    let node = Node::start(primary()).await;
    // HTTP/1.0 closes, and says how long the body is.
    let reply = node.raw(b"OPTIONS / HTTP/1.0\r\n\r\n").await;
    assert!(
        reply.head.starts_with("HTTP/1.0 200 OK") && reply.header("content-length") == Some("0"),
        "{reply:?}"
    );
    let reply = node.raw(b"GET /patroni HTTP/1.0\r\n\r\n").await;
    assert_eq!(
        reply.header("content-length"),
        Some(reply.body.len().to_string().as_str())
    );
    // A client that closes its side gets its answer.
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(b"GET /primary HTTP/1.0\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(until_closed(&mut stream).await.0.starts_with(b"HTTP/1.0 200 OK"));
    // Pipelined requests are answered in order.
    let reply = node
        .raw(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\nGET /replica HTTP/1.1\r\nHost: x\r\n\r\nHEAD /leader HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    let text = format!("{}\r\n\r\n{}", reply.head, reply.body);
    let codes: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once("HTTP/1.1 "))
        .map(|(_, code)| &code[..3])
        .collect();
    assert_eq!(codes, ["200", "503", "200"], "{text}");
}

#[tokio::test]
async fn orders_under_way_keep_their_connection() {
    let limits = Limits {
        max_connections: 4,
        ..Limits::default()
    };
    let node = Node::with(primary(), settings(), limits).await;
    *node.fake.order_takes.lock().unwrap() = Duration::from_millis(500);
    let (reply, ()) = tokio::join!(node.post("/restart", "{}"), async {
        node.fake.until_called("order").await;
        let mut crowd = Vec::new();
        for _ in 0..20 {
            crowd.push(TcpStream::connect(node.address).await.unwrap());
        }
        assert_eq!(node.get("/primary").await.status, 200);
    });
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, "restarted successfully")
    );
}

#[tokio::test]
async fn large_bodies_share_a_bound_and_small_ones_pass() {
    let limits = Limits {
        max_body_bytes: 2 << 20,
        ..Limits::default()
    };
    let node = Node::with(primary(), settings(), limits).await;
    let mut hoarders = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let head = "POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // All but the end. The last ones are refused half-way.
        let _ = stream.write_all(&vec![b' '; 900_000]).await;
        hoarders.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let large = format!("{{{}}}", " ".repeat(900_000));
    let reply = node.post("/restart", &large).await;
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.body.contains("too many large request bodies"), "{reply:?}");
    assert_eq!(node.post("/failsafe", r#"{"name":"n2"}"#).await.status, 200);
    assert_eq!(node.post("/restart", "{}").await.status, 200);
    drop(hoarders);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(node.post("/restart", &large).await.status, 200);
}
