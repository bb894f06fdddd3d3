//! initdb, or the user's own method in its place, and the user's script afterwards.

use std::ffi::OsString;
use std::path::Path;

use super::super::connect::conninfo;
use super::super::hba;
use super::super::site::{Address, PidFile};
use super::directory::{self, Marker};
use super::{Error, Local, blocking, conf, exec, files, text};
use crate::config::settings::Bootstrap;

/// The marker's name for what is done here.
pub(super) const BOOTSTRAP: &str = "bootstrap";

/// Options of initdb that are ours.
const FORBIDDEN: [&str; 9] = [
    "pgdata",
    "nosync",
    "no-sync",
    "pwfile",
    "pwprompt",
    "sync-only",
    "version",
    "username",
    "show",
];

impl Local {
    /// Makes a new cluster.
    pub(super) async fn create_cluster(&self, bootstrap: &Bootstrap) -> Result<(), Error> {
        match &bootstrap.method {
            Some(method) => self.custom_bootstrap(method).await?,
            None => self.initdb(bootstrap).await?,
        }
        self.restore_configuration().await
    }

    async fn initdb(&self, bootstrap: &Bootstrap) -> Result<(), Error> {
        let settings = self.settings();
        let major = self.catalogue().await?.major;
        let mut options = Vec::new();
        for (name, value) in &bootstrap.initdb {
            let name = name.trim_start_matches('-');
            if FORBIDDEN.contains(&name) {
                tracing::warn!(
                    option = name,
                    "left out an option of bootstrap.initdb that is not for the user to set"
                );
                continue;
            }
            options.push(match value {
                Some(value) => format!("--{name}={value}"),
                None => format!("--{name}"),
            });
        }
        let names = |wanted: &[&str]| {
            bootstrap
                .initdb
                .iter()
                .any(|(name, _)| wanted.contains(&name.trim_start_matches('-')))
        };
        if !names(&[
            "locale",
            "no-locale",
            "lc-collate",
            "lc-ctype",
            "locale-provider",
            "icu-locale",
            "builtin-locale",
        ]) && !locale_is_set()
        {
            // Without a locale initdb takes "C" and SQL_ASCII, which no program of today expects.
            options.push("--locale=C.UTF-8".to_owned());
            if !names(&["encoding"]) {
                options.push("--encoding=UTF8".to_owned());
            }
        }
        if settings.superuser.password.is_some() && !hba::is_chosen(bootstrap) {
            let method = if major < 14 { "md5" } else { "scram-sha-256" };
            options.push(format!("--auth={method}"));
        }
        let password = settings.superuser.password.clone();
        let password_file = files::sibling(&settings.data_dir, ".surus-password");
        if let Some(password) = password {
            let path = password_file.clone();
            blocking(move || files::write(&path, format!("{password}\n").as_bytes(), 0o600)).await?;
            options.push(format!("--pwfile={}", text(&password_file)));
        }
        let mut tool = exec::Tool::new(&self.binary("initdb"))
            .arg(format!("--pgdata={}", text(&settings.data_dir)))
            .arg(format!("--username={}", settings.superuser.username))
            .args(options);
        // initdb takes the locale from its environment, which tools otherwise get in English.
        for name in ["LC_ALL", "LANG", "LC_CTYPE", "LC_COLLATE"] {
            if let Some(value) = std::env::var_os(name) {
                tool = tool.env(name, value);
            } else if name == "LC_ALL" {
                tool = tool.env(name, "");
            }
        }
        tracing::info!(dir = %settings.data_dir.display(), "creating a new cluster");
        let result = self.marked(tool, &settings.data_dir).await;
        blocking(move || files::remove(&password_file)).await?;
        result
    }

    async fn custom_bootstrap(&self, method: &crate::config::settings::CustomMethod) -> Result<(), Error> {
        let settings = self.settings();
        let words = exec::split(&method.command)?;
        let mut args: Vec<OsString> = words[1..].to_vec();
        if !method.no_params {
            args.push(format!("--scope={}", settings.scope).into());
            args.push(format!("--datadir={}", text(&settings.data_dir)).into());
        }
        args.extend(
            method
                .extra
                .iter()
                .map(|(key, value)| format!("--{key}={value}").into()),
        );
        tracing::info!(method = method.name, "creating a new cluster");
        let tool = exec::Tool::new(Path::new(&words[0]))
            .args(args)
            .lines(|line| tracing::info!(method = method.name, "{}", line.trim()));
        self.marked(tool, &settings.data_dir).await?;
        let data_dir = settings.data_dir.clone();
        if !blocking(move || data_dir.join("global/pg_control").exists()).await {
            return Err(Error::Condition(format!(
                "the command of bootstrap.{} reported success and left no cluster in {}",
                method.name,
                settings.data_dir.display()
            )));
        }
        Ok(())
    }

    /// Runs the user's script on a new cluster.
    pub(super) async fn run_post_bootstrap(&self, file: PidFile, command: &str) -> Result<(), Error> {
        let settings = self.settings();
        let settings = settings.as_ref();
        let words = exec::split(command)?;
        let host = match (&file.socket_dir, file.listen.as_deref()) {
            (Some(dir), _) if settings.use_unix_socket => text(dir),
            (_, Some("*" | "0.0.0.0")) => "127.0.0.1".to_owned(),
            (_, Some(host)) => host.to_owned(),
            (Some(dir), None) => text(dir),
            (None, None) => "localhost".to_owned(),
        };
        let place = Address {
            host,
            port: file.port.unwrap_or(settings.port),
        };
        let passwords = (settings.clone(), place.clone());
        blocking(move || conf::write_pgpass(&passwords.0, &passwords.1)).await?;
        let dsn = conninfo(
            settings,
            &settings.superuser,
            &place,
            &[("dbname", settings.database.as_str())],
        );
        tracing::info!(command, "running post_bootstrap");
        exec::Tool::new(Path::new(&words[0]))
            .args(&words[1..])
            .arg(dsn)
            .env("PGPASSFILE", &settings.pgpass)
            .env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0")
            .lines(|line| tracing::info!("{}", line.trim()))
            .run()
            .await
            .map(|_| ())
    }
}

/// Marks that a cluster is being made.
pub(super) fn begin(data_dir: &Path, since: String) -> Result<(), Error> {
    directory::create(&files::parent(data_dir))?;
    Marker {
        operation: BOOTSTRAP.to_owned(),
        pid: None,
        since,
        only_ours: false,
    }
    .write(data_dir)
}

/// The cluster is made, and is for everybody from its next start on.
pub(super) fn finish(data_dir: &Path) -> Result<(), Error> {
    files::remove(&data_dir.join(conf::PRIVATE))?;
    Marker::remove(data_dir)
}

/// Moves what was made out of the way.
pub(super) fn abandon(data_dir: &Path, time: &str) -> Result<(), Error> {
    directory::move_aside(data_dir, "failed", time)?;
    Marker::remove(data_dir)
}

/// The environment names a locale with a meaning.
fn locale_is_set() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .is_some_and(|value| value != "C" && value != "POSIX")
}
