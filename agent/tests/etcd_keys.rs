//! The other keys, and following them, against a real etcd.

mod etcd_support;

use std::sync::Arc;
use std::time::Duration;

use etcd_support::*;
use surus::dcs::snapshot::Snapshot;
use surus::dcs::{DcsError, Swap};
use surus_core::action::{Grounds, StatusRecord};
use surus_core::sync::SyncKey;
use surus_core::types::{Revision, SystemId};
use surus_core::view::{Due, Initialize};
use tokio::sync::watch;

#[tokio::test]
async fn the_keys_of_a_clusters_life() {
    if !etcd_is_here() {
        return;
    }
    let cluster = Cluster::start(1, &[]);
    let (a, b) = (cluster.node("a"), cluster.node("b"));
    println!(
        "size of a renewal's future: {} bytes",
        size_of_val(&a.renew(TTL, None, &status(1), LIMIT))
    );
    let view = async || a.read(LIMIT).await.unwrap().1.view;

    // One may create the cluster, and may say so twice; the others may not.
    let (first, second) = tokio::join!(a.claim_initialize(LIMIT), b.claim_initialize(LIMIT));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let (winner, loser) = if first.is_ok() { (&a, &b) } else { (&b, &a) };
    winner.claim_initialize(LIMIT).await.unwrap();
    assert_eq!(view().await.initialize, Some(Initialize::InProgress));
    loser.unclaim_initialize(LIMIT).await.unwrap();
    assert_eq!(
        view().await.initialize,
        Some(Initialize::InProgress),
        "not the loser's to take back"
    );
    winner.unclaim_initialize(LIMIT).await.unwrap();
    assert_eq!(view().await.initialize, None);
    a.claim_initialize(LIMIT).await.unwrap();
    let error = a.write_initialize(SystemId(7), true, LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("not the leader"), "{error}");
    a.acquire(TTL, Grounds::default(), None, &StatusRecord::default(), LIMIT)
        .await
        .unwrap();
    a.write_initialize(SystemId(7), true, LIMIT).await.unwrap();
    a.release(&StatusRecord::default(), None, LIMIT).await.unwrap();
    assert_eq!(view().await.initialize, Some(Initialize::Done(SystemId(7))));
    let error = b.claim_initialize(LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("has been created"), "{error}");
    a.unclaim_initialize(LIMIT).await.unwrap();
    b.write_initialize(SystemId(7), false, LIMIT).await.unwrap();
    assert!(b.write_initialize(SystemId(8), false, LIMIT).await.is_err());
    cluster.ctl(&["put", "/service/batman/initialize", "garbage"]);
    b.write_initialize(SystemId(8), false, LIMIT).await.unwrap();
    assert_eq!(view().await.initialize, Some(Initialize::Done(SystemId(8))));
    cluster.ctl(&["del", "/service/batman/initialize"]);
    b.write_initialize(SystemId(9), false, LIMIT).await.unwrap();

    a.write_config(r#"{"ttl":5}"#, LIMIT).await.unwrap();
    b.write_config(r#"{"ttl":6}"#, LIMIT).await.unwrap();
    let (_, snapshot) = a.read(LIMIT).await.unwrap();
    assert_eq!(snapshot.raw.text("config"), Some(r#"{"ttl":5}"#));
    let at = snapshot.view.config_revision;
    assert_eq!(
        a.put_config_cas(r#"{"ttl":7}"#, at, LIMIT).await.unwrap(),
        Swap::Done
    );
    assert_eq!(
        b.put_config_cas(r#"{"ttl":8}"#, at, LIMIT).await.unwrap(),
        Swap::Conflict
    );
    assert_eq!(
        b.put_config_cas(r#"{"ttl":9}"#, None, LIMIT).await.unwrap(),
        Swap::Done
    );

    let wish = r#"{"leader":"a","member":"b"}"#;
    assert_eq!(
        a.put_failover(wish, Some(Revision(0)), LIMIT).await.unwrap(),
        Swap::Done
    );
    let failover = view().await.failover.unwrap();
    assert_eq!((failover.candidate, failover.due), (Some("b".into()), Due::Now));
    assert!(b.clear_failover(Revision(1), LIMIT).await.is_err());
    b.clear_failover(failover.revision, LIMIT).await.unwrap();
    b.clear_failover(failover.revision, LIMIT).await.unwrap();
    let (_, snapshot) = a.read(LIMIT).await.unwrap();
    assert_eq!(
        (snapshot.raw.text("failover"), snapshot.view.failover),
        (Some("{}"), None)
    );

    // Only the leader writes these.
    let error = a.write_history(&[], LIMIT).await.unwrap_err();
    assert!(
        matches!(&error, DcsError::Failed(text) if text.contains("not the leader")),
        "{error}"
    );
    let (_, snapshot) = a.read(LIMIT).await.unwrap();
    let grounds = Grounds {
        config: snapshot.view.config_revision.unwrap_or_default(),
        failover: snapshot.view.failover_revision,
        failsafe: Revision(0),
        sync: Revision(0),
    };
    a.acquire(TTL, grounds, None, &StatusRecord::default(), LIMIT)
        .await
        .unwrap();
    a.write_history(&[], LIMIT).await.unwrap();
    let failsafe = [("a".into(), "http://127.0.0.1:8008/patroni".to_owned())].into();
    a.write_failsafe(&failsafe, Revision(0), LIMIT).await.unwrap();
    let other = [("b".into(), "http://127.0.0.2:8008/patroni".to_owned())].into();
    assert!(
        b.write_failsafe(&other, Revision(0), LIMIT).await.is_err(),
        "not the leader"
    );
    assert!(
        a.write_failsafe(&other, Revision(0), LIMIT).await.is_err(),
        "there is one"
    );
    assert_eq!(view().await.failsafe.as_deref(), Some(&failsafe));

    // The member's key is on the lease, and written only when it has to be.
    a.write_member(r#"{"state":"running"}"#, TTL, LIMIT)
        .await
        .unwrap();
    let (_, before) = a.read(LIMIT).await.unwrap();
    a.write_member(r#"{"state":"running"}"#, TTL, LIMIT)
        .await
        .unwrap();
    let (_, after) = a.read(LIMIT).await.unwrap();
    assert_eq!(before.raw.revision, after.raw.revision);
    assert_eq!(after.raw.keys["members/a"].lease, after.raw.keys["leader"].lease);
    cluster.ctl(&["del", "/service/batman/members/a"]);
    a.write_member(r#"{"state":"running"}"#, TTL, LIMIT)
        .await
        .unwrap();
    assert!(view().await.members[&"a".into()].running());

    // Neighbours are not ours.
    cluster.ctl(&["put", "/service/batman2/leader", "x"]);
    a.delete_prefix(LIMIT).await.unwrap();
    assert!(a.read(LIMIT).await.unwrap().1.raw.keys.is_empty());
    assert!(cluster.ctl(&["get", "/service/batman2/leader"]).contains('x'));
}

#[tokio::test]
async fn the_sync_key_is_the_leaders_and_changes_only_from_what_was_seen() {
    if !etcd_is_here() {
        return;
    }
    let cluster = Cluster::start(1, &[]);
    let (a, b) = (cluster.node("a"), cluster.node("b"));
    let view = async || a.read(LIMIT).await.unwrap().1.view;
    let mut key = SyncKey::alone("a".into());
    let error = a.write_sync(Some(&key), Revision(0), LIMIT).await.unwrap_err();
    assert!(
        matches!(&error, DcsError::Failed(text) if text.contains("not the leader")),
        "{error}"
    );
    a.acquire(TTL, Grounds::default(), None, &StatusRecord::default(), LIMIT)
        .await
        .unwrap();
    let first = a.write_sync(Some(&key), Revision(0), LIMIT).await.unwrap();
    let seen = view().await;
    assert_eq!((seen.sync_revision, seen.sync.as_deref()), (first, Some(&key)));
    let raw = a.read(LIMIT).await.unwrap().1.raw;
    assert_eq!(
        raw.text("sync"),
        Some(r#"{"leader":"a","quorum":0,"sync_standby":null}"#)
    );

    // Only from what was seen; the same again gives it a new revision, so that an older write is void.
    key.voters = ["c".into(), "b".into()].into();
    key.quorum = 1;
    for seen in [Revision(0), Revision(first.0 - 1), Revision(first.0 + 1)] {
        let error = a.write_sync(Some(&key), seen, LIMIT).await.unwrap_err();
        assert!(matches!(error, DcsError::Failed(_)), "{error}");
    }
    assert!(b.write_sync(Some(&key), first, LIMIT).await.is_err());
    let second = a.write_sync(Some(&key), first, LIMIT).await.unwrap();
    let third = a.write_sync(Some(&key), second, LIMIT).await.unwrap();
    assert!(first < second && second < third);
    assert_eq!(view().await.sync.as_deref(), Some(&key));
    assert!(a.write_sync(None, second, LIMIT).await.is_err());
    a.write_sync(None, third, LIMIT).await.unwrap();
    let seen = view().await;
    assert_eq!((seen.sync_revision, seen.sync), (Revision(0), None));
    let again = a.write_sync(Some(&key), Revision(0), LIMIT).await.unwrap();

    let mut odd = key.clone();
    odd.voters.insert("d,e".into());
    let error = a.write_sync(Some(&odd), again, LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("nosync"), "{error}");

    // A deposed leader's write changes nothing, and who takes over looks at the key as it is.
    a.release(&StatusRecord::default(), None, LIMIT).await.unwrap();
    let error = a.write_sync(None, again, LIMIT).await.unwrap_err();
    assert!(matches!(error, DcsError::Failed(_)), "{error}");
    let lock = b
        .acquire(TTL, Grounds::default(), None, &StatusRecord::default(), LIMIT)
        .await
        .unwrap();
    assert_eq!(lock, surus::dcs::Lock::NotHeld { holder: None });
    let grounds = Grounds {
        sync: again,
        ..Grounds::default()
    };
    let lock = b
        .acquire(TTL, grounds, None, &StatusRecord::default(), LIMIT)
        .await
        .unwrap();
    assert!(matches!(lock, surus::dcs::Lock::Held { .. }), "{lock:?}");
}

/// Waits until the watched state is as wanted.
async fn until(
    states: &mut watch::Receiver<Option<Arc<Snapshot>>>,
    limit: u64,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Duration {
    let began = start();
    let found = states.wait_for(|state| state.as_deref().is_some_and(&wanted));
    let found = tokio::time::timeout(Duration::from_secs(limit), found)
        .await
        .map(|state| state.is_ok());
    assert_eq!(found, Ok(true), "the watch does not get there");
    began.elapsed()
}

fn config_is(value: String) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| snapshot.raw.text("config") == Some(value.as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_whatever_happens() {
    if !etcd_is_here() {
        return;
    }
    let mut cluster = Cluster::start(3, &[]);
    // The watched endpoint is not etcd's leader, so that writes go on without it.
    let watched = (cluster.leader() + 1) % 3;
    let mut hosts = cluster.hosts();
    hosts.swap(0, watched);
    let (writer_hosts, watcher_hosts) = (hosts[1..].to_vec(), hosts);
    let writer = node("w", writer_hosts);
    let watcher = node("a", watcher_hosts);
    let (states, mut seen) = watch::channel(None);
    let task = tokio::spawn(async move { watcher.watch(states).await });
    until(&mut seen, 5, |snapshot| snapshot.raw.keys.is_empty()).await;

    let mut times = Vec::new();
    for round in 0..50 {
        writer
            .put_config_cas(&format!("{round}"), None, LIMIT)
            .await
            .unwrap();
        times.push(until(&mut seen, 5, config_is(format!("{round}"))).await);
    }
    println!("watch, after the write was answered: {}", spread(&mut times));

    // Quiet for longer than the silence that makes it ask for progress.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    writer.put_config_cas("quiet", None, LIMIT).await.unwrap();
    let took = until(&mut seen, 1, config_is("quiet".to_owned())).await;
    assert!(took < Duration::from_millis(500), "{took:?}: the stream was kept");

    // Killed: it moves to another member and misses nothing.
    cluster.members[watched].kill();
    writer.put_config_cas("killed", None, LIMIT).await.unwrap();
    until(&mut seen, 5, config_is("killed".to_owned())).await;
    cluster.members[watched].start();
    cluster.wait_healthy();

    // All frozen, and everything compacted before they are seen again.
    for member in &cluster.members {
        member.freeze();
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    for member in &cluster.members {
        member.thaw();
    }
    cluster.wait_healthy();
    for round in 0..5 {
        writer
            .put_config_cas(&format!("thawed {round}"), None, Duration::from_secs(5))
            .await
            .unwrap();
    }
    let (_, snapshot) = writer.read(LIMIT).await.unwrap();
    cluster.ctl(&["compact", &snapshot.raw.revision.to_string()]);
    until(&mut seen, 10, config_is("thawed 4".to_owned())).await;

    // All killed and restarted, compacted before the watch is back: it must read anew.
    writer
        .put_failover(r#"{"leader":"a"}"#, None, LIMIT)
        .await
        .unwrap();
    until(&mut seen, 5, |snapshot| snapshot.view.failover.is_some()).await;
    for member in &mut cluster.members {
        member.kill();
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for member in &mut cluster.members {
        member.start();
    }
    cluster.wait_healthy();
    cluster.ctl(&["del", "/service/batman/failover"]);
    cluster.ctl(&["put", "/service/batman/config", "restarted"]);
    let (_, snapshot) = writer.read(Duration::from_secs(5)).await.unwrap();
    cluster.ctl(&["compact", &snapshot.raw.revision.to_string()]);
    until(&mut seen, 10, config_is("restarted".to_owned())).await;
    until(&mut seen, 1, |snapshot| snapshot.view.failover.is_none()).await;
    drop(seen);
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap();
}

/// The watch is cut off while its revision is compacted away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_watch_reads_anew() {
    if !etcd_is_here() {
        return;
    }
    let mut cluster = Cluster::start(1, &[]);
    let gate = Gate::default();
    let watcher = surus::dcs::Etcd::new(
        &settings(cluster.hosts()),
        "/service/batman/",
        "a",
        gate.machine(),
    )
    .unwrap();
    let (states, mut seen) = watch::channel(None);
    let task = tokio::spawn(async move { watcher.watch(states).await });
    cluster.ctl(&["put", "/service/batman/config", "1"]);
    cluster.ctl(&["put", "/service/batman/failover", "a:b"]);
    until(&mut seen, 5, |snapshot| snapshot.view.failover.is_some()).await;
    gate.shut.store(true, std::sync::atomic::Ordering::SeqCst);
    cluster.members[0].kill();
    cluster.members[0].start();
    cluster.wait_healthy();
    cluster.ctl(&["del", "/service/batman/failover"]);
    for round in 0..5 {
        cluster.ctl(&["put", "/service/batman/config", &round.to_string()]);
    }
    cluster.ctl(&["put", "/service/batman/config", "last"]);
    let revision: i64 = cluster
        .ctl(&["get", "/", "--write-out=fields"])
        .lines()
        .find_map(|line| {
            line.strip_prefix("\"Revision\" : ")
                .map(|number| number.parse().unwrap())
        })
        .unwrap();
    cluster.ctl(&["compact", &revision.to_string()]);
    gate.shut.store(false, std::sync::atomic::Ordering::SeqCst);
    until(&mut seen, 5, |snapshot| {
        snapshot.raw.text("config") == Some("last") && snapshot.view.failover.is_none()
    })
    .await;
    drop(seen);
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap();
}
