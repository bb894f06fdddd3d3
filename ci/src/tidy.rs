//! `cargo ci tidy`: the rules of the tree that no compiler checks.
//!
//! - dependencies point one way, and the core depends on nothing but small data crates
//! - no source file is longer than one idea takes
//! - nothing is left unfinished: no `todo`, no `unimplemented`, no ignored test
//! - the commands that the README and CONTRIBUTING show exist

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::report::Report;
use crate::tool::{cargo, output, root};

/// The longest source file, in lines.
const LONGEST: usize = 650;
/// All that the state machine may depend on, in the end: data, no IO.
const CORE_MAY_USE: &[&str] = &["serde", "serde_core", "serde_derive"];
/// Crates that only test: nothing that is shipped may depend on them.
const TEST_CRATES: &[&str] = &["surus-sim", "surus-scenarios", "surus-testcontainers", "surus-ci"];
/// Crates that are shipped.
const PRODUCT: &[&str] = &["surus", "surus-core"];

/// Checks the tree.
///
/// # Errors
/// All violations, each with file and remedy.
pub(crate) fn tidy(report: Report) -> Result<()> {
    let root = root()?;
    let metadata = output(
        Command::new(cargo())
            .args(["metadata", "--format-version=1", "--locked"])
            .current_dir(&root),
    )?;
    let metadata: Value = serde_json::from_str(&metadata)
        .map_err(|error| Error::Unable(format!("cargo metadata gave odd JSON: {error}")))?;
    let mut wrong = edges(&metadata);
    for file in tracked(&root)? {
        let Ok(text) = fs::read_to_string(root.join(&file)) else {
            continue;
        };
        if file.ends_with(".rs") {
            wrong.extend(source(&file, &text));
        } else if ["README.md", "CONTRIBUTING.md"].contains(&file.as_str()) {
            wrong.extend(commands(&file, &text, |path| root.join(path).exists()));
        }
    }
    if wrong.is_empty() {
        report.say("tidy: the tree is in order");
        return Ok(());
    }
    for line in &wrong {
        report.line(line);
    }
    Err(Error::Unmet(format!("{} things are untidy", wrong.len())))
}

/// Files that git knows or would add: never what a build left.
fn tracked(root: &Path) -> Result<Vec<String>> {
    let list = output(
        Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root),
    )?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// Dependencies that point the wrong way.
fn edges(metadata: &Value) -> Vec<String> {
    let list = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let text = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let names: BTreeMap<String, String> = list(metadata, "packages")
        .iter()
        .map(|p| (text(p, "id"), text(p, "name")))
        .collect();
    // Of each package, what it needs to be built or run; what only its tests need does not count.
    let needs: BTreeMap<String, Vec<String>> = metadata
        .get("resolve")
        .map(|resolve| list(resolve, "nodes"))
        .unwrap_or_default()
        .iter()
        .map(|node| {
            let shipped = |dep: &&Value| {
                list(dep, "dep_kinds")
                    .iter()
                    .any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev"))
            };
            (
                text(node, "id"),
                list(node, "deps")
                    .iter()
                    .filter(shipped)
                    .map(|dep| text(dep, "pkg"))
                    .collect(),
            )
        })
        .collect();
    let closure = |name: &str| {
        let mut all = BTreeSet::new();
        let mut next: Vec<&String> = names
            .iter()
            .filter(|(_, found)| *found == name)
            .map(|(id, _)| id)
            .collect();
        while let Some(id) = next.pop() {
            for dep in needs.get(id).into_iter().flatten() {
                if all.insert(names.get(dep).cloned().unwrap_or_default()) {
                    next.push(dep);
                }
            }
        }
        all
    };
    let mut wrong = Vec::new();
    // What a derive macro is compiled with never reaches the state machine.
    let macros = closure("serde_derive");
    for name in closure("surus-core")
        .iter()
        .filter(|name| !CORE_MAY_USE.contains(&name.as_str()) && !macros.contains(*name))
    {
        wrong.push(format!(
            "agent/core/Cargo.toml: the core depends on `{name}`: it may use {} only",
            CORE_MAY_USE.join(", ")
        ));
    }
    for product in PRODUCT {
        for name in closure(product)
            .iter()
            .filter(|name| TEST_CRATES.contains(&name.as_str()))
        {
            wrong.push(format!(
                "`{product}` depends on `{name}`, which only tests: turn the edge round"
            ));
        }
    }
    for ours in ["surus", "surus-core", "surus-sim", "surus-testcontainers"] {
        if closure("surus-scenarios").contains(ours) {
            wrong.push(format!(
                "scenarios/Cargo.toml: the story language depends on `{ours}`: a world implements its trait instead"
            ));
        }
    }
    for ours in ["surus", "surus-core", "surus-sim"] {
        if closure("surus-testcontainers").contains(ours) {
            wrong.push(format!(
                "testcontainers/Cargo.toml: the world of containers depends on `{ours}`: it judges a program by what it does, not by its own code"
            ));
        }
    }
    let plants = list(metadata, "packages")
        .iter()
        .filter(|package| PRODUCT.contains(&text(package, "name").as_str()))
        .flat_map(|package| list(package, "dependencies"))
        .any(|dep| list(&dep, "features").iter().any(|feature| feature == "zoo"));
    let by_default = list(metadata, "packages").iter().any(|package| {
        list(&package["features"], "default")
            .iter()
            .any(|feature| feature == "zoo")
    });
    if plants || by_default {
        wrong.push("a shipped crate turns the feature `zoo` on: planted flaws are for simulations".into());
    }
    if closure("surus-core").contains("surus") {
        wrong.push("agent/core/Cargo.toml: the core depends on the agent: turn the edge round".into());
    }
    wrong
}

/// What is wrong with one source file.
fn source(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST {
        wrong.push(format!(
            "{file}: {lines} lines, more than {LONGEST}: is it one idea? split it"
        ));
    }
    // Written in two parts so that this file does not find itself.
    let marks = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "ignore"),
    ];
    for (line, number) in text.lines().zip(1..) {
        if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
            wrong.push(format!(
                "{file}:{number}: `{mark}`: finish it, or assert what it does now"
            ));
        }
    }
    wrong
}

/// Commands in a document's code blocks that do not exist: scripts of the tree and verbs of `cargo ci`.
fn commands(file: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    use clap::CommandFactory as _;
    let verbs: BTreeSet<String> = crate::Arguments::command()
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    let mut wrong = Vec::new();
    let mut inside = false;
    for (line, number) in text.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            inside = !inside;
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().filter(|_| inside).collect();
        for word in words.iter().filter(|word| word.starts_with("./")) {
            if !exists(word.trim_start_matches("./")) {
                wrong.push(format!("{file}:{number}: `{word}` does not exist"));
            }
        }
        if let ["cargo", "ci", verb, ..] = words[..]
            && !verbs.contains(verb)
        {
            wrong.push(format!("{file}:{number}: `cargo ci {verb}` does not exist"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_long_file_and_an_unfinished_one_are_named() {
        assert_eq!(source("a.rs", "fn a() {}\n"), Vec::<String>::new());
        let unfinished = format!("fn a() {{\n    {}) }}\n", concat!("todo", "!("));
        assert!(source("a.rs", &unfinished)[0].starts_with("a.rs:2: "));
        assert!(source("a.rs", &"\n".repeat(LONGEST + 1))[0].contains("651 lines"));
    }

    #[test]
    fn only_commands_in_code_blocks_are_checked() {
        let text =
            "see ./nowhere\n```\n./ci/demo --fault host\n./ci/missing\ncargo ci tidy\ncargo ci dance\n```\n";
        let wrong = commands("README.md", text, |path| path == "ci/demo");
        assert_eq!(
            wrong,
            [
                "README.md:4: `./ci/missing` does not exist",
                "README.md:6: `cargo ci dance` does not exist"
            ]
        );
    }

    #[test]
    fn a_core_that_does_io_and_a_product_that_needs_a_test_crate_are_found() {
        let package = |name: &str| json!({"id": name, "name": name});
        let packages = ["surus", "surus-core", "surus-ci", "serde", "tokio"].map(package);
        let dep = |name: &str, kind: Option<&str>| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": packages,
            "resolve": {"nodes": [
                {"id": "surus", "deps": [dep("surus-core", None), dep("surus-ci", Some("dev"))]},
                {"id": "surus-core", "deps": [dep("serde", None), dep("tokio", None)]},
            ]},
        });
        assert_eq!(
            edges(&metadata).len(),
            1,
            "a test may use a test crate: {:?}",
            edges(&metadata)
        );
        assert!(edges(&metadata)[0].contains("`tokio`"));
    }

    #[test]
    fn planted_flaws_in_what_is_shipped_are_found() {
        let metadata = |default: &[&str]| json!({"packages": [{"id": "surus", "name": "surus", "features": {"default": default, "zoo": []}}]});
        assert_eq!(edges(&metadata(&[])), Vec::<String>::new());
        assert!(edges(&metadata(&["zoo"]))[0].contains("`zoo`"));
    }

    #[test]
    fn containers_that_stand_on_the_agent_are_found() {
        let package = |name: &str| json!({"id": name, "name": name});
        let packages = ["surus", "surus-testcontainers", "surus-ci"].map(package);
        let dep = |name: &str| json!({"pkg": name, "dep_kinds": [{"kind": null}]});
        let metadata = json!({
            "packages": packages,
            "resolve": {"nodes": [
                {"id": "surus-testcontainers", "deps": [dep("surus-ci")]},
                {"id": "surus-ci", "deps": [dep("surus")]},
            ]},
        });
        let wrong = edges(&metadata);
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].starts_with("testcontainers/Cargo.toml: "));
    }
}
