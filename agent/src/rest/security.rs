//! Who may use unsafe methods: the allowlist, then the client certificate, then the password, in Patroni's order.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use ipnet::IpNet;
use surus_core::types::MonoTime;

use super::answer::Answer;
use super::server::{Connection, Shared};
use crate::config::settings::{BasicAuth, VerifyClient};

/// How long resolved names are used: host names of the allowlist must not cost a lookup per request.
const RESOLVED_FOR: Duration = Duration::from_secs(10);
/// How long names may take to resolve, all together; what has not come by then is not on the list.
const RESOLVE_WITHIN: Duration = Duration::from_secs(2);

/// Addresses of the allowlist's names, and for which list and time they are known.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    hosts: Vec<String>,
    addresses: Vec<IpAddr>,
    at: Option<MonoTime>,
}

/// Refuses, or lets pass. `failsafe` is the call between members that `allowlist_include_members` says nothing about.
pub(super) async fn admit(
    shared: &Shared,
    connection: &Connection,
    headers: &HeaderMap,
    failsafe: bool,
) -> Result<(), Answer> {
    let live = shared.live();
    let settings = &live.settings;
    let include_members = settings.allowlist_include_members && !failsafe;
    if (!settings.allowlist.is_empty() || include_members)
        && !allowed(
            shared,
            &settings.allowlist,
            include_members,
            connection.peer.ip().to_canonical(),
        )
        .await
    {
        return Err(Answer::text(StatusCode::FORBIDDEN, "Access is denied"));
    }
    if connection.tls && settings.verify_client != VerifyClient::None && !connection.certificate {
        return Err(Answer::text(StatusCode::FORBIDDEN, "client certificate required"));
    }
    match &settings.authentication {
        Some(expected) => authenticate(expected, headers),
        None => Ok(()),
    }
}

fn authenticate(expected: &BasicAuth, headers: &HeaderMap) -> Result<(), Answer> {
    let refuse = |text: &str| {
        Answer::text(StatusCode::UNAUTHORIZED, text).with(
            "www-authenticate",
            HeaderValue::from_static("Basic realm=\"Patroni\""),
        )
    };
    let header = headers
        .get(AUTHORIZATION)
        .ok_or_else(|| refuse("no auth header received"))?;
    let given = header
        .to_str()
        .ok()
        .and_then(|header| header.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, credentials)| {
            base64::engine::general_purpose::STANDARD
                .decode(credentials.trim())
                .ok()
        })
        .unwrap_or_default();
    let expected = format!("{}:{}", expected.username, expected.password);
    if same(expected.as_bytes(), &given) {
        Ok(())
    } else {
        Err(refuse("not authenticated"))
    }
}

/// Compares in a time that depends on the length of what was given, not on where it first differs.
fn same(expected: &[u8], given: &[u8]) -> bool {
    let mut difference = u8::from(expected.len() != given.len());
    for (at, byte) in given.iter().enumerate() {
        // An index beyond the expected text compares with an arbitrary byte; the length has decided already.
        let other = expected.get(at % expected.len().max(1)).copied().unwrap_or(0);
        difference = std::hint::black_box(difference | (byte ^ other));
    }
    difference == 0
}

async fn allowed(shared: &Shared, allowlist: &[String], include_members: bool, peer: IpAddr) -> bool {
    let mut hosts = Vec::new();
    for item in allowlist {
        if let Ok(network) = item.parse::<IpNet>() {
            if network.contains(&peer) {
                return true;
            }
        } else if is_or_push(item, peer, &mut hosts) {
            return true;
        }
    }
    if include_members && let Some(cluster) = &shared.status().cluster {
        for member in cluster.value.snapshot.view.members.values() {
            let Some(host) = member
                .api_url
                .parse::<hyper::Uri>()
                .ok()
                .and_then(|url| url.host().map(str::to_owned))
            else {
                continue;
            };
            if is_or_push(host.trim_matches(['[', ']']), peer, &mut hosts) {
                return true;
            }
        }
    }
    !hosts.is_empty() && resolve(shared, hosts).await.contains(&peer)
}

fn is_or_push(item: &str, peer: IpAddr, hosts: &mut Vec<String>) -> bool {
    match item.parse::<IpAddr>() {
        Ok(address) => address.to_canonical() == peer,
        Err(_) => {
            hosts.push(item.to_owned());
            false
        }
    }
}

async fn resolve(shared: &Shared, hosts: Vec<String>) -> Vec<IpAddr> {
    // One lookup at a time, whoever asks: the others wait for it and share its result.
    let mut resolved = shared.resolved.lock().await;
    let now = shared.backend.now();
    let fresh = resolved.at.is_some_and(|at| now.since(at) < RESOLVED_FOR);
    if !fresh || resolved.hosts != hosts {
        let mut addresses = Vec::new();
        let lookups = async {
            for host in &hosts {
                let found = shared.backend.resolve(host.clone()).await;
                addresses.extend(found.into_iter().map(|address| address.to_canonical()));
            }
        };
        if tokio::time::timeout(RESOLVE_WITHIN, lookups).await.is_err() {
            tracing::warn!(
                ?hosts,
                "names of the REST API's allowlist could not all be resolved in time"
            );
        }
        *resolved = Resolved {
            hosts,
            addresses,
            at: Some(now),
        };
    }
    resolved.addresses.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_is_exact() {
        assert!(same(b"a:b", b"a:b"));
        for given in [&b""[..], b"a:", b"a:bb", b"a:ba:b", b"x:b", b"a:c"] {
            assert!(!same(b"a:b", given));
        }
        assert!(same(b"", b""));
        assert!(!same(b"", b"x"));
    }
}
