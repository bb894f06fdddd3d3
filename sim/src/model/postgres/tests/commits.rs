//! Commits: durable, visible, acknowledged; and the standbys they wait for.

use super::*;
use crate::clock::SEC;
use crate::model::postgres::settings::Span;
use crate::model::postgres::{Refusal, StopMode};

fn wait_for(cluster: &mut Cluster, names: &str) {
    cluster.at(0).settings.synchronous_standby_names = names.to_owned();
    let now = cluster.now;
    cluster.at(0).reload(now).unwrap();
    cluster.settle();
}

fn sync_state(cluster: &Cluster, name: &str) -> &'static str {
    let rows = cluster.servers[0].replication().unwrap();
    rows.iter()
        .find(|row| row.application_name == name)
        .unwrap()
        .sync_state
}

#[test]
fn without_names_a_commit_is_durable_visible_and_acknowledged_at_once() {
    let mut cluster = Cluster::new(1);
    let (_, facts) = cluster.commit(0);
    assert_eq!(
        facts,
        [Fact::Durable, Fact::Visible, Fact::Acked { covered: false }]
    );
}

#[test]
fn a_commit_waits_for_the_standby_that_is_named() {
    let mut cluster = Cluster::new(3);
    wait_for(&mut cluster, "FIRST 1 (s1)");
    cluster.at(1).hang();
    let (txn, facts) = cluster.commit(0);
    assert_eq!(facts, [Fact::Durable]);
    assert!(cluster.servers[0].visible().all(|seen| seen != txn));
    assert!(
        cluster.servers[2].visible().any(|seen| seen == txn),
        "a standby shows it before the primary does"
    );
    let now = cluster.now;
    cluster.at(1).thaw(now);
    cluster.settle();
    assert_eq!(
        cluster.facts(txn)[1..],
        [Fact::Visible, Fact::Acked { covered: true }]
    );
}

#[test]
fn a_wait_that_is_cut_short_leaves_the_commit_visible() {
    for terminate in [false, true] {
        let mut cluster = Cluster::new(1);
        wait_for(&mut cluster, "s1");
        let (txn, _) = cluster.commit(0);
        cluster.at(0).cancel(txn, terminate);
        cluster.settle();
        let told = if terminate {
            Fact::Dropped
        } else {
            Fact::Acked { covered: false }
        };
        assert_eq!(cluster.facts(txn), [Fact::Durable, Fact::Visible, told]);
    }
}

#[test]
fn a_stop_or_a_crash_makes_what_waited_visible_and_tells_nobody() {
    for stop in [true, false] {
        let mut cluster = Cluster::new(1);
        wait_for(&mut cluster, "s1");
        let (txn, _) = cluster.commit(0);
        let now = cluster.now;
        if stop {
            cluster.at(0).stop(now, StopMode::Fast).unwrap();
        } else {
            cluster.at(0).kill(now);
        }
        cluster.settle();
        cluster.start(0);
        assert_eq!(cluster.facts(txn).last(), Some(&Fact::Dropped));
        assert!(cluster.servers[0].visible().any(|seen| seen == txn));
    }
}

#[test]
fn names_take_effect_in_each_process_in_its_own_time() {
    let costs = Costs {
        reload: Span(SEC, SEC),
        ..Costs::NONE
    };
    let mut cluster = Cluster::with(2, costs);
    wait_for(&mut cluster, "s1");
    cluster.at(1).hang();
    let (early, facts) = cluster.commit(0);
    assert_eq!(
        facts.last(),
        Some(&Fact::Acked { covered: false }),
        "by the names of before"
    );
    cluster.pass(2 * SEC);
    assert_eq!(
        sync_state(&cluster, "s1"),
        "sync",
        "although it lacks what was acknowledged"
    );
    assert!(cluster.servers[1].visible().all(|seen| seen != early));
    let (late, _) = cluster.commit(0);
    assert_eq!(cluster.facts(late), [Fact::Durable]);
}

#[test]
fn names_that_cannot_be_parsed_change_nothing() {
    let mut cluster = Cluster::new(2);
    wait_for(&mut cluster, "s1");
    wait_for(&mut cluster, "s-1");
    assert_eq!(sync_state(&cluster, "s1"), "sync");
    wait_for(&mut cluster, "\"S1\"");
    assert_eq!(sync_state(&cluster, "s1"), "sync", "case does not count");
}

#[test]
fn readers_of_two_nodes_can_see_two_commits_in_opposite_orders() {
    let mut cluster = Cluster::new(2);
    wait_for(&mut cluster, "nobody");
    let (first, _) = cluster.commit(0);
    let second = first + 1;
    let now = cluster.now;
    cluster.at(0).commit(now, second, 200, SyncLevel::Local).unwrap();
    cluster.settle();
    assert_eq!(cluster.servers[0].visible().collect::<Vec<_>>(), [second]);
    assert_eq!(cluster.servers[1].visible().collect::<Vec<_>>(), [first, second]);
}

#[test]
fn a_full_disk_lets_the_segment_be_filled_and_then_ends_the_server() {
    let mut cluster = Cluster::new(1);
    cluster.at(0).disk.full = true;
    let (_, facts) = cluster.commit(0);
    assert_eq!(facts.last(), Some(&Fact::Acked { covered: false }));
    let now = cluster.now;
    assert_eq!(cluster.at(0).write(now, 32 << 20), Err(Refusal::Disk));
    cluster.settle();
    assert!(!cluster.servers[0].alive(), "crash recovery needs space too");
    cluster.at(0).disk.full = false;
    cluster.start(0);
    assert_eq!(cluster.servers[0].visible().count(), 1);
}

#[test]
fn an_fsync_that_fails_is_a_crash_and_one_that_is_slow_delays_the_acknowledgement() {
    let mut cluster = Cluster::new(1);
    cluster.at(0).disk.slow = SEC;
    let (txn, facts) = cluster.commit(0);
    assert!(facts.is_empty());
    cluster.pass(2 * SEC);
    assert_eq!(cluster.facts(txn).len(), 3);
    let (lost, _) = cluster.commit(0);
    cluster.at(0).disk.broken = true;
    cluster.pass(2 * SEC);
    assert_eq!(cluster.facts(lost), [Fact::Dropped]);
    assert!(!cluster.servers[0].alive());
}

#[test]
fn a_loss_of_power_takes_what_was_not_flushed_and_a_kill_does_not() {
    for power in [true, false] {
        let mut cluster = Cluster::new(1);
        cluster.at(0).disk.slow = SEC;
        let (txn, _) = cluster.commit(0);
        let now = cluster.now;
        if power {
            cluster.at(0).power_off();
        } else {
            cluster.at(0).kill(now);
        }
        cluster.at(0).disk.slow = 0;
        cluster.settle();
        cluster.start(0);
        assert_eq!(cluster.servers[0].visible().any(|seen| seen == txn), !power);
    }
}

#[test]
fn a_backend_that_crashes_takes_all_sessions_with_it_and_the_server_comes_back_by_itself() {
    let mut cluster = Cluster::new(2);
    wait_for(&mut cluster, "nobody");
    let (txn, _) = cluster.commit(0);
    let now = cluster.now;
    cluster.at(0).crash_backend(now);
    cluster.settle();
    assert_eq!(cluster.facts(txn).last(), Some(&Fact::Dropped));
    assert!(cluster.servers[0].writable());
    cluster.pass(10 * SEC);
    assert!(cluster.streams(1));
}
