//! The guard's side of its connections: a few seats, with a buffer each that is there from the start.
//!
//! The *agent's* seat belongs to whoever said `Hello` last. A new connection first sits in a *guest's* seat, so that
//! a stray connection, or a person who only wants to see the status, does not cost the agent its place; when all of
//! these are taken, the guest who came first has to go. Nothing here
//! ever waits: an agent that does not read what it is sent (it was stopped, and asked too much before) loses its
//! connection and learns everything from the status when it comes back.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

use super::protocol::{HEADER_LEN, MAX_PAYLOAD, Report};

/// A seat, taken or free.
#[derive(Default)]
pub(super) struct Seat {
    socket: Option<OwnedFd>,
    /// Numbers the connections, so that a late answer does not go to the wrong one.
    pub(super) serial: u64,
    pub(super) buffer: Box<[u8]>,
    pub(super) filled: usize,
}

impl Seat {
    /// The agent's seat has room for any frame.
    pub(super) fn for_agent() -> Self {
        Self::with_room(HEADER_LEN + MAX_PAYLOAD)
    }

    /// A guest's has room for the small ones, which are all that is heard from a guest.
    pub(super) fn for_guest() -> Self {
        Self::with_room(256)
    }

    fn with_room(room: usize) -> Self {
        // Not `vec![0; …]`, whose pages are only promised: the lock on memory covers what is there.
        let buffer = vec![0xff; room].into_boxed_slice();
        Self {
            buffer,
            ..Self::default()
        }
    }

    /// Moves a guest, and what was read from it, to this seat.
    pub(super) fn seat(&mut self, guest: &mut Self) {
        let filled = guest.filled.min(self.buffer.len());
        self.buffer[..filled].copy_from_slice(&guest.buffer[..filled]);
        self.filled = filled;
        self.serial = guest.serial;
        self.socket = guest.socket.take();
        guest.close();
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn is_taken(&self) -> bool {
        self.socket.is_some()
    }

    pub(super) fn sit(&mut self, socket: OwnedFd, serial: u64) {
        self.socket = Some(socket);
        self.serial = serial;
        self.filled = 0;
    }

    pub(super) fn close(&mut self) {
        self.socket = None;
        self.filled = 0;
    }

    /// Reads once what there is.
    pub(super) fn receive(&mut self) {
        let Some(socket) = &self.socket else {
            return;
        };
        let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
        match recv(socket, free, RecvFlags::DONTWAIT) {
            Ok((length @ 1.., _)) => self.filled += length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            _ => self.close(),
        }
    }

    /// Forgets the first `length` bytes.
    pub(super) fn consume(&mut self, length: usize) {
        let length = length.min(self.filled);
        self.buffer.copy_within(length..self.filled, 0);
        self.filled -= length;
    }

    pub(super) fn send(&mut self, report: &Report) {
        let Some(socket) = &self.socket else {
            return;
        };
        let (bytes, length) = report.encode();
        match send(
            socket,
            &bytes[..length],
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        ) {
            Ok(sent) if sent == length => {}
            _ => self.close(),
        }
    }
}

/// Accepts one connection; `None` when there is none that is welcome. Only processes of the guard's own user are: the
/// socket's mode says so already, and this holds even for those whom modes do not stop.
pub(super) fn accept(listener: impl AsFd) -> Option<OwnedFd> {
    let socket = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
    let peer = sockopt::socket_peercred(&socket).ok()?;
    (peer.uid == rustix::process::geteuid()).then_some(socket)
}
