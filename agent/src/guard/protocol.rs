//! What agent and guard say to each other: small little-endian frames over a unix stream socket.
//!
//! A frame is a header of 24 bytes (magic, version, kind, length of the payload, id) and a payload. Encoding writes
//! into a caller's buffer and decoding borrows from one, because the guard may not allocate.
//!
//! Versions. A guard outlives the agents that talk to it, so an upgraded agent meets guards of former versions. The
//! *frozen part* is therefore the same in every version: the header, the requests [`Kind::is_frozen`] names, and every
//! report. Their payloads only ever grow at the end: a reader takes the prefix it knows, and a missing tail reads as
//! zero. A request outside of the frozen part is refused when the versions differ ([`Outcome::Version`]).
//!
//! Map: [`Header`], [`Request`] (agent to guard), [`Report`] (guard to agent) with [`Status`] and [`Exit`] in it, and
//! [`Outcome`] and [`Stage`] for what went wrong.

#[macro_use]
mod wire;
mod fields;
mod report;
mod request;

pub use report::{Exit, ExitStatus, KillReason, Outcome, Phase, Report, Stage, Status};
pub use request::{Order, Request, Strings};

use fields::{Reader, Writer};

/// First word of every frame: "SURG" read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"SURG");
/// The version this build speaks. Raise it when `Start` or `Adopt` change in a way an old reader would misread.
pub const VERSION: u16 = 1;
/// Length of [`Header`] in bytes.
pub const HEADER_LEN: usize = 24;
/// The longest payload in bytes: room for PostgreSQL's command line and an environment, and the size of the buffers
/// that the guard allocates (and locks) at start.
pub const MAX_PAYLOAD: usize = 64 * 1024;

wire! {
    /// What a frame is.
    pub enum Kind: u16 {
        /// I am the agent now: replaces whoever was it.
        Hello = 1,
        /// Tell me how things stand; allowed without `Hello`.
        Status = 2,
        /// Arm the deadline, or move it.
        Extend = 3,
        /// No deadline: PostgreSQL is a replica now.
        Disarm = 4,
        /// Send PostgreSQL a signal, or kill it.
        Signal = 5,
        /// End the guard; refused while it guards something.
        Quit = 6,
        /// Start a postmaster.
        Start = 64,
        /// Guard a postmaster that somebody else started.
        Adopt = 65,
        /// The answer to the request of the same id.
        Reply = 256,
        /// The postmaster has ended, and so has every process of it.
        Exited = 257,
        /// Another agent said `Hello`; this connection ends.
        Replaced = 258,
    }
}

impl Kind {
    /// Whether every version of the protocol reads this kind.
    #[must_use]
    pub fn is_frozen(self) -> bool {
        !matches!(self, Self::Start | Self::Adopt)
    }
}

/// The fixed head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Version of the sender.
    pub version: u16,
    /// What the payload is; `None` for a kind of a later version.
    pub kind: Option<Kind>,
    /// Bytes of payload that follow.
    pub length: usize,
    /// Chosen by who asks, repeated by who answers; 0 in frames that answer nothing.
    pub id: u64,
}

/// Why bytes are not a frame. There is no way to find the next frame after this: the connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first word is not [`MAGIC`].
    #[error("the peer does not speak the guard's protocol")]
    Magic,
    /// The payload would not fit any buffer.
    #[error("a frame of {0} bytes is longer than the protocol allows")]
    TooLong(usize),
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// When the bytes are no frame of this protocol.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(bytes);
        if reader.u32() != MAGIC {
            return Err(FrameError::Magic);
        }
        let version = reader.u16();
        let kind = Kind::from_wire(reader.u16());
        let length = usize::try_from(reader.u32()).unwrap_or(usize::MAX);
        let _reserved = reader.u32();
        let id = reader.u64();
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        Ok(Self {
            version,
            kind,
            length,
            id,
        })
    }
}

/// Writes a header and whatever `payload` writes after it; `None` when `buffer` is too small.
fn frame(
    buffer: &mut [u8],
    version: u16,
    kind: Kind,
    id: u64,
    payload: impl FnOnce(&mut Writer<'_>),
) -> Option<usize> {
    let (head, body) = buffer.split_at_mut_checked(HEADER_LEN)?;
    let mut body = Writer::new(body);
    payload(&mut body);
    let length = body.finish()?;
    let mut head = Writer::new(head);
    head.u32(MAGIC);
    head.u16(version);
    head.u16(kind as u16);
    head.u32(u32::try_from(length).ok()?);
    head.u32(0);
    head.u64(id);
    Some(HEADER_LEN + length)
}

/// Takes the first complete frame off `bytes`: its header, its payload, and its whole length. `None`: more bytes needed.
///
/// # Errors
/// When the bytes are no frame of this protocol.
pub fn split_frame(bytes: &[u8]) -> Result<Option<(Header, &[u8])>, FrameError> {
    let Some(head) = bytes.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let header = Header::decode(head)?;
    Ok(bytes
        .get(HEADER_LEN..HEADER_LEN + header.length)
        .map(|payload| (header, payload)))
}

#[cfg(test)]
mod tests;
