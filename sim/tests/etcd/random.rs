//! Random requests about keys and leases: the model and etcd give the same answers.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use surus_sim::model::etcd::api::Range;
use surus_sim::model::etcd::{
    Compare, Delete, KeyValue, Keys, Op, Put, Relation, Request, Response, Target, Txn,
};

use super::commands::lines;
use super::model::Model;
use super::real::Real;
use super::{Asked, Bytes, Cluster};

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(Into::into)
}

fn keys() -> impl Strategy<Value = Keys<Bytes>> {
    prop_oneof![
        4 => key().prop_map(Keys::One),
        1 => (key(), key()).prop_map(|(first, end)| Keys::Between(first, end)),
        1 => key().prop_map(Keys::From),
    ]
}

fn lease() -> impl Strategy<Value = i64> {
    7001..7004_i64
}

fn put() -> impl Strategy<Value = Put<Bytes, Bytes>> {
    let value = prop_oneof![8 => (0..4_u8).prop_map(|n| Some(vec![b'0' + n])), 1 => Just(None)];
    let on = prop_oneof![4 => Just(Some(0)), 3 => lease().prop_map(Some), 1 => Just(None)];
    (key(), value, on, any::<bool>()).prop_map(|(key, value, lease, previous)| Put {
        key,
        value,
        lease,
        previous,
    })
}

fn range() -> impl Strategy<Value = Range<Bytes>> {
    (keys(), 0..3_usize, any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(keys, limit, serializable, count_only)| Range {
            limit,
            serializable,
            count_only,
            ..Range::new(keys)
        },
    )
}

fn delete() -> impl Strategy<Value = Delete<Bytes>> {
    (keys(), any::<bool>()).prop_map(|(keys, previous)| Delete { keys, previous })
}

fn compare() -> impl Strategy<Value = Compare<Bytes, Bytes>> {
    let relation = prop::sample::select(vec![
        Relation::Equal,
        Relation::NotEqual,
        Relation::Greater,
        Relation::Less,
    ]);
    // Revisions differ between the two by how they began, but absent keys do not.
    let target = prop_oneof![
        (0..4_i64).prop_map(Target::Version),
        Just(Target::Create(0)),
        Just(Target::Mod(0)),
        (0..4_u8).prop_map(|n| Target::Value(vec![b'0' + n])),
        prop_oneof![Just(0), lease()].prop_map(Target::Lease),
    ];
    (keys(), relation, target).prop_map(|(keys, is, to)| Compare { keys, is, to })
}

fn txn() -> impl Strategy<Value = Txn<Bytes, Bytes>> {
    let op = prop_oneof![
        3 => put().prop_map(Op::Put),
        2 => range().prop_map(Op::Range),
        1 => delete().prop_map(Op::Delete),
    ];
    let leaf = (
        prop::collection::vec(compare(), 0..3),
        prop::collection::vec(op.clone(), 0..4),
        prop::collection::vec(op, 0..3),
    )
        .prop_map(|(when, then, otherwise)| Txn {
            when,
            then,
            otherwise,
        });
    leaf.prop_recursive(1, 8, 2, |inner| {
        (inner.clone(), inner, any::<bool>()).prop_map(|(mut outer, inner, then)| {
            let branch = if then {
                &mut outer.then
            } else {
                &mut outer.otherwise
            };
            branch.push(Op::Txn(inner));
            outer
        })
    })
}

fn request() -> impl Strategy<Value = Asked> {
    prop_oneof![
        4 => put().prop_map(Request::Put),
        3 => range().prop_map(Request::Range),
        2 => delete().prop_map(Request::Delete),
        6 => txn().prop_map(Request::Txn),
        2 => lease().prop_map(|id| Request::Grant { id, ttl: 100 }),
        1 => lease().prop_map(Request::Revoke),
        1 => lease().prop_map(Request::KeepAlive),
        1 => lease().prop_map(|id| Request::TimeToLive(id, true)),
        1 => Just(Request::Leases),
    ]
}

/// Takes the revision that a case began at off all revisions in an answer.
fn from_zero(response: &mut Response<Bytes, Bytes>, base: i64) {
    let shift = |kv: &mut KeyValue<Bytes, Bytes>| {
        kv.create -= base;
        kv.modified -= base;
    };
    match response {
        Response::Range { kvs, .. } => kvs.iter_mut().for_each(shift),
        Response::Put(Some(kv)) => shift(kv),
        Response::Delete { previous, .. } => previous.iter_mut().for_each(shift),
        Response::Txn { responses, .. } => {
            for response in responses {
                from_zero(response, base);
            }
        }
        _ => {}
    }
}

/// The answers to all requests, after everything from before was taken away.
fn play(cluster: &mut impl Cluster, requests: &[Asked]) -> Vec<String> {
    let all = Delete {
        keys: Keys::From(vec![0]),
        previous: false,
    };
    for id in 7001..7004 {
        let _ = cluster.ask(0, false, Request::Revoke(id));
    }
    let (header, _) = cluster.ask(0, false, Request::Delete(all)).unwrap();
    let base = header.revision;
    let answers = requests.iter().map(|request| {
        // The model numbers no revision of the header that etcd counts otherwise: each is as of its own answer.
        match cluster.ask(0, false, request.clone()) {
            Ok((header, mut response)) => {
                from_zero(&mut response, base);
                let mut out = String::new();
                lines(&response, 0, &mut out);
                let own = !matches!(request, Request::KeepAlive(_) | Request::TimeToLive(..));
                let revision = if own { header.revision - base } else { 0 };
                format!("{out}rev={revision}")
            }
            Err((code, message)) => format!("error {code}: {message}"),
        }
    });
    answers.collect()
}

#[test]
fn random_requests_are_answered_alike() {
    let (real, model) = (
        std::cell::RefCell::new(Real::new(1)),
        std::cell::RefCell::new(Model::new(1)),
    );
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let requests = prop::collection::vec(request(), 1..25);
    let result = TestRunner::new(config).run(&requests, |requests| {
        let theirs = play(&mut *real.borrow_mut(), &requests);
        let ours = play(&mut *model.borrow_mut(), &requests);
        for ((request, theirs), ours) in requests.iter().zip(theirs).zip(ours) {
            if theirs != ours {
                let text = format!("{request:?}\netcd:\n{theirs}\nmodel:\n{ours}");
                return Err(TestCaseError::fail(text));
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
