//! `surus validate`: the configuration, and the machine that it is to run on.
//!
//! Nothing is changed: ports are bound for a moment and given back, binaries are asked for their version.

use std::io::ErrorKind;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::binaries;
use super::problem::{Mark, Problem, Report, render};
use super::settings::{HostPort, Settings};
use super::source::{self, Surroundings};
use super::yaml::Node;

/// Major versions of PostgreSQL that the agent is made for.
const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;

/// Binaries without which the agent cannot work, and `pg_rewind`, without which it clones instead.
const NEEDED: &[&str] = &[
    "postgres",
    "initdb",
    "pg_controldata",
    "pg_basebackup",
    "pg_rewind",
];

/// What `surus validate` may leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Do not check that the ports are free: the agent is running.
    pub ignore_listen_port: bool,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// The settings, if they can be used.
    pub settings: Option<Settings>,
    /// Everything that is wrong, of the text and of the machine.
    pub problems: Vec<Problem>,
}

impl Findings {
    /// True if the agent would start: there are at most warnings.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.problems.iter().any(Problem::is_error)
    }

    /// The findings for a person; empty if there are none.
    #[must_use]
    pub fn render(&self) -> String {
        render(&self.problems)
    }
}

/// Checks the configuration as [`super::load`] does, and if it can be used, the machine.
#[must_use]
pub fn validate(path: Option<&Path>, around: &Surroundings, options: Options) -> Findings {
    let report = Report::default();
    let tree = source::tree(path, around, &report);
    let settings = tree
        .as_ref()
        .and_then(|tree| super::local::read(tree, around, &report));
    if let (Some(tree), Some(settings)) = (&tree, &settings) {
        let check = Check {
            tree,
            settings,
            report: &report,
        };
        check.readable_by_others(path);
        let version = check.binaries(around);
        check.data_dir(version);
        check.files();
        check.writable_directories();
        if !options.ignore_listen_port {
            check.ports();
        }
    }
    let settings = settings.filter(|_| !report.has_errors());
    Findings {
        settings,
        problems: report.take(),
    }
}

struct Check<'a> {
    tree: &'a Node,
    settings: &'a Settings,
    report: &'a Report,
}

impl Check<'_> {
    /// Where a key is written, or the nearest section above it.
    fn mark(&self, path: &str) -> Mark {
        let mut node = self.tree;
        for key in path.split('.') {
            match node.get(key) {
                Some(below) => node = below,
                None => break,
            }
        }
        node.mark.clone()
    }

    fn error(&self, path: &str, message: String, remedy: impl Into<String>) {
        self.report.error(path, &self.mark(path), message, remedy);
    }

    fn warning(&self, path: &str, message: String, remedy: impl Into<String>) {
        self.report.warning(path, &self.mark(path), message, remedy);
    }

    fn readable_by_others(&self, path: Option<&Path>) {
        let Some(path) = path else { return };
        if let Ok(metadata) = std::fs::metadata(path)
            && metadata.is_file()
            && metadata.mode() & 0o004 != 0
        {
            self.report.warning(
                "",
                &Mark::whole(&path.display().to_string()),
                "every user of this machine can read the passwords in the file",
                format!(
                    "chmod 0640 {}, and let it belong to the user that runs the agent",
                    path.display()
                ),
            );
        }
    }

    /// The major version of the server's binary.
    fn binaries(&self, around: &Surroundings) -> Option<u32> {
        let postgresql = &self.settings.postgresql;
        let Some(dir) = binaries::directory(postgresql, &around.environment) else {
            self.error(
                "postgresql.bin_dir",
                "no PostgreSQL was found in PATH or under /usr/lib/postgresql".to_owned(),
                "install PostgreSQL, or name the directory of its programs in `postgresql.bin_dir`",
            );
            return None;
        };
        for program in NEEDED {
            let file = dir.join(binaries::name_of(postgresql, program));
            if rustix::fs::access(&file, Access::EXEC_OK).is_ok() {
                continue;
            }
            let message = format!("{} is missing or cannot be executed", file.display());
            let remedy =
                "install PostgreSQL's server and client programs there, or correct `postgresql.bin_dir`";
            if *program == "pg_rewind" {
                self.warning(
                    "postgresql.bin_dir",
                    message,
                    "without it a diverged member is cloned anew; install it",
                );
            } else {
                self.error("postgresql.bin_dir", message, remedy);
            }
        }
        let server = dir.join(binaries::name_of(postgresql, "postgres"));
        if !server.is_file() {
            return None;
        }
        match binaries::version(&server) {
            Ok(version) => {
                let major = version / 10_000;
                if !SUPPORTED.contains(&major) {
                    self.warning(
                        "postgresql.bin_dir",
                        format!("PostgreSQL {major} is not among the versions that Surus is tested with"),
                        format!("use PostgreSQL {} to {}", SUPPORTED.start(), SUPPORTED.end()),
                    );
                }
                Some(major)
            }
            Err(error) => {
                self.error(
                    "postgresql.bin_dir",
                    format!("cannot learn the version of {}: {error}", server.display()),
                    "check that the program runs on this machine",
                );
                None
            }
        }
    }

    fn data_dir(&self, server: Option<u32>) {
        const KEY: &str = "postgresql.data_dir";
        let dir = &self.settings.postgresql.data_dir;
        let Ok(metadata) = std::fs::metadata(dir) else {
            self.can_be_created(KEY, dir);
            return;
        };
        if !metadata.is_dir() {
            self.error(
                KEY,
                format!("{} is not a directory", dir.display()),
                "name a directory",
            );
            return;
        }
        if metadata.mode() & 0o027 != 0 {
            self.error(
                KEY,
                format!(
                    "{} has permissions {:04o}; PostgreSQL refuses to start",
                    dir.display(),
                    metadata.mode() & 0o7777
                ),
                format!("chmod 0700 {}", dir.display()),
            );
        }
        let me = rustix::process::geteuid();
        if metadata.uid() == 0 || (!me.is_root() && metadata.uid() != me.as_raw()) {
            self.error(
                KEY,
                format!(
                    "{} belongs to uid {}, not to the user that runs PostgreSQL",
                    dir.display(),
                    metadata.uid()
                ),
                format!("chown -R postgres: {}", dir.display()),
            );
        }
        match (binaries::data_version(dir), server) {
            (Some(data), Some(server)) if data != server => self.error(
                KEY,
                format!("{} was made by PostgreSQL {data}, but the programs are of version {server}", dir.display()),
                format!("set `postgresql.bin_dir` to the programs of version {data}, such as /usr/lib/postgresql/{data}/bin"),
            ),
            (None, _) if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) => self.error(
                KEY,
                format!("{} is not empty and is no data directory (it has no PG_VERSION)", dir.display()),
                "name another directory, or move what is in it away",
            ),
            _ => {}
        }
    }

    fn can_be_created(&self, key: &str, dir: &Path) {
        let mut above = dir.ancestors().skip(1);
        let parent = above.find(|parent| parent.exists()).unwrap_or(Path::new("/"));
        if !is_writable(parent) {
            self.error(
                key,
                format!(
                    "{} does not exist, and {} is no directory that this user can write to",
                    dir.display(),
                    parent.display()
                ),
                format!(
                    "mkdir -p {0} && chown postgres: {0} && chmod 0700 {0}",
                    dir.display()
                ),
            );
        }
    }

    /// Certificates and keys that are named must be there.
    fn files(&self) {
        let (rest, ctl, etcd) = (&self.settings.restapi, &self.settings.ctl, &self.settings.etcd);
        let etcd_section = if self.tree.get("etcd3").is_some() {
            "etcd3"
        } else {
            "etcd"
        };
        let named: [(&str, &str, &Option<PathBuf>); 9] = [
            ("restapi", "certfile", &rest.certfile),
            ("restapi", "keyfile", &rest.keyfile),
            ("restapi", "cafile", &rest.cafile),
            ("ctl", "cacert", &ctl.cacert),
            ("ctl", "certfile", &ctl.certfile),
            ("ctl", "keyfile", &ctl.keyfile),
            (etcd_section, "cacert", &etcd.cacert),
            (etcd_section, "cert", &etcd.cert),
            (etcd_section, "key", &etcd.key),
        ];
        let custom = ("postgresql", "custom_conf", &self.settings.postgresql.custom_conf);
        for (section, key, file) in named.into_iter().chain([custom]) {
            let Some(file) = file else { continue };
            if let Err(error) = std::fs::File::open(file) {
                self.error(
                    &format!("{section}.{key}"),
                    format!("cannot read {}: {error}", file.display()),
                    "correct the path, or make the file readable for the user that runs the agent",
                );
            }
        }
    }

    fn writable_directories(&self) {
        let pgpass = &self.settings.postgresql.pgpass;
        let parent = pgpass.parent().unwrap_or(Path::new("/"));
        if !is_writable(parent) {
            self.error(
                "postgresql.pgpass",
                format!(
                    "{} cannot be written: {} is missing or not writable",
                    pgpass.display(),
                    parent.display()
                ),
                "name a file in a directory that the user that runs the agent may write to",
            );
        }
        match &self.settings.log.dir {
            Some(dir) if !dir.exists() => self.can_be_created("log.dir", dir),
            Some(dir) if !is_writable(dir) => self.error(
                "log.dir",
                format!("{} is not a directory that this user can write to", dir.display()),
                format!("chown postgres: {}", dir.display()),
            ),
            _ => {}
        }
    }

    fn ports(&self) {
        let postgresql = &self.settings.postgresql;
        for host in &postgresql.listen_hosts {
            let host = if host == "*" { "0.0.0.0" } else { host };
            self.port(
                "postgresql.listen",
                &HostPort {
                    host: host.to_owned(),
                    port: postgresql.port,
                },
            );
        }
        self.port("restapi.listen", &self.settings.restapi.listen);
        if let Some(router) = &self.settings.router {
            let doors = [
                ("router.primary", &router.primary),
                ("router.replicas", &router.replicas),
                ("router.status", &router.status),
            ];
            for (key, at) in doors {
                let Some(at) = at else { continue };
                // As the router does: `*` is every address, of either kind.
                let host = if at.host == "*" { "::" } else { &at.host };
                self.port(
                    key,
                    &HostPort {
                        host: host.to_owned(),
                        port: at.port,
                    },
                );
            }
        }
    }

    fn port(&self, key: &str, address: &HostPort) {
        let addresses = match (address.host.as_str(), address.port).to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => {
                self.error(
                    key,
                    format!("cannot resolve `{}`: {error}", address.host),
                    "write an address of this machine",
                );
                return;
            }
        };
        for socket in addresses {
            match TcpListener::bind(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AddrInUse => self.error(
                    key,
                    format!("{address} is in use"),
                    "stop the program that listens there; if it is this agent or its PostgreSQL, use --ignore-listen-port",
                ),
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => self.error(
                    key,
                    format!("{} is not an address of this machine", address.host),
                    "write one of the addresses that `ip address` shows",
                ),
                Err(error) => self.error(
                    key,
                    format!("cannot listen on {address}: {error}"),
                    "choose a port above 1023, or an address that this user may use",
                ),
            }
        }
    }
}

fn is_writable(dir: &Path) -> bool {
    dir.is_dir() && rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}
