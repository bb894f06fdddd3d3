//! The guard itself: one thread, one loop, one number.
//!
//! What it guarantees: when the clock passes the deadline, the postmaster and every process of it get a SIGKILL at
//! once, whatever the agent does or is. `main_loop` waits for its descriptors (signals, the timer, the socket), then
//! takes a look at all of them. Nothing in it allocates, takes a lock, reads a disk or waits for anybody.
//!
//! Order within one turn: requests first, the deadline after them. A guard that was frozen past its deadline, or a host
//! that was suspended, may find an extension in its queue that the agent earned in time; a deadline is an absolute
//! time, so what has gone stale in the queue extends nothing. One turn reads one buffer of each connection, so a flood
//! of requests cannot put the deadline off.
//!
//! SIGTERM and SIGINT (a service manager that stops everything at shutdown) make the guard order a fast stop and leave
//! when PostgreSQL is gone. Dying at once would have the kernel order an immediate one.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::process::Signal;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::peers::{Seat, accept};
use super::procfs::Scanner;
use super::protocol::{
    Exit, FrameError, HEADER_LEN, KillReason, Kind, Order, Outcome, Phase, Report, Request, Stage, Status,
    VERSION, split_frame,
};
use super::signals::Signals;
use super::socket::Place;
use super::spawn::{Launcher, failure};
use super::time::{boottime_ns, timespec};
use super::ward::{Progress, Ward};

/// Connections that have not said `Hello`.
const GUESTS: usize = 4;

/// Everything the guard has; complete before the loop begins.
pub struct Process {
    place: Place,
    signals: Signals,
    timer: OwnedFd,
    launcher: Launcher,
    scanner: Scanner,
    memory_locked: bool,
    agent: Seat,
    guests: [Seat; GUESTS],
    connections: u64,
    ward: Option<Ward>,
    /// 0: none.
    deadline_ns: u64,
    generation: u64,
    exits: u64,
    last_exit: Option<Exit>,
    /// Who waits for a start to come off: the connection and the request.
    start: Option<(u64, u64)>,
    leaving: bool,
}

/// How a request went, before it becomes a report.
struct Answer {
    outcome: Outcome,
    stage: Stage,
    errno: i32,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            stage: Stage::None,
            errno: 0,
        }
    }
}

impl Process {
    pub(super) fn new(
        place: Place,
        signals: Signals,
        launcher: Launcher,
        memory_locked: bool,
    ) -> rustix::io::Result<Self> {
        let mut scanner = Scanner::new()?;
        // Once over all it will need when it kills: the code is then in memory, and locked where that is permitted.
        scanner.for_each(|_| {});
        Ok(Self {
            place,
            signals,
            timer: timerfd_create(
                TimerfdClockId::Boottime,
                TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
            )?,
            launcher,
            scanner,
            memory_locked,
            agent: Seat::for_agent(),
            guests: std::array::from_fn(|_| Seat::for_guest()),
            connections: 0,
            ward: None,
            deadline_ns: 0,
            generation: 0,
            exits: 0,
            last_exit: None,
            start: None,
            leaving: false,
        })
    }

    /// Guards until an agent sends `Quit`, or a signal tells it to go.
    pub fn serve(&mut self) {
        while !(self.leaving && self.ward.is_none()) {
            self.wait();
            self.turn();
        }
    }

    fn wait(&self) {
        let timer = self.timer.as_fd();
        let [progress, end] = self.ward.as_ref().map_or([None, None], Ward::wake_on);
        let [g0, g1, g2, g3] = &self.guests;
        let fds: [BorrowedFd<'_>; 6 + GUESTS] = [
            timer,
            self.signals.as_fd(),
            self.place.listener.as_fd(),
            // The timer again stands for whatever is not there.
            self.agent.as_fd().unwrap_or(timer),
            g0.as_fd().unwrap_or(timer),
            g1.as_fd().unwrap_or(timer),
            g2.as_fd().unwrap_or(timer),
            g3.as_fd().unwrap_or(timer),
            progress.unwrap_or(timer),
            end.unwrap_or(timer),
        ];
        let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let pause: Option<Timespec> = self.ward.as_ref().and_then(Ward::pause_ns).map(timespec);
        // Its result does not matter: everything is looked at in every turn.
        let _ = poll(&mut fds, pause.as_ref());
    }

    fn turn(&mut self) {
        let mut expirations = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut expirations);
        if self.signals.drain() && !self.leaving {
            self.leaving = true;
            if let Some(ward) = &self.ward {
                let _ = ward.signal(Signal::INT);
            }
        }
        if let Some(socket) = accept(&self.place.listener) {
            self.connections += 1;
            let seat = self
                .guests
                .iter_mut()
                .min_by_key(|seat| if seat.is_taken() { seat.serial } else { 0 });
            if let Some(seat) = seat {
                seat.sit(socket, self.connections);
            }
        }
        // Before a new agent takes its seat, the former one's last requests are obeyed: they may hold an extension.
        self.serve_agent();
        for guest in 0..GUESTS {
            if self.serve_guest(guest) {
                self.serve_agent();
            }
        }
        self.watch_start();
        let children = Ward::reap(&mut self.ward);
        self.check_deadline();
        let end = self
            .ward
            .as_mut()
            .and_then(|ward| ward.round(&mut self.scanner, children));
        if let Some(end) = end {
            self.ward = None;
            self.exits += 1;
            self.last_exit = Some(end);
            self.announce(Kind::Exited);
        }
    }

    fn check_deadline(&mut self) {
        if self.deadline_ns != 0 && boottime_ns() >= self.deadline_ns {
            self.set_deadline(0);
            if let Some(ward) = &mut self.ward {
                ward.kill(KillReason::Deadline);
            }
        }
    }

    fn set_deadline(&mut self, deadline_ns: u64) {
        self.deadline_ns = deadline_ns;
        // A time of zero disarms. The call fails for times the kernel has no room for only, in centuries.
        let value = Itimerspec {
            it_interval: timespec(0),
            it_value: timespec(deadline_ns),
        };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value);
    }

    /// The news of a child on its way to `execve`.
    fn watch_start(&mut self) {
        let answer = match self.ward.as_mut().map_or(Progress::Pending, Ward::progress) {
            Progress::Pending => return,
            Progress::Running => Outcome::Done.into(),
            Progress::Failed(message) => {
                let (stage, errno) = failure(message);
                // The child is in `_exit`; it is reaped like any other child, and no postmaster has ended with it.
                self.ward = None;
                Answer {
                    outcome: Outcome::StartFailed,
                    stage,
                    errno,
                }
            }
        };
        if let Some((serial, id)) = self.start.take()
            && serial == self.agent.serial
        {
            let report = self.report(Kind::Reply, id, answer);
            self.agent.send(&report);
        }
    }

    fn serve_agent(&mut self) {
        let mut seat = std::mem::take(&mut self.agent);
        seat.receive();
        while let Some((id, kind, length)) = next_frame(&mut seat) {
            let payload = &seat.buffer[HEADER_LEN..length];
            let answer = self.handle(kind, payload, (seat.serial, id));
            seat.consume(length);
            if let Some(answer) = answer {
                seat.send(&self.report(Kind::Reply, id, answer));
            }
        }
        self.agent = seat;
    }

    /// Whether the guest has become the agent, with unread requests that came along.
    fn serve_guest(&mut self, guest: usize) -> bool {
        self.guests[guest].receive();
        while let Some((id, kind, length)) = next_frame(&mut self.guests[guest]) {
            match kind {
                Ok(Kind::Hello) => {
                    self.announce(Kind::Replaced);
                    self.agent.seat(&mut self.guests[guest]);
                    // The `Hello` stays first in line, and is answered like any request of an agent.
                    return true;
                }
                kind => {
                    let outcome = if kind == Ok(Kind::Status) {
                        Outcome::Done
                    } else {
                        Outcome::NotAgent
                    };
                    self.guests[guest].consume(length);
                    let report = self.report(Kind::Reply, id, outcome.into());
                    self.guests[guest].send(&report);
                }
            }
        }
        false
    }

    /// Obeys one request; `None` when the answer comes later.
    fn handle(&mut self, kind: Result<Kind, Outcome>, payload: &[u8], from: (u64, u64)) -> Option<Answer> {
        let request = match kind {
            Ok(kind) => match Request::decode(kind, payload) {
                Some(request) => request,
                None => return Some(Outcome::Malformed.into()),
            },
            Err(outcome) => return Some(outcome.into()),
        };
        if let Some(ward) = &mut self.ward {
            ward.look();
        }
        let outcome = match request {
            Request::Hello | Request::Status => Outcome::Done,
            Request::Extend {
                deadline_ns,
                generation,
                shorten,
            } => self.extend(deadline_ns, generation, shorten),
            Request::Disarm { generation } => {
                if generation < self.generation {
                    Outcome::Stale
                } else {
                    self.generation = generation;
                    self.set_deadline(0);
                    Outcome::Done
                }
            }
            Request::Signal(order) => return Some(self.signal(order)),
            Request::Quit if self.ward.is_some() => Outcome::Busy,
            Request::Quit => {
                self.leaving = true;
                Outcome::Done
            }
            Request::Start {
                deadline_ns,
                generation,
                argv,
                env,
                cwd,
                log,
            } => {
                if self.ward.is_some() || self.leaving {
                    Outcome::Busy
                } else if generation < self.generation {
                    Outcome::Stale
                } else if deadline_ns != 0 && deadline_ns <= boottime_ns() {
                    Outcome::Expired
                } else {
                    // Armed first: PostgreSQL never runs an instruction that the deadline does not cover.
                    self.generation = generation;
                    self.set_deadline(deadline_ns);
                    let launched = self.launcher.launch(argv, env, cwd, log);
                    let ward = launched.and_then(|launched| {
                        let pid = launched.pid;
                        Ward::started(launched).map_err(|errno| {
                            // Not guarded, so not allowed to run. It has not got as far as to have children.
                            super::spawn::abandon(pid);
                            (Stage::Fork, errno.raw_os_error())
                        })
                    });
                    match ward {
                        Ok(ward) => self.ward = Some(ward),
                        Err((stage, errno)) => {
                            return Some(Answer {
                                outcome: Outcome::StartFailed,
                                stage,
                                errno,
                            });
                        }
                    }
                    self.start = Some(from);
                    return None;
                }
            }
            Request::Adopt { pid, start_ticks } => return Some(self.adopt(pid, start_ticks)),
        };
        Some(outcome.into())
    }

    fn extend(&mut self, deadline_ns: u64, generation: u64, shorten: bool) -> Outcome {
        if generation < self.generation {
            return Outcome::Stale;
        }
        let same = generation == self.generation;
        if same && !shorten && self.deadline_ns != 0 && deadline_ns < self.deadline_ns {
            return Outcome::Kept;
        }
        self.generation = generation;
        self.set_deadline(deadline_ns);
        let expired = deadline_ns <= boottime_ns();
        self.check_deadline();
        if expired { Outcome::Expired } else { Outcome::Done }
    }

    fn signal(&mut self, order: Order) -> Answer {
        let Some(ward) = &mut self.ward else {
            return Outcome::NoPostmaster.into();
        };
        let signal = match order {
            Order::Kill => {
                ward.kill(KillReason::Order);
                return Outcome::Done.into();
            }
            _ if !ward.is_up() => return Outcome::Busy.into(),
            Order::Smart => Signal::TERM,
            Order::Fast => Signal::INT,
            Order::Immediate => Signal::QUIT,
            Order::Reload => Signal::HUP,
        };
        match ward.signal(signal) {
            Ok(()) => Outcome::Done.into(),
            Err(errno) => system(errno),
        }
    }

    fn adopt(&mut self, pid: i32, start_ticks: u64) -> Answer {
        if let Some(ward) = &self.ward {
            let same = ward.pid() == pid && (start_ticks == 0 || ward.start_ticks() == start_ticks);
            return if same && ward.is_up() {
                Outcome::Done.into()
            } else {
                Outcome::Busy.into()
            };
        }
        match Ward::adopt(pid, start_ticks) {
            Ok(ward) => {
                self.ward = Some(ward);
                Outcome::Done.into()
            }
            Err(rustix::io::Errno::SRCH) => Outcome::NoSuchProcess.into(),
            Err(errno) => system(errno),
        }
    }

    fn announce(&mut self, kind: Kind) {
        let report = self.report(kind, 0, Outcome::Done.into());
        self.agent.send(&report);
    }

    fn report(&self, kind: Kind, id: u64, answer: Answer) -> Report {
        let Answer {
            outcome,
            stage,
            errno,
        } = answer;
        Report {
            kind,
            id,
            outcome,
            stage,
            errno,
            status: self.status(),
        }
    }

    fn status(&self) -> Status {
        let ward = self.ward.as_ref();
        Status {
            version: VERSION,
            phase: ward.map_or(Phase::Idle, Ward::phase),
            adopted: ward.is_some_and(Ward::is_adopted),
            memory_locked: self.memory_locked,
            guard_pid: rustix::process::getpid().as_raw_nonzero().get(),
            pid: ward.map_or(0, Ward::pid),
            start_ticks: ward.map_or(0, Ward::start_ticks),
            since_ns: ward.map_or(0, Ward::since_ns),
            deadline_ns: self.deadline_ns,
            generation: self.generation,
            exits: self.exits,
            last_exit: self.last_exit,
        }
    }
}

fn system(errno: rustix::io::Errno) -> Answer {
    Answer {
        outcome: Outcome::System,
        stage: Stage::None,
        errno: errno.raw_os_error(),
    }
}

/// The next whole frame in a seat's buffer: its id, its kind or why it is refused, its length. Bytes that are no frame
/// end the connection.
fn next_frame(seat: &mut Seat) -> Option<(u64, Result<Kind, Outcome>, usize)> {
    if !seat.is_taken() {
        return None;
    }
    let frame: Result<_, FrameError> = split_frame(&seat.buffer[..seat.filled]);
    match frame {
        Err(_) => {
            seat.close();
            None
        }
        Ok(None) => None,
        Ok(Some((header, payload))) => {
            let kind = match header.kind {
                None => Err(Outcome::Version),
                Some(kind) if header.version != VERSION && !kind.is_frozen() => Err(Outcome::Version),
                Some(kind) => Ok(kind),
            };
            Some((header.id, kind, HEADER_LEN + payload.len()))
        }
    }
}
