//! Creating a new cluster: initdb or the user's own method, first start under the guard, roles, the user's script.
//!
//! If anything fails the server is stopped and the directory moved to `<data_dir>.failed-<time>`.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use surus_core::action::StopMode;
use surus_core::input::Outcome;
use surus_core::types::{Generation, MonoTime, SystemId};

use super::conf::Role;
use super::directory::{Found, Marker};
use super::error::report;
use super::lifecycle::Right;
use super::{Error, Postgres, blocking, control, directory, exec, files, hba, text};
use crate::config::settings::{Bootstrap, BootstrapUser, Credentials, PostgresSettings};

/// The marker's name for what is done here.
const BOOTSTRAP: &str = "bootstrap";

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

/// Functions that pg_rewind calls at its source.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

impl Postgres {
    /// Creates a new cluster in the empty data directory and starts it as primary under the guard.
    pub async fn bootstrap(
        &self,
        guard_until: MonoTime,
        valid_until: MonoTime,
        generation: Generation,
    ) -> Outcome {
        let right = Right {
            guard_until: Some(guard_until),
            valid_until,
            generation,
        };
        let mut begun = false;
        let result = self.create_cluster(right, &mut begun).await;
        if result.is_err() && begun {
            self.give_up().await;
        }
        report("bootstrap", result, |system_id| {
            self.callback("on_start", "primary");
            Outcome::Bootstrapped { system_id }
        })
    }

    async fn create_cluster(&self, right: Right, begun: &mut bool) -> Result<SystemId, Error> {
        self.still_valid(right.valid_until, right.generation)?;
        let settings = self.settings();
        let bootstrap = self.bootstrap.clone().ok_or_else(|| {
            Error::Condition(
                "this node may not create a cluster: its configuration has no section bootstrap".to_owned(),
            )
        })?;
        self.clear_strays().await?;
        let data_dir = settings.data_dir.clone();
        match blocking(move || directory::inspect(&data_dir, None)).await {
            Found::Empty => {}
            Found::Cluster => {
                return Err(Error::Condition(format!(
                    "{} holds a cluster already",
                    settings.data_dir.display()
                )));
            }
            Found::Incomplete(text) => self.put_away_former_attempt(text).await?,
            Found::Unusable(text) => return Err(Error::Condition(text)),
        }
        *begun = true;
        self.catalogue().await?;
        let marker = Marker {
            operation: BOOTSTRAP.to_owned(),
            pid: None,
            since: self.timestamp(),
            only_ours: false,
        };
        let data_dir = settings.data_dir.clone();
        blocking(move || {
            directory::create(&files::parent(&data_dir))?;
            marker.write(&data_dir)
        })
        .await?;
        match &bootstrap.method {
            Some(method) => self.custom_bootstrap(method).await?,
            None => self.initdb(&bootstrap).await?,
        }
        self.restore_configuration().await?;
        let lines =
            if bootstrap.pg_hba.is_empty() && bootstrap.method.is_none() && !chose_authentication(&bootstrap)
            {
                hba::default_lines(&settings)
            } else {
                bootstrap.pg_hba.clone()
            };
        let right = self.as_extended(right).await;
        self.start_new(right, &lines).await?;
        self.create_roles(&settings, &bootstrap).await?;
        if let Some(command) = &bootstrap.post_bootstrap {
            self.post_bootstrap(&settings, command).await?;
        }
        let data_dir = settings.data_dir.clone();
        let light = blocking(move || Marker::remove(&data_dir).map(|()| control::light(&data_dir))).await?;
        light.map(|light| light.system_id).ok_or_else(|| {
            Error::Condition(format!(
                "cannot read {}",
                settings.data_dir.join("global/pg_control").display()
            ))
        })
    }

    /// A bootstrap that an earlier agent did not finish makes room for a new one; anything else stays.
    async fn put_away_former_attempt(&self, text: String) -> Result<(), Error> {
        let data_dir = self.settings().data_dir.clone();
        let time = self.timestamp();
        blocking(move || {
            let ours = Marker::read(&data_dir).is_some_and(|marker| marker.operation == BOOTSTRAP);
            if !ours || directory::postmaster(&data_dir).is_some() {
                return Err(Error::Condition(text));
            }
            directory::move_aside(&data_dir, "failed", &time).map(|_| ())
        })
        .await
    }

    /// Starts the new cluster and waits until it accepts writes.
    async fn start_new(&self, right: Right, hba: &[String]) -> Result<(), Error> {
        self.start(Role::Primary, right, Some(hba)).await?;
        let limit = Duration::from_secs(self.settings().pg_ctl_timeout.max(1));
        let deadline = self.clock.now().plus(limit);
        let mut last = String::new();
        while self.clock.now() < deadline {
            match self.connect("Surus bootstrap", Duration::ZERO).await {
                Ok(session) => {
                    let recovering = session.client.query_one("SELECT pg_is_in_recovery()", &[]).await;
                    match recovering {
                        Ok(row) if !row.get::<_, bool>(0) => return Ok(()),
                        Ok(_) => "it is still in recovery".clone_into(&mut last),
                        Err(error) => last = error.to_string(),
                    }
                }
                Err(error) => last = error.chain(),
            }
            if self.control.status().await?.pid.is_none() {
                return Err(Error::Condition(format!(
                    "the new server ended; its log says why ({last})"
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Error::Condition(format!(
            "the new server accepted no writes within {limit:?}: {last}"
        )))
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
        if settings.superuser.password.is_some() && !chose_authentication(bootstrap) {
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

    async fn create_roles(&self, settings: &PostgresSettings, bootstrap: &Bootstrap) -> Result<(), Error> {
        let session = self.connect("Surus bootstrap", Duration::ZERO).await?;
        // Passwords stand in these statements and must not reach the server's log.
        session
            .client
            .batch_execute(
                "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic'; \
                 SET synchronous_commit = 'local'",
            )
            .await
            .map_err(Error::query("prepare for the creation of roles"))?;
        let superuser = &settings.superuser;
        let mut roles = vec![NewRole::of(superuser, "SUPERUSER LOGIN")];
        if settings.replication.username != superuser.username {
            roles.push(NewRole::of(&settings.replication, "LOGIN REPLICATION"));
        }
        let rewind = settings
            .rewind
            .as_ref()
            .filter(|rewind| rewind.username != superuser.username);
        if let Some(rewind) = rewind
            && rewind.username != settings.replication.username
        {
            roles.push(NewRole::of(rewind, "LOGIN"));
        }
        for (name, user) in &bootstrap.users {
            roles.push(NewRole::user(name, user)?);
        }
        for role in roles {
            role.make(&session.client).await?;
        }
        if let Some(rewind) = rewind {
            for function in REWIND_FUNCTIONS {
                let grant = format!(
                    "GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {}",
                    identifier(&rewind.username)
                );
                session
                    .client
                    .batch_execute(&grant)
                    .await
                    .map_err(Error::query("let the rewind role call what pg_rewind calls"))?;
            }
        }
        Ok(())
    }

    async fn post_bootstrap(&self, settings: &PostgresSettings, command: &str) -> Result<(), Error> {
        let words = exec::split(command)?;
        let data_dir = settings.data_dir.clone();
        let file = blocking(move || directory::PidFile::read(&data_dir))
            .await
            .unwrap_or_default();
        let host = match (&file.socket_dir, file.listen.as_deref()) {
            (Some(dir), _) if settings.use_unix_socket => text(dir),
            (_, Some("*" | "0.0.0.0")) => "127.0.0.1".to_owned(),
            (_, Some(host)) => host.to_owned(),
            (Some(dir), None) => text(dir),
            (None, None) => "localhost".to_owned(),
        };
        let place = super::connect::Address {
            host,
            port: file.port.unwrap_or(settings.port),
        };
        let passwords = (settings.clone(), place.clone());
        blocking(move || super::connect::write_pgpass(&passwords.0, &passwords.1)).await?;
        let dsn = super::connect::conninfo(
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

    /// Stops what was started and moves what was made out of the way.
    async fn give_up(&self) {
        if let Err(error) = self.stop_server(StopMode::Immediate, false).await {
            tracing::error!(error = %error.chain(), "cannot stop the half-made cluster; its directory stays where it is");
            return;
        }
        let data_dir = self.settings().data_dir.clone();
        let time = self.timestamp();
        let moved = blocking(move || {
            directory::move_aside(&data_dir, "failed", &time)?;
            Marker::remove(&data_dir)
        })
        .await;
        if let Err(error) = moved {
            tracing::error!(error = %error.chain(), "the half-made cluster could not be moved aside");
        }
    }
}

fn chose_authentication(bootstrap: &Bootstrap) -> bool {
    bootstrap
        .initdb
        .iter()
        .any(|(name, _)| name.trim_start_matches('-').starts_with("auth"))
}

/// The environment names a locale with a meaning.
fn locale_is_set() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .is_some_and(|value| value != "C" && value != "POSIX")
}

/// A name as SQL takes it.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it.
fn literal(value: &str) -> String {
    if value.contains('\\') {
        format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", value.replace('\'', "''"))
    }
}

/// A role to create, or to give these options and this password if it exists.
struct NewRole {
    name: String,
    clause: String,
}

impl NewRole {
    fn new(name: &str, password: Option<&str>, options: &str) -> Self {
        let password =
            password.map_or_else(String::new, |password| format!(" PASSWORD {}", literal(password)));
        Self {
            name: name.to_owned(),
            clause: format!("ROLE {} WITH {options}{password}", identifier(name)),
        }
    }

    fn of(credentials: &Credentials, options: &str) -> Self {
        Self::new(&credentials.username, credentials.password.as_deref(), options)
    }

    fn user(name: &str, user: &BootstrapUser) -> Result<Self, Error> {
        let mut options = Vec::new();
        for option in &user.options {
            let words = option.trim();
            let plain = !words.is_empty()
                && words.chars().all(|character| {
                    character.is_ascii_alphanumeric() || character == ' ' || character == '_'
                });
            if !plain {
                return Err(Error::Condition(format!(
                    "bootstrap.users.{name}.options: {option:?} is no option of CREATE ROLE; use such as createdb or createrole"
                )));
            }
            let word = words.to_ascii_uppercase();
            if !options.contains(&word) {
                options.push(word);
            }
        }
        if !options
            .iter()
            .any(|option| option == "LOGIN" || option == "NOLOGIN")
        {
            options.insert(0, "LOGIN".to_owned());
        }
        Ok(Self::new(name, user.password.as_deref(), &options.join(" ")))
    }

    async fn make(&self, client: &tokio_postgres::Client) -> Result<(), Error> {
        let known = client
            .query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&self.name])
            .await
            .map_err(Error::query("list its roles"))?
            .is_some();
        let verb = if known { "ALTER" } else { "CREATE" };
        client
            .batch_execute(&format!("{verb} {}", self.clause))
            .await
            .map_err(Error::query(format!("create the role {}", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_cannot_break_out() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn options_of_users_are_words() {
        let user = |options: &[&str]| {
            let user = BootstrapUser {
                password: Some("it's".to_owned()),
                options: options.iter().map(|option| (*option).to_owned()).collect(),
            };
            NewRole::user("admin", &user).map(|role| role.clause).ok()
        };
        assert_eq!(
            user(&["createrole", "createdb"]).as_deref(),
            Some("ROLE \"admin\" WITH LOGIN CREATEROLE CREATEDB PASSWORD 'it''s'")
        );
        assert_eq!(user(&["superuser; drop table x"]), None);
        assert_eq!(
            user(&["NOLOGIN"]).as_deref(),
            Some("ROLE \"admin\" WITH NOLOGIN PASSWORD 'it''s'")
        );
    }
}
