//! What systemd is told: readiness, life signs, reloads, the end. Without systemd it is silent.

use std::time::Duration;

use sd_notify::NotifyState;
use surus_core::types::MonoTime;

/// The connection to the service manager.
#[derive(Debug, Default)]
pub struct Systemd {
    /// Half of `WATCHDOG_USEC`: how often a life sign is due.
    every: Option<Duration>,
    last: MonoTime,
}

impl Systemd {
    /// Reads what the service manager wants.
    #[must_use]
    pub fn new() -> Self {
        let mut micros = 0;
        let wanted = sd_notify::watchdog_enabled(false, &mut micros);
        Self {
            every: wanted.then(|| Duration::from_micros(micros) / 2),
            last: MonoTime::ZERO,
        }
    }

    /// The agent serves.
    pub fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// The configuration is being read anew.
    pub fn reloading(&self) {
        let monotonic = NotifyState::monotonic_usec_now();
        match monotonic {
            Ok(monotonic) => notify(&[NotifyState::Reloading, monotonic]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
    }

    /// The agent ends.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// The loop turns. Called from the loop and from nowhere else: a loop that hangs must be missed.
    pub fn alive(&mut self, now: MonoTime) {
        if let Some(every) = self.every
            && self.last.plus(every) <= now
        {
            self.last = now;
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd cannot be notified");
    }
}
