//! `host:port` in the forms that Patroni accepts: bare hosts, lists of hosts before one port, IPv6 with or without brackets.

use std::net::Ipv6Addr;

use super::section::Section;
use super::settings::HostPort;

/// A host with a port if one was written.
type Parts<'t> = (&'t str, Option<u16>);

/// Why a text is no address, as a lowercase fragment.
fn split(text: &str) -> Result<Parts<'_>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("an empty address".to_owned());
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or_else(|| format!("`{text}` has no closing bracket"))?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(format!("`{host}` is not an IPv6 address"));
        }
        return match rest.strip_prefix(':') {
            Some(number) => Ok((host, Some(port(number)?))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("`{rest}` after the bracket is no port")),
        };
    }
    match text.rsplit_once(':') {
        None => host(text).map(|host| (host, None)),
        // Patroni takes what follows the last colon for the port; we do so if an address is left before it.
        Some((before, number)) if before.contains(':') => {
            if before.parse::<Ipv6Addr>().is_ok()
                && let Ok(number) = port(number)
            {
                return Ok((before, Some(number)));
            }
            if text.parse::<Ipv6Addr>().is_ok() {
                return Ok((text, None));
            }
            Err(format!(
                "`{text}` has more than one colon and is not an IPv6 address"
            ))
        }
        Some((before, number)) => Ok((host(before)?, Some(port(number)?))),
    }
}

fn host(text: &str) -> Result<&str, String> {
    let text = text.trim();
    let valid = !text.is_empty()
        && (text == "*"
            || text
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '%')));
    if valid {
        Ok(text)
    } else {
        Err(format!("`{text}` is not a host name or address"))
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a port (1 to 65535)")),
        Ok(number) => Ok(number),
    }
}

/// One host with a port; `default_port` if none is written.
pub(super) fn host_port(text: &str, default_port: u16) -> Result<HostPort, String> {
    let (host, port) = split(text)?;
    Ok(HostPort {
        host: host.to_owned(),
        port: port.unwrap_or(default_port),
    })
}

/// True if the text is an IPv6 address both with and without its last part as a port.
pub(super) fn is_ambiguous(text: &str) -> bool {
    let text = text.trim();
    text.parse::<Ipv6Addr>().is_ok()
        && text
            .rsplit_once(':')
            .is_some_and(|(before, number)| before.parse::<Ipv6Addr>().is_ok() && port(number).is_ok())
}

/// Hosts separated by commas with one port after the last: `a,b:5432`.
pub(super) fn hosts_port(text: &str, default_port: u16) -> Result<(Vec<String>, u16), String> {
    let mut hosts = Vec::new();
    let mut found = None;
    for part in text.split(',') {
        let (host, port) = split(part)?;
        if let (Some(before), Some(now)) = (found, port)
            && before != now
        {
            return Err(format!(
                "two ports, {before} and {now}, but all addresses share one"
            ));
        }
        found = found.or(port);
        hosts.push(host.to_owned());
    }
    Ok((hosts, found.unwrap_or(default_port)))
}

/// True for addresses that mean "every interface": nobody can connect *to* them.
pub(super) fn is_wildcard(host: &str) -> bool {
    matches!(host, "*" | "0.0.0.0" | "::" | "0" | "::0")
}

/// A key of the section as an address; a wrong one is reported.
pub(super) fn read<'a>(section: &Section<'a>, key: &'a str, default_port: u16) -> Option<HostPort> {
    let text = section.text(key)?;
    match host_port(&text, default_port) {
        Ok(address) => {
            warn_ambiguous(section, key, &text, &address);
            Some(address)
        }
        Err(reason) => {
            section.error(
                key,
                reason,
                format!("write host:port, such as 10.0.0.1:{default_port} or [fd00::1]:{default_port}"),
            );
            None
        }
    }
}

/// Asks for brackets where an IPv6 address without them reads two ways.
pub(super) fn warn_ambiguous(section: &Section<'_>, key: &str, text: &str, taken: &HostPort) {
    if text.split(',').any(is_ambiguous) {
        section.warning(
            key,
            format!("`{text}` can be read with or without a port; taken as {taken}"),
            format!("write {taken}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<String, String> {
        host_port(text, 5432).map(|address| format!("{}|{}", address.host, address.port))
    }

    #[test]
    fn every_form_of_an_address() {
        for (text, expected) in [
            ("10.0.0.1:6000", "10.0.0.1|6000"),
            ("10.0.0.1", "10.0.0.1|5432"),
            ("*:5433", "*|5433"),
            ("db-1.example.net:5433", "db-1.example.net|5433"),
            ("[::1]:5433", "::1|5433"),
            ("[fd00::1]", "fd00::1|5432"),
            ("::1:5433", "::1|5433"),
            ("fe80::1", "fe80::1|5432"),
            (" localhost ", "localhost|5432"),
        ] {
            assert_eq!(one(text).as_deref(), Ok(expected), "{text}");
        }
        for bad in [
            "",
            ":5432",
            "a:b",
            "a:0",
            "a:70000",
            "[::1",
            "[nope]:1",
            "a b:1",
            "1:2:3:zz",
            "http://a:1",
        ] {
            assert!(one(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn several_hosts_share_one_port() {
        assert_eq!(
            hosts_port("a,b:5433", 5432),
            Ok((vec!["a".to_owned(), "b".to_owned()], 5433))
        );
        assert_eq!(
            hosts_port("127.0.0.1,[::1]:5433", 1),
            Ok((vec!["127.0.0.1".to_owned(), "::1".to_owned()], 5433))
        );
        assert_eq!(
            hosts_port("0.0.0.0", 5432),
            Ok((vec!["0.0.0.0".to_owned()], 5432))
        );
        assert!(hosts_port("a:1,b:2", 5432).is_err());
        assert!(hosts_port("a,,b", 5432).is_err());
    }

    #[test]
    fn an_ipv6_address_that_reads_two_ways_is_known_as_such() {
        assert!(is_ambiguous("::1:5432"));
        assert!(!is_ambiguous("[::1]:5432"));
        assert!(!is_ambiguous("fe80::1"));
        assert!(!is_ambiguous("10.0.0.1:5432"));
    }
}
