//! The commands of the scripts, and how answers are written down.
//!
//! `KEY` is a word; `KEY..END` is a range, `KEY..` all from there on. `at=` names a member: a number, `leader`, `follower`, or a name given
//! by `name`. Leases are named `L1`, …; watches by any word. `require` asks for a leader.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use goldenscript::{Argument, Command, Context};
use surus_sim::model::etcd::api::Range;
use surus_sim::model::etcd::{
    Compare, Delete, KeyValue, Keys, Op, Put, Relation, Request, Response, Target, Told, Txn, Watch,
};

use super::{Asked, Bytes, Cluster};

/// A script under way.
pub(crate) struct Script<C> {
    cluster: C,
    members: usize,
    down: Vec<bool>,
    names: BTreeMap<String, usize>,
    watches: BTreeMap<String, u64>,
    term: u64,
}

type Said = Result<String, Box<dyn Error>>;

/// The words after the command: those by place and those by name.
struct Words {
    places: Vec<String>,
    names: BTreeMap<String, String>,
}

impl Words {
    fn of(args: &[String]) -> Self {
        let (mut places, mut names) = (Vec::new(), BTreeMap::new());
        for arg in args {
            match arg.split_once('=') {
                Some((name, value)) if ["at", "lease", "rev", "limit", "start"].contains(&name) => {
                    names.insert(name.to_owned(), value.to_owned());
                }
                _ => places.push(arg.clone()),
            }
        }
        Self { places, names }
    }

    fn place(&self, index: usize) -> Result<&str, String> {
        let word = self.places.get(index).map(String::as_str);
        word.ok_or_else(|| format!("word {} is missing", index + 1))
    }

    fn number(&self, name: &str) -> Result<i64, String> {
        self.names.get(name).map_or(Ok(0), |text| {
            text.parse().map_err(|_| format!("{text} is no number"))
        })
    }

    fn has(&self, word: &str) -> bool {
        self.places.iter().any(|place| place == word)
    }

    fn lease(&self) -> Result<i64, String> {
        self.names.get("lease").map_or(Ok(0), |name| lease(name))
    }
}

fn lease(name: &str) -> Result<i64, String> {
    let number = name
        .strip_prefix('L')
        .and_then(|number| number.parse::<i64>().ok());
    number
        .map(|number| 7000 + number)
        .ok_or_else(|| format!("{name} is no lease"))
}

fn keys(word: &str) -> Keys<Bytes> {
    match word.split_once("..") {
        None => Keys::One(word.into()),
        Some((first, "")) => Keys::From(first.into()),
        Some((first, end)) => Keys::Between(first.into(), end.into()),
    }
}

fn op(text: &str) -> Result<Op<Bytes, Bytes>, String> {
    let args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let Some((verb, rest)) = args.split_first() else {
        return Err("an empty step".to_owned());
    };
    let words = Words::of(rest);
    Ok(match verb.as_str() {
        "put" => Op::Put(put(&words)?),
        "get" => Op::Range(range(&words)?),
        "del" => Op::Delete(delete(&words)?),
        other => return Err(format!("no step {other}")),
    })
}

fn put(words: &Words) -> Result<Put<Bytes, Bytes>, String> {
    Ok(Put {
        key: words.place(0)?.into(),
        value: (!words.has("ignore_value"))
            .then(|| words.place(1))
            .transpose()?
            .map(Into::into),
        lease: (!words.has("ignore_lease")).then(|| words.lease()).transpose()?,
        previous: words.has("prev"),
    })
}

fn range(words: &Words) -> Result<Range<Bytes>, String> {
    Ok(Range {
        keys: keys(words.place(0)?),
        revision: words.number("rev")?,
        limit: usize::try_from(words.number("limit")?).unwrap_or(0),
        serializable: words.has("serializable"),
        count_only: words.has("count"),
    })
}

fn delete(words: &Words) -> Result<Delete<Bytes>, String> {
    Ok(Delete {
        keys: keys(words.place(0)?),
        previous: words.has("prev"),
    })
}

/// `mod(a) = 3`, `value(a) != x`, …
fn compare(text: &str) -> Result<Compare<Bytes, Bytes>, String> {
    let bad = || format!("no condition: {text}");
    let (target, rest) = text.split_once('(').ok_or_else(bad)?;
    let (key, rest) = rest.split_once(") ").ok_or_else(bad)?;
    let (relation, value) = rest.split_once(' ').ok_or_else(bad)?;
    let number = || value.parse::<i64>().map_err(|_| bad());
    Ok(Compare {
        keys: keys(key),
        is: match relation {
            "=" => Relation::Equal,
            "!=" => Relation::NotEqual,
            ">" => Relation::Greater,
            "<" => Relation::Less,
            _ => return Err(bad()),
        },
        to: match target {
            "version" => Target::Version(number()?),
            "create" => Target::Create(number()?),
            "mod" => Target::Mod(number()?),
            "value" => Target::Value(value.into()),
            "lease" if value == "0" => Target::Lease(0),
            "lease" => Target::Lease(lease(value)?),
            _ => return Err(bad()),
        },
    })
}

fn txn(places: &[String]) -> Result<Txn<Bytes, Bytes>, String> {
    let mut txn = Txn::default();
    let mut part = 0;
    for word in places {
        match (word.as_str(), part) {
            ("then", _) => part = 1,
            ("else", _) => part = 2,
            (text, 0) => txn.when.push(compare(text)?),
            (text, 1) => txn.then.push(op(text)?),
            (text, _) => txn.otherwise.push(op(text)?),
        }
    }
    Ok(txn)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn show(kv: &KeyValue<Bytes, Bytes>) -> String {
    let mut line = format!(
        "{}={} create={} mod={} version={}",
        text(&kv.key),
        text(kv.value.as_deref().unwrap_or_default()),
        kv.create,
        kv.modified,
        kv.version
    );
    if kv.lease != 0 {
        let _ = write!(line, " lease=L{}", kv.lease - 7000);
    }
    line
}

/// An answer, a line for each thing in it.
pub(crate) fn lines(response: &Response<Bytes, Bytes>, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    let mut line = |text: String| {
        let _ = writeln!(out, "{pad}{text}");
    };
    match response {
        Response::Range { kvs, more, count } => {
            for kv in kvs {
                line(show(kv));
            }
            line(format!("count={count}{}", if *more { " more" } else { "" }));
        }
        Response::Put(previous) => line(match previous {
            Some(kv) => format!("put, was {}", show(kv)),
            None => "put".to_owned(),
        }),
        Response::Delete { deleted, previous } => {
            line(format!("deleted={deleted}"));
            for kv in previous {
                line(format!("was {}", show(kv)));
            }
        }
        Response::Txn { succeeded, responses } => {
            line(if *succeeded { "then" } else { "else" }.to_owned());
            for response in responses {
                lines(response, depth + 1, out);
            }
        }
        Response::Compact => line("compacted".to_owned()),
        Response::Grant { id, ttl } => line(format!("L{} ttl={ttl}", id - 7000)),
        Response::Revoke => line("revoked".to_owned()),
        Response::KeepAlive { ttl: 0, .. } => line("no such lease".to_owned()),
        Response::KeepAlive { id, ttl } => line(format!("L{} ttl={ttl}", id - 7000)),
        Response::TimeToLive { ttl: -1, .. } => line("no such lease".to_owned()),
        Response::TimeToLive { granted, keys, .. } => {
            let keys: Vec<String> = keys.iter().map(|key| text(key)).collect();
            line(format!("granted={granted} keys={}", keys.join(",")));
        }
        Response::Leases(ids) => {
            let mut ids: Vec<String> = ids.iter().map(|id| format!("L{}", id - 7000)).collect();
            ids.sort();
            line(format!("leases={}", ids.join(",")));
        }
        Response::Status { .. } | Response::Token(_) | Response::MoveLeader | Response::Alarm => {
            line("done".to_owned());
        }
    }
}

impl<C: Cluster> Script<C> {
    pub(crate) fn new(cluster: C, members: usize) -> Self {
        let mut script = Self {
            cluster,
            members,
            down: vec![false; members],
            names: BTreeMap::new(),
            watches: BTreeMap::new(),
            term: 0,
        };
        script.leader();
        script
    }

    /// Waits until all that run know one leader.
    fn leader(&mut self) -> Option<usize> {
        for _ in 0..150 {
            let members = (0..self.members).filter(|member| !self.down[*member]);
            let known: Vec<Option<usize>> = members
                .collect::<Vec<_>>()
                .into_iter()
                .map(|member| self.cluster.leader(member))
                .collect();
            if let Some(Some(first)) = known.first().copied()
                && known.iter().all(|leader| *leader == Some(first))
                && !self.down[first]
            {
                return Some(first);
            }
            self.cluster.sleep(Duration::from_millis(100));
        }
        None
    }

    fn member(&mut self, name: &str) -> Result<usize, String> {
        if let Some(member) = self.names.get(name) {
            return Ok(*member);
        }
        match name {
            "leader" => self.leader().ok_or_else(|| "no leader".to_owned()),
            "follower" | "other" => {
                let leader = self.leader().ok_or("no leader")?;
                let mut rest = (0..self.members).filter(|member| *member != leader && !self.down[*member]);
                let nth = usize::from(name == "other");
                rest.nth(nth).ok_or_else(|| "no follower".to_owned())
            }
            _ => name.parse().map_err(|_| format!("no member {name}")),
        }
    }

    fn at(&mut self, words: &Words) -> Result<usize, String> {
        match words.names.get("at").cloned() {
            Some(name) => self.member(&name),
            None => Ok((0..self.members).find(|member| !self.down[*member]).unwrap_or(0)),
        }
    }

    /// Asks, and writes down the answer with the revision in its header.
    fn ask(&mut self, words: &Words, asked: Asked) -> Said {
        let member = self.at(words)?;
        // A keep-alive is answered with the header from before it; and a revision that others make is not this answer's.
        let revision = !matches!(asked, Request::KeepAlive(_) | Request::TimeToLive(..));
        Ok(match self.cluster.ask(member, words.has("require"), asked) {
            Ok((header, response)) => {
                let mut out = String::new();
                lines(&response, 0, &mut out);
                if revision {
                    let _ = writeln!(out, "rev={}", header.revision);
                }
                out
            }
            Err((code, message)) => format!("error {code}: {message}\n"),
        })
    }

    fn events(&mut self, name: &str) -> Said {
        let id = *self.watches.get(name).ok_or("no such watch")?;
        let mut out = String::new();
        for told in self.cluster.told(id) {
            match told {
                Told::Created => out.push_str("created\n"),
                Told::Progress => out.push_str("progress\n"),
                Told::Compacted(revision) => {
                    let _ = writeln!(out, "cancelled, compacted at {revision}");
                }
                Told::Ended(error) => {
                    let _ = writeln!(out, "ended: {}", error.message());
                }
                Told::Events(events) => {
                    for event in events {
                        let kind = if event.kv.value.is_some() { "put" } else { "del" };
                        let _ = write!(out, "{kind} {}", show(&event.kv));
                        if let Some(previous) = &event.previous {
                            let _ = write!(out, ", was {}", show(previous));
                        }
                        out.push('\n');
                    }
                }
            }
        }
        Ok(out)
    }
}

impl<C: Cluster> goldenscript::Runner for Script<C> {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Said {
        let args: Vec<String> = command
            .args
            .iter()
            .map(|arg| match arg {
                Argument::KeyValue(key, value) => format!("{key}={value}"),
                Argument::Positional(value) => value.clone(),
                _ => String::new(),
            })
            .collect();
        let words = Words::of(&args);
        let place = |index| words.place(index);
        match command.name.as_str() {
            "put" => self.ask(&words, Request::Put(put(&words)?)),
            "get" => self.ask(&words, Request::Range(range(&words)?)),
            "del" => self.ask(&words, Request::Delete(delete(&words)?)),
            "txn" => {
                let places: Vec<String> = words
                    .places
                    .iter()
                    .filter(|place| *place != "require")
                    .cloned()
                    .collect();
                self.ask(&words, Request::Txn(txn(&places)?))
            }
            "compact" => self.ask(&words, Request::Compact(place(0)?.parse()?)),
            "grant" => {
                let (id, ttl) = (lease(place(0)?)?, place(1)?.parse()?);
                self.ask(&words, Request::Grant { id, ttl })
            }
            "revoke" => self.ask(&words, Request::Revoke(lease(place(0)?)?)),
            "keepalive" => self.ask(&words, Request::KeepAlive(lease(place(0)?)?)),
            "ttl" => self.ask(&words, Request::TimeToLive(lease(place(0)?)?, true)),
            "leases" => self.ask(&words, Request::Leases),
            "watch" => {
                let id = self.watches.len() as u64 + 1;
                let watch = Watch {
                    keys: keys(place(1)?),
                    start: words.number("start")?,
                    previous: words.has("prev"),
                    require_leader: words.has("require"),
                };
                let member = self.at(&words)?;
                self.watches.insert(place(0)?.to_owned(), id);
                self.cluster.watch(member, id, watch);
                self.events(place(0)?)
            }
            "events" => self.events(place(0)?),
            "progress" => {
                let id = *self.watches.get(place(0)?).ok_or("no such watch")?;
                self.cluster.progress(id);
                self.events(place(0)?)
            }
            "sleep" => {
                self.cluster.sleep(Duration::from_millis(place(0)?.parse()?));
                Ok(String::new())
            }
            "name" => {
                let member = self.member(place(1)?)?;
                self.names.insert(place(0)?.to_owned(), member);
                Ok(String::new())
            }
            "leads" => {
                let member = self.member(place(0)?)?;
                let leads = self.leader() == Some(member);
                Ok(format!("{leads}\n"))
            }
            // Whether the term has risen since it was asked last.
            "term" => {
                let member = self.at(&words)?;
                let asked = Request::Range(Range::new(Keys::One(b"term".to_vec())));
                let term = match self.cluster.ask(member, false, asked) {
                    Ok((header, _)) => header.term,
                    Err((code, message)) => return Ok(format!("error {code}: {message}\n")),
                };
                let before = std::mem::replace(&mut self.term, term);
                Ok(match term.cmp(&before) {
                    _ if before == 0 => "noted\n",
                    std::cmp::Ordering::Less => "fell\n",
                    std::cmp::Ordering::Equal => "same\n",
                    std::cmp::Ordering::Greater => "rose\n",
                }
                .to_owned())
            }
            "stop" | "start" | "freeze" | "thaw" => {
                let member = self.member(place(0)?)?;
                self.down[member] = matches!(command.name.as_str(), "stop" | "freeze");
                match command.name.as_str() {
                    "stop" => self.cluster.stop(member),
                    "start" => {
                        self.cluster.start(member);
                        if self.members == 1 {
                            self.leader();
                        }
                    }
                    "freeze" => self.cluster.freeze(member),
                    _ => self.cluster.thaw(member),
                }
                Ok(String::new())
            }
            other => Err(format!("no command {other}").into()),
        }
    }
}
