//! YAML text to a small tree in which every value and key knows its line.
//!
//! The tree is built from the events of `saphyr-parser` rather than by serde, for three reasons: each problem names its line;
//! all problems are found in one pass; and scalars keep their text, so that what `on` or `0644` means is decided where it is
//! known what is expected ([`super::scalar`]). Patroni reads YAML 1.1 and its users write it, while every maintained Rust
//! parser follows YAML 1.2, where `on` is a string.
//!
//! **Bounded**: a text expands to at most [`MAX_NODES`] values, nested at most [`MAX_DEPTH`] deep, so that aliases of aliases
//! cannot exhaust memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::Value;

use super::problem::{Mark, Problem, Report, Severity};
use super::scalar;

/// Values in one text after expansion of aliases. A large patroni.yml has some hundred.
pub(super) const MAX_NODES: usize = 100_000;
/// Depth of nesting. Patroni's own format needs seven.
pub(super) const MAX_DEPTH: usize = 64;

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) data: Data,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Data {
    /// One value, as text. `quoted` is true if it can only be text.
    Scalar { text: String, quoted: bool },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written, each key once.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) mark: Mark,
    pub(super) value: Node,
}

impl Node {
    pub(super) fn null(mark: Mark) -> Self {
        Self {
            mark,
            data: Data::Scalar {
                text: String::new(),
                quoted: false,
            },
        }
    }

    pub(super) fn text(text: &str, mark: Mark) -> Self {
        Self {
            mark,
            data: Data::Scalar {
                text: text.to_owned(),
                quoted: true,
            },
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar { text, quoted: false } if scalar::is_null(text))
    }

    /// `a list`, `a mapping`, `nothing`, or the scalar itself.
    pub(super) fn kind(&self) -> String {
        match &self.data {
            Data::List(_) => "a list".to_owned(),
            Data::Map(_) => "a mapping".to_owned(),
            Data::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Data::Scalar { text, .. } => format!("`{}`", text.escape_debug()),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.data {
            Data::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.value),
            Data::List(_) | Data::Scalar { .. } => None,
        }
    }

    /// The value as JSON, with scalars read as YAML 1.1 reads them.
    pub(super) fn to_json(&self) -> Value {
        match &self.data {
            Data::Scalar { text, quoted: true } => Value::String(text.clone()),
            Data::Scalar { text, quoted: false } => scalar::resolve(text),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }

    /// A tree of JSON that came from `origin`.
    pub(super) fn from_json(value: &Value, mark: &Mark) -> Self {
        let data = match value {
            Value::String(text) => Data::Scalar {
                text: text.clone(),
                quoted: true,
            },
            Value::Null => Data::Scalar {
                text: String::new(),
                quoted: false,
            },
            Value::Bool(_) | Value::Number(_) => Data::Scalar {
                text: value.to_string(),
                quoted: false,
            },
            Value::Array(items) => Data::List(items.iter().map(|item| Self::from_json(item, mark)).collect()),
            Value::Object(map) => Data::Map(
                map.iter()
                    .map(|(key, value)| Entry {
                        key: key.clone(),
                        mark: mark.clone(),
                        value: Self::from_json(value, mark),
                    })
                    .collect(),
            ),
        };
        Self {
            mark: mark.clone(),
            data,
        }
    }

    /// Puts `other` over this tree: mappings are merged key by key, anything else is replaced.
    pub(super) fn merge(&mut self, other: Self) {
        if let (Data::Map(mine), Data::Map(_)) = (&mut self.data, &other.data) {
            let Data::Map(theirs) = other.data else { return };
            for entry in theirs {
                match mine.iter_mut().find(|old| old.key == entry.key) {
                    Some(old) => {
                        old.mark = entry.mark;
                        old.value.merge(entry.value);
                    }
                    None => mine.push(entry),
                }
            }
        } else {
            *self = other;
        }
    }
}

/// Reads one document. `Err` is the one problem that makes the text unreadable; doubled keys are only reported.
pub(super) fn parse(text: &str, origin: &str, report: &Report) -> Result<Node, Problem> {
    // Some editors put a byte order mark before the first key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let origin: Arc<str> = origin.into();
    let builder = Builder {
        parser: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        nodes: 0,
        origin: Arc::clone(&origin),
        report,
        text,
    };
    builder.document()
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    origin: Arc<str>,
    report: &'a Report,
    text: &'a str,
}

impl<'a> Builder<'a> {
    fn document(mut self) -> Result<Node, Problem> {
        let start = Mark {
            origin: Arc::clone(&self.origin),
            line: 1,
            column: 1,
        };
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                Event::StreamEnd => break,
                event if root.is_none() => root = Some(self.node(event, span, 0)?),
                _ => {
                    return Err(self.problem(
                        span,
                        "a second YAML document begins here".to_owned(),
                        "keep one document per file: remove the `---` line and what follows, or merge the two",
                    ));
                }
            }
        }
        Ok(root.unwrap_or_else(|| Node::null(start)))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            return Err(self.problem(
                span,
                format!("more than {MAX_NODES} values or {MAX_DEPTH} levels"),
                "this is no patroni.yml; check what file it is",
            ));
        }
        let mark = self.mark(span);
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                // An explicit `!!str` means what quotes mean.
                let tagged = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
                let quoted = style != ScalarStyle::Plain || tagged;
                (
                    Node {
                        mark,
                        data: Data::Scalar {
                            text: text.into_owned(),
                            quoted,
                        },
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    items.push(self.node(event, span, depth + 1)?);
                }
                (
                    Node {
                        mark,
                        data: Data::List(items),
                    },
                    anchor,
                )
            }
            Event::MappingStart(anchor, _) => (self.mapping(mark, depth)?, anchor),
            Event::Alias(id) => {
                let Some(found) = self.anchors.get(&id).cloned() else {
                    return Err(self.problem(
                        span,
                        "an alias to a value that is not complete yet".to_owned(),
                        "write the value out instead of the alias",
                    ));
                };
                self.nodes += count(&found);
                (found, 0)
            }
            other => {
                return Err(self.problem(
                    span,
                    format!("unexpected {other:?}"),
                    "check the indentation here",
                ));
            }
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, mark: Mark, depth: usize) -> Result<Node, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut inherited: Vec<Node> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth + 1)?;
            let Data::Scalar { text: name, .. } = key.data else {
                return Err(self.problem(
                    span,
                    format!("{} is used as a key", key.kind()),
                    "a key must be a single word; values with { } or [ ] in them need quotes",
                ));
            };
            if name == "<<" {
                inherited.push(value);
                continue;
            }
            if let Some(old) = entries.iter_mut().find(|entry| entry.key == name) {
                self.report.warning(
                    &name,
                    &key.mark,
                    format!(
                        "the key `{name}` stands here a second time; the value in line {} is lost",
                        old.mark.line
                    ),
                    "remove one of the two, or merge what is under them",
                );
                old.mark = key.mark;
                old.value = value;
            } else {
                entries.push(Entry {
                    key: name,
                    mark: key.mark,
                    value,
                });
            }
        }
        for source in inherited {
            let sources = match source.data {
                Data::List(items) => items,
                Data::Map(_) | Data::Scalar { .. } => vec![source],
            };
            for source in sources {
                if let Data::Map(more) = source.data {
                    for entry in more {
                        if !entries.iter().any(|mine| mine.key == entry.key) {
                            entries.push(entry);
                        }
                    }
                }
            }
        }
        Ok(Node {
            mark,
            data: Data::Map(entries),
        })
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.unreadable(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn mark(&self, span: Span) -> Mark {
        Mark {
            origin: Arc::clone(&self.origin),
            line: span.start.line(),
            column: span.start.col() + 1,
        }
    }

    fn problem(&self, span: Span, message: String, remedy: &str) -> Problem {
        Problem::at(Severity::Error, "", &self.mark(span), message, remedy.to_owned())
    }

    /// The parser's complaint with the remedy that the line itself suggests.
    fn unreadable(&self, error: &ScanError) -> Problem {
        let marker = error.marker();
        // A tab before a key is found out only at the end of the value before it.
        let tab = self
            .text
            .lines()
            .enumerate()
            .skip(marker.line().saturating_sub(1))
            .take(2)
            .find(|(_, line)| line.trim_start_matches(' ').starts_with('\t'));
        let (number, column) = tab.map_or((marker.line(), marker.col() + 1), |(index, line)| {
            (index + 1, line.find('\t').unwrap_or(0) + 1)
        });
        let mark = Mark {
            origin: Arc::clone(&self.origin),
            line: number,
            column,
        };
        let line = self.text.lines().nth(number.saturating_sub(1)).unwrap_or("");
        Problem::at(
            Severity::Error,
            "",
            &mark,
            format!("this is not valid YAML: {}", error.info()),
            remedy_for(line).to_owned(),
        )
    }
}

/// What to do about a line that does not parse.
fn remedy_for(line: &str) -> &'static str {
    let value = line
        .split_once(": ")
        .map_or(line, |(_, value)| value)
        .trim()
        .trim_start_matches("- ")
        .trim();
    if line.trim_start_matches(' ').starts_with('\t') {
        "indent with spaces: YAML does not allow tabs"
    } else if value.starts_with('*') {
        "a value that begins with * must be in quotes, as in '*:5432' (an unquoted * refers to an anchor)"
    } else if value.starts_with(['%', '@', '`', '&', '!']) {
        "a value that begins with % @ ` & or ! must be in quotes"
    } else if value.contains(": ") {
        "put the value in quotes: a colon followed by a space begins a new key"
    } else if value.starts_with(['{', '[']) {
        "close the bracket, or put the value in quotes if it is meant as text"
    } else if value.starts_with(['"', '\'']) {
        "close the quote; inside '…' write a quote twice"
    } else {
        "check this line and the one before it: keys of one section begin in one column, and a colon is followed by a space"
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.data {
        Data::Scalar { .. } => 0,
        Data::List(items) => items.iter().map(count).sum(),
        Data::Map(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, Problem> {
        parse(text, "test.yml", &Report::default()).map(|node| node.to_json())
    }

    #[test]
    fn scalars_mean_what_yaml_1_1_says() {
        let value = read(
            "{a: 0644, b: 1_000, d: on, e: y, f: 1e3, g: 0o10, h: .5, i: '5', j: ~, k: NO, l: 0x1F, m: 1800s, n: -3}",
        );
        assert_eq!(
            value,
            Ok(
                json!({"a": 420, "b": 1000, "d": true, "e": "y", "f": "1e3", "g": 8, "h": 0.5, "i": "5",
                      "j": null, "k": false, "l": 31, "m": "1800s", "n": -3})
            )
        );
    }

    #[test]
    fn anchors_and_merge_keys_are_expanded() {
        let value = read("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nagain: *b\n");
        assert_eq!(
            value,
            Ok(json!({"base": {"x": 1, "y": 2}, "use": {"y": 3, "x": 1}, "again": {"x": 1, "y": 2}}))
        );
    }

    #[test]
    fn aliases_of_aliases_are_bounded() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = level - 1;
            text.push_str(&format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{before}"); 10].join(", ")
            ));
        }
        let problem = read(&text).expect_err("10^12 values");
        assert!(problem.message.contains("100000 values"), "{problem}");
    }

    #[test]
    fn deep_nesting_is_refused_rather_than_a_stack_overflow() {
        let problem = read(&"[".repeat(100_000)).expect_err("too deep");
        assert_eq!(problem.severity, Severity::Error);
    }

    #[test]
    fn positions_are_those_an_editor_shows() {
        let report = Report::default();
        let root = parse("\na:\n  é: ü\n  b:\n    - x\n", "f", &report).expect("valid");
        let b = root.get("a").and_then(|a| a.get("b")).expect("b");
        assert_eq!(b.mark.to_string(), "f:5:5");
    }
}
