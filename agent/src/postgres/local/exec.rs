//! Running PostgreSQL's tools and the user's commands, so that none of them outlives the agent.
//!
//! A tool is the leader of its own process group, is killed by the kernel when the agent dies, and is killed with its group when
//! the agent gives up waiting. What survives even that (a helper forked by a tool whose parent was killed) is found by
//! `directory::strays` before the directory is worked on again.
//!
//! The kernel's signal comes at the end of the *thread* that forked. Tools are spawned from async code, so that is a worker of the
//! runtime, which lives as long as the agent; they must not be spawned from `spawn_blocking`, whose threads come and go.

#![expect(unsafe_code, reason = "a death signal can only be set between fork and exec")]

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::super::site::Question;
use super::{Error, Local};

/// What a tool printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Output {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Is given each line of standard error.
type OnLine<'a> = Box<dyn FnMut(&str) + Send + 'a>;

/// Is given the process id.
type OnStart<'a> = Box<dyn FnOnce(u32) + Send + 'a>;

/// A program to run to its end.
pub(super) struct Tool<'a> {
    program: PathBuf,
    command: Command,
    limit: Option<Duration>,
    lines: Option<OnLine<'a>>,
    started: Option<OnStart<'a>>,
}

/// Of a program that fails this many last lines are told.
const TOLD_LINES: usize = 6;

impl<'a> Tool<'a> {
    pub(super) fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        command
            .env("LC_ALL", "C")
            .env_remove("PGDATA")
            .env_remove("PGSERVICE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only async-signal-safe system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                // The parent may have died before the line above.
                if rustix::process::getppid() != Some(parent) {
                    return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
        Self {
            program: program.to_owned(),
            command,
            limit: None,
            lines: None,
            started: None,
        }
    }

    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(super) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Kills it after this long.
    pub(super) fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Is given each line of standard error as it comes.
    pub(super) fn lines(mut self, lines: impl FnMut(&str) + Send + 'a) -> Self {
        self.lines = Some(Box::new(lines));
        self
    }

    /// Is given the process id.
    pub(super) fn started(mut self, started: impl FnOnce(u32) + Send + 'a) -> Self {
        self.started = Some(Box::new(started));
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, ends with failure, or outlasts its limit.
    pub(super) async fn run(mut self) -> Result<Output, Error> {
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut child = self.command.spawn().map_err(|source| Error::Spawn {
            program: self.program.clone(),
            source,
        })?;
        let group = Group(child.id());
        if let (Some(started), Some(pid)) = (self.started.take(), child.id()) {
            started(pid);
        }
        let lines = self.lines.take();
        let work = finish(&mut child, lines);
        let finished = match self.limit {
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .map_err(|_| Error::Timeout {
                    what: name.clone(),
                    limit,
                })?,
            None => work.await,
        };
        let (status, output) = finished.map_err(|source| Error::Spawn {
            program: self.program.clone(),
            source,
        })?;
        group.ended();
        if status.success() {
            return Ok(output);
        }
        Err(Error::Program {
            program: name,
            status: status.to_string(),
            output: last_lines(&format!("{}\n{}", output.stdout, output.stderr)),
        })
    }
}

async fn finish(
    child: &mut Child,
    lines: Option<OnLine<'_>>,
) -> std::io::Result<(std::process::ExitStatus, Output)> {
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let (stdout, stderr, status) = tokio::join!(read_all(stdout), read_lines(stderr, lines), child.wait());
    Ok((
        status?,
        Output {
            stdout: stdout?,
            stderr: stderr?,
        },
    ))
}

async fn read_all(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads to the end, cutting at line ends and at carriage returns, which progress reports use. Keeps the last 64 KiB.
async fn read_lines(
    stream: Option<impl AsyncRead + Unpin>,
    mut lines: Option<OnLine<'_>>,
) -> std::io::Result<String> {
    const KEPT: usize = 64 * 1024;
    let mut kept = String::new();
    let Some(stream) = stream else {
        return Ok(kept);
    };
    let mut stream = BufReader::new(stream);
    let mut bytes = Vec::new();
    while stream.read_until(b'\n', &mut bytes).await? != 0 {
        let chunk = String::from_utf8_lossy(&bytes).into_owned();
        for line in chunk.split(['\r', '\n']).filter(|line| !line.trim().is_empty()) {
            if let Some(lines) = &mut lines {
                lines(line);
            }
            kept.push_str(line);
            kept.push('\n');
        }
        if KEPT < kept.len() {
            let mut cut = kept.len() - KEPT / 2;
            while !kept.is_char_boundary(cut) {
                cut += 1;
            }
            kept.drain(..cut);
        }
        bytes.clear();
    }
    Ok(kept)
}

/// Kills the process group unless it has ended by itself.
struct Group(Option<u32>);

impl Group {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            kill_group(pid);
        }
    }
}

/// SIGKILL to a process group.
pub(super) fn kill_group(leader: u32) {
    if let Some(pid) = i32::try_from(leader)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        // It may have ended by itself; then there is nothing to kill.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// Runs one of the user's hooks to its end.
pub(super) async fn hook(name: &str, command: &str, limit: Duration) -> Result<(), Error> {
    let words = split(command)?;
    tracing::info!(hook = name, command, "running a hook");
    Tool::new(words[0].as_ref())
        .args(&words[1..])
        .limit(limit)
        .run()
        .await
        .map(|_| ())
}

impl Local {
    /// Asks through psql, which is libpq: certificates, methods of authentication and whatever else the user's connection options say
    /// are its to understand, in the replication protocol too.
    pub(super) async fn psql(&self, question: Question<'_>) -> Result<String, Error> {
        Tool::new(&self.binary("psql"))
            .args([
                "--no-psqlrc",
                "--no-password",
                "--no-align",
                "--tuples-only",
                "--quiet",
            ])
            .args([
                "--set",
                "ON_ERROR_STOP=1",
                "--field-separator",
                "\t",
                "--command",
                question.command,
            ])
            .arg(question.conninfo)
            .limit(question.limit)
            .run()
            .await
            .map(|output| output.stdout)
    }
}

/// The last lines of what a program printed, joined for a message.
pub(super) fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(TOLD_LINES)..].join("; ")
}

/// Splits a command line as a shell does, quotes and backslashes included, without expanding anything.
///
/// # Errors
/// When a quote is not closed or there is no word at all.
pub(super) fn split(command: &str) -> Result<Vec<OsString>, Error> {
    let problem = |what: &str| Error::Condition(format!("the command {command:?} {what}"));
    let mut words: Vec<OsString> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, ' ' | '\t' | '\n') => words.extend(word.take().map(OsString::from)),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => {
                let next = characters.next().ok_or_else(|| problem("ends in a backslash"))?;
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err(problem("has a quote that is not closed"));
    }
    words.extend(word.map(OsString::from));
    if words.is_empty() {
        return Err(problem("is empty"));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_splits_as_in_a_shell() {
        let words = split(r#"/bin/x --a="b c" 'd "e' f\ g "h\"i\n""#).unwrap();
        assert_eq!(words, ["/bin/x", "--a=b c", "d \"e", "f g", "h\"i\\n"]);
        assert!(split("a 'b").is_err());
        assert!(split("  ").is_err());
    }

    #[tokio::test]
    async fn a_tool_is_killed_at_its_limit_and_told_of_when_it_fails() {
        let slow = Tool::new(Path::new("/bin/sleep"))
            .arg("30")
            .limit(Duration::from_millis(50));
        assert!(matches!(slow.run().await, Err(Error::Timeout { .. })));
        let failing = Tool::new(Path::new("/bin/sh")).args(["-c", "echo one >&2; echo two >&2; exit 3"]);
        let text = failing.run().await.unwrap_err().to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("one; two"),
            "{text}"
        );
        let missing = Tool::new(Path::new("/nonexistent/initdb"))
            .run()
            .await
            .unwrap_err();
        assert!(missing.to_string().contains("postgresql.bin_dir"));
    }
}
