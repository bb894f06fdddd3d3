//! `surus validate`: what is wrong with the machine, found without changing it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use surus::config::validate::{Findings, Options, validate};
use surus::config::{Surroundings, render};

/// A configuration whose directories and ports are all in order, in a directory of its own.
struct Node {
    dir: tempfile::TempDir,
    port: u16,
    rest: u16,
}

/// A port that nothing listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port()
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let node = Self {
            dir,
            port: free_port(),
            rest: free_port(),
        };
        node.binaries("15.18");
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Programs that say only their version.
    fn binaries(&self, version: &str) {
        let bin = self.path("bin");
        std::fs::create_dir_all(&bin).expect("created");
        for name in [
            "postgres",
            "initdb",
            "pg_controldata",
            "pg_basebackup",
            "pg_rewind",
        ] {
            // Written by a child: a descriptor that is open for writing here could be inherited by another thread's child,
            // and the program could not be executed as long as that lives.
            let script = format!(
                "rm -f {name}; printf '#!/bin/sh\\necho \"{name} (PostgreSQL) {version}\"\\n' >{name}; chmod 755 {name}"
            );
            let status = std::process::Command::new("sh")
                .arg("-c")
                .arg(script)
                .current_dir(&bin)
                .status();
            assert!(status.is_ok_and(|status| status.success()));
        }
    }

    fn data_dir(&self, mode: u32, version: Option<&str>) -> PathBuf {
        let dir = self.path("pg/data");
        std::fs::create_dir_all(&dir).expect("created");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).expect("mode");
        if let Some(version) = version {
            std::fs::write(dir.join("PG_VERSION"), format!("{version}\n")).expect("written");
        }
        dir
    }

    fn check(&self, more: &str, options: Options) -> Findings {
        let text = format!(
            "scope: demo\nname: n1\nrestapi: {{listen: '127.0.0.1:{rest}'}}\netcd: {{host: 127.0.0.1}}\npostgresql:\n  \
             listen: 127.0.0.1:{port}\n  data_dir: {dir}/pg/data\n  bin_dir: {dir}/bin\n  pgpass: {dir}/pgpass\n  \
             authentication:\n    replication: {{username: replicator, password: x}}\n{more}",
            rest = self.rest,
            port = self.port,
            dir = self.dir.path().display(),
        );
        let file = self.path("patroni.yml");
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("mode");
        validate(
            Some(&file),
            &Surroundings {
                current_dir: "/".into(),
                ..Surroundings::default()
            },
            options,
        )
    }

    fn found(&self, more: &str) -> Vec<(String, usize, String)> {
        let findings = self.check(more, Options::default());
        findings
            .problems
            .into_iter()
            .map(|problem| (problem.path, problem.line, problem.message))
            .collect()
    }
}

fn one(found: &[(String, usize, String)], path: &str, line: usize, message: &str) {
    assert!(
        found.len() == 1 && found[0].0 == path && found[0].1 == line && found[0].2.contains(message),
        "wanted {path}:{line} {message}, found {found:?}"
    );
}

#[test]
fn a_machine_in_order_has_no_findings() {
    let node = Node::new();
    let findings = node.check("", Options::default());
    assert_eq!(findings.render(), "");
    assert!(findings.is_valid() && findings.settings.is_some());
    assert!(!node.path("pg").exists(), "nothing was made");
}

#[test]
fn ports_in_use_are_found_unless_told_otherwise() {
    let node = Node::new();
    let _postgres = TcpListener::bind(("127.0.0.1", node.port)).expect("free");
    let _rest = TcpListener::bind(("127.0.0.1", node.rest)).expect("free");
    let findings = node.check("", Options::default());
    let paths: Vec<&str> = findings
        .problems
        .iter()
        .map(|problem| problem.path.as_str())
        .collect();
    assert_eq!(
        paths,
        ["postgresql.listen", "restapi.listen"],
        "{}",
        render(&findings.problems)
    );
    assert!(!findings.is_valid());
    assert!(
        node.check(
            "",
            Options {
                ignore_listen_port: true
            }
        )
        .is_valid()
    );
}

#[test]
fn an_address_of_another_machine_is_found() {
    let node = Node::new();
    let findings = node.found("log: {level: INFO}\n");
    assert_eq!(findings, []);
    let text = std::fs::read_to_string(node.path("patroni.yml")).expect("there");
    let file = node.path("other.yml");
    // 192.0.2.0/24 is reserved for documentation: no machine has it.
    std::fs::write(
        &file,
        text.replace(
            &format!("listen: 127.0.0.1:{}", node.port),
            "listen: 192.0.2.1:5432",
        ),
    )
    .expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("mode");
    let findings = validate(Some(&file), &Surroundings::default(), Options::default());
    let problem = findings.problems.first().expect("one");
    assert!(
        problem.message.contains("not an address of this machine"),
        "{problem}"
    );
    assert_eq!(problem.line, 6);
}

#[test]
fn data_directories_that_postgres_would_refuse_are_found() {
    let node = Node::new();
    let dir = node.data_dir(0o777, None);
    let found = node.found("");
    assert!(
        found
            .iter()
            .any(|(path, line, text)| path == "postgresql.data_dir" && *line == 7 && text.contains("0777")),
        "{found:?}"
    );
    node.data_dir(0o700, Some("14"));
    let found = node.found("");
    assert!(
        found
            .iter()
            .any(|(_, _, text)| text.contains("made by PostgreSQL 14")),
        "{found:?}"
    );
    std::fs::remove_file(dir.join("PG_VERSION")).expect("there");
    std::fs::write(dir.join("precious.txt"), "").expect("written");
    let found = node.found("");
    assert!(
        found.iter().any(|(_, _, text)| text.contains("is not empty")),
        "{found:?}"
    );
}

#[test]
fn missing_and_old_programs_are_found() {
    let node = Node::new();
    std::fs::remove_file(node.path("bin/pg_rewind")).expect("there");
    let findings = node.check("", Options::default());
    assert!(
        findings.is_valid(),
        "without pg_rewind members are cloned: {}",
        findings.render()
    );
    one(&node.found(""), "postgresql.bin_dir", 8, "pg_rewind is missing");
    node.binaries("9.6.24");
    one(
        &node.found(""),
        "postgresql.bin_dir",
        8,
        "PostgreSQL 9 is not among",
    );
    std::fs::remove_file(node.path("bin/initdb")).expect("there");
    assert!(!node.check("", Options::default()).is_valid());
}

#[test]
fn files_and_directories_that_are_named_must_be_there() {
    let node = Node::new();
    one(
        &node.found("log: {dir: /dev/null/log}\n"),
        "log.dir",
        12,
        "does not exist, and /dev/null is no directory",
    );
    one(
        &node.found("ctl: {cacert: /nonexistent/ca.pem}\n"),
        "ctl.cacert",
        12,
        "cannot read /nonexistent/ca.pem",
    );
}

#[test]
fn passwords_that_everybody_can_read_are_found() {
    let node = Node::new();
    node.check("", Options::default());
    let file = node.path("patroni.yml");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("mode");
    let findings = validate(Some(&file), &Surroundings::default(), Options::default());
    assert!(findings.is_valid());
    assert!(
        findings
            .render()
            .contains("every user of this machine can read the passwords"),
        "{}",
        findings.render()
    );
}

#[test]
fn the_real_postgres_is_recognised() {
    let real = Path::new("/usr/lib/postgresql/15/bin/postgres");
    if !real.exists() {
        eprintln!("SKIPPED: {} is missing", real.display());
        return;
    }
    let version = surus::config::binaries::version(real).expect("it runs");
    assert_eq!(version / 10_000, 15);
}
