//! A session through libpq: `psql` with a connection string of several hosts, as an application has it that finds the primary itself.

use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::error::{Error, Result};

/// `connect_timeout`: the least that libpq takes, in seconds for each host.
const CONNECT: u64 = 2;
/// What `psql` writes between two columns.
const SEPARATOR: char = ' ';

/// A `psql` that is connected and waits for statements. It ends at the first error, and when this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Session {
    /// Connects to whichever of `hosts` accepts writes, tried in their order.
    pub(crate) async fn open(psql: &Path, hosts: &[SocketAddrV4], password: &str) -> Result<Self> {
        let doing = || format!("start {}", psql.display());
        let mut child = Command::new(psql)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-F"])
            .arg(SEPARATOR.to_string())
            .arg(conninfo(hosts))
            .env("PGPASSWORD", password)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::io(doing))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Unable(format!("{} has no pipes", psql.display())));
        };
        let output = BufReader::new(output).lines();
        let mut session = Self { child, input, output };
        // It reads its input once it is connected.
        let limit = Duration::from_secs(CONNECT) * u32::try_from(hosts.len() + 1).unwrap_or(1);
        let greeting = timeout(limit, session.say("\\echo connected"));
        greeting.await.map_err(|_| Error::Late {
            what: "a connection through libpq".into(),
            limit,
            last: "silence".into(),
        })??;
        Ok(session)
    }

    /// Runs one statement that answers with one row of text, without blanks in it.
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<Vec<String>> {
        let line = self.say(&format!("{sql};")).await?;
        Ok(line.split(SEPARATOR).map(str::to_owned).collect())
    }

    /// Gives it a line and takes the next one of its output.
    async fn say(&mut self, line: &str) -> Result<String> {
        // If it has ended, its output says so.
        let _ = self.input.write_all(format!("{line}\n").as_bytes()).await;
        let next = self.output.next_line().await;
        match next.map_err(Error::io(|| "read psql's output"))? {
            Some(line) => Ok(line),
            None => Err(Error::Unmet(self.last_words().await)),
        }
    }

    async fn last_words(&mut self) -> String {
        let mut text = String::new();
        if let Some(errors) = &mut self.child.stderr {
            let _ = errors.read_to_string(&mut text).await;
        }
        let text = text.trim().replace('\n', "; ");
        if text.is_empty() {
            "psql ended".into()
        } else {
            text
        }
    }
}

fn conninfo(hosts: &[SocketAddrV4]) -> String {
    let all = |of: fn(&SocketAddrV4) -> String| hosts.iter().map(of).collect::<Vec<_>>().join(",");
    format!(
        "host={} port={} dbname=postgres user=postgres target_session_attrs=read-write connect_timeout={CONNECT} \
         application_name=surus-ci options='-c log_min_messages=fatal'",
        all(|at| at.ip().to_string()),
        all(|at| at.port().to_string()),
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn all_hosts_stand_in_the_connection_string() {
        let at = |last, port| SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), port);
        let text = conninfo(&[at(1, 5432), at(2, 5433)]);
        assert!(
            text.starts_with("host=127.0.0.1,127.0.0.2 port=5432,5433 "),
            "{text}"
        );
    }

    #[tokio::test]
    async fn what_psql_says_last_is_the_error() {
        // It answers the greeting and ends at the statement, as psql does when the server goes.
        let dir = tempfile::tempdir().unwrap();
        let psql = dir.path().join("psql");
        std::fs::write(
            &psql,
            "#!/bin/sh\nread a; echo connected; read b; echo 'server closed' >&2\n",
        )
        .unwrap();
        std::fs::set_permissions(&psql, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut session = Session::open(&psql, &[], "").await.unwrap();
        let error = session.ask("SELECT 1").await.unwrap_err();
        assert_eq!(error.to_string(), "server closed");
    }
}
