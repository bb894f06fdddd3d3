//! What a verb is about: a seed or a story file, and in which world.

use std::fs;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{ArgMatches, Command, FromArgMatches};
use surus_scenarios::Story;
use surus_sim::campaign::CASE;
use surus_sim::run::{Job, Kind};
use surus_sim::zoo::Bug;

use crate::Trouble;

/// In which world, and how it differs from what the seed makes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Setting {
    #[command(flatten)]
    place: Place,
    /// So many members, instead of what the seed draws
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=7))]
    pub(crate) nodes: Option<u8>,
    /// Replicate synchronously, whatever the seed draws (a plot's worlds stay as they are)
    #[arg(long)]
    pub(crate) synchronous: bool,
    /// Plant this bug (`surus-sim zoo --list` names them)
    #[arg(long, value_parser = bug)]
    pub(crate) bug: Option<Bug>,
}

/// A world, with its network.
#[derive(Debug, Clone)]
struct Place(Kind);

#[derive(Debug, clap::Args)]
struct Named {
    /// The world to play in
    #[arg(long, default_value = "fast", value_parser = one_of(Kind::ALL.iter().map(|kind| kind.arguments().0)))]
    world: String,
    /// The network of the turmoil world: `jump` goes from event to event; `tick` through every millisecond, and is slower
    #[arg(long, value_parser = one_of(Kind::ALL.iter().filter_map(|kind| kind.arguments().1)))]
    network: Option<String>,
}

fn one_of(names: impl Iterator<Item = &'static str>) -> PossibleValuesParser {
    let mut names: Vec<_> = names.collect();
    names.dedup();
    PossibleValuesParser::new(names)
}

impl FromArgMatches for Place {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Named { world, network } = Named::from_arg_matches(matches)?;
        let unknown = || {
            let text = format!("--network goes with --world turmoil; the {world} world has none\n");
            clap::Error::raw(ErrorKind::ArgumentConflict, text)
        };
        Kind::of(&world, network.as_deref()).map(Self).ok_or_else(unknown)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Place {
    fn augment_args(command: Command) -> Command {
        Named::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Named::augment_args_for_update(command)
    }
}

impl Setting {
    /// The world to play in.
    pub(crate) fn world(&self) -> Kind {
        self.place.0
    }

    /// The job of a seed.
    pub(crate) fn job(&self, seed: u64) -> Job {
        Job {
            world: self.world(),
            seed,
            story: None,
            file: None,
            nodes: self.nodes.map(usize::from),
            synchronous: self.synchronous,
            bug: self.bug,
        }
    }
}

/// A seed or a story.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Subject {
    /// A seed, the file of a story, or a directory of the bug folder
    #[arg(value_name = "SEED|FILE")]
    what: String,
    /// The seed to play a story with, instead of its own
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    setting: Setting,
}

impl Subject {
    /// What to run.
    pub(crate) fn job(&self) -> Result<Job, Trouble> {
        if let Ok(seed) = self.what.parse() {
            return match self.seed {
                None => Ok(self.setting.job(seed)),
                Some(_) => Err(format!("--seed goes with a file; `{seed}` is a seed already").into()),
            };
        }
        let mut path = PathBuf::from(&self.what);
        if path.is_dir() {
            path.push(CASE);
        }
        let shown = path.display();
        let text = fs::read_to_string(&path).map_err(|error| {
            format!("{shown}: {error}; expected a seed such as 4711, or the file of a story")
        })?;
        let mut story: Story = text.parse().map_err(|error| format!("{shown}:{error}"))?;
        if self.setting.nodes.is_some() {
            return Err(format!("--nodes goes with a seed; {shown} names its members").into());
        }
        if self.setting.synchronous {
            return Err(format!("--synchronous goes with a seed; {shown} says how it replicates").into());
        }
        let seed = self.seed.or(story.seed).unwrap_or(1);
        story.seed = Some(seed);
        Ok(Job {
            story: Some(story),
            file: Some(shown.to_string()),
            ..self.setting.job(seed)
        })
    }
}

/// The planted bug of this name, in any case and with or without dashes.
pub(crate) fn bug(name: &str) -> Result<Bug, String> {
    let plain = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let names = || Bug::all().map(|bug| (bug, bug.name()));
    if let Some((bug, _)) = names().find(|(_, known)| plain(known) == plain(name)) {
        return Ok(bug);
    }
    let like = names().max_by(|(_, one), (_, two)| {
        let near = |known: &str| strsim::jaro_winkler(&plain(known), &plain(name));
        near(one).total_cmp(&near(two))
    });
    let like = like.map_or_else(String::new, |(_, like)| format!("; the nearest is {like}"));
    Err(format!(
        "no such planted bug{like}; `surus-sim zoo --list` names them all"
    ))
}
