//! An etcd of a few lines whose members misbehave on order: for what a real one does only by chance.
//!
//! Members share one store, as they would through raft. Each has its own list of misdeeds, one for each request that it names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use etcd_client::proto::*;
use futures_util::stream::{Stream, unfold};
use tonic::{Code, Request, Response, Status, Streaming};

use super::free_port;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    Range,
    Txn,
    Grant,
    KeepAlive,
}

#[derive(Clone, Copy, Debug)]
pub enum Misdeed {
    /// Refuse, without effect.
    Refuse(Code, &'static str),
    /// Do it, and answer with an error.
    DoAndFail(Code, &'static str),
    /// Do it, answer, and have an election.
    ThenElect,
    /// Keep-alive: answer [`SLOW`] later.
    Slow,
    /// Transaction: answer with an error at once, and carry it out [`SLOW`] later.
    Later,
    /// Keep-alive: there is no such lease. Grant: half the ttl.
    Short,
}

/// How late a slow answer is.
pub const SLOW: std::time::Duration = std::time::Duration::from_millis(250);

#[derive(Default)]
pub struct Store {
    pub keys: BTreeMap<Vec<u8>, PbKeyValue>,
    pub leases: BTreeSet<i64>,
    pub revision: i64,
    pub term: u64,
    /// Requests carried out, in order.
    pub done: Vec<Rpc>,
}

#[derive(Clone, Default)]
pub struct Script {
    pub store: Arc<Mutex<Store>>,
    pub misdeeds: Arc<Mutex<VecDeque<(Rpc, Misdeed)>>>,
    /// Do the first misdeed again and again.
    pub for_ever: bool,
}

impl Script {
    /// A further member of the same cluster, which behaves.
    pub fn sibling(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            ..Self::default()
        }
    }

    pub fn with(misdeeds: &[(Rpc, Misdeed)]) -> Self {
        let script = Self::default();
        script.misdeeds.lock().unwrap().extend(misdeeds);
        script.store.lock().unwrap().term = 2;
        script
    }

    pub fn for_ever(mut self) -> Self {
        self.for_ever = true;
        self
    }

    /// Serves on a free port, until the runtime ends.
    pub fn serve(&self) -> u16 {
        let port = free_port();
        let server = tonic::transport::Server::builder()
            .add_service(PbKvServer::new(self.clone()))
            .add_service(PbLeaseServer::new(self.clone()))
            .serve(([127, 0, 0, 1], port).into());
        tokio::spawn(server);
        port
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Carries `work` out unless the script says otherwise.
    fn act<T>(&self, rpc: Rpc, work: impl FnOnce(&mut Store, bool) -> T) -> Result<T, Status> {
        let mut misdeeds = self.misdeeds.lock().unwrap();
        let misdeed = match misdeeds.front() {
            Some((of, misdeed)) if *of == rpc => Some(*misdeed),
            _ => None,
        };
        if misdeed.is_some() && !self.for_ever {
            misdeeds.pop_front();
        }
        let mut store = self.store();
        if let Some(Misdeed::Refuse(code, text)) = misdeed {
            return Err(Status::new(code, text));
        }
        let answer = work(&mut store, matches!(misdeed, Some(Misdeed::Short)));
        store.done.push(rpc);
        match misdeed {
            Some(Misdeed::DoAndFail(code, text)) => Err(Status::new(code, text)),
            Some(Misdeed::ThenElect) => {
                store.term += 1;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }
}

impl Store {
    fn header(&self) -> Option<PbResponseHeader> {
        Some(PbResponseHeader {
            cluster_id: 1,
            member_id: 1,
            revision: self.revision,
            raft_term: self.term,
        })
    }

    fn range(&self, request: &PbRangeRequest) -> PbRangeResponse {
        let within = |key: &[u8]| match request.range_end.as_slice() {
            [] => key == request.key,
            end => key >= request.key.as_slice() && key < end,
        };
        let kvs: Vec<_> = self.keys.values().filter(|kv| within(&kv.key)).cloned().collect();
        PbRangeResponse {
            header: self.header(),
            count: i64::try_from(kvs.len()).unwrap(),
            kvs,
            more: false,
        }
    }

    fn holds(&self, compare: &PbCompare) -> bool {
        let found = self.keys.get(&compare.key);
        let number = |of: fn(&PbKeyValue) -> i64| found.map_or(0, of);
        assert_eq!(compare.result, 0, "only equality is scripted");
        match compare.target_union.as_ref().unwrap() {
            PbTargetUnion::CreateRevision(at) => number(|kv| kv.create_revision) == *at,
            PbTargetUnion::ModRevision(at) => number(|kv| kv.mod_revision) == *at,
            PbTargetUnion::Lease(lease) => number(|kv| kv.lease) == *lease,
            PbTargetUnion::Version(version) => number(|kv| kv.version) == *version,
            PbTargetUnion::Value(value) => found.is_some_and(|kv| kv.value == *value),
        }
    }

    fn txn(&mut self, request: PbTxnRequest) -> PbTxnResponse {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded {
            request.success
        } else {
            request.failure
        };
        let next = self.revision + 1;
        let mut responses = Vec::new();
        for op in branch {
            let response = match op.request.unwrap() {
                PbTxnOpRequest::RequestRange(get) => PbTxnOpResponse::ResponseRange(self.range(&get)),
                PbTxnOpRequest::RequestPut(put) => {
                    self.revision = next;
                    let before = self.keys.get(&put.key);
                    let kv = PbKeyValue {
                        create_revision: before.map_or(next, |kv| kv.create_revision),
                        version: before.map_or(1, |kv| kv.version + 1),
                        mod_revision: next,
                        key: put.key.clone(),
                        value: put.value,
                        lease: put.lease,
                    };
                    self.keys.insert(put.key, kv);
                    PbTxnOpResponse::ResponsePut(PbPutResponse::default())
                }
                PbTxnOpRequest::RequestDeleteRange(delete) => {
                    let gone = self.keys.remove(&delete.key).is_some();
                    self.revision = if gone { next } else { self.revision };
                    PbTxnOpResponse::ResponseDeleteRange(PbDeleteResponse::default())
                }
                PbTxnOpRequest::RequestTxn(_) => unreachable!("not used"),
            };
            responses.push(PbResponseOp {
                response: Some(response),
            });
        }
        PbTxnResponse {
            header: self.header(),
            succeeded,
            responses,
        }
    }
}

fn unscripted<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not scripted"))
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl PbKvService for Script {
    type RangeStreamStream = Answers<PbRangeStreamResponse>;

    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        self.act(Rpc::Range, |store, _| {
            Response::new(store.range(request.get_ref()))
        })
    }

    async fn range_stream(
        &self,
        _: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        unscripted()
    }

    async fn put(&self, _: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        unscripted()
    }

    async fn delete_range(&self, _: Request<PbDeleteRequest>) -> Result<Response<PbDeleteResponse>, Status> {
        unscripted()
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let first = self.misdeeds.lock().unwrap().front().copied();
        if matches!(first, Some((Rpc::Txn, Misdeed::Later))) {
            self.misdeeds.lock().unwrap().pop_front();
            let store = Arc::clone(&self.store);
            tokio::spawn(async move {
                tokio::time::sleep(SLOW).await;
                store.lock().unwrap().txn(request.into_inner());
            });
            return Err(Status::new(Code::Unavailable, "etcdserver: request timed out"));
        }
        self.act(Rpc::Txn, |store, _| {
            Response::new(store.txn(request.into_inner()))
        })
    }

    async fn compact(
        &self,
        _: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        unscripted()
    }
}

#[tonic::async_trait]
impl PbLeaseService for Script {
    type LeaseKeepAliveStream = Answers<PbLeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        self.act(Rpc::Grant, |store, short| {
            let id = 100 + i64::try_from(store.leases.len()).unwrap();
            store.leases.insert(id);
            let ttl = request.get_ref().ttl;
            Response::new(PbLeaseGrantResponse {
                header: store.header(),
                id,
                ttl: if short { ttl / 2 } else { ttl },
                error: String::new(),
            })
        })
    }

    async fn lease_keep_alive(
        &self,
        requests: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let state = (self.clone(), requests.into_inner());
        let answers = unfold(state, async |(script, mut requests)| {
            let request = requests.message().await.ok()??;
            let first = script.misdeeds.lock().unwrap().front().copied();
            if matches!(first, Some((Rpc::KeepAlive, Misdeed::Slow))) {
                tokio::time::sleep(SLOW).await;
            }
            let answer = script.act(Rpc::KeepAlive, |store, gone| PbLeaseKeepAliveResponse {
                header: store.header(),
                id: request.id,
                ttl: if gone { 0 } else { 2 },
            });
            Some((answer, (script, requests)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_revoke(
        &self,
        _: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        unscripted()
    }

    async fn lease_time_to_live(
        &self,
        _: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        unscripted()
    }

    async fn lease_leases(
        &self,
        _: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        unscripted()
    }
}
