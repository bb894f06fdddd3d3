//! The real binary against a real etcd and members that are small HTTP servers.
#![expect(clippy::unwrap_used, reason = "tests")]

mod etcd_support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use etcd_support::Cluster;

const PASSWORD: &str = "do-not-print-me";

/// A member's REST API that remembers what it was asked and gives one answer to everything but `/liveness`.
struct Member {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Member {
    fn start(status: &'static str, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut text = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    let read = stream.read(&mut buffer).unwrap_or(0);
                    text.extend_from_slice(&buffer[..read]);
                    let so_far = String::from_utf8_lossy(&text).into_owned();
                    let Some((head, body)) = so_far.split_once("\r\n\r\n") else {
                        continue;
                    };
                    let length = head
                        .lines()
                        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if read == 0 || body.len() >= length.unwrap_or(0_usize) {
                        break;
                    }
                }
                let text = String::from_utf8(text).unwrap();
                if text.starts_with("GET /liveness") {
                    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
                    continue;
                }
                seen.lock().unwrap().push(text);
                let _ = write!(
                    stream,
                    "HTTP/1.0 {status}\r\nContent-Type: text/html\r\n\r\n{answer}"
                );
            }
        });
        Self { address, requests }
    }
}

/// A directory with a configuration, and how to run the binary in it.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("patroni.yml"), config).unwrap();
        Self { dir }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.run_as(Path::new(env!("CARGO_BIN_EXE_surus")), arguments)
    }

    fn run_as(&self, program: &Path, arguments: &[&str]) -> Output {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(
            !said.concat().contains(PASSWORD),
            "{arguments:?} printed a password: {said:?}"
        );
        output
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn config(etcd: &str) -> String {
    format!(
        "scope: demo\nname: nodea\netcd3:\n  hosts: {etcd}\nrestapi:\n  listen: 127.0.0.1:1\n  connect_address: 127.0.0.1:1\n  \
         authentication:\n    username: op\n    password: {PASSWORD}\n"
    )
}

fn put(etcd: &Cluster, key: &str, value: &str) {
    etcd.ctl(&["put", &format!("/service/demo/{key}"), value]);
}

fn get(etcd: &Cluster, key: &str) -> String {
    etcd.ctl(&["get", "--print-value-only", &format!("/service/demo/{key}")])
        .trim()
        .to_owned()
}

fn put_demo(etcd: &Cluster, a: &str, b: &str) {
    put(etcd, "initialize", "7710181664234940600");
    put(etcd, "leader", "nodea");
    put(etcd, "config", r#"{"loop_wait":1,"ttl":30}"#);
    put(etcd, "status", r#"{"optime":67108960}"#);
    let record = |host: &str, api: &str, rest: &str| {
        format!(
            r#"{{"conn_url":"postgres://{host}:5432/postgres","api_url":"http://{api}/patroni","state":"running",{rest}}}"#
        )
    };
    let a = record(
        "10.0.0.1",
        a,
        r#""role":"primary","xlog_location":67108960,"timeline":3"#,
    );
    put(etcd, "members/nodea", &a);
    let rest = r#""role":"replica","replication_state":"streaming","receive_lsn":67108960,"replay_lsn":67108960,"timeline":3"#;
    put(etcd, "members/nodeb", &record("10.0.0.2", b, rest));
}

const TABLE: &str = "\
+ Cluster: demo (7710181664234940600) ----+----+-------------+-----+------------+-----+
| Member | Host     | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+----------+---------+-----------+----+-------------+-----+------------+-----+
| nodea  | 10.0.0.1 | Leader  | running   |  3 |             |     |            |     |
| nodeb  | 10.0.0.2 | Replica | streaming |  3 |   0/4000060 |   0 |  0/4000060 |   0 |
+--------+----------+---------+-----------+----+-------------+-----+------------+-----+
";

#[test]
fn commands_work_on_real_etcd_and_members() {
    if !etcd_support::etcd_is_here() {
        return;
    }
    let etcd = Cluster::start(1, &[]);
    let member = Member::start("200 OK", "Successfully switched over to \"nodeb\"");
    put_demo(&etcd, &member.address, "127.0.0.1:1");
    let desk = Desk::new(&config(&etcd.members[0].endpoint()));

    let listed = desk.run(&["list"]);
    assert_eq!(
        (out(&listed), err(&listed), listed.status.code()),
        (TABLE, "", Some(0))
    );

    // Under Patroni's name, with the etcd of the command line and a configuration that says nothing.
    let patronictl = desk.path("patronictl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_surus"), &patronictl).unwrap();
    let empty = desk.path("ctl.yml");
    std::fs::write(&empty, "namespace: other\n").unwrap();
    let url = format!("etcd3://127.0.0.1:1,{}/service/", etcd.members[0].endpoint());
    let listed = desk.run_as(
        &patronictl,
        &["-c", empty.to_str().unwrap(), "-d", &url, "list", "demo"],
    );
    assert_eq!((out(&listed), err(&listed)), (TABLE, ""));

    // The leader is asked, once, with the credentials; the answer is the result.
    let switched = desk.run(&["switchover", "--candidate", "nodeb", "--force"]);
    assert_eq!(switched.status.code(), Some(0), "{}", err(&switched));
    assert!(
        out(&switched).contains(" Successfully switched over to \"nodeb\"\n"),
        "{}",
        out(&switched)
    );
    let requests = member.requests.lock().unwrap().clone();
    let [request] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    assert!(request.starts_with("POST /switchover HTTP/1.1\r\n"), "{request}");
    assert!(
        request.ends_with("\r\n\r\n{\"leader\":\"nodea\",\"candidate\":\"nodeb\"}"),
        "{request}"
    );
    assert!(
        request.to_lowercase().contains("\r\nauthorization: basic "),
        "{request}"
    );

    // A configuration is written by compare-and-swap, and a wrong one not at all.
    let edited = desk.run(&["edit-config", "-s", "ttl=20", "--force"]);
    assert!(
        out(&edited).ends_with("-ttl: 30\n+ttl: 20\nConfiguration changed\n"),
        "{}{}",
        out(&edited),
        err(&edited)
    );
    assert_eq!(get(&etcd, "config"), r#"{"loop_wait":1,"ttl":20}"#);
    let refused = desk.run(&["edit-config", "-s", "ttl=soon", "--force"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = err(&refused);
    assert!(
        said.contains("the agents would not accept") && said.contains("ttl") && said.contains("\nhint: "),
        "{said}"
    );
    assert_eq!(get(&etcd, "config"), r#"{"loop_wait":1,"ttl":20}"#);
}

#[test]
fn without_any_member_the_wish_goes_into_etcd() {
    if !etcd_support::etcd_is_here() {
        return;
    }
    let etcd = Cluster::start(1, &[]);
    put_demo(&etcd, "127.0.0.1:1", "127.0.0.1:2");
    let desk = Desk::new(&config(&etcd.members[0].endpoint()));
    let schedule = "2099-11-24T10:33:00+01:00";
    let output = desk.run(&[
        "switchover",
        "--candidate",
        "nodeb",
        "--scheduled",
        schedule,
        "--force",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("Could not switchover using Patroni api, falling back to DCS"));
    assert!(
        err(&output).contains("cannot connect to 127.0.0.1:2: Connection refused"),
        "{}",
        err(&output)
    );
    let wish = r#"{"leader":"nodea","member":"nodeb","scheduled_at":"2099-11-24T09:33:00+00:00"}"#;
    assert_eq!(get(&etcd, "failover"), wish);
    assert!(out(&desk.run(&["list"])).contains(" Switchover scheduled at: 2099-11-24T09:33:00+00:00\n"));
    assert_eq!(
        out(&desk.run(&["flush", "switchover"])),
        "Success: scheduled switchover deleted\n"
    );
    assert_eq!(get(&etcd, "failover"), "{}");

    // An immediate one is followed until it has taken place.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !get(&etcd, "failover").contains("nodeb") {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            put(&etcd, "leader", "nodeb");
        });
        let output = desk.run(&["failover", "--candidate", "nodeb", "--force"]);
        assert!(
            out(&output).contains("Successfully failed over to \"nodeb\""),
            "{}{}",
            out(&output),
            err(&output)
        );
    });
}

#[test]
fn an_unreachable_etcd_is_named_with_what_each_endpoint_said() {
    let desk = Desk::new(&config("127.0.0.1:1,127.0.0.1:2"));
    let output = desk.run(&["list"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(out(&output), "");
    let said = err(&output);
    assert!(
        said.starts_with("error: cannot read cluster demo from etcd\n"),
        "{said}"
    );
    assert!(
        said.contains("127.0.0.1:1: Connection refused") && said.contains("127.0.0.1:2: Connection refused"),
        "{said}"
    );
    assert!(
        said.contains("\n\nhint: check that etcd runs at 127.0.0.1:1, 127.0.0.1:2"),
        "{said}"
    );
}

#[test]
fn configurations_that_cannot_be_used_are_named() {
    let none = Desk {
        dir: tempfile::tempdir().unwrap(),
    };
    let output = none.run(&["list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("looked for patroni.yml, patroni.yaml, /etc/surus/surus.yml"),
        "{}",
        err(&output)
    );

    for (text, expected) in [
        ("scope: [", "not valid YAML"),
        ("", "error: cannot use the configuration patroni.yml"),
        ("scope: demo\n", "etcd3"),
        ("scope: demo\netcd3: {hosts: 'a:b'}\n", "etcd3.hosts"),
        ("scope: demo\nconsul: {host: a}\n", "consul"),
        (
            "scope: demo\netcd3: {host: a}\nctl: {keyfile: x}\n",
            "ctl.certfile",
        ),
    ] {
        let output = Desk::new(text).run(&["list"]);
        let said = err(&output);
        assert!(
            said.contains(expected) && said.contains("\nhint: "),
            "{text:?}: {said}"
        );
        assert_eq!((output.status.code(), out(&output)), (Some(1), ""), "{text:?}");
    }
    let missing = none.run(&["list", "-c", "nosuch.yml"]);
    assert!(
        err(&missing).contains("nosuch.yml") && err(&missing).contains("No such file"),
        "{}",
        err(&missing)
    );
    let output = none.run(&["list", "demo", "-d", &format!("op:{PASSWORD}@127.0.0.1:1")]);
    assert!(err(&output).contains("it holds a user name"), "{}", err(&output));
}

#[test]
fn verbs_without_a_cluster_need_no_configuration() {
    let desk = Desk {
        dir: tempfile::tempdir().unwrap(),
    };
    assert_eq!(
        out(&desk.run(&["version"])),
        concat!("surus version ", env!("CARGO_PKG_VERSION"), "\n")
    );
    let patronictl = desk.path("patronictl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_surus"), &patronictl).unwrap();
    assert_eq!(
        out(&desk.run_as(&patronictl, &["version"])),
        "patronictl version 4.1.5\n"
    );
    assert!(err(&desk.run_as(&patronictl, &["list"])).starts_with("Error: found no configuration\n"));
    assert!(err(&desk.run_as(&patronictl, &["nosuch"])).contains("Usage: patronictl"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            out(&desk.run(&["completions", shell])).contains("switchover"),
            "{shell}"
        );
    }
    let pages = desk.path("man");
    assert_eq!(desk.run(&["man", pages.to_str().unwrap()]).status.code(), Some(0));
    assert!(pages.join("surus-switchover.1").exists());
    let invalid = desk.run(&["validate", "nosuch.yml"]);
    assert_eq!(invalid.status.code(), Some(1));
    assert!(
        err(&invalid).contains("error: nosuch.yml cannot be used"),
        "{}",
        err(&invalid)
    );
    assert_eq!(desk.run(&["list", "--nosuch"]).status.code(), Some(2));
}
