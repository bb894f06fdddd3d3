//! Prometheus' text format.

use std::fmt::{Display, Write as _};

/// A page of metrics, all with the same labels.
pub(crate) struct Page {
    text: String,
    labels: String,
    name: String,
}

impl Page {
    pub(crate) fn new(labels: &[(&str, &str)]) -> Self {
        Self {
            text: String::with_capacity(6 << 10),
            labels: labels.iter().map(label).collect::<Vec<_>>().join(","),
            name: String::new(),
        }
    }

    /// Begins a metric: its values follow.
    pub(crate) fn metric(&mut self, name: &str, kind: &str, help: &str) {
        name.clone_into(&mut self.name);
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A value of the metric, with labels of its own beside those of the page.
    pub(crate) fn value(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// A value of a part of the metric: `_bucket`, `_sum`, `_count`.
    pub(crate) fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}{{{}", self.name, self.labels);
        for one in labels {
            let _ = write!(self.text, ",{}", label(one));
        }
        let _ = writeln!(self.text, "}} {value}");
    }

    pub(crate) fn text(self) -> String {
        self.text
    }
}

fn label((name, value): &(&str, &str)) -> String {
    let value = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("{name}=\"{value}\"")
}
