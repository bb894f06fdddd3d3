//! The agent's log: lines in the form that Patroni's users and their parsers know, to standard error or a rotated file.
//!
//! `2026-11-20 10:00:00,123 INFO: promoted timeline=4`, or with `log.type: json` one object per line with `asctime`,
//! `levelname`, `message` and the event's fields.
//!
//! **Writing never blocks the agent**: lines go through a bounded queue to a thread of their own. A full disk, a hung file system
//! or a stuck pipe costs log lines, which are counted, and not the lease.
//!
//! - [`start`] once per process; [`Logging::apply`] on SIGHUP; dropping [`Logging`] writes out what is queued
//! - `Lines` makes lines of events, `writer` is the thread, `Rotated` the file

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, reload};

use crate::clock::Clock;
use crate::config::settings::Log;

/// Lines that may wait to be written: Patroni's `max_queue_size`.
const QUEUE: usize = 1000;
/// How long the end of the process waits for the queue to be written.
const FLUSH: Duration = Duration::from_secs(1);
/// The file in `log.dir`.
const FILE_NAME: &str = "patroni.log";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file or its directory cannot be used.
    #[error(
        "cannot write the log file {path}: let the directory belong to the user that runs the agent, or correct log.dir"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// The queue is full.
    #[error("the log is stuck: its file system or pipe does not take what is written")]
    Stuck,
    /// The process has a log already.
    #[error("the log was started twice")]
    Twice,
}

/// The running log.
#[derive(Debug)]
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
    json: Arc<AtomicBool>,
    queue: Queue,
}

/// Says why the process does not begin, or ended, where a person sees it.
#[expect(
    clippy::print_stderr,
    reason = "what is fatal must be seen whatever the log settings say"
)]
pub(crate) fn refuse(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::FAILURE
}

/// Starts the log of this process.
///
/// # Errors
///
/// If the file cannot be opened, or if there is a log already.
pub fn start(log: &Log, clock: Arc<dyn Clock>) -> Result<Logging, LogError> {
    let (subscriber, logging) = build(log, clock)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(logging)
}

fn build(
    log: &Log,
    clock: Arc<dyn Clock>,
) -> Result<(impl Subscriber + Send + Sync + use<>, Logging), LogError> {
    let sink = Sink::open(log)?;
    let (sender, receiver) = sync_channel(QUEUE);
    let queue = Queue {
        sender,
        lost: Arc::default(),
    };
    let lost = Arc::clone(&queue.lost);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer(&receiver, sink, &lost))
        .map_err(LogError::Thread)?;
    let (filter, handle) = reload::Layer::new(levels(log));
    let json = Arc::new(AtomicBool::new(log.json));
    let lines = Lines {
        clock,
        zone: TimeZone::system(),
        json: Arc::clone(&json),
        queue: queue.clone(),
    };
    let subscriber = Registry::default().with(lines.with_filter(filter));
    Ok((
        subscriber,
        Logging {
            filter: handle,
            json,
            queue,
        },
    ))
}

impl Logging {
    /// Changes levels, format and file; the file is opened anew, so that one that was moved away is let go.
    ///
    /// # Errors
    ///
    /// If the new file cannot be opened, or the former takes nothing any more; nothing is changed then.
    pub fn apply(&self, log: &Log) -> Result<(), LogError> {
        let sink = Sink::open(log)?;
        self.queue
            .sender
            .try_send(Message::Sink(sink))
            .map_err(|_| LogError::Stuck)?;
        // Only the end of the subscriber, and so of the process, can refuse this.
        let _ = self.filter.reload(levels(log));
        self.json.store(log.json, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until everything that is queued now has been written, for at most a second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.queue.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH);
        }
    }

    /// Lines that were lost because the queue was full.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Which events are logged. `log.level` is for our own; libraries are quieter, as they have no part in what a user asks of the log.
fn levels(log: &Log) -> Targets {
    let own = level(&log.level);
    let others = if own >= LevelFilter::DEBUG {
        LevelFilter::INFO
    } else {
        LevelFilter::WARN.min(own)
    };
    let base = Targets::new().with_default(others).with_target("surus", own);
    log.loggers.iter().fold(base, |targets, (name, text)| {
        targets.with_target(target(name), level(text))
    })
}

/// A logger's name as our module path. Patroni's own names mean the part of the agent with the same task.
fn target(logger: &str) -> String {
    let mut parts: Vec<&str> = logger.split('.').collect();
    if parts[0] == "patroni" {
        parts[0] = "surus";
        for part in &mut parts {
            *part = match *part {
                "postgresql" => "postgres",
                "api" => "rest",
                "ha" => "driver",
                other => other,
            };
        }
    }
    parts.join("::")
}

/// The level of one of Python's names.
fn level(name: &str) -> LevelFilter {
    match name.to_ascii_uppercase().as_str() {
        "CRITICAL" | "FATAL" | "ERROR" => LevelFilter::ERROR,
        "WARNING" | "WARN" => LevelFilter::WARN,
        "DEBUG" => LevelFilter::DEBUG,
        "TRACE" | "NOTSET" => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

/// Makes a line of each event.
struct Lines {
    clock: Arc<dyn Clock>,
    zone: TimeZone,
    json: Arc<AtomicBool>,
    queue: Queue,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = stamp(self.clock.wall(), &self.zone);
        let level = level_name(*event.metadata().level());
        let line = if self.json.load(Ordering::Relaxed) {
            fields.json(&time, level)
        } else {
            fields.plain(&time, level)
        };
        self.queue.push(line);
    }
}

/// Local time as Python's logging prints it.
fn stamp(wall: Duration, zone: &TimeZone) -> String {
    let time = i64::try_from(wall.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or_default()
        .to_zoned(zone.clone());
    format!(
        "{},{:03}",
        time.strftime("%Y-%m-%d %H:%M:%S"),
        wall.subsec_millis()
    )
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = text(&value);
        } else {
            self.others.insert(field.name().to_owned(), value);
        }
    }

    fn plain(&self, time: &str, level: &str) -> String {
        let mut line = format!("{time} {level}: ");
        escape(&self.message, &mut line);
        for (name, value) in &self.others {
            line.push(' ');
            line.push_str(name);
            line.push('=');
            let value = text(value);
            if value.is_empty() || value.contains([' ', '"']) {
                let _ = write!(line, "{value:?}");
            } else {
                escape(&value, &mut line);
            }
        }
        line.push('\n');
        line
    }

    fn json(self, time: &str, level: &str) -> String {
        let mut object = Map::new();
        object.insert("asctime".to_owned(), time.into());
        object.insert("levelname".to_owned(), level.into());
        object.insert("message".to_owned(), self.message.into());
        for (name, value) in self.others {
            object.entry(name).or_insert(value);
        }
        format!("{}\n", Value::Object(object))
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One event is one line: what a peer or a client sent cannot forge another.
fn escape(text: &str, line: &mut String) {
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut chain = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(chain, ": {error}");
            cause = error.source();
        }
        self.put(field, chain.into());
    }
}

enum Message {
    Line(String),
    Sink(Sink),
    Flush(SyncSender<()>),
}

#[derive(Debug, Clone)]
struct Queue {
    sender: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Queue {
    fn push(&self, line: String) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Line(line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread that writes, until nobody is left who could log.
fn writer(receiver: &Receiver<Message>, mut sink: Sink, lost: &AtomicU64) {
    let mut told = 0;
    for message in receiver {
        match message {
            Message::Line(line) => {
                let gone = lost.load(Ordering::Relaxed);
                if gone > told {
                    sink.write(&format!(
                        "{} log lines were lost here: they came faster than they could be written\n",
                        gone - told
                    ));
                    told = gone;
                }
                sink.write(&line);
            }
            Message::Sink(new) => sink = new,
            // The one who waits may have given up.
            Message::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Where lines go.
enum Sink {
    Stderr,
    File(Rotated),
}

impl Sink {
    fn open(log: &Log) -> Result<Self, LogError> {
        let Some(dir) = &log.dir else {
            return Ok(Self::Stderr);
        };
        let path = dir.join(FILE_NAME);
        let file = std::fs::create_dir_all(dir).and_then(|()| Rotated::open(&path, log));
        file.map(Self::File)
            .map_err(|source| LogError::Open { path, source })
    }

    fn write(&mut self, line: &str) {
        let error = match self {
            Self::Stderr => None,
            Self::File(file) => file.write(line).err().map(|error| (error, file.complained)),
        };
        match (error, self) {
            (None, Self::File(file)) => file.complained = false,
            (Some((error, false)), Self::File(file)) => {
                file.complained = true;
                to_stderr(&format!(
                    "cannot write {}: {error}; lines go here instead\n{line}",
                    file.path.display()
                ));
            }
            _ => to_stderr(line),
        }
    }
}

fn to_stderr(text: &str) {
    // Nobody is left to be told if this fails.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A file that is renamed to `….1` when it is full, `….1` to `….2`, and so on.
struct Rotated {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    keep: u32,
    mode: Option<u32>,
    /// Its failure has been reported.
    complained: bool,
}

impl Rotated {
    fn open(path: &Path, log: &Log) -> io::Result<Self> {
        let file = open(path, log.mode)?;
        Ok(Self {
            size: file.metadata()?.len(),
            path: path.to_owned(),
            file,
            limit: log.file_size,
            keep: log.file_num,
            mode: log.mode,
            complained: false,
        })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let length = line.len() as u64;
        // As with Python's handler, a size or a number of 0 switches rotation off.
        if self.limit > 0 && self.keep > 0 && self.size > 0 && self.size + length > self.limit {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.size += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(1))?;
        self.file = open(&self.path, self.mode)?;
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn open(path: &Path, mode: Option<u32>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    if let Some(mode) = mode {
        options.mode(mode);
    }
    let file = options.open(path)?;
    if let Some(mode) = mode {
        // The mode of creation is subject to the umask, and says nothing of a file that was there.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests;
