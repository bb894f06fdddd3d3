//! Which configuration the command line uses, and what it takes from it.
//!
//! An agent's own file will do, and so will a smaller one that names nothing but etcd: a command needs the addresses of
//! etcd, and what the members ask of their clients.

use std::path::{Path, PathBuf};

use crate::config::settings::{Ctl, Etcd, HostPort};
use crate::config::{self, Problem, Surroundings};
use crate::ctl::cli::Global;
use crate::ctl::failure::Failure;
use crate::ctl::session::Node;
use crate::ctl::terminal::Terminal;

/// What commands need of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CtlSettings {
    /// Who we are, if the file is an agent's.
    pub node: Node,
    /// etcd.
    pub etcd: Etcd,
    /// Where the addresses of etcd were written, for people.
    pub etcd_source: String,
    /// How to speak to members; its authentication already falls back to the one of `restapi`.
    pub ctl: Ctl,
}

/// Where a configuration is looked for when none is named, in this order.
fn candidates() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = [
        "patroni.yml",
        "patroni.yaml",
        "/etc/surus/surus.yml",
        "/etc/patroni/config.yml",
        "/etc/patroni.yml",
    ]
    .into_iter()
    .map(PathBuf::from)
    .collect();
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    if let Some(base) = base.or_else(|| home.map(|home| home.join(".config"))) {
        paths.push(base.join("patroni/patronictl.yaml"));
    }
    paths
}

/// The configuration file in use when none was named on the command line.
///
/// # Errors
///
/// Says where it was looked for.
pub fn find() -> Result<PathBuf, Failure> {
    for variable in ["PATRONICTL_CONFIG_FILE", "SURUS_CONFIG"] {
        if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
            return Ok(PathBuf::from(path));
        }
    }
    let candidates = candidates();
    candidates
        .iter()
        .find(|path| path.is_file())
        .cloned()
        .ok_or_else(|| {
            let looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
            Failure::new("found no configuration")
                .cause(format!("looked for {}", looked.join(", ")))
                .hint("name one with `-c FILE`, or the environment variable SURUS_CONFIG")
        })
}

/// Reads the configuration: the file that was named or found, or none if the command line or the environment says
/// where etcd is. Warnings of the parts that matter here are passed on.
///
/// # Errors
///
/// There is no configuration, or the part of it that concerns an operator is wrong.
pub fn load(global: &Global, terminal: &mut Terminal) -> Result<CtlSettings, Failure> {
    let around = Surroundings::of_process();
    let by_environment = around.environment.keys().any(|name| {
        name == "PATRONI_CONFIGURATION"
            || name.starts_with("PATRONI_ETCD3_")
            || name.starts_with("PATRONI_ETCD_")
    });
    let file = match (&global.config_file, find()) {
        (Some(file), _) => Some(file.clone()),
        (None, Ok(file)) => Some(file),
        (None, Err(_)) if by_environment || global.dcs_url.is_some() => None,
        (None, Err(failure)) => return Err(failure),
    };
    let source = file
        .as_ref()
        .map_or_else(|| "the environment".to_owned(), |file| file.display().to_string());
    let loaded = config::operator::load_operator(file.as_deref(), &around, global.dcs_url.is_none());
    let (operator, warnings) = loaded.map_err(|problems| {
        let mut failure = Failure::new(format!("cannot use the configuration {source}"));
        let errors = problems.iter().filter(|problem| problem.is_error());
        failure.causes = errors.clone().map(place_and_message).collect();
        let remedies: Vec<_> = errors
            .map(|problem| problem.remedy.as_str())
            .filter(|text| !text.is_empty())
            .collect();
        failure.hint(remedies.join("\n"))
    })?;
    for problem in warnings {
        terminal.warn(&place_and_message(&problem));
    }
    let mut namespace = operator.namespace;
    let mut etcd = operator.etcd;
    if let Some(url) = &global.dcs_url {
        let (hosts, other) = dcs_url(url)?;
        namespace = other.unwrap_or(namespace);
        etcd = Some(match etcd {
            Some(etcd) => Etcd { hosts, ..etcd },
            None => Etcd {
                hosts,
                tls: false,
                username: None,
                password: None,
                cacert: None,
                cert: None,
                key: None,
            },
        });
    }
    let Some(etcd) = etcd else {
        return Err(Failure::new(format!("{source} does not say where etcd is"))
            .hint("add a section `etcd3` with `hosts`, or ask with `-d etcd3://HOST:2379`"));
    };
    let restapi = operator.restapi;
    let mut ctl = operator.ctl;
    ctl.insecure |= global.insecure;
    if let Some(restapi) = &restapi {
        ctl.authentication = ctl.authentication.or_else(|| restapi.authentication.clone());
        ctl.cacert = ctl.cacert.or_else(|| restapi.cafile.clone());
        if ctl.certfile.is_none() {
            ctl.certfile = restapi.certfile.clone();
            ctl.keyfile = restapi.keyfile.clone();
        }
    }
    let api_url = restapi.map(|restapi| {
        let scheme = if restapi.certfile.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}/patroni", restapi.connect_address)
    });
    let node = Node {
        file,
        scope: operator.scope,
        namespace,
        name: operator.name,
        api_url,
    };
    let etcd_source = if global.dcs_url.is_some() {
        "the command line".to_owned()
    } else {
        source
    };
    Ok(CtlSettings {
        node,
        etcd,
        etcd_source,
        ctl,
    })
}

/// `validate`.
///
/// # Errors
///
/// The agent would not start with it.
pub fn validate(
    terminal: &mut Terminal,
    file: &Path,
    options: config::validate::Options,
) -> Result<(), Failure> {
    let around = Surroundings::of_process();
    let findings = config::validate::validate(Some(file), &around, options);
    let text = findings.render();
    if !text.is_empty() {
        terminal.print(&text)?;
    }
    if findings.is_valid() {
        terminal.note(&format!("{} can be used", file.display()));
        return Ok(());
    }
    Err(Failure::new(format!("{} cannot be used", file.display())).hint("mend what is listed above"))
}

fn place_and_message(problem: &Problem) -> String {
    let place = match problem.line {
        0 => problem.origin.clone(),
        line => format!("{}:{line}", problem.origin),
    };
    if problem.path.is_empty() {
        format!("{place}: {}", problem.message)
    } else {
        format!("{place}: {}: {}", problem.path, problem.message)
    }
}

/// Hosts and namespace of `etcd3://host:port,host:port/namespace`; scheme, ports and namespace may be left out.
fn dcs_url(url: &str) -> Result<(Vec<HostPort>, Option<String>), Failure> {
    // A password may stand before an `@`, wherever else the address is wrong.
    let shown = if url.contains('@') {
        "the given one".to_owned()
    } else {
        format!("`{url}`")
    };
    let wrong = |why: &str| {
        Failure::new(format!("{shown} is no address of etcd"))
            .cause(why)
            .hint("write it like etcd3://10.0.0.1:2379 or etcd3://10.0.0.1:2379/namespace")
    };
    if url.contains('@') {
        return Err(wrong(
            "it holds a user name; set `etcd3.username` and `etcd3.password` in the configuration",
        ));
    }
    let rest = match url.split_once("://") {
        Some(("etcd" | "etcd3", rest)) => rest,
        Some((scheme, _)) => return Err(wrong(&format!("`{scheme}` is not supported, only etcd3 is"))),
        None => url,
    };
    let (hosts, namespace) = rest.split_once('/').unwrap_or((rest, ""));
    let mut list = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((name, port)) => (name, port.strip_prefix(':')),
            None => host
                .rsplit_once(':')
                .map_or((host, None), |(name, port)| (name, Some(port))),
        };
        if name.is_empty() {
            return Err(wrong("a host is missing"));
        }
        let port = port
            .unwrap_or("2379")
            .parse()
            .map_err(|_| wrong("a port is no number up to 65535"))?;
        list.push(HostPort {
            host: name.to_owned(),
            port,
        });
    }
    let namespace = namespace.trim_matches('/');
    Ok((list, (!namespace.is_empty()).then(|| namespace.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_etcd_are_short() {
        let read = |url: &str| {
            let (hosts, namespace) = dcs_url(url).unwrap();
            (
                hosts
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" "),
                namespace.unwrap_or_default(),
            )
        };
        let answer = |hosts: &str, namespace: &str| (hosts.to_owned(), namespace.to_owned());
        assert_eq!(read("etcd3://h:1/x"), answer("h:1", "x"));
        assert_eq!(read("h"), answer("h:2379", ""));
        assert_eq!(read("etcd://[::1]:4,b/a/"), answer("[::1]:4 b:2379", "a"));
        for url in [
            "consul://h",
            "h:port",
            "etcd3://",
            "h:1,,g:1",
            "u:secret@h:1",
            "h:99999",
        ] {
            let failure = dcs_url(url).unwrap_err();
            assert!(failure.hint.is_some() && failure.code() == 1, "{url}");
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
    }
}
