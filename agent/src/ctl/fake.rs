//! A cluster made of plain values, for tests of the commands.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use serde_json::Value;

use crate::ctl::access::{ClusterAccess, Expect, Reply, Request, Unreachable};
use crate::ctl::cli::Cli;
use crate::ctl::failure::Failure;
use crate::ctl::session::{Node, Session};
use crate::ctl::terminal::Terminal;
use crate::dcs::snapshot::{RawCluster, RawKey};

/// What happens while a command sleeps.
type Event = Box<dyn FnOnce(&mut World)>;

/// The fake's state, shared with the test.
#[derive(Default)]
pub(super) struct World {
    /// Keys by cluster.
    pub(super) clusters: BTreeMap<String, BTreeMap<String, RawKey>>,
    /// Of the store.
    pub(super) revision: i64,
    /// Requests as `METHOD URL BODY`.
    pub(super) requests: Vec<String>,
    /// Answers by `METHOD URL`; everything else refuses the connection.
    pub(super) answers: BTreeMap<String, Result<Reply, Unreachable>>,
    /// One for each time that a command sleeps.
    pub(super) events: std::collections::VecDeque<Event>,
    /// Happens before the next write.
    pub(super) race: Option<Event>,
}

impl World {
    pub(super) fn put(&mut self, cluster: &str, key: &str, value: &str) {
        self.revision += 1;
        let raw = RawKey {
            value: value.to_owned(),
            create_revision: 1,
            mod_revision: self.revision,
            lease: 0,
        };
        self.clusters
            .entry(cluster.to_owned())
            .or_default()
            .insert(key.to_owned(), raw);
    }

    pub(super) fn answer(&mut self, what: &str, status: u16, text: &str) {
        self.answers.insert(
            what.to_owned(),
            Ok(Reply {
                status,
                text: text.to_owned(),
            }),
        );
    }

    pub(super) fn value(&self, cluster: &str, key: &str) -> Option<&str> {
        self.clusters.get(cluster)?.get(key).map(|key| key.value.as_str())
    }
}

struct Fake(Rc<RefCell<World>>);

impl ClusterAccess for Fake {
    fn read(&mut self, scope: &str) -> Result<RawCluster, Failure> {
        let world = self.0.borrow();
        let keys = world.clusters.get(scope).cloned().unwrap_or_default();
        Ok(RawCluster {
            keys,
            revision: world.revision,
            term: 2,
        })
    }

    fn put(&mut self, scope: &str, key: &str, value: &str, expect: Expect) -> Result<bool, Failure> {
        let race = self.0.borrow_mut().race.take();
        let mut world = self.0.borrow_mut();
        if let Some(race) = race {
            race(&mut world);
        }
        let revision = world
            .clusters
            .get(scope)
            .and_then(|keys| keys.get(key))
            .map(|key| key.mod_revision);
        let holds = match expect {
            Expect::Absent => revision.is_none(),
            Expect::Revision(expected) => revision == Some(expected),
        };
        if holds {
            world.put(scope, key, value);
        }
        Ok(holds)
    }

    fn delete_all(&mut self, scope: &str) -> Result<(), Failure> {
        self.0.borrow_mut().clusters.remove(scope);
        Ok(())
    }

    fn request(&mut self, api_url: &str, request: &Request<'_>) -> Result<Reply, Unreachable> {
        let mut world = self.0.borrow_mut();
        let base = api_url.trim_end_matches("/patroni");
        let what = format!("{} {base}/{}", request.method, request.path);
        let body = request.body.as_ref().map(Value::to_string).unwrap_or_default();
        world
            .requests
            .push(format!("{what} {body}").trim_end().to_owned());
        let refused = || {
            Err(Unreachable {
                reason: "connection refused".to_owned(),
                sent: false,
            })
        };
        world.answers.get(&what).cloned().unwrap_or_else(refused)
    }

    fn sleep(&mut self, _: Duration) {
        let event = self.0.borrow_mut().events.pop_front();
        if let Some(event) = event {
            event(&mut self.0.borrow_mut());
        }
    }

    fn now(&self) -> jiff::Timestamp {
        "2026-11-20T10:00:00.123456789Z".parse().unwrap()
    }
}

#[derive(Clone, Default)]
struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) out: String,
    pub(super) err: String,
    pub(super) code: u8,
}

/// A world and how to run commands in it.
pub(super) struct Bench {
    pub(super) world: Rc<RefCell<World>>,
    pub(super) scope: Option<String>,
}

impl Bench {
    /// The contract's example cluster: `nodea` leads `nodeb`.
    pub(super) fn demo() -> Self {
        let mut world = World::default();
        let member = |name: &str, host: &str, rest: &str| {
            format!(
                r#"{{"conn_url":"postgres://{host}:5432/postgres","api_url":"http://{name}:8008/patroni","state":"running",{rest}}}"#
            )
        };
        world.put("demo", "initialize", "7710181664234940600");
        world.put("demo", "leader", "nodea");
        world.put(
            "demo",
            "config",
            r#"{"loop_wait":10,"postgresql":{"parameters":{"max_connections":100}},"ttl":30}"#,
        );
        world.put("demo", "status", r#"{"optime":67108960}"#);
        let a = member(
            "nodea",
            "10.0.0.1",
            r#""role":"primary","xlog_location":67108960,"timeline":3"#,
        );
        world.put("demo", "members/nodea", &a);
        let b = r#""role":"replica","replication_state":"streaming","xlog_location":67108960,"receive_lsn":67108960,"replay_lsn":67108960,"timeline":3"#;
        world.put("demo", "members/nodeb", &member("nodeb", "10.0.0.2", b));
        Self {
            world: Rc::new(RefCell::new(world)),
            scope: Some("demo".to_owned()),
        }
    }

    /// Changes the world.
    pub(super) fn with(self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut self.world.borrow_mut());
        self
    }

    /// Runs a command with nobody to answer questions.
    pub(super) fn run(&self, arguments: &str) -> Outcome {
        self.start(arguments, "", false)
    }

    /// Runs a command with answers from a person.
    pub(super) fn talk(&self, arguments: &str, answers: &str) -> Outcome {
        self.start(arguments, answers, true)
    }

    /// Runs a command with answers from a pipe.
    pub(super) fn pipe(&self, arguments: &str, answers: &str) -> Outcome {
        self.start(arguments, answers, false)
    }

    fn start(&self, arguments: &str, answers: &str, interactive: bool) -> Outcome {
        let words = std::iter::once("surus").chain(arguments.split_whitespace());
        let cli = match Cli::try_parse_from(words) {
            Ok(cli) => cli,
            Err(error) => {
                let code = u8::try_from(error.exit_code()).unwrap();
                return Outcome {
                    out: String::new(),
                    err: error.to_string(),
                    code,
                };
            }
        };
        let (out, err) = (Buffer::default(), Buffer::default());
        let mut session = Session {
            access: Box::new(Fake(Rc::clone(&self.world))),
            terminal: Terminal {
                out: Box::new(out.clone()),
                err: Box::new(err.clone()),
                input: Box::new(Cursor::new(answers.to_owned().into_bytes())),
                interactive,
                out_is_terminal: false,
                err_is_terminal: false,
                drawn: None,
            },
            node: Node {
                scope: self.scope.clone(),
                namespace: "service".to_owned(),
                name: Some("nodea".to_owned()),
                api_url: Some("http://nodea:8008".to_owned()),
                file: Some("/etc/surus/surus.yml".into()),
            },
        };
        let code = match crate::ctl::dispatch(&mut session, &cli.command) {
            Ok(()) => 0,
            Err(failure) => {
                session.terminal.note(&format!("error: {failure}"));
                failure.code()
            }
        };
        Outcome {
            out: out.text(),
            err: err.text(),
            code,
        }
    }
}
