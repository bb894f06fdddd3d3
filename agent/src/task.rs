//! Tasks, and the seam at which a simulator decides when they are polled.
//!
//! Nothing on the agent's path calls `tokio::spawn` itself. Whoever starts a task takes a [`Spawn`]; the composition root passes
//! [`Tokio`], the simulator one that can freeze, or end at any await, all tasks of one agent at once, as a process is frozen or killed.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::AbortHandle;

/// A future behind `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Starts tasks.
pub trait Spawn: Send + Sync + 'static {
    /// Runs `task` beside the caller, on the caller's runtime.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle;
}

/// The runtime's own tasks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tokio;

impl Spawn for Tokio {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        tokio::spawn(task).abort_handle()
    }
}

/// Tasks that belong together and end together.
pub struct Group {
    spawn: Arc<dyn Spawn>,
    alive: Mutex<Vec<AbortHandle>>,
}

impl Group {
    /// A group whose tasks `spawn` starts, and the hold on them: when it is dropped they end.
    pub fn new(spawn: Arc<dyn Spawn>) -> (Arc<Self>, Hold) {
        let group = Arc::new(Self {
            spawn,
            alive: Mutex::default(),
        });
        (Arc::clone(&group), Hold(group))
    }
}

impl Spawn for Group {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        let handle = self.spawn.spawn(task);
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        // Swept only when the list would grow, so that a task costs the same however many have come before it.
        if alive.len() == alive.capacity() {
            alive.retain(|handle| !handle.is_finished());
        }
        alive.push(handle.clone());
        handle
    }
}

/// Ends the tasks of a [`Group`] when dropped.
#[must_use = "the tasks end when it is dropped"]
pub struct Hold(Arc<Group>);

impl Drop for Hold {
    fn drop(&mut self) {
        let mut alive = self.0.alive.lock().unwrap_or_else(PoisonError::into_inner);
        for handle in alive.drain(..) {
            handle.abort();
        }
    }
}

/// Aborts its task when dropped.
#[derive(Debug)]
pub struct Owned(pub AbortHandle);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The tasks of HTTP/2 connections to etcd.
#[derive(Clone)]
pub(crate) struct Executor(pub(crate) Arc<dyn Spawn>);

impl hyper::rt::Executor<BoxFuture<'static, ()>> for Executor {
    fn execute(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_tasks_of_a_group_end_with_their_hold() {
        let (group, hold) = Group::new(Arc::new(Tokio));
        let (running, done) = tokio::sync::oneshot::channel::<()>();
        let task = group.spawn(Box::pin(async move {
            std::future::pending::<()>().await;
            drop(running);
        }));
        for _ in 0..100 {
            group.spawn(Box::pin(async {}));
            tokio::task::yield_now().await;
        }
        assert!(group.alive.lock().unwrap().len() < 20);
        assert!(!task.is_finished());
        drop(hold);
        assert!(done.await.is_err());
    }
}
