//! What the guard answers and announces.

use std::fmt;

use super::fields::{Reader, Writer};
use super::{Header, Kind, VERSION, frame};

wire! {
    /// How a request went.
    pub enum Outcome: u16 {
        /// Done.
        Done = 0,
        /// The deadline in force is later than the one asked for, and stays (no `shorten`).
        Kept = 1,
        /// The generation is older than one the guard has seen: nothing was done.
        Stale = 2,
        /// There is a postmaster already, or its end is not over.
        Busy = 3,
        /// There is no postmaster.
        NoPostmaster = 4,
        /// The program could not be started; `stage` and `errno` say where and why.
        StartFailed = 5,
        /// The payload makes no sense.
        Malformed = 6,
        /// This request needs agent and guard of one protocol version.
        Version = 7,
        /// The deadline given has passed already.
        Expired = 8,
        /// Only `Hello` and `Status` are answered before `Hello`.
        NotAgent = 9,
        /// No such process, or one that started at another time.
        NoSuchProcess = 10,
        /// A system call of the guard failed; see `errno`.
        System = 11,
    }
}

wire! {
    /// The step at which starting a program failed.
    pub enum Stage: u16 {
        /// Not at any step.
        None = 0,
        /// Making the process.
        Fork = 1,
        /// Tying it to the life of the guard, and leaving the guard's session.
        Detach = 2,
        /// Entering the working directory.
        Directory = 3,
        /// Opening the log file.
        Log = 4,
        /// Executing the program.
        Exec = 5,
        /// The command line and environment have more entries than the guard holds room for.
        TooMany = 6,
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "start the program",
            Self::Fork => "make a process",
            Self::Detach => "tie the process to the guard",
            Self::Directory => "enter the working directory",
            Self::Log => "open the log file",
            Self::Exec => "execute the program",
            Self::TooMany => "hold so many arguments and environment variables",
        })
    }
}

wire! {
    /// Where the guarded postmaster is in its life.
    pub enum Phase: u16 {
        /// There is none.
        Idle = 0,
        /// Forked, not yet executing PostgreSQL.
        Starting = 1,
        /// Running.
        Running = 2,
        /// Being killed with everything that belongs to it.
        Killing = 3,
        /// It ended by itself; what it left behind is being killed.
        Draining = 4,
    }
}

/// How the postmaster ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It called `exit` with this code; 0 is a clean shutdown.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It was adopted, and the kernel tells only a parent.
    Unknown,
}

impl ExitStatus {
    /// From the status word of `wait(2)`.
    #[must_use]
    pub fn from_wait(raw: i32) -> Self {
        match raw & 0x7f {
            0 => Self::Code((raw >> 8) & 0xff),
            signal => Self::Signal(signal),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown status"),
        }
    }
}

wire! {
    /// Whether the guard killed, and why.
    pub enum KillReason: u16 {
        /// It did not: the postmaster ended by itself, by a signal the agent ordered, or by somebody else's hand.
        None = 0,
        /// The deadline came.
        Deadline = 1,
        /// The agent ordered [`super::Order::Kill`].
        Order = 2,
    }
}

/// The end of a postmaster, reported after the last of its processes is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The postmaster that was.
    pub pid: i32,
    /// How it ended.
    pub status: ExitStatus,
    /// Whether the guard killed it.
    pub killed: KillReason,
    /// Processes besides the postmaster that the guard killed: backends, and under a kill helpers too. Exact for a
    /// postmaster that the guard started, at least this many for an adopted one.
    pub survivors_killed: u32,
    /// When the guard began to kill or saw the postmaster gone, BOOTTIME nanoseconds.
    pub began_ns: u64,
    /// When the last process was gone, BOOTTIME nanoseconds.
    pub gone_ns: u64,
}

/// How things stand in the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Protocol version of the guard.
    pub version: u16,
    /// The postmaster's phase.
    pub phase: Phase,
    /// The postmaster is not a child of the guard: `PR_SET_PDEATHSIG` does not cover it, and its exit status will be
    /// unknown. So it stays until its next start through the guard.
    pub adopted: bool,
    /// All memory of the guard is locked. When false, raise `LimitMEMLOCK`.
    pub memory_locked: bool,
    /// The guard's own pid.
    pub guard_pid: i32,
    /// The postmaster's pid; 0 when there is none.
    pub pid: i32,
    /// The postmaster's start time in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_ticks: u64,
    /// Since when the guard has it, BOOTTIME nanoseconds.
    pub since_ns: u64,
    /// The deadline, BOOTTIME nanoseconds; 0 when disarmed.
    pub deadline_ns: u64,
    /// The newest generation seen.
    pub generation: u64,
    /// How many postmasters have ended under this guard. An agent that sees it grow knows that it missed an exit.
    pub exits: u64,
    /// The latest of those ends.
    pub last_exit: Option<Exit>,
}

const ADOPTED: u16 = 1;
const MEMORY_LOCKED: u16 = 2;
const STATUS_UNKNOWN: u16 = 1;

impl Status {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(self.version);
        writer.u16(self.phase as u16);
        writer
            .u16(if self.adopted { ADOPTED } else { 0 } | if self.memory_locked { MEMORY_LOCKED } else { 0 });
        writer.u16(0);
        writer.i32(self.guard_pid);
        writer.i32(self.pid);
        writer.u64(self.start_ticks);
        writer.u64(self.since_ns);
        writer.u64(self.deadline_ns);
        writer.u64(self.generation);
        writer.u64(self.exits);
        if let Some(exit) = self.last_exit {
            let (flags, code, signal) = match exit.status {
                ExitStatus::Code(code) => (0, code, 0),
                ExitStatus::Signal(signal) => (0, 0, signal),
                ExitStatus::Unknown => (STATUS_UNKNOWN, 0, 0),
            };
            writer.i32(exit.pid);
            writer.u16(exit.killed as u16);
            writer.u16(flags);
            writer.i32(code);
            writer.i32(signal);
            writer.u32(exit.survivors_killed);
            writer.u32(0);
            writer.u64(exit.began_ns);
            writer.u64(exit.gone_ns);
        }
    }

    fn read(mut reader: Reader<'_>) -> Self {
        let version = reader.u16();
        // An unknown phase of a later guard is at least not idle.
        let phase = Phase::from_wire(reader.u16()).unwrap_or(Phase::Running);
        let flags = reader.u16();
        let _reserved = reader.u16();
        let mut status = Self {
            version,
            phase,
            adopted: flags & ADOPTED != 0,
            memory_locked: flags & MEMORY_LOCKED != 0,
            guard_pid: reader.i32(),
            pid: reader.i32(),
            start_ticks: reader.u64(),
            since_ns: reader.u64(),
            deadline_ns: reader.u64(),
            generation: reader.u64(),
            exits: reader.u64(),
            last_exit: None,
        };
        if status.exits > 0 {
            let pid = reader.i32();
            // A later guard's new reason is a reason all the same.
            let killed = KillReason::from_wire(reader.u16()).unwrap_or(KillReason::Order);
            let flags = reader.u16();
            let (code, signal) = (reader.i32(), reader.i32());
            let survivors_killed = reader.u32();
            let _reserved = reader.u32();
            status.last_exit = Some(Exit {
                pid,
                status: match (flags & STATUS_UNKNOWN != 0, signal) {
                    (true, _) => ExitStatus::Unknown,
                    (false, 0) => ExitStatus::Code(code),
                    (false, signal) => ExitStatus::Signal(signal),
                },
                killed,
                survivors_killed,
                began_ns: reader.u64(),
                gone_ns: reader.u64(),
            });
        }
        status
    }
}

/// A frame from the guard: an answer or an announcement, always with the whole status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// [`Kind::Reply`], [`Kind::Exited`] or [`Kind::Replaced`].
    pub kind: Kind,
    /// The request this answers; 0 for an announcement.
    pub id: u64,
    /// How the request went.
    pub outcome: Outcome,
    /// Where a start failed.
    pub stage: Stage,
    /// The system's error number, or 0.
    pub errno: i32,
    /// How things stand after the request.
    pub status: Status,
}

impl Report {
    /// Room for any report, in bytes.
    pub const MAX_LEN: usize = 256;

    /// Writes the report as a frame.
    #[must_use]
    pub fn encode(&self) -> ([u8; Self::MAX_LEN], usize) {
        let mut buffer = [0; Self::MAX_LEN];
        let length = frame(&mut buffer, VERSION, self.kind, self.id, |writer| {
            writer.u16(self.outcome as u16);
            writer.u16(self.stage as u16);
            writer.i32(self.errno);
            self.status.write(writer);
        })
        .expect("a report is 128 bytes long");
        (buffer, length)
    }

    /// Reads a frame of the guard. `None` when it is none of the known kinds (a later version's announcement).
    #[must_use]
    pub fn decode(header: Header, payload: &[u8]) -> Option<Self> {
        let kind = header
            .kind
            .filter(|kind| matches!(kind, Kind::Reply | Kind::Exited | Kind::Replaced))?;
        let mut reader = Reader::new(payload);
        Some(Self {
            kind,
            id: header.id,
            // A later guard's new refusal must not read as success.
            outcome: Outcome::from_wire(reader.u16()).unwrap_or(Outcome::Malformed),
            stage: Stage::from_wire(reader.u16()).unwrap_or(Stage::None),
            errno: reader.i32(),
            status: Status::read(reader),
        })
    }
}
