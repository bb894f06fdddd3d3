//! Reads a story.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::fault::Target;
use crate::shape::{Client, Health, Member, Route, Router, Settings, Shape, Tags};
use crate::story::{Planned, Step, Story, expectation};
use crate::text::{Args, At, Name, Nanos, ParseError, Value as _, line, nearest};
use crate::trap::Trap;

/// The words a line can begin with.
const LINES: &[&str] = &[
    "link",
    "requires",
    "stopped-by",
    "returns-with",
    "seed",
    "cluster",
    "node",
    "etcd",
    "client",
    "router",
    "at",
    "end",
    "expect",
];

impl FromStr for Story {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut reader = Reader::default();
        for (index, text) in text.lines().enumerate() {
            reader.line(index + 1, text)?;
        }
        reader.finish(text.lines().count() + 1)
    }
}

#[derive(Default)]
struct Reader {
    story: Story,
    /// No line but comments has come.
    headed: bool,
    cluster: bool,
    clients: bool,
    end: Option<Nanos>,
    /// Names that were used, and where: they are looked up when all is read.
    used: Vec<(Name, At)>,
}

impl Reader {
    fn line(&mut self, number: usize, text: &str) -> Result<(), ParseError> {
        if let Some(comment) = text.trim_start().strip_prefix('#') {
            if !self.headed {
                self.comment(comment.strip_prefix(' ').unwrap_or(comment).trim_end());
            }
            return Ok(());
        }
        if let Some(verbatim) = text.strip_prefix('|') {
            let verbatim = verbatim.strip_prefix(' ').unwrap_or(verbatim);
            self.story.shape.file.0.push(verbatim.to_owned());
            return Ok(());
        }
        let (tokens, end) = line(number, text)?;
        let mut args = Args::new(tokens, end);
        let Some(verb) = args.next() else { return Ok(()) };
        self.headed = true;
        let at = verb.at;
        match verb.text.as_str() {
            "link" => {
                let link = args.word("an address")?;
                self.story.links.push(link.text);
                args.finish(&[])
            }
            "requires" => {
                self.story.requires = args.positions("what a world must have")?;
                args.finish(&[])
            }
            "stopped-by" => {
                self.story.stopped_by = args.positions("a rule or guard")?;
                args.finish(&[])
            }
            "returns-with" => {
                self.story.returns_with = args.positions("a planted bug")?;
                args.finish(&[])
            }
            "seed" => {
                self.story.seed = Some(args.position("a seed")?);
                args.finish(&[])
            }
            "cluster" => self.cluster(args),
            "node" => {
                let token = args.peek().cloned();
                let name: Name = args.position("a member")?;
                let tags = Tags::read(&mut args)?;
                tags.names(&mut |name| self.used.push((name.clone(), at)));
                let known = self.story.shape.member(&name);
                let Some(index) = known else {
                    let names = self.story.shape.members.iter().map(|member| member.name.as_str());
                    let like = nearest(name.as_str(), names);
                    return Err(token
                        .unwrap_or(verb)
                        .wrong("a member of the `cluster` line above", like));
                };
                self.story.shape.members[index].tags = tags;
                args.finish(Tags::KEYS)
            }
            "etcd" => {
                self.story.shape.etcd = args.positions("an etcd member")?;
                for name in self
                    .story
                    .shape
                    .etcd
                    .iter()
                    .filter_map(|member| member.host.clone())
                {
                    self.used.push((name, at));
                }
                args.finish(&[])
            }
            "client" => {
                if !std::mem::replace(&mut self.clients, true) {
                    self.story.shape.clients.clear();
                }
                let name = args.position("a client")?;
                let route = Route::read(&mut args)?;
                route.names(&mut |name| self.used.push((name.clone(), at)));
                self.story.shape.clients.push(Client { name, route });
                args.finish(Route::KEYS)
            }
            "router" => {
                let name = args.position("a router")?;
                let health = Health::read(&mut args)?;
                self.story.shape.routers.push(Router { name, health });
                args.finish(Health::KEYS)
            }
            "at" => {
                let at_time = args.position("a time")?;
                let step = Step::read(args)?;
                self.look_up(&step, at);
                self.story.steps.push(Planned { at: at_time, step });
                Ok(())
            }
            "end" => {
                self.end = Some(args.position("a time")?);
                args.finish(&[])
            }
            "expect" => {
                let expectation = expectation(args)?;
                self.look_up(&Step::Expect(expectation.clone()), at);
                self.story.expectations.push(expectation);
                Ok(())
            }
            word => {
                let like = nearest(word, LINES.iter().copied());
                Err(verb.wrong(format!("one of {}", LINES.join(", ")), like))
            }
        }
    }

    /// The first comment is name and title, those after it are notes.
    fn comment(&mut self, text: &str) {
        let story = &mut self.story;
        if !story.name.is_empty() || !story.title.is_empty() {
            story.notes.push(text.to_owned());
        } else if let Some((name, title)) = text.split_once(": ") {
            (story.name, story.title) = (name.to_owned(), title.to_owned());
        } else {
            text.clone_into(&mut story.title);
        }
    }

    fn cluster(&mut self, mut args: Args) -> Result<(), ParseError> {
        let names: Vec<Name> = args.positions("a member")?;
        if names.is_empty() {
            return Err(args.missing("the names of the members"));
        }
        let members = names.into_iter().map(|name| Member {
            name,
            tags: Tags::default(),
        });
        self.story.shape.members = members.collect();
        self.story.shape.settings = Settings::read(&mut args)?;
        self.cluster = true;
        args.finish(Settings::KEYS)
    }

    /// Notes the names of a step that must be known.
    fn look_up(&mut self, step: &Step, at: At) {
        use crate::expect::Expectation as E;
        use crate::fault::{Fault, PostgresFault};
        use crate::operator::Operator as O;
        use crate::story::Strike;
        // These hold words of other worlds, which look like names.
        let foreign = match step {
            Step::Operator(act)
            | Step::Trap(Trap {
                strike: Strike::Operator(act),
                ..
            }) => {
                matches!(
                    act,
                    O::Set { .. } | O::Patch { .. } | O::Tag { .. } | O::ResetSetting { .. }
                )
            }
            Step::Fault(fault)
            | Step::Trap(Trap {
                strike: Strike::Fault(fault),
                ..
            }) => {
                matches!(fault, Fault::Postgres(PostgresFault::RogueStandby { .. }))
            }
            Step::Expect(expectation) => {
                matches!(
                    expectation,
                    E::Decides { .. } | E::Blocks { .. } | E::Parameter { .. }
                )
            }
            Step::Load(_) | Step::Heal => false,
        };
        if !foreign {
            step.names(&mut |name| self.used.push((name.clone(), at)));
        }
    }

    fn finish(mut self, last: usize) -> Result<Story, ParseError> {
        let missing = |expected: &str| ParseError {
            at: At {
                line: last,
                column: 1,
            },
            found: String::new(),
            expected: expected.to_owned(),
            nearest: None,
        };
        if !self.cluster {
            return Err(missing("a line `cluster NAME...`"));
        }
        let known = self.known();
        if let Some((name, at)) = self.used.iter().find(|(name, _)| !known.contains(name.as_str())) {
            return Err(ParseError {
                at: *at,
                found: name.0.clone(),
                expected: "the name of a member, etcd member, client or router".to_owned(),
                nearest: nearest(name.as_str(), known.iter().chain(Target::WORDS).copied()),
            });
        }
        let last_step = self.story.steps.iter().map(|planned| planned.at).max();
        self.story.end = self.end.or(last_step).unwrap_or_default();
        Ok(self.story)
    }

    fn known(&self) -> BTreeSet<&str> {
        let Shape {
            members,
            settings: _,
            etcd,
            clients,
            routers,
            file: _,
        } = &self.story.shape;
        let members = members.iter().map(|member| &member.name);
        let etcd = etcd.iter().map(|member| &member.name);
        let clients = clients.iter().map(|client| &client.name);
        let routers = routers.iter().map(|router| &router.name);
        members
            .chain(etcd)
            .chain(clients)
            .chain(routers)
            .map(Name::as_str)
            .collect()
    }
}
