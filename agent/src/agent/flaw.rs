//! A planted flaw, in a build for trials of the tests: `SURUS_FLAW` names the safeguard of the core that this agent lacks.
//!
//! Only with the feature `zoo`, which nothing that is shipped turns on. Such a build says what it is: in its version, and when it starts.

use surus_core::zoo::{Flaw, plant};
use tokio::runtime::Builder;

/// The environment variable that names the flaw.
const NAME: &str = "SURUS_FLAW";

/// Gives the flaw that the environment names, if it names one, to every thread on which the core may run.
///
/// # Errors
/// There is no such flaw; the text is for people.
pub(super) fn plant_named(builder: &mut Builder) -> Result<(), String> {
    let Some(name) = std::env::var_os(NAME) else {
        return Ok(());
    };
    let known = Flaw::ALL.iter().find(|flaw| name == flaw.name());
    let flaw = *known.ok_or_else(|| {
        format!(
            "error: {NAME}={}: there is no such flaw\n\nhint: agent/core/src/zoo.rs has their names",
            name.display()
        )
    })?;
    tracing::warn!("a build for trials, with a planted flaw: {}", flaw.text());
    builder.on_thread_start(move || std::mem::forget(plant(Some(flaw))));
    Ok(())
}
