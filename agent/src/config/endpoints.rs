//! The sections about the network: `restapi`, `ctl` and `etcd`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::address;
use super::section::Section;
use super::settings::{BasicAuth, Ctl, Etcd, HostPort, RestApi, VerifyClient};
use super::source::Surroundings;
use super::yaml::Node;

/// etcd's client port.
const ETCD_PORT: u16 = 2379;
/// Patroni's REST port.
const REST_PORT: u16 = 8008;

/// Backends of Patroni that keep the cluster's state elsewhere than in etcd.
const OTHER_BACKENDS: &[&str] = &["consul", "zookeeper", "exhibitor", "kubernetes", "raft"];

/// A path; a relative one is resolved with a warning.
pub(super) fn path<'a>(section: &Section<'a>, key: &'a str, around: &Surroundings) -> Option<PathBuf> {
    let text = section.text(key)?;
    let path = around.absolute(&text);
    if text.starts_with("~/") && !around.environment.contains_key("HOME") {
        section.error(
            key,
            format!("`{text}` cannot be resolved: HOME is not set"),
            "write the whole path",
        );
        return None;
    }
    if !text.starts_with('/') && !text.starts_with("~/") {
        section.warning(
            key,
            format!("`{text}` is relative to the directory that the agent is started in"),
            format!("write {}", path.display()),
        );
    }
    Some(path)
}

/// User and password, both or neither.
fn basic_auth(section: &Section<'_>) -> Option<BasicAuth> {
    let auth = section.section("authentication");
    let (username, password) = (auth.text("username"), auth.text("password"));
    auth.finish();
    match (username, password) {
        (Some(username), Some(password)) => Some(BasicAuth { username, password }),
        (None, None) => None,
        (Some(_), None) => {
            auth.missing(
                "password",
                "write the password that goes with the user name, or remove the user name",
            );
            None
        }
        (None, Some(_)) => {
            auth.missing(
                "username",
                "write the user name that goes with the password, or remove the password",
            );
            None
        }
    }
}

pub(super) fn restapi(top: &Section<'_>, around: &Surroundings) -> Option<RestApi> {
    let section = top.section("restapi");
    let listen = address::read(&section, "listen", REST_PORT);
    if section.node("listen").is_none() {
        section.missing(
            "listen",
            "write `listen: 0.0.0.0:8008` below `restapi:`, or one address of this host",
        );
    }
    let connect = address::read(
        &section,
        "connect_address",
        listen.as_ref().map_or(REST_PORT, |listen| listen.port),
    );
    let connect_address = reachable(&section, connect, listen.as_ref());
    let authentication = basic_auth(&section);
    let certfile = path(&section, "certfile", around);
    let keyfile = path(&section, "keyfile", around);
    let cafile = path(&section, "cafile", around);
    let verify_client = match section.choice("verify_client", &["none", "optional", "required"]) {
        Some("optional") => VerifyClient::Optional,
        Some("required") => VerifyClient::Required,
        _ => VerifyClient::None,
    };
    if certfile.is_none() && keyfile.is_some() {
        section.missing(
            "certfile",
            "name the certificate that goes with the key; TLS is on only if `certfile` is set",
        );
    }
    if verify_client != VerifyClient::None && certfile.is_none() {
        section.warning(
            "verify_client",
            "has no effect without TLS: every client is let in",
            "set `certfile` and `cafile` as well, or remove `verify_client`",
        );
    } else if verify_client != VerifyClient::None && cafile.is_none() {
        section.missing(
            "cafile",
            "name the CA that client certificates are checked against, or remove `verify_client`",
        );
    }
    encrypted_key(&section);
    let settings = RestApi {
        allowlist: section
            .texts("allowlist")
            .unwrap_or_default()
            .into_iter()
            .map(|(text, _)| text)
            .collect(),
        allowlist_include_members: section.boolean("allowlist_include_members").unwrap_or(false),
        http_extra_headers: headers(&section, "http_extra_headers"),
        https_extra_headers: headers(&section, "https_extra_headers"),
        server_tokens: section
            .choice("server_tokens", &["Original", "Minimal", "ProductOnly"])
            .unwrap_or("Original")
            .to_owned(),
        request_queue_size: section
            .integer("request_queue_size", 0..=4096)
            .map_or(5, |size| size as u32),
        authentication,
        certfile,
        keyfile,
        cafile,
        verify_client,
        // The socket of the REST API is opened by address; `*` is Patroni's way to write all of IPv4.
        listen: match listen {
            Some(listen) if listen.host == "*" => HostPort {
                host: "0.0.0.0".to_owned(),
                ..listen
            },
            other => other?,
        },
        connect_address: connect_address?,
    };
    section.without_effect(&["thread_pool_size"]);
    section.not_obeyed(
        &["ciphers"],
        "remove it: TLS 1.2 and 1.3 with rustls' modern cipher suites are always used",
    );
    section.finish();
    Some(settings)
}

/// The address for others: what is written, else where we listen, unless that is every interface.
pub(super) fn reachable(
    section: &Section<'_>,
    connect: Option<HostPort>,
    listen: Option<&HostPort>,
) -> Option<HostPort> {
    let written = section.node("connect_address").is_some();
    match (connect, listen) {
        (Some(address), _) if address::is_wildcard(&address.host) => {
            section.error(
                "connect_address",
                format!("{address} stands for every interface; others cannot connect to it"),
                "write the address under which the other members reach this node",
            );
            None
        }
        (Some(address), _) => Some(address),
        // A written but wrong one has been reported.
        (None, _) if written => None,
        (None, Some(listen)) if address::is_wildcard(&listen.host) => {
            section.missing(
                "connect_address",
                "write the address under which the other members reach this node: `listen` is every interface, so it \
                 cannot be derived from it",
            );
            None
        }
        (None, Some(listen)) => Some(listen.clone()),
        (None, None) => None,
    }
}

fn headers<'a>(section: &Section<'a>, key: &'a str) -> BTreeMap<String, String> {
    let map = section.text_map(key);
    for (name, value) in &map {
        if http::HeaderName::try_from(name.as_str()).is_err()
            || http::HeaderValue::try_from(value.as_str()).is_err()
        {
            section.error(
                key,
                format!("`{name}: {value}` is not an HTTP header"),
                "use letters, digits and dashes in the name, and one line of visible characters in the value",
            );
        }
    }
    map
}

fn encrypted_key(section: &Section<'_>) {
    if section.node("keyfile_password").is_some() {
        section.error(
            "keyfile_password",
            "encrypted keys cannot be read",
            "decrypt the key (`openssl pkey -in KEY -out PLAIN`), keep it at mode 0600, and remove `keyfile_password`",
        );
    }
}

pub(super) fn ctl(top: &Section<'_>, around: &Surroundings) -> Ctl {
    let section = top.section("ctl");
    let settings = Ctl {
        authentication: basic_auth(&section),
        insecure: section.boolean("insecure").unwrap_or(false),
        cacert: path(&section, "cacert", around),
        certfile: path(&section, "certfile", around),
        keyfile: path(&section, "keyfile", around),
    };
    if settings.keyfile.is_some() && settings.certfile.is_none() {
        section.missing("certfile", "name the certificate that goes with the key");
    }
    encrypted_key(&section);
    section.finish();
    settings
}

pub(super) fn etcd(top: &Section<'_>, around: &Surroundings) -> Option<Etcd> {
    let mut refused = false;
    for backend in OTHER_BACKENDS {
        if let Some(node) = top.written(backend) {
            refused = true;
            top.report.error(
                backend,
                &node.mark,
                "this backend is not supported: the cluster's state is kept in etcd",
                "replace the section by `etcd3:` with `hosts:`, and see the README on moving a cluster to etcd",
            );
        }
    }
    if let Some(node) = top.written("citus") {
        top.report.error(
            "citus",
            &node.mark,
            "Citus clusters are not supported",
            "keep Patroni for this cluster, or remove the section if Citus is not in use",
        );
    }
    let (v3, plain) = (top.section("etcd3"), top.section("etcd"));
    let section = match (v3.present, plain.present) {
        (true, both) => {
            if both {
                top.warning(
                    "etcd",
                    "is ignored because `etcd3` is there too",
                    "remove one of the two sections",
                );
            }
            v3
        }
        (false, true) => plain,
        (false, false) => {
            if !refused {
                top.missing(
                    "etcd3",
                    "write `etcd3:` with `hosts: host1:2379,host2:2379,host3:2379` below it",
                );
            }
            return None;
        }
    };
    endpoints(&section, around)
}

fn endpoints(section: &Section<'_>, around: &Surroundings) -> Option<Etcd> {
    for key in ["srv", "srv_suffix"] {
        if section.node(key).is_some() {
            section.error(
                key,
                "discovery by DNS SRV records is not supported yet",
                "list the endpoints under `hosts`",
            );
        }
    }
    let default_port = section
        .integer("port", 1..=65535)
        .map_or(ETCD_PORT, |port| port as u16);
    let mut tls = section
        .choice("protocol", &["http", "https"])
        .map(|protocol| protocol == "https");
    let mut hosts = Vec::new();
    let mut complete = true;
    for key in ["hosts", "host", "url", "proxy"] {
        for text in written_hosts(section, key) {
            match endpoint(&text, default_port) {
                Ok((scheme, host)) => {
                    if let Some(scheme) = scheme {
                        if tls.is_some_and(|tls| tls != scheme) {
                            section.error(
                                key,
                                format!("`{text}` contradicts the protocol of the others"),
                                "use http or https for all endpoints",
                            );
                        }
                        tls = Some(scheme);
                    }
                    if !hosts.contains(&host) {
                        hosts.push(host);
                    }
                }
                Err(reason) => {
                    complete = false;
                    section.error(key, reason, "write host:2379, or several separated by commas");
                }
            }
        }
    }
    let settings = Etcd {
        tls: tls.unwrap_or(false),
        username: section.text("username"),
        password: section.text("password"),
        cacert: path(section, "cacert", around),
        cert: path(section, "cert", around),
        key: path(section, "key", around),
        hosts,
    };
    if settings.hosts.is_empty() && complete && section.node("srv").is_none() {
        section.missing("hosts", "write `hosts: host1:2379,host2:2379,host3:2379`");
    }
    if settings.username.is_some() != settings.password.is_some() {
        let (there, missing) = if settings.username.is_some() {
            ("username", "password")
        } else {
            ("password", "username")
        };
        section.missing(
            missing,
            &format!("etcd needs both; write it, or remove `{there}`"),
        );
    }
    if settings.key.is_some() != settings.cert.is_some() {
        let (there, missing) = if settings.key.is_some() {
            ("key", "cert")
        } else {
            ("cert", "key")
        };
        section.missing(
            missing,
            &format!("a client certificate is two files; write it, or remove `{there}`"),
        );
    }
    if !settings.tls && (settings.cacert.is_some() || settings.cert.is_some()) {
        section.warning(
            if settings.cacert.is_some() {
                "cacert"
            } else {
                "cert"
            },
            "is not used because the protocol is http",
            "write `protocol: https`, or remove the certificates",
        );
    }
    // With a gRPC client every endpoint that is listed is used, proxies included, and no other is discovered.
    section.without_effect(&["use_proxies", "version_prefix"]);
    section.finish();
    (!settings.hosts.is_empty()).then_some(settings)
}

/// The texts of a key that may be a list, or one text with commas.
fn written_hosts<'a>(section: &Section<'a>, key: &'a str) -> Vec<String> {
    let texts = section
        .node(key)
        .filter(|node: &&Node| !node.is_null())
        .and_then(|_| section.texts(key));
    texts
        .unwrap_or_default()
        .iter()
        .flat_map(|(text, _)| text.split(','))
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .collect()
}

/// An endpoint, and whether it says `https://` or `http://` itself.
fn endpoint(text: &str, default_port: u16) -> Result<(Option<bool>, HostPort), String> {
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Some(false), rest),
        Some(("https", rest)) => (Some(true), rest),
        Some((other, _)) => return Err(format!("`{other}://` is not http:// or https://")),
        None => (None, text),
    };
    let host = address::host_port(rest.trim_end_matches('/'), default_port)?;
    if host.host == "*" {
        return Err("`*` is not an endpoint".to_owned());
    }
    Ok((scheme, host))
}
