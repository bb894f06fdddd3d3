//! The loop: one thing that happened, one step of the core, its orders begun; and before it waits, what is now known is published.
//!
//! One task owns the core. Everything that can wake it is a [`News`]; there is no other way in.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use surus_core::action::Order;
use surus_core::input::Input;
use surus_core::types::MonoTime;
use surus_core::{Boot, Decision, Node, Step};
use tokio::sync::{mpsc, oneshot};

use super::configuration::Configuration;
use super::env::Observer;
use super::executor::{Executor, Limits, Tools};
use super::facts::{Statuses, explained};
use super::systemd::Systemd;
use crate::dcs::snapshot::Snapshot;
use crate::published::Publisher;
use crate::rest::state::{Explanation, NodeStatus};

/// So much that has happened already is taken before what is known is published again: rendering it costs more than a step.
const BATCH: usize = 64;

/// Everything that can happen to the driver.
#[derive(Debug)]
pub enum News {
    /// Something for the core.
    Input(Input),
    /// The cluster's keys at a revision, as known for the time `at`; `read` if the core gets them as an answer anyway.
    Cluster {
        /// For which time they are known.
        at: MonoTime,
        /// The keys.
        snapshot: Arc<Snapshot>,
        /// The core is told by the completion of its own order.
        read: bool,
    },
    /// Say why the node is where it is.
    Explain(oneshot::Sender<Explanation>),
    /// Read the configuration files anew.
    Reload,
    /// Look around now.
    Wake,
    /// End, cleanly.
    Shutdown,
    /// End at once, leaving guard and PostgreSQL as they are.
    Detach,
    /// The core ordered the end.
    Exit(Order),
}

/// How the loop ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Why, in words.
    pub reason: String,
    /// Guard and PostgreSQL stay as they are.
    pub detach: bool,
    /// The process reports failure.
    pub failure: bool,
}

/// The loop and what it owns.
pub struct Driver {
    pub(super) tools: Arc<Tools>,
    pub(super) executor: Executor,
    pub(super) configuration: Configuration,
    pub(super) inbox: mpsc::UnboundedReceiver<News>,
    pub(super) statuses: Statuses,
    pub(super) published: Publisher<Arc<NodeStatus>>,
    pub(super) limits: Arc<RwLock<Limits>>,
    pub(super) systemd: Systemd,
    pub(super) observer: Option<Box<dyn Observer>>,
}

impl Driver {
    /// Runs until the core, or a signal, ends it.
    pub async fn run(mut self, boot: Boot) -> Ending {
        let config = self.configuration.core();
        let now = self.tools.machine.clock.now();
        let (mut node, step) = Node::new(config.clone(), boot, now);
        if let Some(observer) = &mut self.observer {
            observer.begun(now, &config, &boot, &step);
        }
        let mut last: Option<Decision> = None;
        let mut wake = self.take(step, &mut last);
        self.publish(&node, last.as_ref(), wake);
        loop {
            let news = tokio::select! { biased;
                news = self.inbox.recv() => news,
                () = self.tools.machine.clock.sleep_until(wake) => Some(News::Input(Input::Tick)),
            };
            if news.is_none() {
                return Ending {
                    reason: "nothing is left to drive".to_owned(),
                    detach: true,
                    failure: true,
                };
            }
            let (mut next, mut turns, mut ending) = (news, 0, None);
            while let Some(news) = next {
                match self.translate(news, &node, last.as_ref()) {
                    Ok(inputs) => {
                        for input in inputs {
                            wake = self.step(&mut node, input, &mut last);
                        }
                    }
                    Err(told) => {
                        ending = Some(told);
                        break;
                    }
                }
                turns += 1;
                next = (turns < BATCH).then(|| self.inbox.try_recv().ok()).flatten();
            }
            self.publish(&node, last.as_ref(), wake);
            self.systemd.alive(self.tools.machine.clock.now());
            if let Some(ending) = ending {
                return ending;
            }
        }
    }

    /// Tells the core, and does what it says. Returns when it wants to be woken.
    fn step(&mut self, node: &mut Node, input: Input, last: &mut Option<Decision>) -> MonoTime {
        let now = self.tools.machine.clock.now();
        if let Some(observer) = &mut self.observer {
            observer.told(now, &input);
        }
        let step = node.step(now, input);
        if let Some(observer) = &mut self.observer {
            observer.stepped(now, &step);
        }
        self.take(step, last)
    }

    /// What the core is told of it.
    fn translate(&mut self, news: News, node: &Node, last: Option<&Decision>) -> Result<Vec<Input>, Ending> {
        Ok(match news {
            News::Explain(asker) => {
                if let Some(decision) = last {
                    // Nobody waits any more: that is theirs.
                    let _ = asker.send(explained(&node.explain(), decision));
                }
                Vec::new()
            }
            News::Input(input) => vec![input],
            News::Wake => vec![Input::Tick],
            News::Shutdown => {
                self.systemd.stopping();
                vec![Input::Shutdown]
            }
            News::Detach => {
                return Err(Ending {
                    reason: "asked to leave PostgreSQL and its guard to the next agent".to_owned(),
                    detach: true,
                    failure: false,
                });
            }
            News::Exit(Order::Exit {
                reason,
                detach,
                failure,
            }) => {
                return Err(Ending {
                    reason,
                    detach,
                    failure,
                });
            }
            News::Exit(_) => Vec::new(),
            News::Reload => {
                self.systemd.reloading();
                let changed = self.configuration.reread();
                self.systemd.ready();
                self.apply(changed)
            }
            News::Cluster { at, snapshot, read } => {
                self.statuses
                    .observe(self.tools.machine.clock.as_ref(), at, &snapshot);
                let changed = self.configuration.observe(&snapshot);
                let mut inputs = self.apply(changed);
                if !read {
                    inputs.push(Input::Cluster(snapshot.view.clone()));
                }
                inputs
            }
        })
    }

    fn apply(&mut self, changed: bool) -> Vec<Input> {
        if !changed {
            return Vec::new();
        }
        let config = self.configuration.core();
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = Limits {
            retry: config.retry_timeout,
            ttl: config.ttl,
        };
        vec![Input::Config(config)]
    }

    /// Says what was decided and begins what was ordered. Returns when the core wants to be woken.
    fn take(&mut self, step: Step, last: &mut Option<Decision>) -> MonoTime {
        let Step {
            decision,
            actions,
            wake,
        } = step;
        if last.as_ref().is_none_or(|last| !last.same_as(&decision)) {
            tracing::info!("{decision}");
        } else {
            tracing::trace!("{decision}");
        }
        for action in actions {
            tracing::debug!(id = action.id.0, order = ?action.order, "order");
            self.executor.start(action);
        }
        *last = Some(decision);
        wake.at
    }

    /// Publishes what is now known.
    fn publish(&mut self, node: &Node, decision: Option<&Decision>, wake: MonoTime) {
        let Some(decision) = decision else { return };
        let now = self.tools.machine.clock.now();
        let next_run = wake.max(now.plus(Duration::from_millis(1)));
        let explanation = node.explain();
        let old = self.published.get();
        let status = self
            .statuses
            .compose(&self.tools.publisher, &explanation, decision, next_run, &old);
        self.published.publish(Arc::new(status));
    }
}
