//! Patroni from PyPI, in an environment of its own: what the bench compares with.

use std::path::PathBuf;
use std::process::Command;

use crate::error::Result;
use crate::report::Report;
use crate::tool::output;

/// The version that our figures on record are of.
const VERSION: &str = "4.1.5";

/// Its lease when nothing is configured, in seconds.
pub(crate) const TTL: u32 = 30;

/// The program, installed where it is missing.
///
/// # Errors
/// When there is no Python, or no way to PyPI.
pub(crate) fn install(report: Report) -> Result<PathBuf> {
    // Not below the checkout, which may be closed to the account that the cluster runs as.
    let root = std::env::temp_dir().join(format!("surus-ci-patroni-{VERSION}"));
    let program = root.join("bin/patroni");
    if root.join("complete").is_file() {
        return Ok(program);
    }
    report.say(format!(
        "installing Patroni {VERSION} from PyPI into {}",
        root.display()
    ));
    output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&root))?;
    output(Command::new(root.join("bin/pip")).args([
        "install",
        "--quiet",
        &format!("patroni[etcd3,psycopg3]=={VERSION}"),
        "psycopg[binary]",
    ]))?;
    std::fs::write(root.join("complete"), "")
        .map_err(crate::error::Error::io(|| format!("write to {}", root.display())))?;
    Ok(program)
}
