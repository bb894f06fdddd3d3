//! One run: what to run, in which world, and how it ended.
//!
//! ```text
//!   Job { world, seed, story, bug } ── run ──▶ Outcome { violation, hash, entries, coverage, … }
//! ```
//!
//! A run depends on its [`Job`] alone. Without a story of its own the story is made from the seed; with one the seed still
//! draws the delays, so that a story printed from a seed and played with that seed gives the same bytes. A panic ends a run as S12
//! with its message and place, and what was recorded until then is kept.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use surus_core::types::NodeName;
use surus_scenarios::{Played, Story};

use crate::check::Violation;
use crate::clock::Time;
use crate::coverage::Coverage;
use crate::fast;
use crate::nemesis::{self, Fixed};
use crate::record::{Entry, Keep};
use crate::zoo::Bug;

/// The worlds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Kind {
    /// Cores and models in one queue of events.
    #[default]
    Fast,
    /// The real agent over a simulated network, whose time jumps.
    #[cfg(feature = "turmoil")]
    Turmoil,
    /// The same over the other network, whose time ticks.
    #[cfg(feature = "turmoil")]
    TurmoilTick,
}

impl Kind {
    /// Those that this build has.
    pub const ALL: &'static [Self] = &[
        Self::Fast,
        #[cfg(feature = "turmoil")]
        Self::Turmoil,
        #[cfg(feature = "turmoil")]
        Self::TurmoilTick,
    ];

    /// Its name, as files have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            #[cfg(feature = "turmoil")]
            Self::Turmoil => "turmoil",
            #[cfg(feature = "turmoil")]
            Self::TurmoilTick => "turmoil-tick",
        }
    }

    /// What `--world` and `--network` say for it; a world with one network takes none.
    #[must_use]
    pub fn arguments(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Fast => ("fast", None),
            #[cfg(feature = "turmoil")]
            Self::Turmoil => ("turmoil", Some("jump")),
            #[cfg(feature = "turmoil")]
            Self::TurmoilTick => ("turmoil", Some("tick")),
        }
    }

    /// The world of this name, and the network of that one, or the first that it has.
    #[must_use]
    pub fn of(world: &str, network: Option<&str>) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| {
            let (its, over) = kind.arguments();
            its == world && (network.is_none() || network == over)
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// In which world.
    pub world: Kind,
    /// The source of all chance.
    pub seed: u64,
    /// What happens; `None`: what the seed makes.
    pub story: Option<Story>,
    /// The file that the story was read from: what a replay names instead of the seed.
    pub file: Option<String>,
    /// Members, if the seed shall not draw their number. Has no effect on a story that is given.
    pub nodes: Option<usize>,
    /// Synchronous replication, whatever the seed draws. Has no effect on a story that is given.
    pub synchronous: bool,
    /// The planted bug.
    pub bug: Option<Bug>,
}

impl Job {
    /// A seed in the fast world.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// What will happen.
    #[must_use]
    pub fn story(&self) -> Story {
        match &self.story {
            Some(story) => story.clone(),
            None => {
                let Self {
                    nodes, synchronous, ..
                } = *self;
                nemesis::story(self.seed, Fixed { nodes, synchronous })
            }
        }
    }

    /// What happens, as a text that every world can play.
    #[must_use]
    pub fn text(&self) -> String {
        let story = Story {
            seed: Some(self.seed),
            ..self.story()
        };
        story.to_string()
    }

    /// The command that replays it to the same bytes on any machine with this version.
    #[must_use]
    pub fn replay(&self) -> String {
        let mut command = match &self.file {
            Some(file) => format!("surus-sim replay {file} --seed {}", self.seed),
            None => format!("surus-sim replay {}", self.seed),
        };
        if self.world != Kind::default() {
            let (world, network) = self.world.arguments();
            command += &format!(" --world {world}");
            if let Some(network) = network
                && Kind::of(world, None) != Some(self.world)
            {
                command += &format!(" --network {network}");
            }
        }
        if let Some(nodes) = self.nodes {
            command += &format!(" --nodes {nodes}");
        }
        if self.synchronous {
            command += " --synchronous";
        }
        if let Some(bug) = self.bug {
            command += &format!(" --bug {bug}");
        }
        command
    }

    /// Runs it: a phase with faults in which nothing unsafe may happen, and one without in which all must become well.
    #[must_use]
    pub fn run(&self, keep: Keep) -> Outcome {
        let _planted = surus_core::zoo::plant(self.bug.and_then(Bug::flaw));
        match self.world {
            Kind::Fast => fast::play(self, keep),
            #[cfg(feature = "turmoil")]
            Kind::Turmoil | Kind::TurmoilTick => crate::turmoil::play::play(self, keep),
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// What must not happen and did.
    pub violation: Option<Violation>,
    /// The hash of all that happened, messages excepted.
    pub hash: u64,
    /// The members' names.
    pub names: Vec<NodeName>,
    /// What happened, if it was kept.
    pub entries: Vec<Entry>,
    /// What has fired.
    pub coverage: Coverage,
    /// What was played.
    pub story: Story,
    /// World time at the end.
    pub simulated: Time,
    /// Events handled.
    pub events: u64,
    /// Writes acknowledged.
    pub acks: u64,
    /// Promotions.
    pub promotions: u64,
    /// From the end of the faults until all was well.
    pub recovered: Time,
    /// What became of the story: steps without effect, and what the world cannot do. `None` after a panic.
    pub played: Option<Played>,
}

impl Outcome {
    /// What happened, a line each.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.entries.iter().map(|entry| entry.line(&self.names))
    }

    /// How it ended, in a line, with the hash.
    #[must_use]
    pub fn verdict(&self) -> String {
        let verdict = match &self.violation {
            Some(violation) => violation.to_string(),
            None => format!(
                "all well {:.0} s after the last fault",
                self.recovered as f64 / 1e9
            ),
        };
        format!(
            "{verdict}; {:.1} s simulated, hash {:016x}",
            self.simulated as f64 / 1e9,
            self.hash
        )
    }
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls `f`; a panic in it is told in words, with its place, and is not printed.
///
/// # Errors
/// The panic.
pub fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !CATCHING.get() {
                return usual(panic);
            }
            let words = panic.payload_as_str().unwrap_or("a panic without words");
            let place = panic
                .location()
                .map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
            CAUGHT.set(Some(format!("panicked{place}: {words}")));
        }));
    });
    let before = CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(before);
    result.map_err(|_| CAUGHT.take().unwrap_or_else(|| "panicked".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        let text = caught(|| panic!("{} is too much", 7)).unwrap_err();
        assert!(text.starts_with("panicked at sim/src/run.rs:"), "{text}");
        assert!(text.ends_with(": 7 is too much"), "{text}");
        assert_eq!(caught(|| 7), Ok(7));
    }
}
