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
//! - [`env`]: the world it stands in, the only seam between production and a simulator; [`executor`]: carries orders out;
//!   [`custody`]: the guard; [`configuration`]: files and the `config` key
//! - [`record`]: what the core was told, for replay; [`facts`]: what is published; [`backend`]: what REST asks; [`systemd`]: what the service manager is told

pub mod backend;
pub mod configuration;
pub mod custody;
pub mod driver;
pub mod env;
pub mod executor;
pub mod facts;
#[cfg(feature = "zoo")]
mod flaw;
pub mod record;
pub mod systemd;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use surus_core::Boot;
use surus_core::input::Input;
use tokio::sync::{mpsc, watch};

use crate::chain::chain;
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Settings, Surroundings};
use crate::dcs::Etcd;
use crate::log::refuse;
use crate::machine::Machine;
use crate::net::{Dial, Listener, Network};
use crate::peers::member_client;
use crate::postgres::{Postgres, ProcessControl};
use crate::published::{self, Published};
use crate::rest::{NodeStatus, Rest};
use crate::task;
use backend::Agent;
use configuration::{Configuration, first_dynamic};
pub use driver::Ending;
use driver::{Driver, News};
pub use env::{Custody, Env, Files, Found, GuardNews, Observer, Source, Told};
use executor::{Executor, Limits, Tools, Waiting};
use facts::{Present, Publisher, Statuses, timing};
use record::Recorder;

/// How long the first questions wait for the first look at PostgreSQL and etcd, which takes some 0.2 s. Routers wait a second or more for an answer.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// How long the REST API may go on answering after the loop has ended.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// `surus run`: reads the configuration and runs until told to end.
///
/// With `recording` what the core is told goes into a file of that name, see [`record`].
pub fn run_command(path: &Path, recording: Option<&Path>) -> ExitCode {
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
    let observer = match recording.map(Recorder::to_file).transpose() {
        Ok(recorder) => recorder.map(|recorder| Box::new(recorder) as Box<dyn Observer>),
        Err(error) => return refuse(&format!("error: cannot record: {error}")),
    };
    if let Err(text) = crate::router::command::beside_agent(&settings) {
        return refuse(&text);
    }
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.worker_threads(2).enable_all();
    #[cfg(feature = "zoo")]
    if let Err(text) = flaw::plant_named(&mut threads) {
        return refuse(&text);
    }
    let runtime = match threads.build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("error: no threads to run on: {error}")),
    };
    let source = Arc::new(Files {
        path: path.to_owned(),
        around,
    });
    let words = Arc::clone(&logging);
    // On a worker, not on this thread: a wake-up of the loop by what it waits for then seldom goes from one thread to another.
    let driven = runtime.spawn(async move {
        let env = Env::of_machine(&settings, source, Some(words))?;
        run(settings, Env { observer, ..env }).await
    });
    let ending = runtime
        .block_on(driven)
        .unwrap_or_else(|error| Err(format!("error: {error}")));
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

/// Connects the parts and drives them, in the world of `env`. Returns how it ended; dropped before that, it leaves everything as
/// `kill -9` would.
///
/// # Errors
/// Why it cannot begin, for people.
pub async fn run(settings: Settings, env: Env) -> Result<Ending, String> {
    // Held to the end: the tasks of this agent end with it, however it ends.
    let (tasks, _hold) = task::Group::new(env.tasks);
    let net: Arc<dyn Dial> = env.net.clone();
    let machine = Machine {
        clock: Arc::clone(&env.clock),
        dial: net,
        tasks,
    };
    let clock = &machine.clock;
    let dynamic = first_dynamic(env.site.kept_dynamic().await, &settings);
    let (effective, warnings) =
        config::effective(&settings, &dynamic).map_err(|problems| config::render(&problems))?;
    if !warnings.is_empty() {
        tracing::warn!("{}", config::render(&warnings));
    }
    let (news, inbox) = mpsc::unbounded_channel();
    let prefix = format!("/{}/{}/", settings.namespace, settings.scope);
    let etcd = Etcd::new(&settings.etcd, &prefix, &settings.name, machine.clone())
        .map(Arc::new)
        .map_err(|error| format!("error: {}", chain(&error)))?;
    let peers = member_client(Arc::clone(&machine.dial), &settings.ctl, &settings.restapi)
        .map(Arc::new)
        .map_err(|error| format!("error: {}", chain(&error)))?;
    let listener = listen(env.net.as_ref(), &settings).await?;
    refuse_namesake(&etcd, &peers, &settings).await?;

    let (sender, guard) = mpsc::unbounded_channel();
    let found = env.custody.find(sender).await;
    let control: Arc<dyn ProcessControl> = env.custody.clone();
    let postgres = Arc::new(Postgres::new(
        machine.clone(),
        Arc::clone(&control),
        Arc::clone(&env.site),
        effective.postgres.clone(),
        settings.bootstrap.clone(),
    ));
    postgres.announce_with(Arc::new(executor::Word(Arc::clone(&etcd))));
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
        machine: machine.clone(),
        etcd: Arc::clone(&etcd),
        postgres: Arc::clone(&postgres),
        control,
        peers,
        publisher: Arc::clone(&publisher),
        waiting: Arc::clone(&waiting),
        limits: Arc::clone(&limits),
    });

    let first = NodeStatus::starting(&settings.scope, &settings.name, timing(&core), clock.now());
    let (published, statuses) = published::channel(Arc::new(first));
    let agent = Arc::new(Agent {
        tools: Arc::clone(&tools),
        net: env.net,
        waiting,
        news: news.clone(),
        statuses: statuses.clone(),
    });
    let rest = Rest::new(
        agent,
        statuses.clone(),
        settings.restapi.clone(),
        crate::rest::Limits::default(),
    )
    .map_err(|error| format!("error: {}", chain(&error)))?;
    publisher.serve(rest.schedule());
    let serving = machine.tasks.spawn({
        let (rest, looked) = (rest.clone(), first_look(statuses.clone()));
        Box::pin(async move {
            looked.await;
            rest.serve(listener).await
        })
    });
    let _serving = task::Owned(serving);
    let watching = follow_etcd(etcd, Arc::clone(clock), news.clone());
    machine.tasks.spawn(Box::pin(watching));
    machine
        .tasks
        .spawn(Box::pin(follow_env(env.told, guard, news.clone())));

    let systemd = env.systemd;
    systemd.ready();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        scope = settings.scope,
        name = settings.name,
        "surus runs"
    );
    let driver = Driver {
        executor: Executor::new(Arc::clone(&tools), news),
        configuration: Configuration::new(
            env.source,
            env.site,
            publisher,
            postgres,
            rest,
            machine.tasks.as_ref(),
            env.log,
        ),
        tools,
        inbox,
        statuses: Statuses::default(),
        published,
        limits,
        systemd,
        observer: env.observer,
    };
    let boot = found.map_or_else(Boot::default, |found| Boot {
        guard_deadline: found.deadline,
        generation: found.generation,
    });
    let ending = driver.run(boot).await;
    if !ending.detach {
        env.custody.quit().await;
    }
    tokio::time::sleep(LAST_ANSWERS).await;
    Ok(ending)
}

/// PostgreSQL and etcd have been looked at, or that takes too long to wait for: until then the answer would be that there is neither server
/// nor cluster, of a primary whose agent was started again.
async fn first_look(statuses: Published<Arc<NodeStatus>>) {
    let looked =
        statuses.find(|status| (status.postgres.is_some() && status.cluster.is_some()).then_some(()));
    // Whether it was in time or not, questions are answered from here on.
    let _ = tokio::time::timeout(FIRST_LOOK, looked).await;
}

/// Opens the REST API's address.
async fn listen(net: &dyn Network, settings: &Settings) -> Result<Box<dyn Listener>, String> {
    let restapi = &settings.restapi;
    // Patroni's default backlog of 5 is for its five threads; the accept loop here is never busy for long.
    let backlog = restapi.request_queue_size.max(256);
    let at = &restapi.listen;
    net.listen(&at.host, at.port, backlog).await.map_err(|error| {
        format!(
            "error: restapi.listen: cannot listen on {at}: {error}\n\nhint: is another agent running? `ss -ltnp` tells who has the port"
        )
    })
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

/// Passes on each new state of the cluster's keys.
async fn follow_etcd(etcd: Arc<Etcd>, clock: Arc<dyn Clock>, news: mpsc::UnboundedSender<News>) {
    let (states, mut changes) = watch::channel(None);
    let pass_on = async move {
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
    };
    tokio::select! { biased;
        () = pass_on => {}
        () = etcd.watch(states) => {}
    }
}

/// Passes on what comes from outside: what the process is told, and what the guard tells.
async fn follow_env(
    mut told: mpsc::UnboundedReceiver<Told>,
    mut guard: mpsc::UnboundedReceiver<GuardNews>,
    news: mpsc::UnboundedSender<News>,
) {
    loop {
        let what = tokio::select! { biased;
            Some(heard) = guard.recv() => match heard {
                GuardNews::Exited => News::Input(Input::PostgresExited),
                GuardNews::Lost => News::Input(Input::GuardLost),
                GuardNews::Replaced => News::Detach,
            },
            Some(told) = told.recv() => match told {
                Told::Shutdown => News::Shutdown,
                Told::Reload => News::Reload,
                Told::Detach => News::Detach,
            },
            else => return,
        };
        if news.send(what).is_err() {
            return;
        }
    }
}
