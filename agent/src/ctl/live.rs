//! The real world: etcd through [`Etcd`], members through their REST API, and the clock of this machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use surus_core::types::Revision;

use crate::chain::chain;
use crate::clock::{Clock, SystemClock};
use crate::config::settings;
use crate::ctl::access::{ClusterAccess, Expect, Reply, Request, Unreachable};
use crate::ctl::failure::Failure;
use crate::ctl::settings::CtlSettings;
use crate::dcs::snapshot::RawCluster;
use crate::dcs::{DcsError, Etcd, Swap};
use crate::machine::Machine;
use crate::net::Tcp;
use crate::peers::{Client, RequestError, Trust, sibling};

/// How long etcd may take for one answer, over all its endpoints. An operator at the keyboard wants to hear of an outage
/// within seconds; etcd needs milliseconds, or about one second while it elects a leader.
const ETCD_LIMIT: Duration = Duration::from_secs(4);

/// How long a member may take to show that it is there before it is asked to do something. Without this a host that is
/// gone could not be told from one that is busy doing what was asked.
const HELLO_LIMIT: Duration = Duration::from_secs(3);

/// The world as it is.
pub struct Live {
    runtime: tokio::runtime::Runtime,
    settings: settings::Etcd,
    etcd_source: String,
    namespace: String,
    stores: BTreeMap<String, Etcd>,
    members: Client,
}

impl Live {
    /// Prepares connections; none is made yet.
    ///
    /// # Errors
    ///
    /// The certificates of `ctl` cannot be used, or the machine is out of resources.
    pub fn new(settings: &CtlSettings) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::internal("cannot start").because(&error))?;
        let tls = Trust::operator(&settings.ctl).config().map_err(|error| {
            Failure::new("cannot prepare secure connections to members")
                .because(&error)
                .hint("check `ctl.cacert`, `ctl.certfile` and `ctl.keyfile`")
        })?;
        Ok(Self {
            runtime,
            settings: settings.etcd.clone(),
            etcd_source: settings.etcd_source.clone(),
            namespace: settings.node.namespace.clone(),
            stores: BTreeMap::new(),
            members: Client::new(Arc::new(Tcp), tls, settings.ctl.authentication.clone()),
        })
    }

    /// The store of one cluster, with the runtime to use it in.
    fn store(&mut self, scope: &str) -> Result<(&tokio::runtime::Runtime, &Etcd), Failure> {
        if !self.stores.contains_key(scope) {
            let prefix = format!("/{}/{scope}/", self.namespace);
            let etcd = Etcd::new(&self.settings, &prefix, "surus-ctl", Machine::real());
            let etcd = etcd.map_err(|error| {
                Failure::new("cannot use etcd")
                    .because(&error)
                    .hint("check the section `etcd3` of the configuration")
            })?;
            self.stores.insert(scope.to_owned(), etcd);
        }
        let store = self
            .stores
            .get(scope)
            .ok_or_else(|| Failure::internal("a store got lost"))?;
        Ok((&self.runtime, store))
    }

    fn etcd_failure(&self, what: String, error: &DcsError) -> Failure {
        let hosts: Vec<_> = self.settings.hosts.iter().map(ToString::to_string).collect();
        let hint = match error {
            DcsError::Unknown(_) => "it may have been written; look before you try again".to_owned(),
            DcsError::Settings(_) => "check the section `etcd3` of the configuration".to_owned(),
            DcsError::Failed(_) => format!(
                "check that etcd runs at {} and can be reached from here\nthe addresses are those of {}; `-d etcd3://HOST:2379` asks another one",
                hosts.join(", "),
                self.etcd_source
            ),
        };
        Failure::new(what).because(error).hint(hint)
    }

    fn exchange(
        &self,
        method: http::Method,
        url: &str,
        request: &Request<'_>,
        limit: Duration,
    ) -> Result<Reply, RequestError> {
        let work = self.members.request(method, url, request.body.as_ref(), limit);
        let response = self.runtime.block_on(work)?;
        Ok(Reply {
            status: response.status,
            text: response.text(),
        })
    }
}

impl ClusterAccess for Live {
    fn read(&mut self, scope: &str) -> Result<RawCluster, Failure> {
        let (runtime, etcd) = self.store(scope)?;
        match runtime.block_on(etcd.read(ETCD_LIMIT)) {
            Ok((_, snapshot)) => Ok(snapshot.raw),
            Err(error) => Err(self.etcd_failure(format!("cannot read cluster {scope} from etcd"), &error)),
        }
    }

    fn put(&mut self, scope: &str, key: &str, value: &str, expect: Expect) -> Result<bool, Failure> {
        let revision = Some(match expect {
            Expect::Absent => Revision(0),
            Expect::Revision(revision) => Revision(revision),
        });
        let (runtime, etcd) = self.store(scope)?;
        let swap = match key {
            "config" => runtime.block_on(etcd.put_config_cas(value, revision, ETCD_LIMIT)),
            "failover" => runtime.block_on(etcd.put_failover(value, revision, ETCD_LIMIT)),
            _ => return Err(Failure::internal(format!("no command writes the key {key}"))),
        };
        match swap {
            Ok(Swap::Done) => Ok(true),
            Ok(Swap::Conflict) => Ok(false),
            Err(error) => {
                Err(self.etcd_failure(format!("cannot write the key {key} of cluster {scope}"), &error))
            }
        }
    }

    fn delete_all(&mut self, scope: &str) -> Result<(), Failure> {
        let (runtime, etcd) = self.store(scope)?;
        let done = runtime.block_on(etcd.delete_prefix(ETCD_LIMIT));
        done.map_err(|error| self.etcd_failure(format!("cannot delete the keys of cluster {scope}"), &error))
    }

    fn request(&mut self, api_url: &str, request: &Request<'_>) -> Result<Reply, Unreachable> {
        let method = http::Method::from_bytes(request.method.as_bytes()).map_err(|error| Unreachable {
            reason: error.to_string(),
            sent: false,
        })?;
        let is_safe = method == http::Method::GET;
        if !is_safe {
            let hello = Request::new("GET", "liveness");
            self.exchange(
                http::Method::GET,
                &sibling(api_url, "liveness"),
                &hello,
                HELLO_LIMIT,
            )
            .map_err(|error| Unreachable {
                reason: chain(&error),
                sent: false,
            })?;
        }
        self.exchange(method, &sibling(api_url, request.path), request, request.timeout)
            .map_err(|error| Unreachable {
                reason: chain(&error),
                sent: matches!(error, RequestError::Http { .. } | RequestError::Timeout { .. }),
            })
    }

    fn sleep(&mut self, duration: Duration) {
        // Made inside the runtime, for the timer belongs to it.
        self.runtime
            .block_on(async { tokio::time::sleep(duration).await });
    }

    fn now(&self) -> jiff::Timestamp {
        let wall = jiff::SignedDuration::try_from(SystemClock.wall()).unwrap_or_default();
        jiff::Timestamp::from_duration(wall).unwrap_or_default()
    }
}
