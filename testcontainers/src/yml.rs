//! A member's configuration file, as a user of Patroni would write it for the story's shape.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use surus_ci::client::PASSWORD;
use surus_scenarios::literal::Words;
use surus_scenarios::{Member, Role, Settings, Shape};

use crate::dcs::CLIENT;
use crate::observer::POSTGRES;

/// The port of the REST API.
pub const REST: u16 = 8008;
/// PostgreSQL's data directory on a host.
pub const DATA: &str = "/data/pg";
/// Where its programs are found on a host: links, and wrappers that faults can slow or fail.
pub const PROGRAMS: &str = "/opt/surus/bin";
/// Where its sockets are.
const SOCKETS: &str = "/opt/surus/run";
/// The cluster's name, unless a story has a file of its own.
pub const SCOPE: &str = "stories";

/// What a container cannot give a story of this shape.
#[must_use]
pub fn lacks(shape: &Shape) -> Option<&'static str> {
    let settings = &shape.settings;
    if settings.archive_mode {
        return Some("there is no archive here");
    }
    if shape.clients.iter().any(|client| client.route.reads) {
        return Some("clients here write only");
    }
    let drifts = shape.members.iter().any(|member| member.tags.drift_ppm.is_some());
    drifts.then_some("all containers have one clock")
}

/// Where everybody is.
#[derive(Debug)]
pub struct Places<'a> {
    /// The members, in the shape's order.
    pub members: &'a [Ipv4Addr],
    /// Those of etcd.
    pub etcd: &'a [Ipv4Addr],
    /// The first router, which stands before etcd as well.
    pub router: Option<Ipv4Addr>,
}

impl Places<'_> {
    fn etcd(&self) -> Vec<String> {
        self.etcd.iter().map(|host| format!("{host}:{CLIENT}")).collect()
    }

    /// The words of a literal file.
    fn words(&self, address: Ipv4Addr) -> Words {
        Words {
            address: address.to_string(),
            members: self.members.iter().map(ToString::to_string).collect(),
            etcd: self.etcd(),
            balancer: self.router.map(|router| format!("{router}:{BALANCER}")),
            data: DATA.to_owned(),
            bin: PROGRAMS.to_owned(),
            log: "/surus".to_owned(),
            pgpass: "/surus/pgpass".to_owned(),
            sockets: SOCKETS.to_owned(),
            password: PASSWORD.to_owned(),
        }
    }
}

/// The text.
///
/// # Errors
/// The story's own file has a word that stands for nothing here.
pub fn configuration(
    shape: &Shape,
    member: &Member,
    address: Ipv4Addr,
    places: &Places<'_>,
) -> Result<String, String> {
    if shape.file.given() {
        return shape.file.file(member, &places.words(address));
    }
    Ok(plain(shape, member, address, &places.etcd().join(",")))
}

fn plain(shape: &Shape, member: &Member, address: Ipv4Addr, hosts: &str) -> String {
    let settings = &shape.settings;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let name = quoted(member.name.as_str());
    let tags = &member.tags;
    let mut text = format!(
        "scope: {SCOPE}
namespace: /service/
name: {name}
restapi:
  listen: {address}:{REST}
  connect_address: {address}:{REST}
etcd3:
  hosts: [{hosts}]
postgresql:
  listen: {address}:{POSTGRES}
  connect_address: {address}:{POSTGRES}
  data_dir: {DATA}
  bin_dir: {PROGRAMS}
  pgpass: /surus/pgpass
  remove_data_directory_on_rewind_failure: {}
  remove_data_directory_on_diverged_timelines: {}
  authentication:
    superuser: {{username: postgres, password: {PASSWORD}}}
    replication: {{username: replicator, password: {PASSWORD}}}
  parameters:
    unix_socket_directories: {SOCKETS}
log:
  # A trap may wait for an order.
  loggers: {{surus.agent.driver: DEBUG}}
tags:
  nofailover: {}
  nosync: {}
  noloadbalance: {}
  clonefrom: {}
  nostream: {}
",
        settings.remove_data_directory_on_rewind_failure,
        settings.remove_data_directory_on_diverged_timelines,
        tags.nofailover,
        tags.nosync,
        tags.noloadbalance,
        tags.clonefrom,
        tags.nostream,
    );
    // Writing to a String cannot fail.
    if !tags.nofailover && tags.failover_priority != 1 {
        let _ = writeln!(text, "  failover_priority: {}", tags.failover_priority);
    }
    if tags.sync_priority != 1 {
        let _ = writeln!(text, "  sync_priority: {}", tags.sync_priority);
    }
    if let Some(from) = &tags.replicatefrom {
        let _ = writeln!(text, "  replicatefrom: {}", quoted(from.as_str()));
    }
    if tags.bootstrap {
        bootstrap(&mut text, settings);
    }
    if tags.recovery_min_apply_delay != 0 {
        let delay = tags.recovery_min_apply_delay;
        text = text.replace(
            "  parameters:\n",
            &format!("  recovery_conf:\n    recovery_min_apply_delay: {delay}s\n  parameters:\n"),
        );
    }
    text
}

fn bootstrap(text: &mut String, settings: &Settings) {
    let _ = write!(
        text,
        "bootstrap:
  dcs:
    ttl: {}
    loop_wait: {}
    retry_timeout: {}
    maximum_lag_on_failover: {}
    primary_start_timeout: {}
    primary_stop_timeout: {}
    member_slots_ttl: {}s
    max_timelines_history: {}
    failsafe_mode: {}
    pause: {}
{}    postgresql:
      use_slots: {}
      use_pg_rewind: {}
      parameters:
        wal_receiver_timeout: {}s
        wal_retrieve_retry_interval: {}ms
  initdb:
  - encoding: UTF8
  - data-checksums
  pg_hba:
  - host replication replicator 0.0.0.0/0 md5
  - host all all 0.0.0.0/0 md5
",
        settings.ttl,
        settings.loop_wait,
        settings.retry_timeout,
        settings.maximum_lag_on_failover,
        settings.primary_start_timeout,
        settings.primary_stop_timeout,
        settings.member_slots_ttl,
        settings.max_timelines_history,
        settings.failsafe_mode,
        settings.pause,
        settings.synchronous(),
        settings.use_slots,
        settings.use_pg_rewind,
        settings.wal_receiver_timeout,
        settings.wal_retrieve_retry_interval,
    );
}

/// The configuration of HAProxy for a router of the story: a door for each role, and one to etcd if the story's file asks for that.
#[must_use]
pub fn router(shape: &Shape, health: &surus_scenarios::Health, places: &Places<'_>) -> String {
    let cut = if health.cut {
        " on-marked-down shutdown-sessions"
    } else {
        ""
    };
    let checks = format!(
        "inter {}ms fall {} rise {}",
        health.poll.0 / 1_000_000,
        health.fall,
        health.rise
    );
    let mut text = "global\n    maxconn 200\n\ndefaults\n    mode tcp\n    retries 2\n    timeout client 30m\n    timeout connect 4s\n    \
                    timeout server 30m\n    timeout check 5s\n"
        .to_owned();
    // Writing to a String cannot fail.
    for (role, path) in [(Role::Primary, "/"), (Role::Replica, "/replica")] {
        let door = door(role);
        let _ = write!(
            text,
            "\nlisten {role}\n    bind :{door}\n    option httpchk OPTIONS {path}\n    http-check expect status 200\n    \
             default-server {checks}{cut}\n"
        );
        // A member's name may hold what HAProxy does not take.
        for (number, address) in places.members.iter().enumerate() {
            let number = number + 1;
            let _ = writeln!(
                text,
                "    server m{number} {address}:{POSTGRES} maxconn 100 check port {REST}"
            );
        }
    }
    if shape.file.uses("balancer") {
        let _ = write!(
            text,
            "\nlisten etcd\n    bind :{BALANCER}\n    option httpchk GET /health\n    http-check expect status 200\n    \
             default-server {checks}{cut}\n"
        );
        for (number, address) in places.etcd.iter().enumerate() {
            let number = number + 1;
            let _ = writeln!(text, "    server e{number} {address}:{CLIENT} check");
        }
    }
    text
}

/// A router's door to servers of this role.
#[must_use]
pub const fn door(role: Role) -> u16 {
    match role {
        Role::Primary => 5000,
        Role::Replica | Role::Down => 5001,
    }
}

/// A router's door to etcd.
const BALANCER: u16 = 2379;
