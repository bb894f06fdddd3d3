//! How commands talk: data to standard output, everything else to standard error, questions with a way to answer.

use std::io::{BufRead, Write};
use std::time::Duration;

use crate::ctl::failure::Failure;

/// The three streams, and what is known of them.
pub struct Terminal {
    /// Data.
    pub out: Box<dyn Write>,
    /// Everything else.
    pub err: Box<dyn Write>,
    /// Answers.
    pub input: Box<dyn BufRead>,
    /// Questions can be asked of a person: standard input and standard error are a terminal.
    pub interactive: bool,
    /// Standard output is a terminal: it may be cleared and coloured.
    pub out_is_terminal: bool,
    /// Standard error is a terminal: progress may be drawn on it.
    pub err_is_terminal: bool,
    /// Progress on display, which other lines must not run into.
    pub drawn: Option<indicatif::ProgressBar>,
}

impl Terminal {
    /// The streams of this process.
    #[must_use]
    pub fn standard() -> Self {
        use std::io::{IsTerminal, stderr, stdin, stdout};
        Self {
            interactive: stdin().is_terminal() && stderr().is_terminal(),
            out_is_terminal: stdout().is_terminal(),
            err_is_terminal: stderr().is_terminal(),
            drawn: None,
            out: Box::new(stdout()),
            err: Box::new(stderr()),
            input: Box::new(std::io::BufReader::new(stdin())),
        }
    }

    /// Writes one line (or several) of data.
    pub fn print(&mut self, text: &str) -> Result<(), Failure> {
        let out = &mut self.out;
        aside(self.drawn.as_ref(), || {
            writeln!(out, "{}", text.strip_suffix('\n').unwrap_or(text))?;
            out.flush()
        })?;
        Ok(())
    }

    /// Writes one line for the operator. A standard error that is gone is no reason to stop.
    pub fn note(&mut self, text: &str) {
        let err = &mut self.err;
        let _ = aside(self.drawn.as_ref(), || {
            writeln!(err, "{text}").and_then(|()| err.flush())
        });
    }

    /// Writes a warning.
    pub fn warn(&mut self, text: &str) {
        self.note(&format!("warning: {text}"));
    }

    /// Asks a question. Answers may also be piped in; without one the command fails rather than guesses.
    pub fn ask(&mut self, question: &str, default: Option<&str>) -> Result<String, Failure> {
        match default {
            Some(default) => write!(self.err, "{question} [{default}]: "),
            None => write!(self.err, "{question}: "),
        }
        .and_then(|()| self.err.flush())
        .ok();
        let mut line = String::new();
        let read = self
            .input
            .read_line(&mut line)
            .map_err(|error| Failure::new("cannot read the answer").because(&error))?;
        if read == 0 {
            self.note("");
            return Err(Failure::new(format!("no answer to the question: {question}"))
                .hint("run it in a terminal, or give the options (`--help` lists them) and `--force`"));
        }
        let answer = line.trim();
        Ok(if answer.is_empty() {
            default.unwrap_or_default().to_owned()
        } else {
            answer.to_owned()
        })
    }

    /// Asks for a yes; anything else stops the command with nothing changed.
    pub fn confirm(&mut self, question: &str) -> Result<(), Failure> {
        let answer = self.ask(&format!("{question} [y/N]"), None)?;
        match answer.to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::new("aborted, nothing was changed")),
        }
    }

    /// Starts showing long work.
    #[must_use]
    pub fn progress(&mut self, what: &str) -> Progress {
        if self.err_is_terminal {
            let bar = indicatif::ProgressBar::new_spinner();
            bar.set_style(
                indicatif::ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                    .expect("the template is a constant"),
            );
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            self.drawn = Some(bar.clone());
            Progress {
                bar: Some(bar),
                last: what.to_owned(),
                counted: false,
            }
        } else {
            self.note(what);
            Progress {
                bar: None,
                last: what.to_owned(),
                counted: false,
            }
        }
    }
}

/// Writes while the progress is taken off the screen.
fn aside(
    drawn: Option<&indicatif::ProgressBar>,
    write: impl FnOnce() -> std::io::Result<()>,
) -> std::io::Result<()> {
    match drawn {
        Some(bar) if !bar.is_finished() => bar.suspend(write),
        _ => write(),
    }
}

/// Long work on display: drawn on a terminal, a line per change elsewhere.
pub struct Progress {
    bar: Option<indicatif::ProgressBar>,
    last: String,
    counted: bool,
}

impl Progress {
    /// Says what is being done now.
    pub fn say(&mut self, terminal: &mut Terminal, what: &str) {
        if self.last == what {
            return;
        }
        what.clone_into(&mut self.last);
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => terminal.note(what),
        }
    }

    /// Says how much of it is done, in bytes.
    pub fn bytes(&mut self, terminal: &mut Terminal, what: &str, done: u64, total: u64) {
        let Some(bar) = &self.bar else {
            // A line for every tenth: enough for a log, not too much for it.
            let tenth = done.saturating_mul(10).checked_div(total).unwrap_or(0).min(10);
            return self.say(terminal, &format!("{what}: {} %", tenth * 10));
        };
        if !self.counted {
            bar.set_style(
                indicatif::ProgressStyle::with_template(
                    "{spinner} {msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
                )
                .expect("the template is a constant")
                .progress_chars("=> "),
            );
            self.counted = true;
        }
        bar.set_message(what.to_owned());
        bar.set_length(total);
        bar.set_position(done.min(total));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
