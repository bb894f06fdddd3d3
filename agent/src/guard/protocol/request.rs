//! What the agent asks for.

use std::ffi::CStr;

use super::fields::{Reader, Writer};
use super::{Kind, VERSION, frame};

wire! {
    /// What [`Request::Signal`] orders.
    pub enum Order: u32 {
        /// SIGTERM: no new sessions, end when the last one has left.
        Smart = 1,
        /// SIGINT: roll back what is open, checkpoint, end.
        Fast = 2,
        /// SIGQUIT: end without a checkpoint; crash recovery follows.
        Immediate = 3,
        /// SIGHUP: read the configuration again.
        Reload = 4,
        /// SIGKILL to the postmaster and every process of it, at once, as at the deadline.
        Kill = 5,
    }
}

/// A list of NUL-terminated strings, as they lie in the frame: `execve` can point right at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strings<'a> {
    bytes: &'a [u8],
}

impl<'a> Strings<'a> {
    /// Cuts `count` strings off the front of `bytes`; `None` when there are fewer.
    fn cut(bytes: &'a [u8], count: usize) -> Option<(Self, &'a [u8])> {
        let mut rest = bytes;
        for _ in 0..count {
            let string = CStr::from_bytes_until_nul(rest).ok()?;
            rest = rest.get(string.count_bytes() + 1..)?;
        }
        let taken = bytes.get(..bytes.len() - rest.len())?;
        Some((Self { bytes: taken }, rest))
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let string = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[string.count_bytes() + 1..];
            Some(string)
        })
    }

    /// The first string.
    #[must_use]
    pub fn first(&self) -> Option<&'a CStr> {
        self.iter().next()
    }
}

/// One request of the agent. Times are nanoseconds of `CLOCK_BOOTTIME`; a deadline of 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// See [`Kind::Hello`].
    Hello,
    /// See [`Kind::Status`].
    Status,
    /// See [`Kind::Extend`].
    Extend {
        /// When everything must be dead.
        deadline_ns: u64,
        /// The lease's generation: an older one than the guard has seen is refused.
        generation: u64,
        /// Whether the deadline may come closer within one generation.
        shorten: bool,
    },
    /// See [`Kind::Disarm`].
    Disarm {
        /// As for `Extend`.
        generation: u64,
    },
    /// See [`Kind::Signal`].
    Signal(Order),
    /// See [`Kind::Quit`].
    Quit,
    /// See [`Kind::Start`].
    Start {
        /// The deadline that holds from before the first instruction of PostgreSQL.
        deadline_ns: u64,
        /// As for `Extend`.
        generation: u64,
        /// Absolute path of the program, then its arguments.
        argv: Strings<'a>,
        /// `NAME=value`, over the guard's own environment.
        env: Strings<'a>,
        /// Directory to start in.
        cwd: &'a CStr,
        /// File that standard output and error are appended to; empty: thrown away.
        log: &'a CStr,
    },
    /// See [`Kind::Adopt`].
    Adopt {
        /// The postmaster.
        pid: i32,
        /// Field 22 of its `/proc/PID/stat`, so that a reused pid is noticed.
        start_ticks: u64,
    },
}

const SHORTEN: u32 = 1;

impl<'a> Request<'a> {
    /// Reads the payload of a frame of this kind. `None`: malformed, or not a request.
    #[must_use]
    pub fn decode(kind: Kind, payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        Some(match kind {
            Kind::Hello => Self::Hello,
            Kind::Status => Self::Status,
            Kind::Quit => Self::Quit,
            Kind::Extend => {
                let deadline_ns = reader.u64();
                let generation = reader.u64();
                // A frame cut short must not become a deadline long past, which would kill.
                if payload.len() < 20 || deadline_ns == 0 {
                    return None;
                }
                Self::Extend {
                    deadline_ns,
                    generation,
                    shorten: reader.u32() & SHORTEN != 0,
                }
            }
            Kind::Disarm if payload.len() >= 8 => Self::Disarm {
                generation: reader.u64(),
            },
            Kind::Signal => Self::Signal(Order::from_wire(reader.u32())?),
            Kind::Start => {
                let deadline_ns = reader.u64();
                let generation = reader.u64();
                let argc = usize::from(reader.u16());
                let envc = usize::from(reader.u16());
                let _reserved = reader.u32();
                let (argv, rest) = Strings::cut(reader.rest(), argc)?;
                let (env, rest) = Strings::cut(rest, envc)?;
                let (cwd, rest) = Strings::cut(rest, 1)?;
                let (log, rest) = Strings::cut(rest, 1)?;
                let program = argv.first()?;
                if !program.to_bytes().starts_with(b"/") || !rest.is_empty() {
                    return None;
                }
                Self::Start {
                    deadline_ns,
                    generation,
                    argv,
                    env,
                    cwd: cwd.first()?,
                    log: log.first()?,
                }
            }
            Kind::Adopt if payload.len() >= 16 => {
                let pid = reader.i32();
                let _reserved = reader.u32();
                Self::Adopt {
                    pid,
                    start_ticks: reader.u64(),
                }
            }
            _ => return None,
        })
    }

    /// Writes the request as a frame of this build's version; the frame's length, or `None` when `buffer` is too small.
    #[must_use]
    pub fn encode(&self, id: u64, buffer: &mut [u8]) -> Option<usize> {
        frame(buffer, VERSION, self.kind(), id, |writer| self.write(writer))
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Hello => Kind::Hello,
            Self::Status => Kind::Status,
            Self::Extend { .. } => Kind::Extend,
            Self::Disarm { .. } => Kind::Disarm,
            Self::Signal(_) => Kind::Signal,
            Self::Quit => Kind::Quit,
            Self::Start { .. } => Kind::Start,
            Self::Adopt { .. } => Kind::Adopt,
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match *self {
            Self::Hello | Self::Status | Self::Quit => {}
            Self::Extend {
                deadline_ns,
                generation,
                shorten,
            } => {
                writer.u64(deadline_ns);
                writer.u64(generation);
                writer.u32(if shorten { SHORTEN } else { 0 });
                writer.u32(0);
            }
            Self::Disarm { generation } => writer.u64(generation),
            Self::Signal(order) => writer.u32(order as u32),
            Self::Start {
                deadline_ns,
                generation,
                argv,
                env,
                cwd,
                log,
            } => {
                writer.u64(deadline_ns);
                writer.u64(generation);
                writer.u16(u16::try_from(argv.iter().count()).unwrap_or(u16::MAX));
                writer.u16(u16::try_from(env.iter().count()).unwrap_or(u16::MAX));
                writer.u32(0);
                writer.bytes(argv.bytes);
                writer.bytes(env.bytes);
                writer.bytes(cwd.to_bytes_with_nul());
                writer.bytes(log.to_bytes_with_nul());
            }
            Self::Adopt { pid, start_ticks } => {
                writer.i32(pid);
                writer.u32(0);
                writer.u64(start_ticks);
            }
        }
    }
}

impl<'a> Strings<'a> {
    /// Strings that lie one after the other in `bytes`, each with its NUL. `None` when the last one lacks it.
    #[must_use]
    pub fn packed(bytes: &'a [u8]) -> Option<Self> {
        (bytes.is_empty() || bytes.ends_with(&[0])).then_some(Self { bytes })
    }
}
