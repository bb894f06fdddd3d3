//! Bad endpoints among good ones, and the ways in: passwords and TLS. Against a real etcd.
#![expect(clippy::unwrap_used, reason = "tests")]

mod etcd_support;

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use etcd_support::*;
use surus::dcs::{DcsError, Lock};
use surus_core::action::{Grounds, StatusRecord};

/// A port that swallows connection attempts: its backlog is full and nobody accepts.
struct BlackHole {
    port: u16,
    _listener: std::net::TcpListener,
    _fill: Vec<std::net::TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        #[expect(unsafe_code, reason = "std has no way to shrink a backlog")]
        // SAFETY: listen(2) on a socket that this function owns.
        let listening = unsafe { libc::listen(listener.as_raw_fd(), 0) };
        assert_eq!(listening, 0);
        let address = listener.local_addr().unwrap();
        let mut fill = Vec::new();
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            fill.push(stream);
        }
        Self {
            port: address.port(),
            _listener: listener,
            _fill: fill,
        }
    }
}

#[tokio::test]
async fn one_bad_endpoint_of_three_costs_little_once() {
    if !etcd_is_here() {
        return;
    }
    let cluster = Cluster::start(3, &[]);
    let good = [cluster.members[1].port, cluster.members[2].port];
    let hole = BlackHole::new();
    // A socket that accepts in the kernel and never says a word.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = [
        ("dead", free_port(), 100),
        ("black hole", hole.port, 900),
        ("mute", mute.local_addr().unwrap().port(), 900),
    ];
    for (what, port, most) in bad {
        let node = node("a", vec![at(port), at(good[0]), at(good[1])]);
        let began = start();
        node.read(LIMIT).await.unwrap();
        let first = began.elapsed();
        let began = start();
        for _ in 0..10 {
            node.read(LIMIT).await.unwrap();
        }
        let next = began.elapsed() / 10;
        println!("{what}: first order {first:?}, the next {next:?}");
        assert!(first < Duration::from_millis(most), "{what}: {first:?}");
        assert!(next < Duration::from_millis(100), "{what}: {next:?}");
        let lock = node
            .acquire(TTL, Grounds::default(), None, &StatusRecord::default(), LIMIT)
            .await
            .unwrap();
        assert!(matches!(lock, Lock::Held { .. }));
        node.release(&status(1), None, LIMIT).await.unwrap();
    }

    // The member in use freezes.
    let node = cluster.node("a");
    let lock = node
        .acquire(TTL, Grounds::default(), None, &StatusRecord::default(), LIMIT)
        .await
        .unwrap();
    assert!(matches!(lock, Lock::Held { .. }));
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let mut hosts = cluster.hosts();
    hosts.swap(0, follower);
    let node = etcd_support::node("a", hosts);
    node.read(LIMIT).await.unwrap();
    cluster.members[follower].freeze();
    let began = start();
    let lock = node.renew(TTL, None, &status(1), LIMIT).await.unwrap();
    let first = began.elapsed();
    assert!(matches!(lock, Lock::Held { .. }));
    let began = start();
    node.renew(TTL, None, &status(1), LIMIT).await.unwrap();
    println!("frozen: first renewal {first:?}, the next {:?}", began.elapsed());
    assert!(first < Duration::from_millis(1200) && began.elapsed() < Duration::from_millis(200));
    cluster.members[follower].thaw();
}

#[tokio::test]
async fn only_bad_endpoints_use_the_budget_and_no_more() {
    let hole = BlackHole::new();
    let node = node("a", vec![at(hole.port), at(free_port())]);
    let began = start();
    let error = node
        .release(&status(1), None, Duration::from_secs(1))
        .await
        .unwrap_err();
    assert!(
        matches!(error, DcsError::Failed(_)),
        "nothing can have left: {error}"
    );
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(900) && took < Duration::from_millis(1200),
        "{took:?}"
    );
}

#[tokio::test]
async fn answers_of_an_older_term_or_another_cluster_are_refused() {
    if !etcd_is_here() {
        return;
    }
    // The same advertised peer address and name give the same cluster id; restarts raise the term of one.
    let mut newer = Cluster::start(1, &[]);
    let advertised: Vec<String> = newer.members[0]
        .args
        .iter()
        .filter(|arg| arg.starts_with("--initial-"))
        .cloned()
        .collect();
    let older = Cluster::start_with("http", 1, |_| advertised.clone());
    for _ in 0..3 {
        newer.members[0].kill();
        newer.members[0].start();
        newer.wait_healthy();
    }
    let (new_port, old_port) = (newer.members[0].port, older.members[0].port);
    let node = node("a", vec![at(new_port), at(old_port)]);
    let (_, snapshot) = node.read(LIMIT).await.unwrap();
    let term = snapshot.view.term;
    assert!(term.0 > 3);
    newer.members[0].kill();
    let error = node.read(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("is behind: raft term"), "{error}");
    let error = node
        .acquire(
            TTL,
            Grounds::default(),
            None,
            &StatusRecord::default(),
            Duration::from_secs(1),
        )
        .await
        .unwrap_err();
    println!("stale member: {error}");
    newer.members[0].start();
    newer.wait_healthy();
    let (_, snapshot) = node.read(LIMIT).await.unwrap();
    assert!(snapshot.view.term > term);

    let foreign = Cluster::start(1, &[]);
    let node = etcd_support::node("a", vec![at(new_port), at(foreign.members[0].port)]);
    node.read(LIMIT).await.unwrap();
    newer.members[0].kill();
    let error = node.read(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("belongs to etcd cluster"), "{error}");
}

#[tokio::test]
async fn a_password_is_used_and_its_token_renewed() {
    if !etcd_is_here() {
        return;
    }
    let mut cluster = Cluster::start(1, &["--auth-token-ttl=1", "--bcrypt-cost=4"]);
    let ctl = |args: &[&str]| cluster.ctl(args);
    ctl(&["user", "add", "root:secret"]);
    ctl(&["user", "grant-role", "root", "root"]);
    ctl(&["role", "add", "batman"]);
    ctl(&[
        "role",
        "grant-permission",
        "batman",
        "--prefix=true",
        "readwrite",
        "/service/batman/",
    ]);
    ctl(&["user", "add", "patroni:pass"]);
    ctl(&["user", "grant-role", "patroni", "batman"]);
    let with = |user: &str, password: &str| {
        let mut settings = settings(cluster.hosts());
        settings.username = Some(user.to_owned());
        settings.password = Some(password.to_owned());
        node_with("a", &settings)
    };
    // The password is written down before authentication is switched on.
    let node = with("patroni", "pass");
    let lock = node
        .acquire(TTL, Grounds::default(), None, &StatusRecord::default(), LIMIT)
        .await
        .unwrap();
    assert!(matches!(lock, Lock::Held { .. }), "{lock:?}");
    ctl(&["auth", "enable"]);
    let (states, mut state) = tokio::sync::watch::channel(None);
    let watcher = with("patroni", "pass");
    let task = tokio::spawn(async move { watcher.watch(states).await });
    let mut lost = 0;
    for round in 0..12 {
        let lock = node.renew(TTL, None, &status(round), LIMIT).await.unwrap();
        lost += u64::from(!matches!(lock, Lock::Held { .. }));
        node.write_member(&format!("{{\"round\":{round}}}"), TTL, LIMIT)
            .await
            .unwrap();
        // The token's life is 1 s; each third pause lets it run out.
        let pause = if round % 3 == 2 { 1600 } else { 300 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    assert_eq!(lost, 0);
    let seen = state.borrow_and_update().clone().unwrap();
    assert_eq!(
        seen.raw.text("members/a"),
        Some(r#"{"round":11}"#),
        "the watch lives through it"
    );
    drop(state);
    tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();

    let error = with("patroni", "wrong").read(LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("etcd3.password"), "{error}");
    let stranger = node_with("a", &settings(cluster.hosts()));
    let error = stranger.read(Duration::from_millis(500)).await.unwrap_err();
    println!("no password: {error}");
    let elsewhere = {
        let mut settings = settings(cluster.hosts());
        settings.username = Some("patroni".to_owned());
        settings.password = Some("pass".to_owned());
        surus::dcs::Etcd::new(&settings, "/service/other/", "a", surus::machine::Machine::real()).unwrap()
    };
    let error = elsewhere.write_config("{}", LIMIT).await.unwrap_err();
    assert!(
        error.to_string().contains("readwrite on the cluster's prefix"),
        "{error}"
    );

    // A restarted member has forgotten all tokens.
    node.acquire(TTL, Grounds::default(), None, &StatusRecord::default(), LIMIT)
        .await
        .unwrap();
    cluster.members[0].kill();
    cluster.members[0].start();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let lock = node
        .renew(TTL, None, &status(1), Duration::from_secs(5))
        .await
        .unwrap();
    assert!(matches!(lock, Lock::Held { .. }), "{lock:?}");
}

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(dir)
        .args(args)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn tls_with_a_ca_of_ones_own_and_client_certificates() {
    if !etcd_is_here() {
        return;
    }
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: openssl is missing");
        return;
    }
    let mut cluster = Cluster::start_with("https", 1, |dir| {
        let new_key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        for ca in ["ca", "other"] {
            let subject = format!("/CN={ca}");
            let (key, crt) = (format!("{ca}.key"), format!("{ca}.crt"));
            let args = [
                "req", "-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &crt,
            ];
            openssl(dir, &[&args[..], &new_key[..]].concat());
        }
        std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        for name in ["server", "client"] {
            let subject = format!("/CN={name}");
            let (key, csr, crt) = (
                format!("{name}.key"),
                format!("{name}.csr"),
                format!("{name}.crt"),
            );
            let args = ["req", "-subj", &subject, "-keyout", &key, "-out", &csr];
            openssl(dir, &[&args[..], &new_key[..]].concat());
            let sign = [
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                &csr,
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-extfile",
                "san",
                "-out",
                &crt,
            ];
            openssl(dir, &sign);
        }
        let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
        vec![
            file("cert-file", "server.crt"),
            file("key-file", "server.key"),
            file("trusted-ca-file", "ca.crt"),
            "--client-cert-auth".to_owned(),
        ]
    });
    let file = |flag: &str, name: &str| format!("--{flag}={}", cluster.dir.path().join(name).display());
    cluster.ctl = vec![
        file("cacert", "ca.crt"),
        file("cert", "client.crt"),
        file("key", "client.key"),
    ];
    cluster.wait_healthy();
    let path = |name: &str| Some(cluster.dir.path().join(name));
    let mut good = settings(cluster.hosts());
    good.tls = true;
    good.cacert = path("ca.crt");
    good.cert = path("client.crt");
    good.key = path("client.key");
    let node = node_with("a", &good);
    let lock = node
        .acquire(TTL, Grounds::default(), None, &StatusRecord::default(), LIMIT)
        .await
        .unwrap();
    assert!(matches!(lock, Lock::Held { .. }), "{lock:?}");
    assert!(matches!(
        node.renew(TTL, None, &status(1), LIMIT).await.unwrap(),
        Lock::Held { .. }
    ));

    let mut stranger = good.clone();
    stranger.cacert = path("other.crt");
    let error = node_with("a", &stranger)
        .read(Duration::from_millis(500))
        .await
        .unwrap_err();
    println!("wrong CA: {error}");
    assert!(
        error.to_string().to_lowercase().contains("certificate"),
        "{error}"
    );
    let mut anonymous = good.clone();
    (anonymous.cert, anonymous.key) = (None, None);
    let error = node_with("a", &anonymous)
        .read(Duration::from_millis(500))
        .await
        .unwrap_err();
    println!("no client certificate: {error}");
    let mut plain = good.clone();
    plain.tls = false;
    let error = node_with("a", &plain)
        .read(Duration::from_millis(500))
        .await
        .unwrap_err();
    println!("http to https: {error}");

    good.cacert = path("nowhere.crt");
    let error = surus::dcs::Etcd::new(&good, "/service/x/", "a", surus::machine::Machine::real());
    let error = error.err().unwrap().to_string();
    assert!(error.contains("etcd3.cacert: cannot read"), "{error}");
}
