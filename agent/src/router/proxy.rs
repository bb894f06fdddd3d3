//! The PROXY protocol, version 2: who the client is, told to the server before the first byte of the connection, and understood where a
//! load balancer stands in front.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, on behalf of somebody; version 2, for itself (a health check).
const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
/// TCP over IPv4 and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// The longest header that is read: addresses and, in practice, a few hundred bytes of extensions.
const LONGEST: usize = 4096;

/// The two ends of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

/// The header for a connection between `ends`.
pub(super) fn header(ends: Ends) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(PROXY);
    let ports = [ends.client.port().to_be_bytes(), ends.server.port().to_be_bytes()];
    match (canonical(ends.client), canonical(ends.server)) {
        (IpAddr::V4(client), server) => {
            let server = match server {
                IpAddr::V4(server) => server,
                IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
            };
            bytes.extend([TCP4, 0, 12]);
            bytes.extend(client.octets());
            bytes.extend(server.octets());
        }
        (IpAddr::V6(client), server) => {
            let server = match server {
                IpAddr::V4(server) => server.to_ipv6_mapped(),
                IpAddr::V6(server) => server,
            };
            bytes.extend([TCP6, 0, 36]);
            bytes.extend(client.octets());
            bytes.extend(server.octets());
        }
    }
    bytes.extend(ports.concat());
    bytes
}

/// An IPv4 client of a socket that takes both kinds is an IPv4 client.
fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// Reads the header that must begin a connection; `None` if the load balancer speaks for itself, or the client is not on TCP.
///
/// # Errors
/// The connection ends or breaks in it, or it is no header of version 2.
pub(super) async fn accept(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Ends>> {
    let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    if head[..12] != SIGNATURE {
        return Err(wrong(
            "it does not begin with a header of the PROXY protocol, version 2",
        ));
    }
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > LONGEST {
        return Err(wrong("the header of the PROXY protocol is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    match (head[12], head[13]) {
        (LOCAL, _) => Ok(None),
        (PROXY, TCP4) if length >= 12 => {
            let address = |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
            Ok(Some(Ends {
                client: (address(0), port(8)).into(),
                server: (address(4), port(10)).into(),
            }))
        }
        (PROXY, TCP6) if length >= 36 => {
            let address = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&body[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            Ok(Some(Ends {
                client: (address(0), port(32)).into(),
                server: (address(16), port(34)).into(),
            }))
        }
        (PROXY, TCP4 | TCP6) => Err(wrong("the header of the PROXY protocol is too short")),
        (PROXY, _) => Ok(None),
        _ => Err(wrong("it is not version 2 of the PROXY protocol")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, server: &str) -> Ends {
        Ends {
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let bytes = header(ends("10.0.0.1:1025", "10.0.0.2:5000"));
        let expected = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0x00, 0x0c,
            10, 0, 0, 1, 10, 0, 0, 2, 0x04, 0x01, 0x13, 0x88,
        ];
        assert_eq!(bytes, expected);
    }

    #[tokio::test]
    async fn what_is_sent_is_understood() {
        for (client, server) in [
            ("10.0.0.1:1", "10.0.0.2:2"),
            ("[fd00::1]:65535", "[fd00::2]:5000"),
        ] {
            let bytes = header(ends(client, server));
            let read = accept(&mut &bytes[..]).await.unwrap();
            assert_eq!(read, Some(ends(client, server)));
        }
        let mixed = header(ends("[::ffff:10.0.0.1]:7", "[::]:5000"));
        let read = accept(&mut &mixed[..]).await.unwrap();
        assert_eq!(read, Some(ends("10.0.0.1:7", "0.0.0.0:5000")));
    }

    #[tokio::test]
    async fn extensions_are_skipped_and_health_checks_have_no_client() {
        let mut bytes = header(ends("10.0.0.1:1", "10.0.0.2:2"));
        bytes[15] += 5;
        bytes.extend([0x04, 0, 2, 1, 2]);
        bytes.push(b'!');
        let mut rest = &bytes[..];
        assert!(accept(&mut rest).await.unwrap().is_some());
        assert_eq!(rest, b"!");
        let mut local = SIGNATURE.to_vec();
        local.extend([LOCAL, 0, 0, 0]);
        assert_eq!(accept(&mut &local[..]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let good = header(ends("10.0.0.1:1", "10.0.0.2:2"));
        let mut short = good.clone();
        short[15] = 4;
        let mut version = good.clone();
        version[12] = 0x11;
        for bytes in [
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(),
            short,
            version,
            good[..20].to_vec(),
        ] {
            assert!(accept(&mut &bytes[..]).await.is_err(), "{bytes:?}");
        }
    }
}
