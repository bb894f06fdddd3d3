//! Programs of the machine that a verb calls, and where the workspace is.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// The root of the workspace.
pub fn root() -> Result<PathBuf> {
    let path =
        output(Command::new(cargo()).args(["locate-project", "--workspace", "--message-format=plain"]))?;
    Ok(Path::new(path.trim())
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf))
}

/// The cargo that runs us, or the one on the path.
pub fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// Runs a program to its end and returns its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(Error::io(|| format!("run {shown}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Err(Error::Program {
        program: shown,
        status: output.status.to_string(),
        output: text.trim().to_owned(),
    })
}

/// Where cargo builds.
#[must_use]
pub fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}
