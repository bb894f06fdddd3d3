//! The agent: the core, and around it everything that touches the world.
//!
//! [`run`] is the only composition root. It connects the parts and hands over to the [`driver`]:
//!
//! ```text
//!   etcd watch ─┐                                  ┌─ executor ─ dcs, postgres, guard, peers ─┐
//!   guard ──────┼─► inbox ─► driver ─► core.step ──┤                                          │
//!   REST, signals┘                                 └─ status ─► REST                          │
//!        ▲                                                                                    │
//!        └────────────────────────────── completions ─────────────────────────────────────────┘
//! ```
//!
//! - [`executor`]: carries orders out; [`custody`]: the guard; [`configuration`]: files and the `config` key
//! - [`facts`]: what is published; [`backend`]: what REST asks; [`systemd`]: what the service manager is told

pub mod backend;
pub mod configuration;
pub mod custody;
pub mod driver;
pub mod executor;
pub mod facts;
pub mod systemd;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use surus_core::Boot;
use surus_core::types::{Generation, MonoTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::chain::chain;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Settings, Surroundings};
use crate::dcs::Etcd;
use crate::guard::Phase;
use crate::log::Logging;
use crate::net::TcpDial;
use crate::peers::{TcpConnect, member_client};
use crate::postgres::Postgres;
use crate::rest::{NodeStatus, Rest};
use backend::Agent;
use configuration::{Configuration, first_dynamic};
use custody::{Custody, Holder};
use driver::{Driver, Ending, News};
use executor::{Executor, Limits, Tools, Waiting};
use facts::{Present, Publisher, Statuses, timing};
use systemd::Systemd;

/// How long the REST API may go on answering after the loop has ended.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// `surus run`: reads the configuration and runs until told to end.
pub fn run_command(path: &Path) -> ExitCode {
    let around = Surroundings::of_process();
    let (settings, warnings) = match config::load(Some(path), &around) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&config::render(&problems)),
    };
    let logging = match crate::log::start(&settings.log, Arc::new(SystemClock)) {
        Ok(logging) => Arc::new(logging),
        Err(error) => return refuse(&format!("error: {}", chain(&error))),
    };
    if !warnings.is_empty() {
        tracing::warn!("{}", config::render(&warnings));
    }
    if rustix::process::geteuid().is_root() {
        return refuse(
            "error: PostgreSQL does not run as root\n\nhint: run the agent as the user who owns the data directory, usually postgres",
        );
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("error: no threads to run on: {error}")),
    };
    let ending = runtime.block_on(run(settings, path.to_owned(), around, Arc::clone(&logging)));
    // A backup or rewind that hangs in a system call must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ending {
        Ok(Ending {
            reason,
            failure: false,
            ..
        }) => {
            tracing::info!("{reason}");
            logging.flush();
            ExitCode::SUCCESS
        }
        Ok(Ending { reason, .. }) => {
            tracing::error!("{reason}");
            logging.flush();
            ExitCode::FAILURE
        }
        Err(text) => {
            logging.flush();
            refuse(&text)
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a fatal configuration must be seen whatever the log settings say"
)]
fn refuse(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::FAILURE
}

/// Connects the parts and drives them.
async fn run(
    settings: Settings,
    path: PathBuf,
    around: Surroundings,
    logging: Arc<Logging>,
) -> Result<Ending, String> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let dynamic = first_dynamic(&settings);
    let (effective, warnings) =
        config::effective(&settings, &dynamic).map_err(|problems| config::render(&problems))?;
    if !warnings.is_empty() {
        tracing::warn!("{}", config::render(&warnings));
    }
    let (news, inbox) = mpsc::unbounded_channel();
    let prefix = format!("/{}/{}/", settings.namespace, settings.scope);
    let etcd = Etcd::new(
        &settings.etcd,
        &prefix,
        &settings.name,
        &TcpDial,
        Arc::clone(&clock),
    )
    .map(Arc::new)
    .map_err(|error| format!("error: {}", chain(&error)))?;
    let peers = member_client(Arc::new(TcpConnect), &settings.ctl, &settings.restapi)
        .map(Arc::new)
        .map_err(|error| format!("error: {}", chain(&error)))?;
    let listener = crate::rest::bind(&settings.restapi).await.map_err(|error| {
        format!(
            "error: restapi.listen: cannot listen on {}: {error}\n\nhint: is another agent running? `ss -ltnp` tells who has the port",
            settings.restapi.listen
        )
    })?;
    refuse_namesake(&etcd, &peers, &settings).await?;

    let data_dir = effective.postgres.data_dir.clone();
    let exe = std::env::current_exe().map_err(|error| format!("error: where is my own binary? {error}"))?;
    let custody = Custody::new(
        custody::socket_of(&data_dir),
        exe,
        data_dir.clone(),
        server_log(&data_dir),
        news.clone(),
    );
    let found = custody.find().await;
    let control = Arc::new(Holder(Arc::clone(&custody)));
    let postgres = Arc::new(Postgres::new(
        Arc::clone(&clock),
        control.clone(),
        effective.postgres.clone(),
        settings.bootstrap.clone(),
    ));
    let core = effective.core.clone();
    let present = Present {
        settings: Arc::new(settings.clone()),
        effective: Arc::new(effective),
    };
    let publisher = Arc::new(Publisher::new(Arc::clone(&postgres), present));
    let limits = Arc::new(RwLock::new(Limits {
        retry: core.retry_timeout,
        ttl: core.ttl,
    }));
    let waiting = Arc::new(Waiting::default());
    let tools = Arc::new(Tools {
        clock: Arc::clone(&clock),
        etcd: Arc::clone(&etcd),
        postgres: Arc::clone(&postgres),
        control,
        peers,
        publisher: Arc::clone(&publisher),
        waiting: Arc::clone(&waiting),
        limits: Arc::clone(&limits),
    });

    let first = NodeStatus::starting(&settings.scope, &settings.name, timing(&core), clock.now());
    let (published, statuses) = watch::channel(Arc::new(first));
    let agent = Arc::new(Agent {
        tools: Arc::clone(&tools),
        waiting,
        news: news.clone(),
        statuses: statuses.clone(),
    });
    let rest = Rest::new(
        agent,
        statuses,
        settings.restapi.clone(),
        crate::rest::Limits::default(),
    )
    .map_err(|error| format!("error: {}", chain(&error)))?;
    publisher.serve(rest.clone());
    let serving = tokio::spawn({
        let rest = rest.clone();
        async move { rest.serve(listener).await }
    });
    tokio::spawn(follow_etcd(etcd, Arc::clone(&clock), news.clone()));
    tokio::spawn(follow_signals(news.clone()));

    let systemd = Systemd::new();
    systemd.ready();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        scope = settings.scope,
        name = settings.name,
        "surus runs"
    );
    let driver = Driver {
        executor: Executor::new(Arc::clone(&tools), news.clone()),
        configuration: Configuration::new(path, around, publisher, postgres, rest, logging),
        tools,
        inbox,
        statuses: Statuses::default(),
        published,
        limits,
        systemd,
    };
    let boot = found.map_or_else(Boot::default, |status| Boot {
        guard_deadline: (status.phase != Phase::Idle && status.deadline_ns != 0)
            .then_some(MonoTime(status.deadline_ns)),
        generation: Generation(status.generation),
    });
    let ending = driver.run(boot).await;
    if !ending.detach {
        custody.quit().await;
    }
    tokio::time::sleep(LAST_ANSWERS).await;
    serving.abort();
    Ok(ending)
}

/// Refuses to begin while a living member of the same name answers at the address it has published.
async fn refuse_namesake(
    etcd: &Etcd,
    peers: &crate::peers::Client,
    settings: &Settings,
) -> Result<(), String> {
    let Ok((_, snapshot)) = etcd.read(Duration::from_secs(2)).await else {
        return Ok(());
    };
    let Some(member) = snapshot.view.members.get(&settings.name.as_str().into()) else {
        return Ok(());
    };
    let own = facts::api_url(settings);
    if member.api_url.is_empty() || member.api_url == own {
        return Ok(());
    }
    let liveness = crate::peers::sibling(&member.api_url, "liveness");
    let answer = peers
        .request(http::Method::GET, &liveness, None, Duration::from_secs(2))
        .await;
    match answer {
        Ok(_) => Err(format!(
            "error: Can't start; there is already a node named '{}' running at {}\n\nhint: give this member another `name`",
            settings.name, member.api_url
        )),
        Err(_) => Ok(()),
    }
}

/// Where PostgreSQL's own output goes until its logging collector takes over: the file that pg_ctl users look for, beside
/// the data directory.
fn server_log(data_dir: &Path) -> Option<PathBuf> {
    let mut name = data_dir.file_name()?.to_owned();
    name.push(".log");
    Some(data_dir.with_file_name(name))
}

async fn follow_etcd(etcd: Arc<Etcd>, clock: Arc<dyn Clock>, news: mpsc::UnboundedSender<News>) {
    let (states, mut changes) = watch::channel(None);
    let watching = tokio::spawn(async move { etcd.watch(states).await });
    while changes.changed().await.is_ok() {
        let snapshot = changes.borrow_and_update().clone();
        if let Some(snapshot) = snapshot
            && news
                .send(News::Cluster {
                    at: clock.now(),
                    snapshot,
                    read: false,
                })
                .is_err()
        {
            break;
        }
    }
    watching.abort();
}

async fn follow_signals(news: mpsc::UnboundedSender<News>) {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
        signal(SignalKind::user_defined1()),
    );
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup), Ok(mut detach)) = signals else {
        tracing::error!("cannot listen for signals");
        return;
    };
    loop {
        let what = tokio::select! { biased;
            _ = terminate.recv() => News::Shutdown,
            _ = interrupt.recv() => News::Shutdown,
            _ = hangup.recv() => News::Reload,
            _ = detach.recv() => News::Detach,
        };
        if news.send(what).is_err() {
            return;
        }
    }
}
