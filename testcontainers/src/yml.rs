//! A member's configuration file, as a user of Patroni would write it for the story's shape.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use surus_ci::client::PASSWORD;
use surus_scenarios::{Member, Settings, Shape};

use crate::dcs::CLIENT;
use crate::observer::POSTGRES;

/// The port of the REST API.
pub const REST: u16 = 8008;
/// PostgreSQL's data directory on a host.
pub const DATA: &str = "/data/pg";
/// Where its programs are found on a host: links, and wrappers that faults can slow or fail.
pub const PROGRAMS: &str = "/opt/surus/bin";

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

/// The text.
#[must_use]
pub fn configuration(shape: &Shape, member: &Member, address: Ipv4Addr, etcd: &[Ipv4Addr]) -> String {
    let settings = &shape.settings;
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let name = quoted(member.name.as_str());
    let hosts: Vec<String> = etcd.iter().map(|host| format!("{host}:{CLIENT}")).collect();
    let (hosts, tags) = (hosts.join(", "), &member.tags);
    let mut text = format!(
        "scope: stories
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
    unix_socket_directories: /opt/surus/run
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
    );
}

/// The configuration of HAProxy for a router of the story.
#[must_use]
pub fn router(shape: &Shape, health: &surus_scenarios::Health, members: &[Ipv4Addr]) -> String {
    let cut = if health.cut {
        " on-marked-down shutdown-sessions"
    } else {
        ""
    };
    let poll = health.poll.0 / 1_000_000;
    let mut text = format!(
        "global\n    maxconn 200\n\ndefaults\n    mode tcp\n    retries 2\n    timeout client 30m\n    timeout connect 4s\n    \
         timeout server 30m\n    timeout check 5s\n\nlisten primary\n    bind :{DOOR}\n    option httpchk\n    http-check expect status 200\n    \
         default-server inter {poll}ms fall {} rise {}{cut}\n",
        health.fall, health.rise
    );
    for (number, (_, address)) in shape.members.iter().zip(members).enumerate() {
        // Writing to a String cannot fail. A member's name may hold what HAProxy does not take.
        let _ = writeln!(
            text,
            "    server m{} {address}:{POSTGRES} maxconn 100 check port {REST}",
            number + 1
        );
    }
    text
}

/// The router's door to the primary.
pub const DOOR: u16 = 5000;
