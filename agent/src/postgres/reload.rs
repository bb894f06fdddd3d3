//! New settings for a running server.

use std::collections::BTreeMap;
use std::time::Duration;

use super::conf::{Acknowledgers, Configured, Gating};
use super::{Error, Postgres, Signal, sql};
use crate::config::settings::PostgresSettings;

/// How long a reload is waited for before pending restarts are read: the postmaster takes milliseconds.
const RELOAD_LIMIT: Duration = Duration::from_secs(2);

/// A parameter whose new value waits for a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRestart {
    /// In force, with its unit.
    pub old_value: String,
    /// Configured.
    pub new_value: String,
}

/// What a reload did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReloadReport {
    /// Files were written anew, or may not have been read, and the server was told to read them.
    pub reloaded: bool,
    /// What waits for a restart.
    pub pending_restart: BTreeMap<String, PendingRestart>,
}

impl Postgres {
    /// Takes new settings. Of a running server the files are rewritten and read; what needs a restart is reported, nothing is
    /// restarted. A server that does not run gets them at its next start.
    ///
    /// # Errors
    /// When files cannot be written or the server cannot be told. The new settings are kept all the same.
    pub async fn reload(&self, settings: PostgresSettings) -> Result<ReloadReport, Error> {
        *self
            .settings
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = std::sync::Arc::new(settings);
        self.site.obey(self.settings());
        let told = std::mem::take(&mut self.memory().told);
        let Some(rewritten) = self.reconfigure(Acknowledgers::Kept, Gating::Kept).await? else {
            return Ok(ReloadReport::default());
        };
        let configured = rewritten.configured;
        let reloaded = configured.changed || !told;
        if reloaded {
            let before = self.loaded_at().await;
            self.signal(rewritten.postmaster.pid, Signal::Reload).await?;
            let limit = self.clock.now().plus(RELOAD_LIMIT);
            while self.clock.now() < limit && self.loaded_at().await == before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        self.memory().told = true;
        if configured.changed {
            let role = if rewritten.standby { "replica" } else { "primary" };
            self.site.callback("on_reload", role);
        }
        let pending_restart = self.find_pending(&configured).await?;
        self.memory().pending_restart.clone_from(&pending_restart);
        Ok(ReloadReport {
            reloaded,
            pending_restart,
        })
    }

    async fn loaded_at(&self) -> Option<String> {
        let session = self.connect("Surus reload", RELOAD_LIMIT).await.ok()?;
        let row = session.client.query_one(sql::LOADED, &[]).await.ok()?;
        Some(row.get(0))
    }

    /// Compares what is configured with what is in force.
    async fn find_pending(&self, configured: &Configured) -> Result<BTreeMap<String, PendingRestart>, Error> {
        let session = self.connect("Surus reload", RELOAD_LIMIT).await?;
        let rows = session
            .client
            .query(sql::SETTINGS, &[])
            .await
            .map_err(Error::query("show its settings"))?;
        let mut pending = configured.raised.clone();
        for row in rows {
            let (name, setting, unit, kind): (String, String, String, String) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            let waits: bool = row.get(4);
            let on_command_line = configured.command_line.get(&name);
            let differs = on_command_line.is_some_and(|wanted| !same(wanted, &setting, &kind));
            if pending.contains_key(&name) || !(waits || differs) {
                continue;
            }
            let wanted = on_command_line.or_else(|| configured.file.get(&name));
            let entry = PendingRestart {
                old_value: if unit.is_empty() {
                    setting
                } else {
                    format!("{setting} x {unit}")
                },
                new_value: wanted
                    .cloned()
                    .unwrap_or_else(|| "(changed bypassing Surus)".to_owned()),
            };
            tracing::info!(
                parameter = name,
                from = entry.old_value,
                to = entry.new_value,
                "a changed parameter waits for a restart"
            );
            pending.insert(name, entry);
        }
        Ok(pending)
    }
}

/// Two spellings of one value.
fn same(wanted: &str, setting: &str, kind: &str) -> bool {
    let truth = |text: &str| match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    };
    match kind {
        "bool" => truth(wanted) == truth(setting),
        "integer" | "real" => wanted.parse::<f64>().ok() == setting.parse::<f64>().ok(),
        "enum" => wanted.eq_ignore_ascii_case(setting),
        _ => wanted == setting,
    }
}
