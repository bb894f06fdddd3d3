//! Who plays: members with their tags, settings, where the members of etcd live, clients and routers.

use surus_scenarios::{Client, EtcdMember, Health, Name, Nanos, Route, Router, Shape, SyncMode, Tags};

use super::Temper;
use crate::rng::Rng;

/// How many members, by how often.
const SIZES: [usize; 12] = [1, 2, 2, 3, 3, 3, 3, 3, 4, 5, 6, 7];

/// `ttl`, `loop_wait` and `retry_timeout` in seconds: the defaults, tight ones, and such as people write.
const TIMINGS: [(u64, u64, u64); 7] = [
    (5, 1, 2),
    (5, 1, 2),
    (5, 1, 2),
    (3, 1, 1),
    (10, 1, 2),
    (8, 2, 3),
    (15, 3, 4),
];

/// The same, of Patroni's examples.
const USUAL: (u64, u64, u64) = (30, 10, 10);

/// The shape of a seed's world.
pub(super) fn shape(rng: &mut Rng, temper: Temper, nodes: Option<usize>) -> Shape {
    let drawn = SIZES[rng.index(SIZES.len())];
    let nodes = nodes.unwrap_or(drawn);
    let mut shape = Shape::of(nodes);
    tags(rng, &mut shape);
    settings(rng, temper, &mut shape);
    if rng.one_in(3) {
        co_locate(&mut shape);
    }
    people(rng, &mut shape);
    shape
}

/// No tags, etcd on hosts of its own, and the first member creates the cluster unless everybody may: a plot says who loses what.
pub(super) fn plain(shape: &mut Shape, birth: bool) {
    for member in &mut shape.etcd {
        member.host = None;
    }
    for (index, member) in shape.members.iter_mut().enumerate() {
        member.tags = Tags {
            bootstrap: birth || index == 0,
            ..Tags::default()
        };
    }
}

/// Tags are rare, and never such that nobody could lead, or that a cascade bites its tail.
fn tags(rng: &mut Rng, shape: &mut Shape) {
    if !rng.one_in(3) {
        return;
    }
    let names: Vec<Name> = shape.members.iter().map(|member| member.name.clone()).collect();
    for (index, member) in shape.members.iter_mut().enumerate().skip(1) {
        match rng.below(8) {
            0 => member.tags.nofailover = true,
            1 => member.tags.failover_priority = 2,
            2 => member.tags.clonefrom = true,
            3 | 4 => member.tags.replicatefrom = Some(names[rng.index(index)].clone()),
            _ => {}
        }
    }
}

fn settings(rng: &mut Rng, temper: Temper, shape: &mut Shape) {
    let timing = if temper == Temper::Mild {
        TIMINGS[0]
    } else {
        TIMINGS[rng.index(TIMINGS.len())]
    };
    let settings = &mut shape.settings;
    (settings.ttl, settings.loop_wait, settings.retry_timeout) = timing;
    settings.use_pg_rewind = rng.one_in(2);
    settings.remove_data_directory_on_diverged_timelines = true;
    settings.remove_data_directory_on_rewind_failure = true;
    settings.failsafe_mode = !rng.one_in(4);
    settings.use_slots = !rng.one_in(5);
    if rng.one_in(6) {
        settings.primary_start_timeout = [0, 5][rng.index(2)];
    }
}

/// Half of the worlds in which nothing fails have the times that most people have, with which whatever waits for a round waits for long; and one of
/// five others, mild ones apart. There standbys try again at once, as the agent has it, or, in one world of three, with PostgreSQL's own patience.
pub(super) fn paces(rng: &mut Rng, shape: &mut Shape, temper: Temper) {
    let settings = &mut shape.settings;
    let usual = match temper {
        Temper::Planned => rng.one_in(2),
        Temper::Mild | Temper::Aimed => false,
        Temper::Rough | Temper::Paused | Temper::Birth => rng.one_in(5),
    };
    if usual {
        (settings.ttl, settings.loop_wait, settings.retry_timeout) = USUAL;
    }
    if temper != Temper::Planned && rng.one_in(3) {
        settings.wal_retrieve_retry_interval = 5000;
    }
}

/// One world of three replicates synchronously, or each.
pub(super) fn synchronous(rng: &mut Rng, shape: &mut Shape, each: bool) {
    if !rng.one_in(3) && !each {
        return;
    }
    let settings = &mut shape.settings;
    settings.synchronous_mode = [SyncMode::On, SyncMode::Quorum][rng.index(2)];
    settings.synchronous_mode_strict = rng.one_in(3);
    settings.synchronous_node_count = 1 + u64::from(rng.one_in(3));
    if rng.one_in(4) {
        settings.maximum_lag_on_syncnode = 1 << 16;
    }
    // Drawn aside, so that what is drawn after it is as it was before there was a gate.
    let mut aside = Rng::new(rng.clone().below(u64::MAX), 29);
    if aside.one_in(4) {
        settings.synchronous_gate_timeout = 5 + aside.below(20);
        settings.synchronous_gate_hold = aside.one_in(2);
    }
    for member in shape.members.iter_mut().skip(1) {
        match rng.below(12) {
            0 => member.tags.nosync = true,
            1 => member.tags.sync_priority = 2,
            _ => {}
        }
    }
}

/// The members of etcd on the hosts of the first members of the cluster, as many people run it.
fn co_locate(shape: &mut Shape) {
    let hosts: Vec<Name> = shape.members.iter().map(|member| member.name.clone()).collect();
    shape.etcd = ["e1", "e2", "e3"]
        .into_iter()
        .enumerate()
        .map(|(index, name)| EtcdMember {
            name: Name::from(name),
            host: hosts.get(index).cloned(),
        })
        .collect();
}

/// A client that knows all hosts, one behind a router such as the usual HAProxy, and sometimes one on a member's own host.
fn people(rng: &mut Rng, shape: &mut Shape) {
    shape.routers = vec![Router {
        name: Name::from("r1"),
        health: Health {
            poll: Nanos::secs(1 + rng.below(3)),
            fall: 1 + rng.below(3),
            rise: 1 + rng.below(2),
            cut: !rng.one_in(3),
        },
    }];
    let route = Route {
        every: Nanos::ms(100),
        reads: true,
        ..Route::default()
    };
    let routed = Route {
        via: Some(Name::from("r1")),
        ..route.clone()
    };
    let mut clients = vec![("c1", route.clone()), ("c2", routed)];
    if rng.one_in(3) {
        let beside = shape.members[rng.index(shape.members.len())].name.clone();
        let route = Route {
            beside: Some(beside),
            ..route
        };
        clients.push(("c3", route));
    }
    shape.clients = clients
        .into_iter()
        .map(|(name, route)| Client {
            name: Name::from(name),
            route,
        })
        .collect();
}
