//! What a person sees: progress with the time since the start, colours on a terminal only, tables at the end.
//!
//! Everything goes to stdout, line by line, so that it reads the same in a terminal and in a log of CI.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use tokio::time::Instant;

use crate::history::Outage;

/// Where progress goes.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    started: Instant,
    colour: bool,
}

/// The colours in use, as parameters of the terminal's SGR sequence.
#[derive(Clone, Copy, Debug)]
pub enum Paint {
    /// Headings.
    Bold,
    /// What is beside the point.
    Dim,
    /// What is as it must be.
    Green,
    /// What deserves a look.
    Yellow,
    /// What is wrong.
    Red,
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

impl Report {
    /// A report that starts now.
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            started: Instant::now(),
            colour,
        }
    }

    /// The same without colours.
    #[must_use]
    pub fn plain(self) -> Self {
        Self {
            colour: false,
            ..self
        }
    }

    /// `text` in a colour, if there are colours.
    pub fn paint(&self, paint: Paint, text: impl Display) -> String {
        let code = match paint {
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Red => 31,
            Paint::Green => 32,
            Paint::Yellow => 33,
        };
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }

    /// A heading.
    pub fn title(&self, text: impl Display) {
        self.line(&format!("\n{}", self.paint(Paint::Bold, text)));
    }

    /// Something happened, or is about to.
    pub fn say(&self, text: impl Display) {
        let at = self.paint(
            Paint::Dim,
            format!("{:8.3}s", self.started.elapsed().as_secs_f64()),
        );
        self.line(&format!("{at}  {text}"));
    }

    /// A line without a time.
    pub fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A closed pipe is no reason to leave a cluster behind.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// A table; the first column is left-aligned, the others to the right.
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) {
        let mut table = Table::new();
        table
            .load_preset(UTF8_FULL_CONDENSED)
            .set_header(head.iter().copied());
        for row in rows {
            table.add_row(row.iter().cloned());
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        self.line(&table.to_string());
    }

    /// The verdict in colour.
    pub fn verdict(&self, good: bool) -> String {
        if good {
            self.paint(Paint::Green, "ok")
        } else {
            self.paint(Paint::Red, "BROKEN")
        }
    }

    /// The last lines of a log, for a failure.
    pub fn tail(&self, path: &Path, lines: usize) {
        let Ok(text) = std::fs::read(path) else { return };
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        self.line(&format!("\n--- the end of {}", path.display()));
        for line in &all[all.len().saturating_sub(lines)..] {
            self.line(&format!("    {line}"));
        }
    }
}

/// A duration as people read it: milliseconds below ten seconds.
pub fn span(length: Duration) -> String {
    let seconds = length.as_secs_f64();
    if seconds < 0.1 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else {
        format!("{seconds:.1} s")
    }
}

/// An outage; one that did not end is marked.
pub fn outage(outage: Option<Outage>) -> String {
    match outage {
        None => "–".into(),
        Some(Outage { length, ended: true }) => span(length),
        Some(Outage { length, ended: false }) => format!("> {}", span(length)),
    }
}
