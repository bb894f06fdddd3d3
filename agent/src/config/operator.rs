//! What the command line needs of a configuration: much less than an agent, from the same files and variables.

use std::path::Path;

use serde_json::Value;

use super::dynamic::{Dynamic, ORIGIN};
use super::endpoints;
use super::problem::{Mark, Problem, Report};
use super::section::Section;
use super::settings::{Ctl, Etcd, RestApi};
use super::source::{self, Surroundings};
use super::timing;
use super::yaml::{self, Node};

/// The part of a configuration that concerns an operator. Anything else in the file is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// `scope`.
    pub scope: Option<String>,
    /// `namespace`, without slashes.
    pub namespace: String,
    /// `name`, if it is the file of an agent.
    pub name: Option<String>,
    /// `restapi`, if it is the file of an agent and can be used.
    pub restapi: Option<RestApi>,
    /// `etcd3` or `etcd`, if it is there.
    pub etcd: Option<Etcd>,
    /// `ctl`.
    pub ctl: Ctl,
}

/// Reads as much as an operator needs. Without `etcd_needed` a missing section `etcd3` is no error.
///
/// # Errors
///
/// All problems of those parts, at least one of them an error.
pub fn load_operator(
    path: Option<&Path>,
    around: &Surroundings,
    etcd_needed: bool,
) -> Result<(Operator, Vec<Problem>), Vec<Problem>> {
    let report = Report::default();
    // Problems of the agent's own parts are the agent's to tell.
    let silent = Report::default();
    let operator = source::tree(path, around, &report).map(|root| {
        let own = Section::new("", &root, &silent);
        let shared = Section::new("", &root, if etcd_needed { &report } else { &silent });
        let top = Section::new("", &root, &report);
        Operator {
            scope: own.text("scope"),
            namespace: own
                .text("namespace")
                .unwrap_or_else(|| "service".to_owned())
                .trim_matches('/')
                .to_owned(),
            name: own.text("name"),
            restapi: endpoints::restapi(&own, around),
            etcd: endpoints::etcd(&shared, around),
            ctl: endpoints::ctl(&top, around),
        }
    });
    let failed = report.has_errors();
    let problems = report.take();
    match operator {
        Some(operator) if !failed => Ok((operator, problems)),
        _ => Err(problems),
    }
}

/// One YAML document as JSON, by the rules that configurations are read with.
///
/// # Errors
///
/// The text is no YAML.
pub fn yaml_to_json(text: &str, origin: &str) -> Result<Value, Problem> {
    let report = Report::default();
    let node = yaml::parse(text, origin, &report)?;
    match report.take().into_iter().find(Problem::is_error) {
        Some(problem) => Err(problem),
        None => Ok(node.to_json()),
    }
}

/// What every agent would say of a dynamic configuration.
#[must_use]
pub fn check_dynamic(config: &Value) -> Vec<Problem> {
    let report = Report::default();
    let tree = Node::from_json(config, &Mark::whole(ORIGIN));
    let section = Section::new("", &tree, &report);
    timing::settle(Dynamic::read(&section).timing, &section);
    report.take()
}
