//! The configuration in force: the local side, and the cluster's side as it changes.
//!
//! A configuration that does not pass is refused whole, said so, and the one before stays in force.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use surus_core::config::Config;
use tokio::sync::watch;

use super::env::Source;
use super::facts::{Present, Publisher};
use crate::config::settings::PostgresSettings;
use crate::config::{self, Settings};
use crate::dcs::snapshot::{RawCluster, Snapshot};
use crate::log::Logging;
use crate::postgres::{Postgres, Site};
use crate::rest::Rest;
use crate::task::Spawn;

/// The configuration in force and where it comes from.
pub struct Configuration {
    source: Arc<dyn Source>,
    publisher: Arc<Publisher>,
    rest: Rest,
    log: Option<Arc<Logging>>,
    /// What the files of the data directory are to say.
    wanted: watch::Sender<Wanted>,
    /// The revision of the `config` key that was last looked at.
    seen: Option<i64>,
    /// A member of the cluster runs Patroni.
    mixed: bool,
}

/// What is in force, as far as files of the data directory depend on it.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    dynamic: Value,
    postgres: PostgresSettings,
}

/// Patroni raises what is smaller than this, each member for itself: while one is in the cluster all must count alike.
const PATRONI_FLOORS: [Duration; 3] = [
    Duration::from_secs(20),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

impl Configuration {
    /// The configuration that comes from `source`. A task of its own takes changes to the data directory and to PostgreSQL, so that the
    /// loop never waits for either.
    #[must_use]
    pub fn new(
        source: Arc<dyn Source>,
        site: Arc<dyn Site>,
        publisher: Arc<Publisher>,
        postgres: Arc<Postgres>,
        rest: Rest,
        tasks: &dyn Spawn,
        log: Option<Arc<Logging>>,
    ) -> Self {
        let effective = publisher.present().effective;
        let (wanted, changes) = watch::channel(Wanted {
            dynamic: effective.dynamic.clone(),
            postgres: effective.postgres.clone(),
        });
        tasks.spawn(Box::pin(follow(site, postgres, changes)));
        Self {
            source,
            publisher,
            rest,
            log,
            wanted,
            seen: None,
            mixed: false,
        }
    }

    /// What the core obeys.
    #[must_use]
    pub fn core(&self) -> Config {
        let mut core = self.publisher.present().effective.core.clone();
        if self.mixed {
            let [ttl, loop_wait, retry_timeout] = PATRONI_FLOORS;
            core.ttl = core.ttl.max(ttl);
            core.loop_wait = core.loop_wait.max(loop_wait);
            core.retry_timeout = core.retry_timeout.max(retry_timeout);
        }
        core
    }

    /// Reads the local files anew. True if anything has changed.
    pub fn reread(&mut self) -> bool {
        let settings = match self.source.load() {
            Ok((settings, warnings)) => {
                report(&warnings);
                settings
            }
            Err(problems) => {
                tracing::error!(
                    "the configuration is not reloaded:\n{}",
                    config::render(&problems)
                );
                return false;
            }
        };
        if let Err(error) = self.rest.reconfigure(settings.restapi.clone()) {
            tracing::error!(%error, "the REST API keeps its former settings");
        }
        if let Some(log) = &self.log
            && let Err(error) = log.apply(&settings.log)
        {
            tracing::error!(%error, "the log keeps its former settings");
        }
        let dynamic = self.publisher.present().effective.dynamic.clone();
        self.install(Arc::new(settings), &dynamic)
    }

    /// Looks at the cluster's side. True if anything has changed.
    pub fn observe(&mut self, snapshot: &Snapshot) -> bool {
        let mixed = snapshot.view.members.values().any(|member| !member.surus);
        let changed = self.mixed != mixed;
        self.mixed = mixed;
        if changed {
            tracing::info!(
                mixed,
                "members that run Patroni: its smallest ttl, loop_wait and retry_timeout apply while there are any"
            );
        }
        self.observe_key(&snapshot.raw) || changed
    }

    fn observe_key(&mut self, raw: &RawCluster) -> bool {
        let Some(key) = raw.keys.get("config") else {
            return false;
        };
        if self.seen == Some(key.mod_revision) {
            return false;
        }
        self.seen = Some(key.mod_revision);
        let dynamic: Value = match serde_json::from_str(&key.value) {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(%error, "the config key is no JSON and is ignored; `surus edit-config --replace` mends it");
                return false;
            }
        };
        let settings = self.publisher.present().settings;
        self.install(settings, &dynamic)
    }

    fn install(&mut self, settings: Arc<Settings>, dynamic: &Value) -> bool {
        let effective = match config::effective(&settings, dynamic) {
            Ok((effective, warnings)) => {
                report(&warnings);
                Arc::new(effective)
            }
            Err(problems) => {
                tracing::error!("the new configuration is refused:\n{}", config::render(&problems));
                return false;
            }
        };
        let old = self.publisher.present();
        if old.effective == effective && old.settings == settings {
            return false;
        }
        self.publisher.configure(Present {
            settings,
            effective: Arc::clone(&effective),
        });
        self.wanted.send_replace(Wanted {
            dynamic: dynamic.clone(),
            postgres: effective.postgres.clone(),
        });
        true
    }
}

/// Takes each change to PostgreSQL and keeps a copy of the dynamic configuration; of changes that come while one is being taken only the
/// last counts. A server that the agent before left running is told at once: its `patroni.yml` may have been changed in between, and its
/// files may have been written and not read.
async fn follow(site: Arc<dyn Site>, postgres: Arc<Postgres>, mut changes: watch::Receiver<Wanted>) {
    let mut known = changes.borrow().postgres.clone();
    reload(&postgres, known.clone()).await;
    while changes.changed().await.is_ok() {
        let Wanted {
            dynamic,
            postgres: settings,
        } = changes.borrow_and_update().clone();
        if settings != known {
            known = settings.clone();
            reload(&postgres, settings).await;
        }
        site.keep_dynamic(&dynamic).await;
    }
}

async fn reload(postgres: &Postgres, settings: PostgresSettings) {
    match postgres.reload(settings).await {
        Ok(report) => {
            for (name, pending) in &report.pending_restart {
                tracing::info!(name, from = %pending.old_value, to = %pending.new_value, "waits for a restart");
            }
        }
        Err(error) => {
            tracing::error!(error = %error.chain(), "PostgreSQL's configuration is not reloaded");
        }
    }
}

/// The dynamic configuration to begin with: the copy in the data directory if there is one, else `bootstrap.dcs`.
#[must_use]
pub fn first_dynamic(kept: Option<Value>, settings: &Settings) -> Value {
    kept.or_else(|| settings.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone()))
        .filter(Value::is_object)
        .unwrap_or_else(|| Value::Object(serde_json::Map::new()))
}

fn report(warnings: &[config::Problem]) {
    if !warnings.is_empty() {
        tracing::warn!("{}", config::render(warnings));
    }
}
