//! Failsafe grants, read off the wire: who asked whom, when the question left, and whether it was granted.
//!
//! The right that a primary has by grants is a fact of the network, as the one by the lock is a fact of etcd: it begins when the first of
//! the questions left that everybody on the failsafe list then granted. A member that is alone on that list has it at any time, and nobody
//! to ask: it is told when its guard is given a deadline.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hub::Hub;
use super::net::Stream;
use crate::clock::Time;
use crate::record::{RightBy, Seen};

/// What is known of grants.
#[derive(Debug, Default)]
pub struct Grants {
    /// The members on the failsafe list in etcd.
    pub list: Vec<usize>,
    /// The ttl in force.
    pub ttl: Time,
    /// The ttl that the leader told of last: it may not have heard of another.
    pub told: Time,
    /// Of each asker, by whom it was granted, and what.
    given: BTreeMap<usize, BTreeMap<usize, Asked>>,
}

/// A failsafe question as it left.
#[derive(Debug, Clone, Copy)]
struct Asked {
    sent: Time,
    /// For how long, if it says so.
    ttl: Option<Time>,
}

impl Hub {
    /// `host` was granted by `by` what it had asked.
    fn granted(&self, host: usize, by: usize, asked: Asked) {
        self.see(Some(by), Seen::Granted { to: host });
        let right = {
            let mut grants = self.grants();
            grants.given.entry(host).or_default().insert(by, asked);
            let given = &grants.given[&host];
            let others = grants.list.iter().filter(|member| **member != host);
            let asked: Option<Vec<Asked>> = others.map(|member| given.get(member).copied()).collect();
            let until = |asked: &Asked| (asked.sent, asked.sent + asked.ttl.unwrap_or(grants.ttl));
            asked.and_then(|asked| {
                let (sent, _) = asked.iter().map(until).min()?;
                let (_, until) = asked.iter().map(until).min_by_key(|(_, until)| *until)?;
                Some((sent, until))
            })
        };
        if let Some((sent, until)) = right {
            self.by_grants(host, sent, until);
        }
    }

    /// Nobody but `host` could be elected, by the list in etcd: its right begins anew, if it is so.
    pub(super) fn alone_on_the_list(&self, host: usize) {
        let now = self.net.now();
        let until = {
            let grants = self.grants();
            // Whether it still is in that mode is not asked: it may not have heard that it is not, being cut off.
            (grants.list == [host]).then(|| now + grants.ttl.max(grants.told))
        };
        if let Some(until) = until {
            self.by_grants(host, now, until);
        }
    }

    fn by_grants(&self, host: usize, sent: Time, until: Time) {
        let by = RightBy::Grants;
        self.see(Some(host), Seen::Right { sent, until, by });
    }
}

/// A connection from one member's agent to another's REST API, with an ear at it. One exchange each, as the agent makes them.
pub struct Tap {
    stream: Stream,
    hub: Arc<Hub>,
    from: usize,
    to: usize,
    asked: Option<Asked>,
    answer: Vec<u8>,
}

impl Tap {
    /// Listens to what `from` says to `to`.
    #[must_use]
    pub fn new(stream: Stream, hub: Arc<Hub>, from: usize, to: usize) -> Self {
        Self {
            stream,
            hub,
            from,
            to,
            asked: None,
            answer: Vec::new(),
        }
    }
}

/// For how long a question asks, in a piece of its body.
fn said_ttl(bytes: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once("\"ttl\":")?;
    let number = rest.split(['}', ',']).next()?;
    let ttl = Duration::try_from_secs_f64(number.trim().parse().ok()?).ok()?;
    Time::try_from(ttl.as_nanos()).ok()
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(asked) = self.asked {
            self.answer.extend_from_slice(&buffer.filled()[before..]);
            let granted = self.answer.starts_with(b"HTTP/1.1 200") && self.answer.ends_with(b"Accepted");
            if granted {
                self.asked = None;
                self.hub.granted(self.from, self.to, asked);
            }
        }
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.asked.is_none() && bytes.starts_with(b"POST /failsafe") {
            let sent = self.hub.net.now();
            self.asked = Some(Asked { sent, ttl: None });
        }
        if let Some(asked) = &mut self.asked {
            // The body leaves with the head or after it.
            asked.ttl = asked.ttl.or_else(|| said_ttl(bytes));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
