//! One connection to a member: HTTP/2 by hyper, gRPC by the services that etcd-client generates from etcd's own definitions.
//!
//! Not by tonic's server: it chooses among what is ready by chance that no seed reaches.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use etcd_client::proto as pb;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;

use super::super::net::Stream;
use super::super::process::Process;
use super::proto::{Answered, Asked, delete, event, header, put, range, response, status, txn};
use super::{Ensemble, Message};
use crate::model::etcd::{Error, Header, Keys, Request as Model, Told, Watch};

/// Serves a connection in the member's process.
pub(super) fn connection(ensemble: &Ensemble, number: usize, process: &Process, stream: Stream) {
    let member = Member {
        ensemble: ensemble.clone(),
        number,
        process: process.clone(),
    };
    let kv = pb::PbKvServer::new(member.clone());
    let lease = pb::PbLeaseServer::new(member.clone());
    let watch = pb::PbWatchServer::new(member);
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (mut kv, mut lease, mut watch) = (kv.clone(), lease.clone(), watch.clone());
        async move {
            match request.uri().path().split('/').nth(1) {
                Some("etcdserverpb.KV") => kv.call(request).await,
                Some("etcdserverpb.Lease") => lease.call(request).await,
                Some("etcdserverpb.Watch") => watch.call(request).await,
                _ => Ok::<_, Infallible>(Status::unimplemented("not modelled").into_http()),
            }
        }
    });
    let executor = Executor(process.clone());
    process.spawn(Box::pin(async move {
        let mut server = hyper::server::conn::http2::Builder::new(executor);
        server.timer(TokioTimer::new()).auto_date_header(false);
        // How it ended is the client's to know.
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    }));
}

/// hyper's tasks run in the member's process too.
#[derive(Clone)]
struct Executor(Process);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        self.0.spawn(Box::pin(async move {
            task.await;
        }));
    }
}

/// A member, as a connection sees it.
#[derive(Clone)]
struct Member {
    ensemble: Ensemble,
    number: usize,
    process: Process,
}

fn requires_leader<T>(request: &Request<T>) -> bool {
    request
        .metadata()
        .get("hasleader")
        .is_some_and(|value| value.as_bytes() == b"true")
}

impl Member {
    async fn ask(&self, require_leader: bool, asked: Asked) -> Result<(Header, Answered), Status> {
        self.ensemble
            .ask(self.number, require_leader, asked)
            .await
            .map_err(status)
    }

    async fn step<T>(
        &self,
        request: Request<T>,
        asked: impl FnOnce(T) -> Asked,
    ) -> Result<pb::PbTxnOpResponse, Status> {
        let leader = requires_leader(&request);
        let (of, answered) = self.ask(leader, asked(request.into_inner())).await?;
        response(of, answered).ok_or_else(mismatch)
    }
}

fn mismatch() -> Status {
    Status::internal("the model answered another question")
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl pb::PbKvService for Member {
    async fn range(
        &self,
        request: Request<pb::PbRangeRequest>,
    ) -> Result<Response<pb::PbRangeResponse>, Status> {
        match self.step(request, |asked| Model::Range(range(asked))).await? {
            pb::PbTxnOpResponse::ResponseRange(answer) => Ok(Response::new(answer)),
            _ => Err(mismatch()),
        }
    }

    type RangeStreamStream = Answers<pb::PbRangeStreamResponse>;

    async fn range_stream(
        &self,
        _: Request<pb::PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("unknown method RangeStream"))
    }

    async fn put(&self, request: Request<pb::PbPutRequest>) -> Result<Response<pb::PbPutResponse>, Status> {
        match self.step(request, |asked| Model::Put(put(asked))).await? {
            pb::PbTxnOpResponse::ResponsePut(answer) => Ok(Response::new(answer)),
            _ => Err(mismatch()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::PbDeleteRequest>,
    ) -> Result<Response<pb::PbDeleteResponse>, Status> {
        match self.step(request, |asked| Model::Delete(delete(asked))).await? {
            pb::PbTxnOpResponse::ResponseDeleteRange(answer) => Ok(Response::new(answer)),
            _ => Err(mismatch()),
        }
    }

    async fn txn(&self, request: Request<pb::PbTxnRequest>) -> Result<Response<pb::PbTxnResponse>, Status> {
        match self.step(request, |asked| Model::Txn(txn(asked))).await? {
            pb::PbTxnOpResponse::ResponseTxn(answer) => Ok(Response::new(answer)),
            _ => Err(mismatch()),
        }
    }

    async fn compact(
        &self,
        request: Request<pb::PbCompactionRequest>,
    ) -> Result<Response<pb::PbCompactionResponse>, Status> {
        let leader = requires_leader(&request);
        let revision = request.into_inner().revision;
        let (of, _) = self.ask(leader, Model::Compact(revision)).await?;
        Ok(Response::new(pb::PbCompactionResponse { header: header(of) }))
    }
}

#[tonic::async_trait]
impl pb::PbLeaseService for Member {
    async fn lease_grant(
        &self,
        request: Request<pb::PbLeaseGrantRequest>,
    ) -> Result<Response<pb::PbLeaseGrantResponse>, Status> {
        let leader = requires_leader(&request);
        let pb::PbLeaseGrantRequest { ttl, id } = request.into_inner();
        match self.ask(leader, Model::Grant { id, ttl }).await? {
            (of, Answered::Grant { id, ttl }) => Ok(Response::new(pb::PbLeaseGrantResponse {
                header: header(of),
                id,
                ttl,
                error: String::new(),
            })),
            _ => Err(mismatch()),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::PbLeaseRevokeRequest>,
    ) -> Result<Response<pb::PbLeaseRevokeResponse>, Status> {
        let leader = requires_leader(&request);
        let (of, _) = self.ask(leader, Model::Revoke(request.into_inner().id)).await?;
        Ok(Response::new(pb::PbLeaseRevokeResponse { header: header(of) }))
    }

    type LeaseKeepAliveStream = Answers<pb::PbLeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let leader = requires_leader(&request);
        let (member, requests) = (self.clone(), request.into_inner());
        // One after the other, as etcd does it.
        let answers = futures_util::stream::unfold(Some((member, requests)), move |state| async move {
            let (member, mut requests) = state?;
            let id = match requests.message().await {
                Ok(Some(request)) => request.id,
                Ok(None) | Err(_) => return None,
            };
            match member.ask(leader, Model::KeepAlive(id)).await {
                Ok((of, Answered::KeepAlive { id, ttl })) => {
                    let answer = pb::PbLeaseKeepAliveResponse {
                        header: header(of),
                        id,
                        ttl,
                    };
                    Some((Ok(answer), Some((member, requests))))
                }
                Ok(_) => Some((Err(mismatch()), None)),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::PbLeaseTimeToLiveResponse>, Status> {
        let leader = requires_leader(&request);
        let pb::PbLeaseTimeToLiveRequest { id, keys } = request.into_inner();
        match self.ask(leader, Model::TimeToLive(id, keys)).await? {
            (
                of,
                Answered::TimeToLive {
                    id,
                    ttl,
                    granted,
                    keys,
                },
            ) => Ok(Response::new(pb::PbLeaseTimeToLiveResponse {
                header: header(of),
                id,
                ttl,
                granted_ttl: granted,
                keys,
            })),
            _ => Err(mismatch()),
        }
    }

    async fn lease_leases(
        &self,
        request: Request<pb::PbLeaseLeasesRequest>,
    ) -> Result<Response<pb::PbLeaseLeasesResponse>, Status> {
        let leader = requires_leader(&request);
        match self.ask(leader, Model::Leases).await? {
            (of, Answered::Leases(leases)) => Ok(Response::new(pb::PbLeaseLeasesResponse {
                header: header(of),
                leases: leases.into_iter().map(|id| pb::PbLeaseStatus { id }).collect(),
            })),
            _ => Err(mismatch()),
        }
    }
}

#[tonic::async_trait]
impl pb::PbWatchService for Member {
    type WatchStream = Watched;

    async fn watch(
        &self,
        request: Request<Streaming<pb::PbWatchRequest>>,
    ) -> Result<Response<Watched>, Status> {
        let require_leader = requires_leader(&request);
        let mut requests = request.into_inner();
        let (sender, responses) = mpsc::unbounded_channel();
        let member = self.clone();
        let task = self.process.spawn(Box::pin(async move {
            // Watches of this stream by the client's numbers for them.
            let mut open: Vec<Open> = Vec::new();
            while let Ok(Some(request)) = requests.message().await {
                match request.request_union {
                    Some(pb::PbWatchRequestUnion::CreateRequest(create)) => {
                        let number = match create.watch_id {
                            0 => i64::try_from(open.len()).unwrap_or(i64::MAX),
                            id => id,
                        };
                        let watch = Watch {
                            keys: Keys::of_bytes(create.key, create.range_end),
                            start: create.start_revision,
                            previous: create.prev_kv,
                            require_leader,
                        };
                        open.push(member.open(number, watch, sender.clone()));
                    }
                    Some(pb::PbWatchRequestUnion::CancelRequest(cancel)) => {
                        open.retain(|watch| watch.number != cancel.watch_id);
                    }
                    Some(pb::PbWatchRequestUnion::ProgressRequest(_)) => {
                        for watch in &open {
                            member.ensemble.progress(watch.id);
                        }
                    }
                    None => {}
                }
            }
            // The client may close its side and go on listening.
            std::future::pending::<()>().await;
        }));
        Ok(Response::new(Watched { responses, task }))
    }
}

/// A watch of a stream; it ends with this.
struct Open {
    number: i64,
    id: u64,
    ensemble: Ensemble,
    task: tokio::task::AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.ensemble.unwatch(self.id);
        self.task.abort();
    }
}

impl Member {
    fn open(
        &self,
        number: i64,
        watch: Watch<Vec<u8>>,
        sender: mpsc::UnboundedSender<Result<pb::PbWatchResponse, Status>>,
    ) -> Open {
        let (id, mut messages) = self.ensemble.watch(self.number, watch);
        let task = self.process.spawn(Box::pin(async move {
            while let Some(message) = messages.recv().await {
                if sender.send(watch_response(number, message)).is_err() {
                    return;
                }
            }
        }));
        Open {
            number,
            id,
            ensemble: self.ensemble.clone(),
            task,
        }
    }
}

fn watch_response(number: i64, (of, told): Message) -> Result<pb::PbWatchResponse, Status> {
    let base = pb::PbWatchResponse {
        header: header(of),
        watch_id: number,
        ..pb::PbWatchResponse::default()
    };
    Ok(match told {
        Told::Created => pb::PbWatchResponse {
            created: true,
            ..base
        },
        Told::Events(events) => pb::PbWatchResponse {
            events: events.into_iter().map(event).collect(),
            ..base
        },
        Told::Progress => pb::PbWatchResponse {
            // etcd's number for all watches of the stream.
            watch_id: -1,
            ..base
        },
        Told::Compacted(revision) => pb::PbWatchResponse {
            canceled: true,
            compact_revision: revision,
            cancel_reason: Error::Compacted.message().to_owned(),
            ..base
        },
        Told::Ended(error) => return Err(status(error)),
    })
}

/// The answers of a watch stream; the watches end with it.
struct Watched {
    responses: mpsc::UnboundedReceiver<Result<pb::PbWatchResponse, Status>>,
    task: tokio::task::AbortHandle,
}

impl futures_util::Stream for Watched {
    type Item = Result<pb::PbWatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.responses.poll_recv(cx)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}
