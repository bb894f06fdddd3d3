//! What a right is not counted from, and what an error does not mean: against an etcd that misbehaves on order.

mod etcd_support;

use std::time::Duration;

use etcd_support::script::{Misdeed, Rpc, SLOW, Script};
use etcd_support::*;
use surus::clock::{Clock, SystemClock};
use surus::dcs::{DcsError, Etcd, Lock, Swap};
use surus_core::action::{Grounds, StatusRecord};
use surus_core::sync::SyncKey;
use surus_core::types::{Revision, SystemId, Term};
use tonic::Code;

const SHORT: Duration = Duration::from_millis(700);

async fn acquire(node: &Etcd, limit: Duration) -> Result<Lock, DcsError> {
    node.acquire(TTL, Grounds::default(), None, &StatusRecord::default(), limit)
        .await
}

/// Everything that etcd and the library may say, rightly or wrongly coded.
const ERRORS: [(Code, &str); 19] = [
    (Code::Unavailable, "etcdserver: no leader"),
    (Code::Unavailable, "etcdserver: request timed out"),
    (Code::Unavailable, "etcdserver: leader changed"),
    (Code::Unknown, "etcdserver: not a primary lessor"),
    (Code::Unknown, "raft proposal dropped"),
    (Code::DeadlineExceeded, "context deadline exceeded"),
    (Code::Cancelled, "context canceled"),
    (Code::Aborted, "aborted"),
    (Code::Internal, "internal"),
    (Code::DataLoss, "etcdserver: corrupt cluster"),
    (Code::ResourceExhausted, "etcdserver: too many requests"),
    (Code::ResourceExhausted, "grpc: received message larger than max"),
    (Code::Unauthenticated, "etcdserver: invalid auth token"),
    (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
    (Code::InvalidArgument, "etcdserver: user name is empty"),
    (
        Code::FailedPrecondition,
        "etcdserver: authentication is not enabled",
    ),
    (Code::PermissionDenied, "etcdserver: permission denied"),
    (Code::OutOfRange, "out of range"),
    (Code::Unimplemented, "unknown service"),
];

#[tokio::test]
async fn an_election_between_keep_alive_and_transaction_voids_the_pair() {
    let script = Script::with(&[]);
    let node = node("a", vec![at(script.serve())]);
    acquire(&node, LIMIT).await.unwrap();
    node.renew(TTL, None, &status(1), LIMIT).await.unwrap();
    script.store().done.clear();
    script
        .misdeeds
        .lock()
        .unwrap()
        .push_back((Rpc::KeepAlive, Misdeed::ThenElect));
    let lock = node.renew(TTL, None, &status(2), LIMIT).await.unwrap();
    assert!(matches!(lock, Lock::Held { term: Term(3), .. }), "{lock:?}");
    assert_eq!(
        script.store().done,
        [Rpc::KeepAlive, Rpc::Txn, Rpc::KeepAlive, Rpc::Txn],
        "the whole pair again"
    );

    // The same when acquiring: the key is created by the first pair, and counted by the second.
    node.release(&status(3), None, LIMIT).await.unwrap();
    script.store().done.clear();
    script
        .misdeeds
        .lock()
        .unwrap()
        .push_back((Rpc::KeepAlive, Misdeed::ThenElect));
    let lock = acquire(&node, LIMIT).await.unwrap();
    assert!(matches!(lock, Lock::Held { term: Term(4), .. }), "{lock:?}");
    assert_eq!(
        script.store().done,
        [Rpc::KeepAlive, Rpc::Txn, Rpc::KeepAlive, Rpc::Txn]
    );
}

#[tokio::test]
async fn while_terms_never_agree_no_right_is_counted() {
    let script = Script::with(&[(Rpc::KeepAlive, Misdeed::ThenElect)]).for_ever();
    let node = node("a", vec![at(script.serve())]);
    // The grant and its transaction are of one term.
    assert!(matches!(acquire(&node, LIMIT).await.unwrap(), Lock::Held { .. }));
    let began = start();
    let result = node.renew(TTL, None, &status(1), SHORT).await;
    assert!(
        matches!(result, Err(DcsError::Failed(_) | DcsError::Unknown(_))),
        "{result:?}"
    );
    assert!(began.elapsed() < SHORT + Duration::from_millis(200));
}

#[tokio::test]
async fn a_right_counts_from_before_the_keep_alive_left() {
    let script = Script::with(&[(Rpc::KeepAlive, Misdeed::Slow)]).for_ever();
    let node = node("a", vec![at(script.serve())]);
    acquire(&node, LIMIT).await.unwrap();
    // The first opens the stream with a keep-alive of its own.
    node.renew(TTL, None, &status(1), LIMIT).await.unwrap();
    for _ in 0..3 {
        let lock = node.renew(TTL, None, &status(1), LIMIT).await.unwrap();
        let answered = SystemClock.now();
        let Lock::Held { sent, .. } = lock else { panic!() };
        assert!(answered.since(sent) >= SLOW, "{:?}", answered.since(sent));
    }
}

#[tokio::test]
async fn a_renewal_that_is_carried_out_late_does_not_unsay_a_later_one() {
    let script = Script::with(&[]);
    let node = node("a", vec![at(script.serve())]);
    let Lock::Held { written: first, .. } = acquire(&node, LIMIT).await.unwrap() else {
        panic!()
    };
    let later = (Rpc::Txn, Misdeed::Later);
    script.misdeeds.lock().unwrap().push_back(later);
    let Lock::Held { written: second, .. } = node.renew(TTL, first, &status(2), LIMIT).await.unwrap() else {
        panic!()
    };
    assert!(first < second);
    node.renew(TTL, second, &status(3), LIMIT).await.unwrap();
    tokio::time::sleep(2 * SLOW).await;
    let told = |script: &Script| {
        let value = script.store().keys[&b"/service/batman/status"[..]].value.clone();
        String::from_utf8(value).unwrap()
    };
    assert!(told(&script).contains("\"optime\":3"), "{}", told(&script));

    // Whoever is waited for has the last word, over a renewal of its own that it has not heard of.
    node.renew(TTL, first, &status(4), LIMIT).await.unwrap();
    assert!(told(&script).contains("\"optime\":4"), "{}", told(&script));
}

#[tokio::test]
async fn no_error_of_one_member_costs_the_lock() {
    for rpc in [Rpc::Grant, Rpc::KeepAlive, Rpc::Txn] {
        for (code, text) in ERRORS {
            for misdeed in [Misdeed::Refuse(code, text), Misdeed::DoAndFail(code, text)] {
                let bad = Script::with(&[(rpc, misdeed)]).for_ever();
                let good = bad.sibling();
                let hosts = vec![at(bad.serve()), at(good.serve())];
                let node = node("a", hosts);
                let lock = acquire(&node, LIMIT).await;
                assert!(
                    matches!(lock, Ok(Lock::Held { .. })),
                    "{rpc:?} {misdeed:?}: {lock:?}"
                );
                let asked = SystemClock.now();
                let lock = node.renew(TTL, None, &status(1), LIMIT).await;
                assert!(
                    matches!(lock, Ok(Lock::Held { sent, .. }) if sent >= asked),
                    "{rpc:?} {misdeed:?}: {lock:?}"
                );
                let created = good.store().keys[&b"/service/batman/leader"[..]].version;
                assert_eq!(created, 1, "{rpc:?} {misdeed:?}: created once, moved never");
            }
        }
    }
}

#[tokio::test]
async fn a_write_that_was_done_and_not_answered_is_told_from_one_that_was_not() {
    let lost = Misdeed::DoAndFail(Code::Unavailable, "etcdserver: request timed out");
    let refused = Misdeed::Refuse(Code::Unavailable, "etcdserver: request timed out");
    for misdeed in [lost, refused] {
        let script = Script::with(&[(Rpc::Txn, misdeed)]);
        let node = node("a", vec![at(script.serve())]);
        let again = || script.misdeeds.lock().unwrap().push_back((Rpc::Txn, misdeed));
        node.claim_initialize(LIMIT).await.unwrap();
        node.acquire(TTL, Grounds::default(), None, &StatusRecord::default(), LIMIT)
            .await
            .unwrap();
        again();
        node.write_initialize(SystemId(7), true, LIMIT).await.unwrap();
        again();
        assert_eq!(
            node.put_config_cas("{}", Some(Revision(0)), LIMIT).await.unwrap(),
            Swap::Done
        );
        again();
        assert_eq!(
            node.put_failover("a:b", Some(Revision(0)), LIMIT).await.unwrap(),
            Swap::Done
        );
        let at = node.read(LIMIT).await.unwrap().1.view;
        again();
        node.clear_failover(at.failover.unwrap().revision, LIMIT)
            .await
            .unwrap();
        again();
        node.write_member("{}", TTL, LIMIT).await.unwrap();
        again();
        let after = node.read(LIMIT).await.unwrap().1.view;
        let grounds = Grounds {
            config: at.config_revision.unwrap_or_default(),
            failover: after.failover_revision,
            failsafe: Revision(0),
            sync: Revision(0),
        };
        let lock = node
            .acquire(TTL, grounds, None, &StatusRecord::default(), LIMIT)
            .await
            .unwrap();
        assert!(matches!(lock, Lock::Held { .. }), "{misdeed:?}");
        again();
        node.write_failsafe(&[("a".into(), "u".to_owned())].into(), Revision(0), LIMIT)
            .await
            .unwrap();
        let key = SyncKey::alone("a".into());
        again();
        let written = node.write_sync(Some(&key), Revision(0), LIMIT).await.unwrap();
        let read = async || node.read(LIMIT).await.unwrap().1.view;
        assert_eq!(read().await.sync_revision, written, "{misdeed:?}");
        again();
        let doubt = node
            .write_sync(Some(&SyncKey::alone("b".into())), Revision(1), LIMIT)
            .await;
        assert!(
            matches!(doubt, Err(DcsError::Unknown(_))),
            "{misdeed:?}: {doubt:?}"
        );
        again();
        node.write_sync(None, written, LIMIT).await.unwrap();
        assert_eq!(read().await.sync_revision, Revision(0), "{misdeed:?}");
        again();
        assert_eq!(
            node.release(&status(1), None, LIMIT).await.unwrap(),
            Lock::Released,
            "{misdeed:?}"
        );
    }
    // Done, not answered, and nobody to ask: in doubt, and never "failed".
    let script = Script::with(&[(Rpc::Txn, lost)]).for_ever();
    let node = node("a", vec![at(script.serve())]);
    let error = acquire(&node, SHORT).await.unwrap_err();
    assert!(matches!(error, DcsError::Unknown(_)), "{error}");
    // Refused at the door, and nobody else to ask: certain.
    let script = Script::with(&[(
        Rpc::Txn,
        Misdeed::Refuse(Code::Unavailable, "etcdserver: no leader"),
    )])
    .for_ever();
    let node = etcd_support::node("a", vec![at(script.serve())]);
    let error = acquire(&node, SHORT).await.unwrap_err();
    assert!(matches!(error, DcsError::Failed(_)), "{error}");
}

#[tokio::test]
async fn a_lease_that_is_gone_or_too_short_gives_no_right() {
    let script = Script::with(&[]);
    let node = node("a", vec![at(script.serve())]);
    let Lock::Held { lease: first, .. } = acquire(&node, LIMIT).await.unwrap() else {
        panic!()
    };
    script
        .misdeeds
        .lock()
        .unwrap()
        .push_back((Rpc::KeepAlive, Misdeed::Short));
    let lock = node.renew(TTL, None, &status(1), LIMIT).await.unwrap();
    assert!(
        matches!(lock, Lock::Held { lease, .. } if lease != first),
        "{lock:?}"
    );

    let script = Script::with(&[(Rpc::Grant, Misdeed::Short)]).for_ever();
    let node = etcd_support::node("a", vec![at(script.serve())]);
    let error = acquire(&node, SHORT).await.unwrap_err();
    assert!(error.to_string().contains("lives 1 s, but 2 s"), "{error}");
    assert!(script.store().keys.is_empty());
}
