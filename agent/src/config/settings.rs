//! The settings of one node, read and checked: plain values that the rest of the agent uses.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything in the local file (and `PATRONI_*`), checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Cluster name.
    pub scope: String,
    /// Key prefix in the DCS, without slashes at its ends. Default `service`.
    pub namespace: String,
    /// Member name.
    pub name: String,
    /// `log`.
    pub log: Log,
    /// `restapi`.
    pub restapi: RestApi,
    /// `ctl`: how this node and the command line speak to other members' REST API.
    pub ctl: Ctl,
    /// `etcd3` or `etcd`.
    pub etcd: Etcd,
    /// `bootstrap`; a node without it never creates a cluster.
    pub bootstrap: Option<Bootstrap>,
    /// `postgresql`, not yet merged with the dynamic configuration.
    pub postgresql: PostgresSettings,
    /// `tags`.
    pub tags: Tags,
    /// `watchdog`.
    pub watchdog: Watchdog,
    /// `router`, if the agent is to run one.
    pub router: Option<Router>,
    /// The `postgresql` section as written, for merging with the dynamic configuration.
    pub raw_postgresql: serde_json::Value,
    /// Local values of the dynamic keys that Patroni also accepts locally (ttl, loop_wait, retry_timeout), as written.
    pub raw_timing: serde_json::Value,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `json` rather than `plain`.
    pub json: bool,
    /// Patroni's level name, upper case. Default `INFO`.
    pub level: String,
    /// Directory for `patroni.log`; standard error if absent.
    pub dir: Option<PathBuf>,
    /// Bytes after which the file is rotated. Default 25 MB.
    pub file_size: u64,
    /// Old files kept. Default 4.
    pub file_num: u32,
    /// Permissions of the file.
    pub mode: Option<u32>,
    /// Levels by logger name.
    pub loggers: BTreeMap<String, String>,
}

/// User and password of HTTP basic authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
}

/// `restapi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestApi {
    /// Where to listen.
    pub listen: HostPort,
    /// How others reach it.
    pub connect_address: HostPort,
    /// Asked for unsafe methods.
    pub authentication: Option<BasicAuth>,
    /// TLS certificate; TLS is on if set.
    pub certfile: Option<PathBuf>,
    /// Its key, if not in the same file.
    pub keyfile: Option<PathBuf>,
    /// CA for client certificates.
    pub cafile: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub verify_client: VerifyClient,
    /// Addresses, networks and host names that may use unsafe methods; empty for all.
    pub allowlist: Vec<String>,
    /// Adds the members' own addresses to the allowlist.
    pub allowlist_include_members: bool,
    /// Headers added to every reply.
    pub http_extra_headers: BTreeMap<String, String>,
    /// Headers added to replies over TLS.
    pub https_extra_headers: BTreeMap<String, String>,
    /// `Original`, `Minimal` or `ProductOnly`.
    pub server_tokens: String,
    /// Backlog of the listener.
    pub request_queue_size: u32,
}

/// `restapi.verify_client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyClient {
    /// No certificate is asked for.
    None,
    /// Unsafe methods need one.
    Optional,
    /// Every request needs one.
    Required,
}

/// `ctl`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ctl {
    /// Sent to other members (falls back to `restapi.authentication`).
    pub authentication: Option<BasicAuth>,
    /// Do not verify certificates.
    pub insecure: bool,
    /// CA of the members' certificates.
    pub cacert: Option<PathBuf>,
    /// Client certificate.
    pub certfile: Option<PathBuf>,
    /// Its key.
    pub keyfile: Option<PathBuf>,
}

/// `etcd3` or `etcd`: both mean etcd's v3 API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// The endpoints, in the order written.
    pub hosts: Vec<HostPort>,
    /// `https` rather than `http`.
    pub tls: bool,
    /// User.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// CA of the endpoints' certificates.
    pub cacert: Option<PathBuf>,
    /// Client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// `bootstrap`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// `bootstrap.dcs`: the first dynamic configuration.
    pub dcs: serde_json::Value,
    /// Options of initdb: a flag (`None`) or a value, without dashes.
    pub initdb: Vec<(String, Option<String>)>,
    /// Lines for `pg_hba.conf` of a new cluster (used if `postgresql.pg_hba` is absent).
    pub pg_hba: Vec<String>,
    /// Users to create: name, password, options (`createrole`, …). Patroni 4 dropped them; the articles our users follow have them.
    pub users: BTreeMap<String, BootstrapUser>,
    /// Command to run with a connection string after the first start.
    pub post_bootstrap: Option<String>,
    /// Name of a custom method in place of initdb, with its command.
    pub method: Option<CustomMethod>,
}

/// A user of `bootstrap.users`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapUser {
    /// Password.
    pub password: Option<String>,
    /// Options of CREATE ROLE.
    pub options: Vec<String>,
}

/// A custom bootstrap or replica creation method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomMethod {
    /// Its name.
    pub name: String,
    /// The command line.
    pub command: String,
    /// Pass no arguments of ours.
    pub no_params: bool,
    /// It needs no leader.
    pub no_leader: bool,
    /// The data directory is not emptied before.
    pub keep_data: bool,
    /// Further arguments, as `--key=value`.
    pub extra: BTreeMap<String, String>,
}

/// A database role that the agent uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Role.
    pub username: String,
    /// Password; none for trust, peer or certificates.
    pub password: Option<String>,
    /// libpq options as written: `sslmode`, `sslcert`, `sslrootcert`, `gssencmode`, ….
    pub options: BTreeMap<String, String>,
}

/// `postgresql`, merged with the dynamic configuration where it says so.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresSettings {
    /// Cluster name (`cluster_name`).
    pub scope: String,
    /// Member name (`application_name` of the walreceiver).
    pub name: String,
    /// Addresses for `listen_addresses`.
    pub listen_hosts: Vec<String>,
    /// Port.
    pub port: u16,
    /// How others reach PostgreSQL.
    pub connect_address: HostPort,
    /// What to announce as `proxy_url`.
    pub proxy_address: Option<HostPort>,
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// Where the configuration files are; the data directory unless set.
    pub config_dir: PathBuf,
    /// `custom_conf`, included in place of `postgresql.base.conf`.
    pub custom_conf: Option<PathBuf>,
    /// Directory of the binaries; `PATH` (then the newest /usr/lib/postgresql/*/bin) if absent.
    pub bin_dir: Option<PathBuf>,
    /// Other names for binaries.
    pub bin_name: BTreeMap<String, String>,
    /// Password file to write.
    pub pgpass: PathBuf,
    /// Database that the agent connects to. Default `postgres`.
    pub database: String,
    /// The agent connects through the Unix socket.
    pub use_unix_socket: bool,
    /// Roles.
    pub superuser: Credentials,
    /// Role for replication.
    pub replication: Credentials,
    /// Role for pg_rewind; the superuser if absent.
    pub rewind: Option<Credentials>,
    /// Settings for `postgresql.conf`, as text, merged: DCS-only ones from the dynamic configuration (with minima applied), the
    /// others local over dynamic.
    pub parameters: BTreeMap<String, String>,
    /// Lines that replace `pg_hba.conf`.
    pub pg_hba: Option<Vec<String>>,
    /// Lines that replace `pg_ident.conf`.
    pub pg_ident: Option<Vec<String>>,
    /// Recovery settings of a replica (`restore_command`, `recovery_min_apply_delay`, …).
    pub recovery_conf: BTreeMap<String, String>,
    /// Options of pg_basebackup: a flag (`None`) or a value, without dashes.
    pub basebackup: Vec<(String, Option<String>)>,
    /// Replica creation methods in order; `basebackup` is built in.
    pub create_replica_methods: Vec<String>,
    /// The custom ones among them.
    pub replica_methods: BTreeMap<String, CustomMethod>,
    /// Callbacks by action (`on_start`, …).
    pub callbacks: BTreeMap<String, String>,
    /// Runs before promotion; non-zero cancels it.
    pub pre_promote: Option<String>,
    /// Runs before a stop.
    pub before_stop: Option<String>,
    /// Seconds for starting and stopping. Default 60.
    pub pg_ctl_timeout: u64,
    /// pg_rewind may be used.
    pub use_pg_rewind: bool,
    /// Slots for members.
    pub use_slots: bool,
    /// A server is started so that clients can be kept out of it while standbys lack what it shows (`synchronous_gate_timeout`).
    pub gate: bool,
    /// Move aside and clone anew when a rewind failed.
    pub remove_data_directory_on_rewind_failure: bool,
    /// Move aside and clone anew when diverged.
    pub remove_data_directory_on_diverged_timelines: bool,
}

/// `tags`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tags {
    /// Never primary.
    pub nofailover: bool,
    /// Preference among equals.
    pub failover_priority: u32,
    /// `/replica` answers 503.
    pub noloadbalance: bool,
    /// Preferred base backup source.
    pub clonefrom: bool,
    /// Never synchronous.
    pub nosync: bool,
    /// No streaming, only the archive.
    pub nostream: bool,
    /// Cascading upstream.
    pub replicatefrom: Option<String>,
    /// What is published: all tags as written, false ones left out (contract 3.9).
    pub published: serde_json::Map<String, serde_json::Value>,
}

/// `watchdog`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watchdog {
    /// `off`, `automatic` or `required`.
    pub mode: String,
    /// The device.
    pub device: PathBuf,
    /// Seconds.
    pub safety_margin: i64,
}

/// `router`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// Where clients of the primary connect.
    pub primary: Option<HostPort>,
    /// Where clients of the replicas connect.
    pub replicas: Option<HostPort>,
    /// Where the HTTP endpoint listens.
    pub status: Option<HostPort>,
    /// How long a client may wait for a server. Default 30 s.
    pub hold: Duration,
    /// How many may wait at each door. Default 1000.
    pub max_waiting: usize,
    /// How many clients there may be. Default 1000.
    pub max_connections: usize,
    /// For a server to take a connection and to answer first. Default 3 s.
    pub connect_timeout: Duration,
    /// Silence after which a session is ended; never by default.
    pub idle_timeout: Option<Duration>,
    /// Silence after which TCP probes the other end, and the pause between three probes. Default 10 s; zero is off.
    pub keepalive: Duration,
    /// How long TCP waits for an acknowledgement. Default 30 s; zero is the system's own bound.
    pub user_timeout: Duration,
    /// Bytes that a replica may be behind; any by default.
    pub maximum_lag: Option<u64>,
    /// Without a fit replica its clients go to the primary. Default off.
    pub fall_back: bool,
    /// Clients go to the pooler that a member announces as `proxy_url`. Default off.
    pub use_pooler: bool,
    /// Servers are told who the client is, by the PROXY protocol, version 2. Default off.
    pub send_proxy: bool,
    /// Whose connections begin with such a header.
    pub accept_proxy: Vec<ipnet::IpNet>,
}

/// The dynamic configuration: the `config` key, checked, and merged with the local settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// What the core obeys.
    pub core: surus_core::config::Config,
    /// What PostgreSQL gets.
    pub postgres: PostgresSettings,
    /// The key as it is in the DCS.
    pub dynamic: serde_json::Value,
}
