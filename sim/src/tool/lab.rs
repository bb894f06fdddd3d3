//! `surus-sim lab`: a world at one's fingers. The words are those of stories, and what was done can be kept as one.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use surus_scenarios::text::Value as _;
use surus_scenarios::{
    Expectation, Failure, Fault, Load, Nanos, Operator, ParseError, Planned, Player, Step, Story, Taken,
};
use surus_sim::check::{Charter, Checker};
use surus_sim::fast::world::World;
use surus_sim::record::Keep;

use crate::Trouble;
use crate::replay::{Level, ink};
use crate::style::{Ink, Paint};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Begin with the cluster of this story, and with what happens in it
    #[arg(value_name = "FILE")]
    story: Option<PathBuf>,
    /// The world's chances
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How much of what happens is shown while time passes
    #[arg(long, value_enum, default_value_t = Level::News)]
    level: Level,
}

/// What a line that is not of a story asks for.
const WORDS: &[(&str, &str)] = &[
    (
        "cluster, node, etcd, client, router",
        "make the cluster, as the first lines of a story do; before anything else",
    ),
    (
        "run TIME",
        "let so much time pass: run 10s; an empty line is a second",
    ),
    ("show", "where everybody stands"),
    (
        "level news|decisions|facts",
        "how much of what happens is shown from now on",
    ),
    (
        "help [WORD]",
        "these, or how a fault, an act of people or clients, or an expectation is written",
    ),
    ("save FILE.story [TITLE]", "keep what was done as a story"),
    ("quit", "end"),
];
/// The words that make a cluster.
const SHAPE: &[&str] = &["cluster", "node", "etcd", "client", "router"];
/// How long a story that was kept waits for all to be well.
const BOUND: Nanos = Nanos::secs(60);

pub(crate) fn run(args: &Args) -> Result<bool, Trouble> {
    let console = Console {
        paint: Paint::stdout(),
        terminal: io::stdin().is_terminal(),
        level: args.level,
    };
    let mut story = match &args.story {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| format!("{}: {error}", file.display()))?
            .parse()
            .map_err(|error| format!("{}: {error}", file.display()))?,
        None => Story::default(),
    };
    let told = std::mem::take(&mut story.steps);
    story.expectations.clear();
    let first = if args.story.is_some() {
        None
    } else {
        console.shape(&mut story)?
    };
    story.seed = story.seed.or((args.seed != 0).then_some(args.seed));
    let keep = if args.level == Level::Messages {
        Keep::Messages
    } else {
        Keep::Facts
    };
    let mut world = World::new(story.seed.unwrap_or(args.seed), &story.shape, keep);
    world.record.checker = Checker::new(Charter::of(&story));
    let mut lab = Lab {
        console,
        player: Player::new(&mut world, Nanos::ZERO),
        story,
        violated: false,
    };
    for Planned { at, step } in told {
        lab.pass(at);
        lab.act(step);
    }
    lab.converse(first)?;
    Ok(lab.violated)
}

/// Where lines come from and go to.
struct Console {
    paint: Paint,
    terminal: bool,
    level: Level,
}

impl Console {
    fn say(&self, ink: Ink, text: impl std::fmt::Display) {
        println!("{}", self.paint.ink(ink, text));
    }

    /// The next line; `None` at the end.
    fn ask(&self, prompt: &str) -> Result<Option<String>, Trouble> {
        if self.terminal {
            print!("{}", self.paint.ink(Ink::Strong, format!("{prompt}> ")));
            io::stdout().flush()?;
        }
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line)?;
        Ok((read != 0).then(|| line.trim().to_owned()))
    }

    /// Reads the lines that make the cluster, up to the first other one, which it returns.
    fn shape(&self, story: &mut Story) -> Result<Option<String>, Trouble> {
        if self.terminal {
            self.say(
                Ink::Plain,
                "A simulated cluster of three, or what `cluster`, `node`, `etcd`, `client` and `router` make of it. `help` helps.",
            );
        }
        let mut head = "cluster n1 n2 n3\n".to_owned();
        while let Some(line) = self.ask("cluster")? {
            let word = line.split_whitespace().next().unwrap_or_default();
            if word == "help" {
                self.help(&line);
                continue;
            }
            if !SHAPE.contains(&word) {
                return Ok(Some(line));
            }
            let more = if word == "cluster" {
                format!("{line}\n")
            } else {
                format!("{head}{line}\n")
            };
            match more.parse() {
                Ok(read) => (head, *story) = (more, read),
                Err(error) => self.explain(&error, 0),
            }
        }
        Ok(Some("quit".to_owned()))
    }

    /// Shows where in the line something is wrong; `shift` columns of it the person did not write.
    fn explain(&self, error: &ParseError, shift: usize) {
        let text = error.to_string();
        let what = text.split_once(": ").map_or(text.as_str(), |(_, what)| what);
        let column = error.at.column.saturating_sub(shift).max(1);
        self.say(Ink::Bad, format!("column {column}: {what}"));
    }

    fn help(&self, line: &str) {
        let wanted = line.split_whitespace().nth(1);
        if wanted.is_none() {
            for (word, about) in WORDS {
                println!("{word:<36}  {about}");
            }
        }
        let groups = [
            ("something goes wrong", Fault::verbs().collect::<Vec<_>>()),
            ("a person does something", Operator::VERBS.iter().collect()),
            ("clients do something", Load::VERBS.iter().collect()),
            (
                "something must hold: expect …",
                Expectation::VERBS.iter().collect(),
            ),
        ];
        for (title, verbs) in groups {
            match wanted {
                None => {
                    let words: Vec<_> = verbs.iter().map(|verb| verb.word).collect();
                    println!("{title}: {}", words.join(", "));
                }
                Some(wanted) => {
                    for verb in verbs
                        .iter()
                        .filter(|verb| verb.word.trim_end_matches(['=', '<']) == wanted)
                    {
                        println!("{verb}\n {}", verb.about.trim_end());
                    }
                }
            }
        }
    }
}

/// A world and who tells it what to do.
struct Lab<'a> {
    console: Console,
    player: Player<'a, World>,
    /// What was done so far.
    story: Story,
    /// An invariant is broken: time stands still.
    violated: bool,
}

impl Lab<'_> {
    fn converse(&mut self, first: Option<String>) -> Result<(), Trouble> {
        let mut next = first;
        loop {
            let line = match next.take() {
                Some(line) => line,
                None => {
                    let now = format!("{:.3}s", self.now().0 as f64 / 1e9);
                    match self.console.ask(&now)? {
                        Some(line) => line,
                        None => return Ok(()),
                    }
                }
            };
            if self.hear(&line).is_break() {
                return Ok(());
            }
        }
    }

    fn now(&self) -> Nanos {
        Nanos(self.player.world.now)
    }

    /// Does what a line says; breaks if that is to end.
    fn hear(&mut self, line: &str) -> ControlFlow<()> {
        let mut words = line.split_whitespace();
        match (words.next().unwrap_or("run"), words.next()) {
            ("quit" | "exit", None) => return ControlFlow::Break(()),
            ("help", _) => self.console.help(line),
            ("show", None) => {
                for line in self.player.world.roster() {
                    println!("{line}");
                }
            }
            ("level", Some(word)) => match <Level as clap::ValueEnum>::from_str(word, false) {
                Ok(Level::Messages) if self.console.level != Level::Messages => {
                    self.console.say(
                        Ink::Bad,
                        "messages are kept from the beginning or not at all: --level messages",
                    );
                }
                Ok(level) => self.console.level = level,
                Err(_) => self
                    .console
                    .say(Ink::Bad, "level news, decisions, facts or messages"),
            },
            ("run", None) => self.pass(self.now().plus(Nanos::secs(1))),
            ("run", Some(word)) => match Nanos::read(word) {
                Some(time) if time < Nanos::FOREVER => self.pass(self.now().plus(time)),
                _ => self
                    .console
                    .say(Ink::Bad, format!("`{word}` is no time such as 5s, 250ms or 2min")),
            },
            ("save", Some(file)) => {
                let title = line.split_once(file).map_or("", |(_, title)| title.trim());
                self.save(Path::new(file), title);
            }
            ("save", None) => self.console.say(Ink::Bad, "save FILE.story [TITLE]"),
            (word, _) if SHAPE.contains(&word) => {
                self.console
                    .say(Ink::Bad, "the cluster is made; this comes before everything else");
            }
            _ => self.tell(line),
        }
        ControlFlow::Continue(())
    }

    /// A line of a story, which happens now.
    fn tell(&mut self, line: &str) {
        let (head, at) = (self.story.shape.to_string(), format!("at {} ", self.now()));
        match format!("{head}{at}{line}\n").parse::<Story>() {
            Ok(mut read) => {
                if let Some(Planned { step, .. }) = read.steps.pop() {
                    self.act(step);
                }
            }
            Err(error) => self.console.explain(&error, at.len()),
        }
    }

    fn act(&mut self, step: Step) {
        let began = self.now();
        if self.story.steps.is_empty() {
            self.player.begin(began);
        }
        let taken = self.player.step(&step);
        self.story.steps.push(Planned {
            at: began,
            step: step.clone(),
        });
        match taken {
            Err(failure) => self.failed(&failure),
            Ok(Taken::Done) if matches!(step, Step::Expect(_)) => {
                // What may yet come true is waited for: that is what was asked.
                let settled = self.player.settle();
                self.news();
                if let Err(failure) = settled {
                    return self.failed(&failure);
                }
                let took = self.now().minus(began);
                self.console.say(Ink::Good, format!("holds after {took}"));
            }
            Ok(Taken::Done) => self.news(),
            Ok(Taken::Void(why)) => self.console.say(Ink::Dim, format!("without effect: {why}")),
            Ok(Taken::Unable(why)) => {
                self.console.say(Ink::Bad, format!("not possible here: {why}"));
                self.story.steps.pop();
            }
        }
    }

    /// Time passes until then.
    fn pass(&mut self, until: Nanos) {
        if self.violated {
            return self
                .console
                .say(Ink::Bad, "an invariant is broken: save, show or quit");
        }
        let passed = self.player.run_until(until);
        self.news();
        if let Err(failure) = passed {
            self.failed(&failure);
        }
    }

    fn failed(&mut self, failure: &Failure) {
        self.console.say(Ink::Bad, format!("does not hold: {failure}"));
        self.violated |= failure.expectation == "invariant";
    }

    /// What has happened since one looked last.
    fn news(&mut self) {
        let world = &mut self.player.world;
        for entry in world.record.take_entries() {
            if Level::of(&entry.seen) <= self.console.level {
                self.console.say(ink(&entry.seen), entry.line(&world.names));
            }
        }
    }

    fn save(&self, file: &Path, title: &str) {
        let name = file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let title = if title.is_empty() {
            "what was done in the lab"
        } else {
            title
        };
        let story = Story {
            name: name.to_owned(),
            title: title.to_owned(),
            notes: vec!["Why this is told, in a line or two.".to_owned()],
            end: self.now(),
            expectations: vec![
                Expectation::NoDualPrimary {},
                Expectation::Healthy { within: BOUND },
            ],
            ..self.story.clone()
        };
        match std::fs::write(file, story.to_string()) {
            Ok(()) => self
                .console
                .say(Ink::Good, format!("kept: surus-sim story {}", file.display())),
            Err(error) => self.console.say(Ink::Bad, format!("{}: {error}", file.display())),
        }
    }
}
