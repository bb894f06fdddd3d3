//! Tables of columns and rows in each of the output formats.

use comfy_table::{CellAlignment, Table as Grid};
use serde_json::{Map, Value};

use crate::ctl::cli::Format;
use crate::ctl::yaml;

/// A rectangle of values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Heads of the columns.
    pub columns: Vec<Column>,
    /// Cells; an empty string where there is nothing to say.
    pub rows: Vec<Vec<Value>>,
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name for programs.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Numbers stand to the right.
    pub right: bool,
}

impl Column {
    /// A column of text.
    #[must_use]
    pub const fn text(name: &'static str) -> Self {
        Self {
            name,
            title: name,
            right: false,
        }
    }

    /// A column of numbers, headed for people with `title`.
    #[must_use]
    pub const fn number(name: &'static str, title: &'static str) -> Self {
        Self {
            name,
            title,
            right: true,
        }
    }
}

impl Table {
    /// Without its first column, which the title of a pretty table says once.
    #[must_use]
    pub fn without_first_column(mut self) -> Self {
        self.columns.remove(0);
        for row in &mut self.rows {
            row.remove(0);
        }
        self
    }

    /// The formats for programs; `None` for the pretty one, which needs a title. `sparse` leaves out empty fields.
    #[must_use]
    pub fn for_programs(&self, format: Format, sparse: bool) -> Option<String> {
        match format {
            Format::Pretty => None,
            Format::Tsv => {
                let heads = self
                    .columns
                    .iter()
                    .map(|column| column.name.to_owned())
                    .collect::<Vec<_>>();
                let rows = self.rows.iter().map(|row| row.iter().map(one_line).collect());
                let lines = std::iter::once(heads).chain(rows).map(|line| line.join("\t"));
                Some(lines.collect::<Vec<_>>().join("\n"))
            }
            Format::Json => Some(python_json(&self.objects(sparse))),
            Format::Yaml | Format::Yml => Some(yaml::block(&self.objects(sparse))),
        }
    }

    fn objects(&self, sparse: bool) -> Value {
        let object = |row: &Vec<Value>| {
            let fields = self
                .columns
                .iter()
                .zip(row)
                .filter(|(_, cell)| !sparse || !is_empty(cell));
            Value::Object(
                fields
                    .map(|(column, cell)| (column.name.to_owned(), cell.clone()))
                    .collect::<Map<_, _>>(),
            )
        };
        Value::Array(self.rows.iter().map(object).collect())
    }

    /// A table with its title written over the first rule. Rows are ruled off when a cell has several lines.
    #[must_use]
    pub fn pretty(&self, title: &str) -> String {
        let cells: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(pretty_cell).collect())
            .collect();
        let several_lines = cells.iter().flatten().any(|cell| cell.contains('\n'));
        let mut grid = Grid::new();
        grid.load_preset(if several_lines {
            "||--+-++|-+++++++++"
        } else {
            "||--+-++|    ++++++"
        });
        grid.set_header(self.columns.iter().map(|column| column.title));
        for row in cells {
            grid.add_row(row);
        }
        for (column, of_grid) in self.columns.iter().zip(grid.column_iter_mut()) {
            of_grid.set_cell_alignment(if column.right {
                CellAlignment::Right
            } else {
                CellAlignment::Left
            });
        }
        let text = grid.to_string();
        if title.is_empty() {
            return text;
        }
        let (rule, rest) = text.split_once('\n').unwrap_or((&text, ""));
        format!("{}\n{rest}", title_over(rule, title))
    }
}

/// `+ Title ---+---+`; a title longer than the rule is cut.
fn title_over(rule: &str, title: &str) -> String {
    let room = rule.len().saturating_sub(2);
    let title: String = format!(" {title} ").chars().take(room).collect();
    // The rule is ASCII, so its characters can be counted in bytes.
    let rest = rule.get(1 + title.chars().count()..).unwrap_or("+");
    format!("+{title}{rest}")
}

fn is_empty(cell: &Value) -> bool {
    cell.is_null() || cell.as_str() == Some("")
}

fn pretty_cell(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) if map.is_empty() => String::new(),
        Value::Object(_) | Value::Array(_) => yaml::block(cell).trim_end().to_owned(),
        other => other.to_string(),
    }
}

fn one_line(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.replace(['\t', '\n'], " "),
        Value::Object(map) if map.is_empty() => String::new(),
        other => yaml::flow(other),
    }
}

/// JSON on one line with blanks after commas and colons: scripts of Patroni's users compare it as text.
#[must_use]
pub fn python_json(value: &Value) -> String {
    let text = |text: &str| Value::String(text.to_owned()).to_string();
    match value {
        Value::Array(items) => {
            format!(
                "[{}]",
                items.iter().map(python_json).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Object(map) => {
            let fields = map
                .iter()
                .map(|(key, value)| format!("{}: {}", text(key), python_json(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
