//! A real HAProxy with the checks of its usual configuration in front of two nodes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::*;

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn states(socket: &Path) -> Vec<(String, String)> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(b"show stat\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            let server = *fields.get(1)?;
            let known = server.starts_with('n');
            known.then(|| (format!("{}/{server}", fields[0]), fields[17].to_owned()))
        })
        .collect()
}

async fn until(socket: &Path, expected: [&str; 8]) {
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen = states(socket).await;
        if seen.iter().map(|(_, state)| state.as_str()).eq(expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{seen:?} is not {expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_follows_the_roles() {
    let binary = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let Some(binary) = binary else {
        eprintln!("SKIPPED: haproxy is not installed, so its checks are not tested");
        return;
    };
    let (one, two) = (Node::start(primary()).await, Node::start(replica()).await);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("stats");
    let file = directory.path().join("haproxy.cfg");
    let backend = |name: &str, check: &str| {
        let (one, two) = (one.address.port(), two.address.port());
        format!(
            "backend {name}\n {check}\n http-check expect status 200\n default-server inter 50ms fall 2 rise 1 on-marked-down shutdown-sessions\n \
             server n1 127.0.0.1:5432 check port {one}\n server n2 127.0.0.1:5432 check port {two}\n"
        )
    };
    let text = format!(
        "global\n stats socket {} mode 600\ndefaults\n mode tcp\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n timeout check 1s\n{}{}{}{}",
        socket.display(),
        backend("plain", "option httpchk"),
        backend("primary", "option httpchk HEAD /primary"),
        backend("replica", "option httpchk GET /replica"),
        backend(
            "modern",
            "option httpchk\n http-check send meth OPTIONS uri /read-only?lag=1MB ver HTTP/1.1 hdr Host x"
        ),
    );
    std::fs::write(&file, text).unwrap();
    let child = Command::new(binary)
        .arg("-db")
        .arg("-f")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _proxy = Proxy(child.unwrap());
    for _ in 0..100 {
        if socket.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (up, down) = ("UP", "DOWN");
    until(&socket, [up, down, up, down, down, up, up, up]).await;
    // The switchover as load balancers see it: nobody while the lock changes hands, then the other.
    one.publish(replica());
    until(&socket, [down, down, down, down, up, up, up, up]).await;
    two.publish(primary());
    until(&socket, [down, up, down, up, up, down, up, up]).await;
}
