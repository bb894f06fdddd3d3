//! What every adapter takes of the machine it runs on: time, connections, tasks.

use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::net::{Dial, Tcp};
use crate::task::{Spawn, Tokio};

/// Time, connections and tasks: the machine's own, or a simulator's.
#[derive(Clone)]
pub struct Machine {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Outgoing connections.
    pub dial: Arc<dyn Dial>,
    /// Tasks beside the caller.
    pub tasks: Arc<dyn Spawn>,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn real() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            dial: Arc::new(Tcp),
            tasks: Arc::new(Tokio),
        }
    }
}
