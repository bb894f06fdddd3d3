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
    /// There may be somebody to tell.
    listens: bool,
}

impl Systemd {
    /// No service manager.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The one that started this process, if any: reads what it wants.
    #[must_use]
    pub fn of_process() -> Self {
        let mut micros = 0;
        let wanted = sd_notify::watchdog_enabled(false, &mut micros);
        Self {
            listens: true,
            every: wanted.then(|| Duration::from_micros(micros) / 2),
            last: MonoTime::ZERO,
        }
    }

    /// The agent serves.
    pub fn ready(&self) {
        self.notify(&[NotifyState::Ready]);
    }

    /// The configuration is being read anew.
    pub fn reloading(&self) {
        if !self.listens {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(monotonic) => self.notify(&[NotifyState::Reloading, monotonic]),
            Err(_) => self.notify(&[NotifyState::Reloading]),
        }
    }

    /// The agent ends.
    pub fn stopping(&self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// The loop turns. Called from the loop and from nowhere else: a loop that hangs must be missed.
    pub fn alive(&mut self, now: MonoTime) {
        if let Some(every) = self.every
            && self.last.plus(every) <= now
        {
            self.last = now;
            self.notify(&[NotifyState::Watchdog]);
        }
    }

    fn notify(&self, states: &[NotifyState<'_>]) {
        if self.listens
            && let Err(error) = sd_notify::notify(false, states)
        {
            tracing::debug!(%error, "systemd cannot be notified");
        }
    }
}
