//! What is installed: where the programs are, which version they are, which parameters that version knows.
//!
//! PostgreSQL itself is asked (`--version`, `--describe-config`, `-C`), once per binary, so no table of ours can be out of date or
//! unaware of a vendor's additions.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::super::site::Launch;
use super::{Error, Local, exec};

/// What one `postgres` binary says of itself.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// Major version.
    pub(super) major: u32,
    /// Parameters by name.
    parameters: BTreeMap<String, Parameter>,
    /// Names that are not in `--describe-config`, asked one by one.
    asked: Mutex<BTreeMap<String, bool>>,
}

/// A parameter as `--describe-config` has it.
#[derive(Debug, Clone, PartialEq, Default)]
struct Parameter {
    kind: String,
    min: Option<f64>,
    max: Option<f64>,
}

/// Catalogues by binary and its time of change.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<BTreeMap<(PathBuf, i64), Arc<Catalogue>>>);

/// How long one of these questions may take. They took 13 ms; a cold disk may need seconds.
const LIMIT: Duration = Duration::from_secs(20);

impl Local {
    /// The path of one of PostgreSQL's programs: `bin_name`, then `bin_dir`, then `PATH`, then the newest /usr/lib/postgresql/*/bin.
    pub(super) fn binary(&self, name: &str) -> PathBuf {
        let settings = self.settings();
        let file = settings.bin_name.get(name).map_or(name, String::as_str);
        if let Some(dir) = &settings.bin_dir {
            return dir.join(file);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let newest = newest_installation();
        std::env::split_paths(&path)
            .chain(newest)
            .map(|dir| dir.join(file))
            .find(|candidate| candidate.is_file())
            .unwrap_or_else(|| PathBuf::from(file))
    }

    /// What the installed server says of itself.
    pub(super) async fn catalogue(&self) -> Result<Arc<Catalogue>, Error> {
        let program = self.binary("postgres");
        let changed = std::fs::metadata(&program).map_err(|source| Error::Spawn {
            program: program.clone(),
            source,
        })?;
        let key = (program.clone(), changed.mtime());
        if let Some(known) = self
            .binaries
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(Arc::clone(known));
        }
        let version = exec::Tool::new(&program)
            .arg("--version")
            .limit(LIMIT)
            .run()
            .await?;
        let major = major(&version.stdout)
            .ok_or_else(|| Error::Condition(format!("{} is no PostgreSQL server", program.display())))?;
        let described = exec::Tool::new(&program)
            .arg("--describe-config")
            .limit(LIMIT)
            .run()
            .await?;
        let catalogue = Arc::new(Catalogue {
            major,
            parameters: parse(&described.stdout),
            asked: Mutex::default(),
        });
        self.binaries
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, Arc::clone(&catalogue));
        Ok(catalogue)
    }

    /// Drops parameters that the installed version does not know, and brings plain numbers into its range. Each with a warning.
    pub(super) async fn fit(
        &self,
        wanted: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, Error> {
        let catalogue = self.catalogue().await?;
        let mut fitting = BTreeMap::new();
        for (name, value) in wanted {
            if !self.known(&catalogue, name).await? {
                tracing::warn!(
                    parameter = name,
                    version = catalogue.major,
                    "dropped a parameter that this version of PostgreSQL does not have"
                );
                continue;
            }
            let clamped = catalogue.clamp(name, value);
            if clamped != *value {
                tracing::warn!(
                    parameter = name,
                    configured = value,
                    used = clamped,
                    "brought a parameter into its range"
                );
            }
            fitting.insert(name.clone(), clamped);
        }
        Ok(fitting)
    }

    /// Whether the installed server has a parameter of this name.
    pub(super) async fn known(&self, catalogue: &Catalogue, name: &str) -> Result<bool, Error> {
        // A name with a dot belongs to an extension, and any is allowed.
        if name.contains('.') || catalogue.parameters.contains_key(&name.to_ascii_lowercase()) {
            return Ok(true);
        }
        let ours = name
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || character == '_');
        if !ours {
            return Ok(false);
        }
        let asked = catalogue
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .copied();
        if let Some(known) = asked {
            return Ok(known);
        }
        // Parameters that are not in the sample file are left out of --describe-config, but -C knows them.
        let answer = exec::Tool::new(&self.binary("postgres"))
            .arg("-D")
            .arg(std::env::temp_dir())
            .args(["-c", "config_file=/dev/null", "-C", name])
            .limit(LIMIT)
            .run()
            .await;
        let known = match answer {
            Ok(_) => true,
            Err(Error::Program { output, .. }) => !output.contains("unrecognized configuration parameter"),
            Err(error) => return Err(error),
        };
        catalogue
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), known);
        Ok(known)
    }
}

impl Local {
    /// What to start as the postmaster.
    pub(super) fn postmaster(&self, command_line: &BTreeMap<String, String>) -> Launch {
        let settings = self.settings();
        let mut args = vec![OsString::from("-D"), settings.data_dir.clone().into_os_string()];
        let mut config_file = OsString::from("--config_file=");
        config_file.push(settings.config_dir.join("postgresql.conf"));
        args.push(config_file);
        args.extend(
            command_line
                .iter()
                .map(|(name, value)| OsString::from(format!("--{name}={value}"))),
        );
        Launch {
            program: self.binary("postgres"),
            args,
            env: environment(),
            cwd: settings.data_dir.clone(),
        }
    }
}

/// The postmaster's environment: the agent's, without what is the agent's own (its secrets among it) or would mislead PostgreSQL.
fn environment() -> Vec<(OsString, OsString)> {
    const NOT_PASSED: [&str; 6] = ["PATRONI_", "SURUS_", "ETCD", "PG", "NOTIFY_SOCKET", "WATCHDOG_"];
    let mut passed: Vec<(OsString, OsString)> = std::env::vars_os()
        .filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.starts_with("PG_OOM_") || !NOT_PASSED.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect();
    if let Some(arenas) = std::env::var_os("PG_MALLOC_ARENA_MAX") {
        passed.push(("MALLOC_ARENA_MAX".into(), arenas));
    }
    passed
}

impl Catalogue {
    /// A plain number outside of the parameter's range becomes the nearest one inside. Numbers with units are left alone.
    fn clamp(&self, name: &str, value: &str) -> String {
        let Some(parameter) = self.parameters.get(&name.to_ascii_lowercase()) else {
            return value.to_owned();
        };
        if !matches!(parameter.kind.as_str(), "INTEGER" | "REAL") {
            return value.to_owned();
        }
        let Ok(number) = value.trim().parse::<f64>() else {
            return value.to_owned();
        };
        match (parameter.min, parameter.max) {
            (Some(min), _) if number < min => min.to_string(),
            (_, Some(max)) if max < number => max.to_string(),
            _ => value.to_owned(),
        }
    }
}

fn newest_installation() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(Path::new("/usr/lib/postgresql"))
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

/// The major version in `postgres (PostgreSQL) 15.18 (Debian …)`.
fn major(output: &str) -> Option<u32> {
    let (_, version) = output.split_once("(PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn parse(output: &str) -> BTreeMap<String, Parameter> {
    output
        .lines()
        .filter_map(|line| {
            let mut columns = line.split('\t');
            let name = columns.next()?.to_ascii_lowercase();
            let kind = columns.nth(2)?.to_owned();
            let min = columns.nth(1).and_then(|text| text.parse().ok());
            let max = columns.next().and_then(|text| text.parse().ok());
            Some((name, Parameter { kind, min, max }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_brought_into_range_and_texts_left_alone() {
        let catalogue = Catalogue {
            major: 15,
            parameters: parse(
                "max_connections\tpostmaster\tGroup\tINTEGER\t0\t1\t262143\tText.\t\n\
                 wal_level\tpostmaster\tGroup\tENUM\treplica\t\t\tText.\t\n",
            ),
            asked: Mutex::default(),
        };
        assert_eq!(catalogue.clamp("max_connections", "0"), "1");
        assert_eq!(catalogue.clamp("max_connections", "300000"), "262143");
        assert_eq!(catalogue.clamp("max_connections", "100"), "100");
        assert_eq!(catalogue.clamp("wal_level", "7"), "7");
        assert_eq!(
            major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("busybox"), None);
    }
}
