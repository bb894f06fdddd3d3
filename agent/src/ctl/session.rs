//! What every command works with: the world, the terminal, and which cluster is meant.

use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::Value;

use crate::ctl::access::{ClusterAccess, Reply, Request};
use crate::ctl::failure::Failure;
use crate::ctl::terminal::Terminal;
use crate::dcs::snapshot::RawCluster;
use crate::topology::{Member, Topology};

/// One run of the command line.
pub struct Session {
    /// The cluster's keys and members.
    pub access: Box<dyn ClusterAccess>,
    /// The operator.
    pub terminal: Terminal,
    /// What the configuration says of this node.
    pub node: Node,
}

/// What the configuration says of the node that the command runs on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// The configuration file in use.
    pub file: Option<PathBuf>,
    /// `scope`.
    pub scope: Option<String>,
    /// `namespace`, without slashes.
    pub namespace: String,
    /// `name`.
    pub name: Option<String>,
    /// Address of its own REST API.
    pub api_url: Option<String>,
}

/// A cluster as it was read at the start of a command.
pub struct Cluster {
    /// Its name.
    pub scope: String,
    /// The keys.
    pub raw: RawCluster,
    /// What they mean.
    pub topology: Topology,
}

impl Session {
    /// The cluster that is meant: the one named, or the configuration's own.
    pub fn scope(&self, named: Option<&str>) -> Result<String, Failure> {
        if let Some(name) = named.or(self.node.scope.as_deref()) {
            let valid = !name.is_empty() && !name.contains('/');
            return if valid {
                Ok(name.to_owned())
            } else {
                Err(Failure::new(format!("`{name}` is no name of a cluster"))
                    .hint("a cluster's name is the `scope` of its configuration, without slashes"))
            };
        }
        let what = match &self.node.file {
            Some(file) => format!("no cluster was named, and {} has no `scope`", file.display()),
            None => "no cluster was named, and there is no configuration file with a `scope`".to_owned(),
        };
        Err(Failure::new(what).hint("name the cluster, or a configuration with `-c FILE`"))
    }

    /// Reads a cluster, which may turn out to be empty.
    pub fn read(&mut self, scope: &str) -> Result<Cluster, Failure> {
        let raw = self.access.read(scope)?;
        let topology = Topology::of(&raw);
        Ok(Cluster {
            scope: scope.to_owned(),
            raw,
            topology,
        })
    }

    /// Reads the cluster that is meant; one that does not exist is an error.
    pub fn cluster(&mut self, named: Option<&str>) -> Result<Cluster, Failure> {
        let scope = self.scope(named)?;
        let cluster = self.read(&scope)?;
        if cluster.raw.keys.is_empty() {
            Err(self.no_such_cluster(&scope))
        } else {
            Ok(cluster)
        }
    }

    fn no_such_cluster(&self, scope: &str) -> Failure {
        Failure::new(format!(
            "there is no cluster `{scope}`: etcd has no keys below /{}/{scope}/",
            self.node.namespace
        ))
        .hint(match &self.node.file {
            Some(file) => format!(
                "check `scope`, `namespace` and the addresses of etcd in {}",
                file.display()
            ),
            None => "check the name, the namespace and the addresses of etcd".to_owned(),
        })
    }

    /// Sorts names into a cluster and members of it. The first name is the cluster's unless it is a member of the
    /// configuration's own.
    pub fn cluster_and_members(&mut self, names: &[String]) -> Result<(Cluster, Vec<String>), Failure> {
        let Some((first, rest)) = names.split_first() else {
            return Ok((self.cluster(None)?, Vec::new()));
        };
        let own = self.node.scope.clone();
        let (cluster, members) = match own {
            Some(own) if own != *first => {
                let cluster = self.read(&own)?;
                if cluster.topology.member(first).is_some() {
                    (cluster, names)
                } else {
                    let other = self.read(first)?;
                    if other.raw.keys.is_empty() {
                        return Err(Failure::new(format!(
                            "`{first}` is neither a cluster nor a member of `{own}`"
                        ))
                        .hint(known_members(&cluster.topology)));
                    }
                    (other, rest)
                }
            }
            _ => (self.cluster(Some(first))?, rest),
        };
        for name in members {
            if cluster.topology.member(name).is_none() {
                return Err(
                    Failure::new(format!("{name} is not a member of cluster {}", cluster.scope))
                        .hint(known_members(&cluster.topology)),
                );
            }
        }
        Ok((cluster, members.to_vec()))
    }

    /// Asks the first member that answers, the leader first. `Err` holds what each of them said.
    pub fn ask_any(&mut self, topology: &Topology, request: &Request<'_>) -> Result<Answer, Vec<String>> {
        let mut failures = Vec::new();
        for member in topology.leader_first() {
            let Some(api_url) = &member.api_url else { continue };
            match self.access.request(api_url, request) {
                Ok(reply) => {
                    return Ok(Answer::Said {
                        member: member.name.clone(),
                        reply,
                    });
                }
                Err(error) => {
                    let said = format!("{} at {api_url}: {error}", member.name);
                    if error.sent && request.method != "GET" {
                        return Ok(Answer::Lost { said });
                    }
                    self.terminal.warn(&format!("member {said}"));
                    failures.push(said);
                }
            }
        }
        if failures.is_empty() {
            failures.push("no member has published the address of its REST API".to_owned());
        }
        Err(failures)
    }

    /// Sends a request to one member.
    pub fn ask(&mut self, member: &Member, request: &Request<'_>) -> Result<Reply, Failure> {
        let Some(api_url) = &member.api_url else {
            return Err(Failure::new(format!(
                "member {} has not published the address of its REST API",
                member.name
            ))
            .hint("its agent does not run, or never has; start it and try again"));
        };
        self.access.request(api_url, request).map_err(|error| {
            let failure = Failure::new(format!(
                "cannot reach the REST API of member {} at {api_url}",
                member.name
            ));
            let lost = error.sent && request.method != "GET";
            failure.because(&error).hint(if lost {
                "the request was sent and may have taken effect; `surus list` shows what is the case"
            } else {
                "check that the agent runs there, and that `restapi.connect_address` can be reached from here"
            })
        })
    }

    /// Local time as Patroni prints it in front of results.
    #[must_use]
    pub fn timestamp(&self, digits: usize) -> String {
        let time = self.access.now().to_zoned(jiff::tz::TimeZone::system());
        let seconds = time.strftime("%Y-%m-%d %H:%M:%S").to_string();
        if digits == 0 {
            return seconds;
        }
        let fraction = format!("{:09}", time.subsec_nanosecond());
        format!("{seconds}.{}", fraction.get(..digits).unwrap_or(&fraction))
    }
}

/// What came of a request that any member may serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A member answered.
    Said {
        /// Who.
        member: String,
        /// What.
        reply: Reply,
    },
    /// The connection broke after the request had been sent: it may have taken effect, and asking another member
    /// might do it twice.
    Lost {
        /// Who, and how it broke.
        said: String,
    },
}

/// For hints: who there is.
#[must_use]
pub fn known_members(topology: &Topology) -> String {
    let names: Vec<_> = topology
        .members
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    if names.is_empty() {
        "the cluster has no members".to_owned()
    } else {
        format!("its members are {}", names.join(", "))
    }
}

/// When something shall be done; `None` for now.
pub fn schedule(text: Option<&str>, now: Timestamp, action: &str) -> Result<Option<String>, Failure> {
    let text = text.unwrap_or("now").trim();
    if text.is_empty() || text.eq_ignore_ascii_case("now") {
        return Ok(None);
    }
    let example = "write it like 2026-11-24T10:33:00+01:00 or 2026-11-24T09:33:00Z";
    let time: Timestamp = text.parse().map_err(|_| {
        let without_zone = text.parse::<jiff::civil::DateTime>().is_ok();
        let why = if without_zone {
            "it has no time zone"
        } else {
            "it is no date and time that could be understood"
        };
        Failure::new(format!("cannot schedule the {action} at `{text}`: {why}")).hint(example)
    })?;
    if time <= now {
        return Err(Failure::new(format!(
            "cannot schedule the {action} at `{text}`: it is in the past"
        ))
        .hint(format!("the time is now {}", now.strftime("%Y-%m-%dT%H:%M:%SZ"))));
    }
    let utc = time.to_zoned(jiff::tz::TimeZone::UTC);
    Ok(Some(utc.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()))
}

/// A number of seconds in the dynamic configuration.
#[must_use]
pub fn config_seconds(topology: &Topology, key: &str, default: u64) -> u64 {
    topology
        .config
        .get(key)
        .and_then(Value::as_u64)
        .unwrap_or(default)
}
