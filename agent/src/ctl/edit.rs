//! `show-config` and `edit-config`: the dynamic configuration as YAML, changed by compare-and-swap.
//!
//! Nothing is written but what was shown, and only if the key is still as it was read.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::ctl::access::Expect;
use crate::ctl::cli;
use crate::ctl::failure::Failure;
use crate::ctl::session::{Cluster, Session};
use crate::ctl::terminal::Terminal;
use crate::ctl::{parse, yaml};

/// `show-config`.
pub fn show_config(session: &mut Session, arguments: &cli::ClusterArg) -> Result<(), Failure> {
    let cluster = session.cluster(arguments.cluster.as_deref())?;
    let config = current(&cluster)?;
    session.terminal.print(&yaml::block(&config))
}

/// `edit-config`.
pub fn edit_config(session: &mut Session, arguments: &cli::EditConfig) -> Result<(), Failure> {
    let cluster = session.cluster(arguments.cluster.cluster.as_deref())?;
    let before = current(&cluster)?;
    let flags_given = !arguments.set.is_empty()
        || !arguments.pg.is_empty()
        || arguments.apply.is_some()
        || arguments.replace.is_some();
    let after = if flags_given {
        from_flags(session, arguments, &before)?
    } else {
        from_editor(session, &cluster.scope, &before)?
    };
    let (old, new) = (yaml::block(&before), yaml::block(&after));
    if old == new {
        return session.terminal.print("Not changed");
    }
    parse::check_dynamic(&mut session.terminal, &after)?;
    if !arguments.quiet {
        let text = difference(&old, &new, session.terminal.out_is_terminal);
        session.terminal.print(&text)?;
    }
    if !arguments.force {
        if !session.terminal.interactive {
            return session.terminal.print("Use --force option to apply changes");
        }
        session.terminal.confirm("Apply these changes?")?;
    }
    let expect = Expect::unchanged(&cluster.raw, "config");
    if session
        .access
        .put(&cluster.scope, "config", &after.to_string(), expect)?
    {
        session.terminal.print("Configuration changed")
    } else {
        Err(
            Failure::new("Config modification aborted due to concurrent changes").hint(
                "somebody else changed the configuration in the meantime; look at it and edit it again",
            ),
        )
    }
}

fn current(cluster: &Cluster) -> Result<Value, Failure> {
    match cluster.raw.text("config") {
        None => Err(Failure::new(format!(
            "cluster {} has no dynamic configuration yet",
            cluster.scope
        ))
        .hint("it is written when the cluster is bootstrapped; `surus list` shows how far that is")),
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Value::Object(map)),
            _ => Err(Failure::new(format!(
                "the key /…/{}/config in etcd holds no JSON object",
                cluster.scope
            ))
            .hint("replace it as a whole with `PUT /config`, or with `etcdctl put`")),
        },
    }
}

fn from_flags(session: &mut Session, arguments: &cli::EditConfig, before: &Value) -> Result<Value, Failure> {
    let mut after = match &arguments.replace {
        Some(file) => {
            let mut value = read(&mut session.terminal, file)?;
            drop_nulls(&mut value);
            value
        }
        None => before.clone(),
    };
    if let Some(file) = &arguments.apply {
        let patch = read(&mut session.terminal, file)?;
        merge(&mut after, &patch);
    }
    for setting in &arguments.set {
        let (key, value) = key_and_value(setting, "--set", "ttl=20")?;
        set(&mut after, &key.split('.').collect::<Vec<_>>(), value)?;
    }
    for setting in &arguments.pg {
        let (name, value) = key_and_value(setting, "--pg", "max_connections=200")?;
        // Names of PostgreSQL's parameters may themselves contain dots.
        set(&mut after, &["postgresql", "parameters", name], value)?;
    }
    Ok(after)
}

fn key_and_value<'a>(setting: &'a str, flag: &str, example: &str) -> Result<(&'a str, Value), Failure> {
    let wrong = |why: &str| {
        Failure::new(format!("wrong argument of {flag}: `{setting}`"))
            .cause(why)
            .hint(format!(
                "write it like `{flag} {example}`; the value `null` deletes the key"
            ))
    };
    let (key, value) = setting
        .split_once('=')
        .ok_or_else(|| wrong("there is no `=` in it"))?;
    let key = key.trim();
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(wrong("the key is empty, or has an empty part"));
    }
    Ok((
        key,
        parse::yaml(value).map_err(|error| wrong(&format!("the value is no YAML: {error}")))?,
    ))
}

fn read(terminal: &mut Terminal, file: &Path) -> Result<Value, Failure> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        let read = terminal.input.read_to_string(&mut text);
        ("standard input".to_owned(), read.map(|_| text))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    let text = text.map_err(|error| Failure::new(format!("cannot read {name}")).because(&error))?;
    as_mapping(&text).map_err(|why| Failure::new(format!("{name} is no configuration")).cause(why))
}

fn as_mapping(text: &str) -> Result<Value, String> {
    match parse::yaml(text)? {
        value @ Value::Object(_) => Ok(value),
        Value::Null => Err("it is empty".to_owned()),
        _ => Err("it is YAML, but no mapping of keys to values".to_owned()),
    }
}

fn from_editor(session: &mut Session, scope: &str, before: &Value) -> Result<Value, Failure> {
    if !session.terminal.interactive {
        return Err(Failure::new("cannot open an editor: this is no terminal")
            .hint("give the change with `--set`, `--pg`, `--apply FILE` or `--replace FILE`"));
    }
    let editor = std::env::var("VISUAL")
        .or_else(|_| std::env::var("EDITOR"))
        .unwrap_or_else(|_| "vi".to_owned());
    let trouble = |what: &str, error: &std::io::Error| Failure::new(what.to_owned()).because(error);
    let mut file = tempfile::Builder::new()
        .prefix(&format!("{scope}-config-"))
        .suffix(".yaml")
        .tempfile()
        .map_err(|error| trouble("cannot create a temporary file", &error))?;
    std::io::Write::write_all(&mut file, yaml::block(before).as_bytes())
        .map_err(|error| trouble("cannot write the temporary file", &error))?;
    loop {
        // Through the shell, for `EDITOR` may hold arguments; the name is handed over as one.
        let status = std::process::Command::new("sh")
            .args(["-c", &format!("{editor} \"$1\""), "sh"])
            .arg(file.path())
            .status()
            .map_err(|error| trouble("cannot start a shell for the editor", &error))?;
        if !status.success() {
            return Err(Failure::new(format!("the editor `{editor}` failed: {status}"))
                .hint("nothing was changed; set EDITOR to another one"));
        }
        let text = std::fs::read_to_string(file.path())
            .map_err(|error| trouble("cannot read the edited file", &error))?;
        match as_mapping(&text) {
            Ok(mut value) => {
                drop_nulls(&mut value);
                return Ok(value);
            }
            Err(why) => {
                session
                    .terminal
                    .warn(&format!("the text is no configuration: {why}"));
                session.terminal.confirm("Edit it again?")?;
            }
        }
    }
}

/// Merges a patch: mappings key by key, anything else as a whole, null deletes.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.shift_remove(key);
            }
            Value::Object(_) => merge(target.entry(key.clone()).or_insert(Value::Null), value),
            other => {
                target.insert(key.clone(), other.clone());
            }
        }
    }
}

/// In a whole configuration a null means the same as an absent key.
fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

fn set(target: &mut Value, path: &[&str], value: Value) -> Result<(), Failure> {
    let mut place = target;
    for (depth, key) in path.iter().enumerate() {
        let Value::Object(map) = place else {
            let parent = path[..depth].join(".");
            return Err(
                Failure::new(format!("cannot set {}: {parent} is no mapping", path.join(".")))
                    .hint(format!("delete it first with `--set {parent}=null`")),
            );
        };
        if depth + 1 == path.len() {
            if value.is_null() {
                map.shift_remove(*key);
            } else {
                map.insert((*key).to_owned(), value);
            }
            return Ok(());
        }
        if value.is_null() && !map.contains_key(*key) {
            return Ok(());
        }
        place = map
            .entry((*key).to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
    }
    Ok(())
}

/// The difference as `diff -u` shows it, coloured on a terminal.
fn difference(old: &str, new: &str, coloured: bool) -> String {
    let text = similar::TextDiff::from_lines(old, new)
        .unified_diff()
        .header("before", "after")
        .to_string();
    if !coloured {
        return text;
    }
    let lines = text.lines().map(|line| match line.chars().next() {
        Some('+') => format!("\x1b[32m{line}\x1b[0m\n"),
        Some('-') => format!("\x1b[31m{line}\x1b[0m\n"),
        Some('@') => format!("\x1b[36m{line}\x1b[0m\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}
