//! etcd's messages as the model has them, and the model's answers as messages.

use etcd_client::proto as pb;

use crate::model::etcd::{
    Compare, Delete, Error, Event, Header, KeyValue, Keys, Op, Put, Range, Relation, Request, Response,
    Target, Txn,
};

/// Keys and values on the wire.
pub(super) type Octets = Vec<u8>;

/// The cluster's id in every header.
const CLUSTER: u64 = 0x5u64 << 32 | 0xe7cd;

pub(super) fn header(header: Header) -> Option<pb::PbResponseHeader> {
    Some(pb::PbResponseHeader {
        cluster_id: CLUSTER,
        member_id: header.member as u64 + 1,
        revision: header.revision,
        raft_term: header.term,
    })
}

pub(super) fn status(error: Error) -> tonic::Status {
    tonic::Status::new(tonic::Code::from_i32(error.code()), error.message())
}

pub(super) fn range(range: pb::PbRangeRequest) -> Range<Octets> {
    Range {
        keys: Keys::of_bytes(range.key, range.range_end),
        revision: range.revision,
        limit: usize::try_from(range.limit).unwrap_or(0),
        serializable: range.serializable,
        count_only: range.count_only,
    }
}

pub(super) fn put(put: pb::PbPutRequest) -> Put<Octets, Octets> {
    Put {
        key: put.key,
        value: (!put.ignore_value).then_some(put.value),
        lease: (!put.ignore_lease).then_some(put.lease),
        previous: put.prev_kv,
    }
}

pub(super) fn delete(delete: pb::PbDeleteRequest) -> Delete<Octets> {
    Delete {
        keys: Keys::of_bytes(delete.key, delete.range_end),
        previous: delete.prev_kv,
    }
}

fn compare(compare: pb::PbCompare) -> Option<Compare<Octets, Octets>> {
    Some(Compare {
        keys: Keys::of_bytes(compare.key, compare.range_end),
        is: match compare.result {
            0 => Relation::Equal,
            1 => Relation::Greater,
            2 => Relation::Less,
            _ => Relation::NotEqual,
        },
        to: match compare.target_union? {
            pb::PbTargetUnion::Version(version) => Target::Version(version),
            pb::PbTargetUnion::CreateRevision(revision) => Target::Create(revision),
            pb::PbTargetUnion::ModRevision(revision) => Target::Mod(revision),
            pb::PbTargetUnion::Value(value) => Target::Value(value),
            pb::PbTargetUnion::Lease(lease) => Target::Lease(lease),
        },
    })
}

fn op(op: pb::PbTxnRequestOp) -> Option<Op<Octets, Octets>> {
    Some(match op.request? {
        pb::PbTxnOpRequest::RequestRange(request) => Op::Range(range(request)),
        pb::PbTxnOpRequest::RequestPut(request) => Op::Put(put(request)),
        pb::PbTxnOpRequest::RequestDeleteRange(request) => Op::Delete(delete(request)),
        pb::PbTxnOpRequest::RequestTxn(request) => Op::Txn(txn(request)),
    })
}

pub(super) fn txn(txn: pb::PbTxnRequest) -> Txn<Octets, Octets> {
    Txn {
        when: txn.compare.into_iter().filter_map(compare).collect(),
        then: txn.success.into_iter().filter_map(op).collect(),
        otherwise: txn.failure.into_iter().filter_map(op).collect(),
    }
}

pub(super) fn key_value(kv: KeyValue<Octets, Octets>) -> pb::PbKeyValue {
    pb::PbKeyValue {
        key: kv.key,
        create_revision: kv.create,
        mod_revision: kv.modified,
        version: kv.version,
        value: kv.value.unwrap_or_default(),
        lease: kv.lease,
    }
}

pub(super) fn event(event: Event<Octets, Octets>) -> pb::PbEvent {
    pb::PbEvent {
        r#type: i32::from(event.kv.value.is_none()),
        kv: Some(key_value(event.kv)),
        prev_kv: event.previous.map(key_value),
    }
}

/// The answer to a step of a transaction, or to a request of the same kind.
pub(super) fn response(of: Header, response: Response<Octets, Octets>) -> Option<pb::PbTxnOpResponse> {
    let header = header(of);
    Some(match response {
        Response::Range { kvs, more, count } => pb::PbTxnOpResponse::ResponseRange(pb::PbRangeResponse {
            header,
            kvs: kvs.into_iter().map(key_value).collect(),
            more,
            count: i64::try_from(count).unwrap_or(i64::MAX),
        }),
        Response::Put(previous) => pb::PbTxnOpResponse::ResponsePut(pb::PbPutResponse {
            header,
            prev_kv: previous.map(key_value),
        }),
        Response::Delete { deleted, previous } => {
            pb::PbTxnOpResponse::ResponseDeleteRange(pb::PbDeleteResponse {
                header,
                deleted: i64::try_from(deleted).unwrap_or(i64::MAX),
                prev_kvs: previous.into_iter().map(key_value).collect(),
            })
        }
        Response::Txn { succeeded, responses } => pb::PbTxnOpResponse::ResponseTxn(pb::PbTxnResponse {
            header,
            succeeded,
            responses: responses
                .into_iter()
                .map(|step| pb::PbResponseOp {
                    response: self::response(of, step),
                })
                .collect(),
        }),
        _ => return None,
    })
}

/// A request of the model.
pub(super) type Asked = Request<Octets, Octets>;
/// An answer of the model.
pub(super) type Answered = Response<Octets, Octets>;
