//! Creating a new cluster: initdb or the user's own method, first start under the guard, roles, the user's script.
//!
//! If anything fails the server is stopped and the directory moved to `<data_dir>.failed-<time>`.

use std::time::Duration;

use surus_core::action::StopMode;
use surus_core::input::Outcome;
use surus_core::types::{Generation, MonoTime, SystemId};

use super::conf::Acknowledgers;
use super::error::report;
use super::lifecycle::Right;
use super::site::{Found, Operation, Role};
use super::{Error, Postgres, hba, sql};
use crate::config::settings::{Bootstrap, BootstrapUser, Credentials, PostgresSettings};

/// Functions that pg_rewind calls at its source.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

impl Postgres {
    /// Creates a new cluster in the empty data directory. Its server runs under the guard while roles are made, and is stopped again:
    /// nobody may write to a cluster that another could still take the place of.
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
        report("bootstrap", result, |system_id| Outcome::Bootstrapped {
            system_id,
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
        self.site.clear_strays().await?;
        match self.site.inspect(None).await {
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
        self.site.major().await?;
        self.site.begin(Operation::Bootstrap).await?;
        self.site.create(&bootstrap).await?;
        let lines =
            if bootstrap.pg_hba.is_empty() && bootstrap.method.is_none() && !hba::is_chosen(&bootstrap) {
                hba::default_lines(&settings)
            } else {
                bootstrap.pg_hba.clone()
            };
        let right = self.as_extended(right).await;
        self.start_new(right, &lines).await?;
        self.create_roles(&settings, &bootstrap).await?;
        if let Some(command) = &bootstrap.post_bootstrap {
            let file = self.site.look().await.pid_file.unwrap_or_default();
            self.site.post_bootstrap(file, command).await?;
        }
        // The user's script may have taken longer than the right lasted when the server was started.
        let until = self.as_extended(right).await.valid_until;
        self.stop_server(StopMode::Fast { until }, false, false).await?;
        self.site.finish(Operation::Bootstrap).await?;
        let control = self.site.look().await.control;
        control.map(|light| light.system_id).ok_or_else(|| {
            Error::Condition(format!(
                "cannot read {}",
                settings.data_dir.join("global/pg_control").display()
            ))
        })
    }

    /// A bootstrap that an earlier agent did not finish makes room for a new one; anything else stays.
    async fn put_away_former_attempt(&self, text: String) -> Result<(), Error> {
        let ours = self.site.unfinished().await.is_some_and(|work| work.bootstrap);
        if !ours || self.site.look().await.postmaster().is_some() {
            return Err(Error::Condition(text));
        }
        self.site.abandon(Operation::Bootstrap).await
    }

    /// Starts the new cluster and waits until it accepts writes.
    async fn start_new(&self, right: Right, hba: &[String]) -> Result<(), Error> {
        self.start(Role::Primary, right, Some(hba), Acknowledgers::Kept, false)
            .await?;
        let limit = Duration::from_secs(self.settings().pg_ctl_timeout.max(1));
        let deadline = self.clock.now().plus(limit);
        let mut last = String::new();
        while self.clock.now() < deadline {
            match self.connect("Surus bootstrap", Duration::ZERO).await {
                Ok(session) => {
                    let recovering = session.client.query_one(sql::IN_RECOVERY, &[]).await;
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

    async fn create_roles(&self, settings: &PostgresSettings, bootstrap: &Bootstrap) -> Result<(), Error> {
        let session = self.connect("Surus bootstrap", Duration::ZERO).await?;
        // Passwords stand in these statements and must not reach the server's log.
        session
            .client
            .batch_execute(sql::KEEP_SECRETS)
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

    /// Stops what was started and moves what was made out of the way.
    async fn give_up(&self) {
        if let Err(error) = self.stop_server(StopMode::Immediate, false, false).await {
            tracing::error!(error = %error.chain(), "cannot stop the half-made cluster; its directory stays where it is");
            return;
        }
        let moved = self.site.abandon(Operation::Bootstrap).await;
        if let Err(error) = moved {
            tracing::error!(error = %error.chain(), "the half-made cluster could not be moved aside");
        }
    }
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
            .query_opt(sql::ROLE, &[&self.name])
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
