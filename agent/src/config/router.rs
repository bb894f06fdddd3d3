//! The section `router`, and the configuration of a router that is a process of its own.

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::address;
use super::endpoints;
use super::local;
use super::problem::{Problem, Report};
use super::section::Section;
use super::settings::{Etcd, Log, Router};
use super::source::{self, Surroundings};

/// The port of a door, where only a host is written.
const PRIMARY_PORT: u16 = 5000;
const REPLICAS_PORT: u16 = 5001;
const STATUS_PORT: u16 = 8009;

/// Sections of an agent's file, which a router of its own has no use for.
const OF_AGENTS: &[&str] = &[
    "name",
    "restapi",
    "ctl",
    "bootstrap",
    "postgresql",
    "tags",
    "watchdog",
    "ttl",
    "loop_wait",
    "retry_timeout",
    "thread_pool_size",
    "thread_stack_size",
];

/// All that `surus router` needs.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterFile {
    /// `scope`.
    pub scope: String,
    /// `namespace`, without slashes.
    pub namespace: String,
    /// `log`.
    pub log: Log,
    /// `etcd3` or `etcd`.
    pub etcd: Etcd,
    /// `router`.
    pub router: Router,
}

/// Reads the configuration of a router: an agent's file with a section `router`, or a smaller one with `scope`, `etcd3` and `router`.
///
/// The problems of a success are warnings.
///
/// # Errors
///
/// All problems, at least one of which is an error.
pub fn load_router(
    path: Option<&Path>,
    around: &Surroundings,
) -> Result<(RouterFile, Vec<Problem>), Vec<Problem>> {
    let report = Report::default();
    let file = source::tree(path, around, &report).and_then(|root| {
        let top = Section::new("", &root, &report);
        let scope = local::identifier(
            &top,
            "scope",
            "write the name of the cluster, the same as in its agents' files",
        );
        let namespace = local::namespace(&top);
        let log = local::log(&top, around);
        let etcd = endpoints::etcd(&top, around);
        if top.node("router").is_none() {
            top.missing(
                "router",
                "write `router:` with `primary: 127.0.0.1:5000` below it",
            );
        }
        let router = read(&top);
        top.without_effect(OF_AGENTS);
        top.finish();
        Some(RouterFile {
            scope: scope?,
            namespace,
            log,
            etcd: etcd?,
            router: router?,
        })
    });
    let failed = report.has_errors();
    let problems = report.take();
    match file {
        Some(file) if !failed => Ok((file, problems)),
        _ => Err(problems),
    }
}

/// The section; `None` if there is none, or it cannot be used.
pub(super) fn read(top: &Section<'_>) -> Option<Router> {
    let section = top.section("router");
    if !section.present || top.node("router").is_none() {
        return None;
    }
    let primary = address::read(&section, "primary", PRIMARY_PORT);
    let replicas = address::read(&section, "replicas", REPLICAS_PORT);
    let status = address::read(&section, "status", STATUS_PORT);
    if section.node("primary").is_none() && section.node("replicas").is_none() {
        section.error(
            "primary",
            "no door is open: neither `primary` nor `replicas` is there",
            "write `primary: 127.0.0.1:5000`, the address that clients connect to",
        );
    }
    let addresses = [
        ("primary", &primary),
        ("replicas", &replicas),
        ("status", &status),
    ];
    for (index, (key, at)) in addresses.iter().enumerate() {
        let twice = addresses[..index]
            .iter()
            .find(|(_, other)| at.is_some() && other == at);
        if let (Some((other, _)), Some(at)) = (twice, at) {
            section.error(
                key,
                format!("{at} is the address of `{other}` too"),
                "give it a port of its own",
            );
        }
    }
    let count = |key: &'static str, default: usize| {
        section
            .integer(key, 1..=1_000_000)
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(default)
    };
    let connect_timeout = positive(&section, "connect_timeout", Duration::from_secs(3));
    let max_connections = count("max_connections", 1000);
    let router = Router {
        hold: section.seconds("hold").unwrap_or(Duration::from_secs(30)),
        max_waiting: count("max_waiting", 1000),
        max_connections,
        connect_timeout,
        idle_timeout: section.seconds("idle_timeout").filter(|limit| !limit.is_zero()),
        keepalive: section.seconds("keepalive").unwrap_or(Duration::from_secs(10)),
        user_timeout: section
            .seconds("tcp_user_timeout")
            .unwrap_or(Duration::from_secs(30)),
        maximum_lag: section.size("maximum_lag"),
        fall_back: section.boolean("replicas_fall_back").unwrap_or(false),
        use_pooler: section.boolean("use_proxy_url").unwrap_or(false),
        send_proxy: sends_proxy(&section),
        accept_proxy: networks(&section),
        primary,
        replicas,
        status,
    };
    if section.node("accept_proxy").is_some() && router.accept_proxy.is_empty() {
        section.warning(
            "accept_proxy",
            "names nobody: no client is asked for a header",
            "write the addresses of the load balancers in front, or remove it",
        );
    }
    section.finish();
    (router.primary.is_some() || router.replicas.is_some()).then_some(router)
}

fn positive<'a>(section: &Section<'a>, key: &'a str, default: Duration) -> Duration {
    match section.seconds(key) {
        Some(limit) if limit.is_zero() => {
            section.error(
                key,
                "nothing can be done in no time",
                "write a number of seconds above 0",
            );
            default
        }
        limit => limit.unwrap_or(default),
    }
}

/// YAML reads a bare `off` as false.
fn sends_proxy(section: &Section<'_>) -> bool {
    match section.text("send_proxy").as_deref() {
        None => false,
        Some(text) if super::scalar::boolean(text) == Some(false) => false,
        Some(_) => section.choice("send_proxy", &["off", "v2"]) == Some("v2"),
    }
}

fn networks(section: &Section<'_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (text, mark) in section.texts("accept_proxy").unwrap_or_default() {
        let network = text
            .parse()
            .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        match network {
            Ok(network) => networks.push(network),
            Err(_) => section.report.error(
                &section.path_of("accept_proxy"),
                &mark,
                format!("`{text}` is neither an address nor a network"),
                "write an address such as 10.0.0.5, or a network such as 10.0.0.0/24",
            ),
        }
    }
    networks
}
