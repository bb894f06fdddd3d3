//! How many checks a second, printed; a floor that only a real regression breaks.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

const SPAN: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "the test measures real time")]
fn instant() -> Instant {
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput_of_primary() {
    let node = Node::start(primary()).await;
    let address = node.address;
    let mut kept = tokio::task::JoinSet::new();
    for _ in 0..4 {
        kept.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let (began, mut count, mut buffer) = (instant(), 0_u64, vec![0; 8192]);
            while began.elapsed() < SPAN {
                stream
                    .write_all(b"GET /primary HTTP/1.1\r\nHost: x\r\n\r\n")
                    .await
                    .unwrap();
                let length = stream.read(&mut buffer).await.unwrap();
                assert!(buffer[..length].starts_with(b"HTTP/1.1 200 OK"));
                count += 1;
            }
            count
        });
    }
    let kept: u64 = kept.join_all().await.iter().sum();
    let mut single = tokio::task::JoinSet::new();
    for _ in 0..4 {
        single.spawn(async move {
            let (began, mut count) = (instant(), 0_u64);
            while began.elapsed() < SPAN {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream
                    .write_all(b"OPTIONS /primary HTTP/1.0\r\n\r\n")
                    .await
                    .unwrap();
                let mut reply = Vec::new();
                stream.read_to_end(&mut reply).await.unwrap();
                assert!(reply.starts_with(b"HTTP/1.0 200 OK"));
                count += 1;
            }
            count
        });
    }
    let single: u64 = single.join_all().await.iter().sum();
    println!(
        "/primary, client and server on this machine: {kept}/s kept alive, {single}/s over new HTTP/1.0 connections"
    );
    assert!(kept > 1000 && single > 300, "{kept} {single}");
}
