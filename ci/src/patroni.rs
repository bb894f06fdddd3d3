//! Patroni from PyPI, in an environment of its own: what the bench compares with.
//!
//! It runs as the account that the clusters run as, and so does every program that it starts; the Python below it has to be one that this
//! account can run, which the first one on root's path may not be (pyenv's, in root's home).

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster;
use crate::error::{Error, Result};
use crate::proc::Account;
use crate::report::Report;
use crate::tool::output;

/// The version that our figures on record are of.
const VERSION: &str = "4.1.5";

/// Its lease when nothing is configured, in seconds.
const TTL: u32 = 30;

/// Whom to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rival {
    /// From PyPI, with its default settings.
    Patroni,
}

/// Its cluster, on the same ground as ours.
///
/// # Errors
/// As [`install`].
pub(crate) fn beside(ours: &cluster::Options, report: Report) -> Result<cluster::Options> {
    Ok(cluster::Options {
        agent: Some(install(report)?.display().to_string()),
        ttl: Some(TTL),
        ..ours.clone()
    })
}

/// The program, installed where it is missing.
///
/// # Errors
/// When there is no Python that the clusters' account can run, or no way to PyPI.
fn install(report: Report) -> Result<PathBuf> {
    let account = Account::choose()?;
    // Not below the checkout, which may be closed to that account.
    let root = std::env::temp_dir().join(format!("surus-ci-patroni-{VERSION}"));
    let program = root.join("bin/patroni");
    if root.join("complete").is_file() && runs(&account, &program, &["--version"]) {
        return Ok(program);
    }
    let python = python(&account)?;
    report.say(format!(
        "installing Patroni {VERSION} from PyPI into {}, on {}",
        root.display(),
        python.display()
    ));
    output(Command::new(python).args(["-m", "venv", "--clear"]).arg(&root))?;
    output(Command::new(root.join("bin/pip")).args([
        "install",
        "--quiet",
        &format!("patroni[etcd3,psycopg3]=={VERSION}"),
        "psycopg[binary]",
    ]))?;
    if !runs(&account, &program, &["--version"]) {
        let text = format!(
            "the user `{}` cannot run {}: remove {} and try again with `umask 022`",
            account.name,
            program.display(),
            root.display()
        );
        return Err(Error::Unable(text));
    }
    std::fs::write(root.join("complete"), "")
        .map_err(Error::io(|| format!("write to {}", root.display())))?;
    Ok(program)
}

/// The first Python on the path that the account can run and that can make environments.
fn python(account: &Account) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/bin", "/usr/local/bin"]);
    let mut all = places.map(|place| Path::new(place).join("python3"));
    let fit = |python: &PathBuf| runs(account, python, &["-c", "import ensurepip, venv"]);
    all.find(fit).ok_or_else(|| {
        Error::Unable(format!(
            "the user `{}` can run no Python that makes environments: apt-get install python3-venv",
            account.name
        ))
    })
}

fn runs(account: &Account, program: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/");
    account.dress(&mut command);
    // Standard error is not for people here: most of the candidates fail.
    command.output().is_ok_and(|output| output.status.success())
}
