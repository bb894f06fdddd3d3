//! What the core of an agent is told, decides and orders, for the record: as in the fast world, so that the same checks, counts and reports
//! apply to both.

use std::collections::BTreeMap;
use std::sync::Arc;

use surus::agent::Observer;
use surus_core::config::Config;
use surus_core::types::{ActionId, MonoTime};
use surus_core::{Boot, Decision, Input, Step};

use super::hub::Hub;
use crate::record::{Deed, Seen};

/// Looks over the shoulder of one agent's loop.
pub struct Eye {
    hub: Arc<Hub>,
    host: usize,
    /// The last decision that was recorded.
    said: Option<Decision>,
    under_way: BTreeMap<ActionId, Deed>,
}

impl Eye {
    /// On the agent of `host`.
    #[must_use]
    pub fn new(hub: Arc<Hub>, host: usize) -> Self {
        Self {
            hub,
            host,
            said: None,
            under_way: BTreeMap::new(),
        }
    }

    fn see(&self, seen: Seen) {
        self.hub.see(Some(self.host), seen);
    }
}

impl Observer for Eye {
    fn begun(&mut self, now: MonoTime, _: &Config, _: &Boot, step: &Step) {
        self.stepped(now, step);
    }

    fn told(&mut self, _: MonoTime, input: &Input) {
        if let Input::Done { id, outcome } = input
            && let Some(order) = self.under_way.remove(id)
        {
            self.see(Seen::order_ended(*id, order, outcome));
        }
    }

    fn stepped(&mut self, now: MonoTime, step: &Step) {
        if self
            .said
            .as_ref()
            .is_none_or(|said| !said.same_as(&step.decision))
        {
            self.said = Some(step.decision.clone());
            self.see(Seen::Decided(Box::new(step.decision.clone())));
        }
        if step.wake.at <= now {
            let text = "asked to be woken in the past".into();
            self.see(Seen::Broken { text });
        }
        for action in &step.actions {
            let order = Deed::of(&action.order);
            self.under_way.insert(action.id, order);
            let about = Deed::about(&action.order);
            self.see(Seen::OrderBegan {
                id: action.id.0,
                order,
                about: about.and_then(|name| self.hub.host_named(name.as_str())),
            });
        }
    }
}
