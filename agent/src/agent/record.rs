//! What the core was told, on record, and told to it again.
//!
//! The core is a function of its settings, what it found at its start, and its inputs with their times. So a file with these shows what an
//! agent did, and why, on any other machine, and what the agent of another version would have done in its place.
//!
//! A recording is text, one JSON object a line: first `begin`, then an `input` for each step. It holds names, addresses and positions of the
//! cluster, and no passwords.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use serde::{Deserialize, Serialize};
use surus_core::config::Config;
use surus_core::types::MonoTime;
use surus_core::{Action, Boot, Decision, Input, Node, Step};

use super::env::Observer;

/// What lines look like; raised when an old reader would misread new ones.
const FORMAT: u32 = 1;

/// Lines that may wait for the disk: several minutes of a busy agent.
const WAITING: usize = 4096;

/// A line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first.
    Begin {
        /// How the file is written.
        format: u32,
        /// The agent that wrote it.
        version: String,
        /// When.
        at: MonoTime,
        /// The settings that the core began with.
        config: Config,
        /// What it found.
        boot: Boot,
    },
    /// A step.
    Input {
        /// When.
        at: MonoTime,
        /// What had happened.
        input: Input,
    },
}

/// Writes a recording.
pub struct Recorder {
    /// `None` once a line could not be kept: a recording with a gap would tell lies.
    sink: Option<Sink>,
}

/// Takes a line; false if it cannot.
type Sink = Box<dyn FnMut(String) -> bool + Send>;

impl Recorder {
    /// Records into `sink`, which takes a line or says that it cannot; it is not asked again then.
    #[must_use]
    pub fn to(sink: impl FnMut(String) -> bool + Send + 'static) -> Self {
        Self {
            sink: Some(Box::new(sink)),
        }
    }

    /// Records into a new file, through a thread of its own: a disk that hangs holds up nothing, and ends the recording.
    ///
    /// # Errors
    /// The file is there already, or cannot be made.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        let (lines, waiting): (SyncSender<String>, _) = sync_channel(WAITING);
        std::thread::Builder::new()
            .name("surus-record".to_owned())
            .spawn(move || {
                let mut file = BufWriter::new(file);
                while let Ok(line) = waiting.recv() {
                    let mut written = writeln!(file, "{line}");
                    for line in waiting.try_iter() {
                        written = written.and_then(|()| writeln!(file, "{line}"));
                    }
                    if let Err(error) = written.and_then(|()| file.flush()) {
                        tracing::error!(%error, "the recording ends here");
                        return;
                    }
                }
            })?;
        Ok(Self::to(move |line| lines.try_send(line).is_ok()))
    }

    fn keep(&mut self, line: &Line) {
        let Some(sink) = &mut self.sink else { return };
        let kept = match serde_json::to_string(line) {
            Ok(text) => sink(text),
            Err(_) => false,
        };
        if !kept {
            tracing::error!("the recording ends here: a line of it could not be kept");
            self.sink = None;
        }
    }
}

impl Observer for Recorder {
    fn begun(&mut self, now: MonoTime, config: &Config, boot: &Boot, _: &Step) {
        self.keep(&Line::Begin {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: now,
            config: config.clone(),
            boot: *boot,
        });
    }

    // Before the step: should the core panic at it, the last line is why.
    fn told(&mut self, now: MonoTime, input: &Input) {
        self.keep(&Line::Input {
            at: now,
            input: input.clone(),
        });
    }

    fn stepped(&mut self, _: MonoTime, _: &Step) {}
}

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("cannot read the recording")]
    Read(#[from] io::Error),
    /// A line is not of a recording. The last one may be cut off, which is no error.
    #[error("line {number} is no line of a recording")]
    Line {
        /// Counted from one.
        number: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The first line does not begin one, or a later one does.
    #[error("line {0} is out of place: a recording has one beginning, in its first line")]
    Misplaced(usize),
    /// It was written by a later version.
    #[error("the recording is of format {0}, and this version reads format {FORMAT}")]
    Format(u32),
}

/// What the core did at one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Since the beginning.
    pub after: std::time::Duration,
    /// What had happened; `None` at the beginning.
    pub input: Option<Input>,
    /// What it decided.
    pub decision: Decision,
    /// What it ordered.
    pub actions: Vec<Action>,
}

/// Tells a recording to the core of this version, and shows each step to `see`. Returns the node as it is at the end.
///
/// # Errors
/// It is no recording, or not one of this format.
pub fn replay(recording: impl BufRead, mut see: impl FnMut(Replayed)) -> Result<Option<Node>, ReplayError> {
    let mut running: Option<(Node, MonoTime)> = None;
    let mut lines = recording.lines().enumerate().peekable();
    while let Some((index, text)) = lines.next() {
        let number = index + 1;
        let line = match serde_json::from_str(&text?) {
            Ok(line) => line,
            // An agent that was killed leaves half a line.
            Err(error) if error.is_eof() && lines.peek().is_none() => break,
            Err(source) => return Err(ReplayError::Line { number, source }),
        };
        match (line, &mut running) {
            (Line::Begin { format, .. }, None) if format != FORMAT => {
                return Err(ReplayError::Format(format));
            }
            (Line::Begin { at, config, boot, .. }, None) => {
                let (node, step) = Node::new(config, boot, at);
                running = Some((node, at));
                see(Replayed::of(std::time::Duration::ZERO, None, step));
            }
            (Line::Input { at, input }, Some((node, begun))) => {
                let step = node.step(at, input.clone());
                see(Replayed::of(at.since(*begun), Some(input), step));
            }
            (Line::Begin { .. }, Some(_)) | (Line::Input { .. }, None) => {
                return Err(ReplayError::Misplaced(number));
            }
        }
    }
    Ok(running.map(|(node, _)| node))
}

impl Replayed {
    fn of(after: std::time::Duration, input: Option<Input>, step: Step) -> Self {
        Self {
            after,
            input,
            decision: step.decision,
            actions: step.actions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_in_a_file_is_whole_and_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recording");
        let mut recorder = Recorder::to_file(&path).unwrap();
        for at in 1..=3 {
            recorder.keep(&Line::Input {
                at: MonoTime(at),
                input: Input::Shutdown,
            });
        }
        drop(recorder);
        // The thread that writes ends when nothing can come any more.
        let whole = || std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 3);
        for _ in 0..2000 {
            if whole() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(whole());
        assert!(Recorder::to_file(&path).is_err());
        assert!(whole());
    }
}
