//! Keys, transactions and leases of a cluster that is well.

use super::*;

#[test]
fn keys_have_revisions_and_versions() {
    let mut bench = Bench::new(1);
    for value in 1..=3 {
        bench.put(0, "a", value).unwrap();
    }
    bench.put(0, "b", 9).unwrap();
    let kv = bench.db.agreed(&"a").unwrap();
    assert_eq!((kv.create, kv.modified, kv.version, kv.value), (2, 4, 3, Some(3)));
    let past = Range {
        revision: 3,
        ..Range::new(Keys::From("a"))
    };
    let Ok(Response::Range { kvs, count, .. }) = bench.get(0, Request::Range(past)) else {
        panic!("no answer")
    };
    assert_eq!((count, kvs[0].value), (1, Some(2)));
    let gone = Delete {
        keys: Keys::Between("a", "c"),
        previous: false,
    };
    let deleted = bench.get(0, Request::Delete(gone));
    assert!(matches!(deleted, Ok(Response::Delete { deleted: 2, .. })));
    assert_eq!(bench.db.revision(), 6);
    assert_eq!(bench.read(0, "a", false), None);
}

#[test]
fn a_transaction_sees_itself_and_is_one_revision() {
    let mut bench = Bench::new(3);
    let txn = Txn {
        when: vec![Compare::equal("a", Target::Create(0))],
        then: vec![
            Op::Put(put("a", 1, 0)),
            Op::Put(put("b", 2, 0)),
            Op::Range(Range::new(Keys::From("a"))),
        ],
        otherwise: vec![Op::Range(Range::new(Keys::One("a")))],
    };
    for first in [true, false] {
        let answer = bench.get(2, Request::Txn(txn.clone())).unwrap();
        let Response::Txn { succeeded, responses } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(succeeded, first);
        let Some(Response::Range { kvs, .. }) = responses.last() else {
            panic!("no read")
        };
        assert_eq!(kvs.len(), if first { 2 } else { 1 });
        assert!(kvs.iter().all(|kv| kv.modified == 2));
    }
    assert_eq!(bench.db.revision(), 2);
}

#[test]
fn a_lease_takes_its_keys_with_it_up_to_half_a_second_late() {
    let mut bench = Bench::new(1);
    let Ok(Response::Grant { id, ttl }) = bench.get(0, Request::Grant { id: 0, ttl: 1 }) else {
        panic!("no lease")
    };
    assert_eq!(ttl, 2, "etcd's least, for an election timeout of one second");
    bench.get(0, Request::Put(put("a", 1, id))).unwrap();
    bench.pass(1900 * MS);
    assert_eq!(
        bench.get(0, Request::KeepAlive(id)),
        Ok(Response::KeepAlive { id, ttl: 2 })
    );
    bench.pass(1999 * MS);
    assert_eq!(bench.read(0, "a", false), Some(1));
    bench.pass(502 * MS);
    assert_eq!(bench.read(0, "a", false), None);
    assert_eq!(
        bench.get(0, Request::KeepAlive(id)),
        Ok(Response::KeepAlive { id, ttl: 0 })
    );
    assert_eq!(
        bench.get(0, Request::Put(put("a", 1, id))),
        Err(Error::LeaseNotFound)
    );
}
