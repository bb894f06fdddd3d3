//! YAML that operators write, as JSON values, by the rules of the configuration files.

use serde_json::Value;

use crate::config;
use crate::ctl::failure::Failure;
use crate::ctl::terminal::Terminal;

/// Reads one document. Empty text is null.
pub(super) fn yaml(text: &str) -> Result<Value, String> {
    config::operator::yaml_to_json(text, "").map_err(|problem| match problem.line {
        0 => problem.message,
        line => format!("line {line}: {}", problem.message),
    })
}

/// Refuses a dynamic configuration that every agent would refuse, and passes their warnings on.
pub(super) fn check_dynamic(terminal: &mut Terminal, dynamic: &Value) -> Result<(), Failure> {
    let mut failure = Failure::new("the agents would not accept this configuration, so nothing was changed");
    let mut remedies = Vec::new();
    for problem in config::operator::check_dynamic(dynamic) {
        let said = format!("{}: {}", problem.path, problem.message);
        if problem.is_error() {
            failure.causes.push(said);
            remedies.push(format!("{}: {}", problem.path, problem.remedy));
        } else {
            terminal.warn(&said);
        }
    }
    if failure.causes.is_empty() {
        Ok(())
    } else {
        Err(failure.hint(remedies.join("\n")))
    }
}
