//! `surus router`: a router as a process of its own; and the one that an agent runs beside itself.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::socket::Watchful;
use super::{MARGIN, Scope, World, run};
use crate::chain::chain;
use crate::clock::SystemClock;
use crate::config::settings::{Router, Settings};
use crate::config::{self, Surroundings};
use crate::log::refuse;
use crate::net::Tcp;
use crate::task::Tokio;

/// Descriptors that a process needs beside those of clients and servers: etcd, log, the agent's own.
const OTHER_DESCRIPTORS: u64 = 128;

/// `surus router`: reads the configuration and routes until told to end, which ends all sessions.
#[must_use]
pub fn router_command(path: &Path) -> ExitCode {
    let around = Surroundings::of_process();
    let (file, warnings) = match config::load_router(Some(path), &around) {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&config::render(&problems)),
    };
    let logging = match crate::log::start(&file.log, Arc::new(SystemClock)) {
        Ok(logging) => logging,
        Err(error) => return refuse(&format!("error: {}", chain(&error))),
    };
    if !warnings.is_empty() {
        tracing::warn!("{}", config::render(&warnings));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&format!("error: no threads to run on: {error}")),
    };
    let cluster = Scope {
        namespace: file.namespace,
        scope: file.scope,
        etcd: file.etcd,
    };
    make_room(&file.router);
    let ended = runtime.block_on(async {
        let world = of_machine(&file.router);
        tokio::select! { biased;
            told = told_to_end() => told,
            ended = run(cluster, file.router, world) => ended,
        }
    });
    runtime.shutdown_background();
    let code = match ended {
        Ok(()) => {
            tracing::info!("told to end; all sessions end");
            ExitCode::SUCCESS
        }
        Err(text) => refuse(&text),
    };
    logging.flush();
    code
}

/// The router of an agent's `router` section, on threads of its own until the process ends. Returns an error only if it cannot begin.
///
/// # Errors
/// For people: no thread can be started. An address that is taken is logged: the agent goes on without the router.
pub fn beside_agent(settings: &Settings) -> Result<(), String> {
    let Some(router) = settings.router.clone() else {
        return Ok(());
    };
    make_room(&router);
    let cluster = Scope {
        namespace: settings.namespace.clone(),
        scope: settings.scope.clone(),
        etcd: settings.etcd.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("router")
        .enable_all()
        .build()
        .map_err(|error| format!("error: no threads for the router: {error}"))?;
    std::thread::Builder::new()
        .name("router".to_owned())
        .spawn(move || {
            let world = of_machine(&router);
            if let Err(text) = runtime.block_on(run(cluster, router, world)) {
                tracing::error!("{text}");
            }
        })
        .map(drop)
        .map_err(|error| format!("error: no thread for the router: {error}"))
}

fn of_machine(settings: &Router) -> World {
    let net = Watchful {
        keepalive: settings.keepalive,
        user_timeout: settings.user_timeout,
    };
    World {
        clock: Arc::new(SystemClock),
        net: Arc::new(net),
        dial: Arc::new(Tcp),
        tasks: Arc::new(Tokio),
    }
}

/// Raises the limit of descriptors as far as the settings need and the system allows.
fn make_room(settings: &Router) {
    let needed = 2 * (settings.max_connections + MARGIN) as u64 + OTHER_DESCRIPTORS;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|now| needed <= now) {
        return;
    }
    let most = now.maximum.unwrap_or(u64::MAX);
    let limit = Rlimit {
        current: Some(needed.min(most)),
        maximum: now.maximum,
    };
    if setrlimit(Resource::Nofile, limit).is_err() || most < needed {
        tracing::warn!(
            needed,
            most,
            "router.max_connections needs more descriptors than the system allows: set LimitNOFILE= in the unit, or `ulimit -n`"
        );
    }
}

async fn told_to_end() -> Result<(), String> {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        return Err("error: cannot listen for signals".to_owned());
    };
    loop {
        tokio::select! { biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => tracing::warn!("SIGHUP: a router takes new settings only at its start"),
        }
    }
}
