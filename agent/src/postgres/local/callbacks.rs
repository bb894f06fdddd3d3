//! The user's callbacks: `<command> <action> <role> <scope>`, beside the work, never in its way.

use std::sync::{Mutex, PoisonError};

use tokio::process::Command;

use super::Error;
use super::exec::{kill_group, split};

/// The running callback of each of the two lanes.
#[derive(Debug, Default)]
pub(super) struct Callbacks {
    /// The process group of what runs now, `on_reload` apart from the others.
    running: std::sync::Arc<Mutex<[Option<u32>; 2]>>,
}

impl Callbacks {
    pub(super) fn start(
        &self,
        command: &str,
        action: &'static str,
        role: &str,
        scope: &str,
    ) -> Result<(), Error> {
        let words = split(command)?;
        let lane = usize::from(action == "on_reload");
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = running[lane].take() {
            tracing::info!(action, "ended a callback that was still running");
            kill_group(former);
        }
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args([action, role, scope])
            .stdin(std::process::Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn {
                program: (&words[0]).into(),
                source,
            })?;
        let pid = child.id();
        running[lane] = pid;
        drop(running);
        let slot = std::sync::Arc::clone(&self.running);
        tokio::spawn(async move {
            let status = child.wait().await;
            let mut running = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if running[lane] == pid {
                running[lane] = None;
            }
            drop(running);
            match status {
                Ok(status) if status.success() => tracing::debug!(action, "callback done"),
                Ok(status) => tracing::warn!(action, %status, "callback failed"),
                Err(error) => tracing::warn!(action, %error, "callback lost"),
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_callback_ends_the_former_and_gets_its_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("callback.sh");
        std::fs::write(
            &script,
            "echo \"$@\" >> \"$1\"\n[ \"$2\" = on_start ] && sleep 5; echo end >> \"$1\"\n",
        )
        .unwrap();
        let out = dir.path().join("out");
        let command = format!("/bin/sh {} {}", script.display(), out.display());
        let callbacks = Callbacks::default();
        callbacks.start(&command, "on_start", "replica", "main").unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        callbacks
            .start(&command, "on_role_change", "primary", "main")
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let lines = std::fs::read_to_string(&out).unwrap();
        let words: Vec<&str> = lines.lines().collect();
        assert_eq!(words.len(), 3, "{lines}");
        assert!(words[0].ends_with("on_start replica main"));
        assert!(words[1].ends_with("on_role_change primary main"));
        assert_eq!(words[2], "end");
        assert!(
            callbacks
                .start("/nonexistent/x", "on_stop", "replica", "main")
                .is_err()
        );
    }
}
