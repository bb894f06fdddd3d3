//! A process: tasks that live, freeze and die together, as those of a real process do.
//!
//! Every task passes a gate each time it is polled. A frozen process' gate is shut: its timers ring and its sockets fill, and all
//! that is found at once when it thaws, as after SIGSTOP and SIGCONT. A killed one's tasks are dropped, and their sockets with
//! them, which its peers see as a kernel shows it: connections closed or reset, new ones refused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::task::AbortHandle;

use super::net::{BoxFuture, Machine, Net};
use crate::run::caught;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Frozen,
    Dead,
}

struct State {
    phase: Phase,
    next: u64,
    tasks: BTreeMap<u64, Waker>,
}

struct Inner {
    name: String,
    machine: Machine,
    net: Arc<dyn Net>,
    state: Mutex<State>,
}

/// A process. Clones are handles on the same one.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({} on {:?})", self.0.name, self.0.machine)
    }
}

impl Process {
    /// A new process on a machine, without tasks yet.
    #[must_use]
    pub fn new(net: Arc<dyn Net>, machine: Machine, name: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            name: name.into(),
            machine,
            net,
            state: Mutex::new(State {
                phase: Phase::Running,
                next: 0,
                tasks: BTreeMap::new(),
            }),
        }))
    }

    /// Where it runs.
    #[must_use]
    pub fn machine(&self) -> Machine {
        self.0.machine
    }

    /// The network it uses.
    #[must_use]
    pub fn net(&self) -> &Arc<dyn Net> {
        &self.0.net
    }

    /// Runs a task in it.
    pub fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        let id = {
            let mut state = self.state();
            state.next += 1;
            state.next
        };
        let gate = Gate {
            process: Arc::clone(&self.0),
            id,
            task: Some(task),
        };
        self.0.net.start(self.0.machine, Box::pin(gate))
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        let mut state = self.state();
        if state.phase == Phase::Running {
            state.phase = Phase::Frozen;
        }
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        let mut state = self.state();
        if state.phase == Phase::Frozen {
            state.phase = Phase::Running;
            drop(state);
            self.wake();
        }
    }

    /// SIGKILL. Its tasks are dropped as soon as this task yields.
    pub fn kill(&self) {
        self.state().phase = Phase::Dead;
        self.wake();
    }

    /// It has not been killed.
    #[must_use]
    pub fn alive(&self) -> bool {
        self.state().phase != Phase::Dead
    }

    /// It is stopped.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.state().phase == Phase::Frozen
    }

    fn wake(&self) {
        let wakers: Vec<Waker> = self.state().tasks.values().cloned().collect();
        for waker in wakers {
            waker.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// A panic in a task would otherwise be swallowed by the runtime.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The first panic in any process of this thread's world since this was last asked, with its place.
#[must_use]
pub fn take_panic() -> Option<String> {
    PANIC.take()
}

/// A task and the gate before it.
struct Gate {
    process: Arc<Inner>,
    id: u64,
    task: Option<BoxFuture<'static, ()>>,
}

impl Gate {
    /// Drops the task on its own machine: its sockets tell their peers.
    fn end(&mut self) {
        if self.task.is_some() {
            self.process.net.enter(self.process.machine);
            self.task = None;
            let mut state = self.process.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.tasks.remove(&self.id);
        }
    }
}

impl Future for Gate {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        {
            let mut state = this.process.state.lock().unwrap_or_else(PoisonError::into_inner);
            match state.phase {
                Phase::Dead => {
                    drop(state);
                    this.end();
                    return Poll::Ready(());
                }
                phase => {
                    match state.tasks.get_mut(&this.id) {
                        Some(waker) => waker.clone_from(cx.waker()),
                        None => drop(state.tasks.insert(this.id, cx.waker().clone())),
                    }
                    if phase == Phase::Frozen {
                        return Poll::Pending;
                    }
                }
            }
        }
        let Some(task) = &mut this.task else {
            return Poll::Ready(());
        };
        this.process.net.enter(this.process.machine);
        let polled = match caught(|| task.as_mut().poll(cx)) {
            Ok(polled) => polled,
            Err(text) => {
                PANIC.with_borrow_mut(|panic| {
                    panic.get_or_insert(text);
                });
                Poll::Ready(())
            }
        };
        if polled.is_ready() {
            this.end();
        }
        polled
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.end();
    }
}
