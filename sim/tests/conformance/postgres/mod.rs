//! PostgreSQL: the commands of its scripts, and who carries them out.
//!
//! A command's prefix names the server, as in `b: promote`. See [`Commands`] for what there is.

mod machine;
mod model;
mod real;

use std::collections::BTreeMap;
use std::error::Error;

use goldenscript::{Command, Context, Runner};

/// What a script wants to know of one server or do to it; the same for the model and for the real one. Answers are the words of the
/// golden files. An `Err` is a command that was refused, with the class of the error.
trait Side {
    /// `new`: initdb and start as primary.
    fn new_primary(&mut self, server: &str) -> Answer;
    /// `standby of=a [slot=s]`: base backup, standby.signal, start, and wait until it streams.
    fn standby(&mut self, server: &str, of: &str, slot: Option<&str>) -> Answer;
    /// `backup of=a`: a base backup alone.
    fn backup(&mut self, server: &str, of: &str) -> Answer;
    /// `follow a` or `follow nobody`, `[slot=s]`: primary_conninfo, and a reload if it runs.
    fn follow(&mut self, server: &str, of: Option<&str>, slot: Option<&str>) -> Answer;
    /// `signal on|off`: standby.signal.
    fn signal(&mut self, server: &str, on: bool) -> Answer;
    /// `start`: begins; the answer is what became of it: `primary`, `standby`, `starting`, or an error.
    fn start(&mut self, server: &str) -> Answer;
    /// `stop [immediate] [wait=no]`.
    fn stop(&mut self, server: &str, immediate: bool, wait: bool) -> Answer;
    /// `kill`: SIGKILL to every process.
    fn kill(&mut self, server: &str) -> Answer;
    /// `freeze` and `thaw`: SIGSTOP and SIGCONT to every process.
    fn freeze(&mut self, server: &str, on: bool) -> Answer;
    /// `role`: `primary`, `standby`, `starting`, `down`.
    fn role(&mut self, server: &str) -> String;
    /// `alive`: there is a postmaster.
    fn alive(&mut self, server: &str) -> bool;
    /// `commit VALUE [level=on] [wait=no]`: a transaction that inserts the value.
    fn commit(&mut self, server: &str, value: &str, level: &str, wait: bool) -> Answer;
    /// `sees`: the values that a reader sees.
    fn sees(&mut self, server: &str) -> Result<Vec<String>, String>;
    /// `waiting`: commits that wait for standbys.
    fn waiting(&mut self, server: &str) -> usize;
    /// `cancel` and `terminate`: what waits is cancelled, or its connection ended.
    fn cancel(&mut self, server: &str, terminate: bool) -> Answer;
    /// `bulk MB`: so much WAL without a commit.
    fn bulk(&mut self, server: &str, mib: u64) -> Answer;
    /// `switch`: pg_switch_wal.
    fn switch(&mut self, server: &str) -> Answer;
    /// `checkpoint`.
    fn checkpoint(&mut self, server: &str) -> Answer;
    /// `promote [wait=no]`.
    fn promote(&mut self, server: &str, wait: bool) -> Answer;
    /// `pause` and `resume` of replay.
    fn pause(&mut self, server: &str, on: bool) -> Answer;
    /// `set NAME VALUE`: a setting, and a reload if it runs.
    fn set(&mut self, server: &str, name: &str, value: &str) -> Answer;
    /// `control`: state, and timeline of the last checkpoint, as pg_controldata says.
    fn control(&mut self, server: &str) -> Result<(String, u32, bool), String>;
    /// `timeline`: as IDENTIFY_SYSTEM says.
    fn timeline(&mut self, server: &str) -> Result<u32, String>;
    /// `histories`: the timelines with a history file that holds something, and their parents.
    fn histories(&mut self, server: &str) -> Vec<(u32, Vec<u32>)>;
    /// `reserve UPTO`: empty history files up to this timeline.
    fn reserve(&mut self, server: &str, upto: u32) -> Answer;
    /// `compare a b`: how their logs lie to each other.
    fn compare(&mut self, a: &str, b: &str) -> String;
    /// `received`: pg_last_wal_receive_lsn: `nothing`, `start of the segment`, `all that was replayed`, `more than was replayed`.
    fn received(&mut self, server: &str) -> Result<String, String>;
    /// `receiver`: the walreceiver's status.
    fn receiver(&mut self, server: &str) -> Result<String, String>;
    /// `sync`: names and sync_state.
    fn sync(&mut self, server: &str) -> Result<Vec<(String, String)>, String>;
    /// `slot create|drop|advance NAME [logical=yes]`.
    fn slot(&mut self, server: &str, act: &str, name: &str, logical: bool) -> Answer;
    /// `slots`: names, active, kept or lost.
    fn slots(&mut self, server: &str) -> Result<Vec<(String, bool, String)>, String>;
    /// `rewind from=a`: pg_rewind.
    fn rewind(&mut self, server: &str, from: &str) -> Answer;
    /// `single`: crash recovery by a single-user server.
    fn single(&mut self, server: &str) -> Answer;
    /// `sleep SECONDS`: time passes.
    fn sleep(&mut self, seconds: u64);
    /// A moment passes, after which a question is asked again.
    fn moment(&mut self);
}

type Answer = Result<String, String>;

/// How often a wait asks again; a moment is a tenth of a second.
const PATIENCE: u32 = 150;

/// How what was received lies to what was replayed.
fn received(received: Option<u64>, replayed: u64) -> String {
    match received {
        None => "nothing",
        Some(received) if received < replayed && received % (16 << 20) == 0 => "start of the segment",
        Some(received) if received < replayed => "less than was replayed",
        Some(received) if received == replayed => "all that was replayed",
        Some(_) => "more than was replayed",
    }
    .to_owned()
}

/// Carries out the commands of a script.
struct Commands<S>(S);

impl<S: Side> Commands<S> {
    /// Asks until the answer is the wanted one.
    fn until(&mut self, mut ask: impl FnMut(&mut S) -> Option<bool>) -> bool {
        for _ in 0..PATIENCE {
            if ask(&mut self.0) == Some(true) {
                return true;
            }
            self.0.moment();
        }
        false
    }

    fn wait(&mut self, server: &str, what: &str, other: Option<&str>) -> Answer {
        let done = match (what, other) {
            ("streaming", _) => self.until(|side| Some(side.receiver(server).ok()? == "streaming")),
            ("role", Some(role)) => self.until(|side| Some(side.role(server) == role)),
            ("gone", _) => self.until(|side| Some(!side.alive(server))),
            ("equal", Some(other)) => self.until(|side| Some(side.compare(server, other) == "equal")),
            ("sees", Some(value)) => {
                self.until(|side| Some(side.sees(server).ok()?.iter().any(|seen| seen == value)))
            }
            ("timeline", Some(timeline)) => {
                self.until(|side| Some(side.timeline(server).ok()?.to_string() == timeline))
            }
            ("control", Some(timeline)) => {
                self.until(|side| Some(side.control(server).ok()?.1.to_string() == timeline))
            }
            ("state", Some(state)) => self.until(|side| Some(side.control(server).ok()?.0 == state)),
            ("sync", Some(state)) => {
                self.until(|side| Some(side.sync(server).ok()?.iter().any(|(_, seen)| seen == state)))
            }
            ("waiting", Some(count)) => self.until(|side| Some(side.waiting(server).to_string() == count)),
            ("no-sender", _) => self.until(|side| Some(side.sync(server).ok()?.is_empty())),
            _ => return Err(format!("nobody knows how to wait for {what}")),
        };
        if done {
            Ok(String::new())
        } else {
            Err(format!("waited for {what} in vain"))
        }
    }

    fn obey(&mut self, server: &str, command: &Command) -> Answer {
        let mut args = command.consume_args();
        let keyed: BTreeMap<&str, &str> = std::iter::from_fn(|| args.next_key()).collect();
        let mut args = command.consume_args();
        let mut rest: Vec<&str> = Vec::new();
        while let Some(value) = args.next_pos() {
            rest.push(value);
        }
        let first = rest.first().copied();
        let needed = || first.ok_or_else(|| "an argument is missing".to_owned());
        let of = || keyed.get("of").or(keyed.get("from")).copied();
        let source = || of().ok_or_else(|| "which server?".to_owned());
        let slot = keyed.get("slot").copied();
        let wait = keyed.get("wait") != Some(&"no");
        let side = &mut self.0;
        let list = |items: Vec<String>| {
            if items.is_empty() {
                "nothing".to_owned()
            } else {
                items.join(" ")
            }
        };
        match command.name.as_str() {
            "new" => side.new_primary(server),
            "standby" => side.standby(server, source()?, slot),
            "backup" => side.backup(server, source()?),
            "follow" => side.follow(server, Some(needed()?).filter(|name| *name != "nobody"), slot),
            "signal" => side.signal(server, needed()? == "on"),
            "start" => side.start(server),
            "stop" => side.stop(server, first == Some("immediate"), wait),
            "kill" => side.kill(server),
            "freeze" => side.freeze(server, true),
            "thaw" => side.freeze(server, false),
            "role" => Ok(side.role(server)),
            "alive" => Ok(if side.alive(server) { "yes" } else { "no" }.to_owned()),
            "commit" => {
                let level = keyed.get("level").copied().unwrap_or("on");
                side.commit(server, needed()?, level, wait)
            }
            "sees" => side.sees(server).map(list),
            "waiting" => Ok(side.waiting(server).to_string()),
            "cancel" => side.cancel(server, false),
            "terminate" => side.cancel(server, true),
            "bulk" => side.bulk(server, needed()?.parse().map_err(|_| "how much?".to_owned())?),
            "switch" => side.switch(server),
            "checkpoint" => side.checkpoint(server),
            "promote" => side.promote(server, wait),
            "pause" => side.pause(server, true),
            "resume" => side.pause(server, false),
            "set" => side.set(server, needed()?, rest.get(1).copied().unwrap_or_default()),
            "control" => side.control(server).map(|(state, timeline, recovery)| {
                let until = if recovery { ", recovery to a point" } else { "" };
                format!("{state}, timeline {timeline}{until}")
            }),
            "timeline" => side.timeline(server).map(|timeline| timeline.to_string()),
            "histories" => {
                let files = side.histories(server);
                let line = |(timeline, parents): (u32, Vec<u32>)| {
                    let parents: Vec<String> = parents.iter().map(u32::to_string).collect();
                    format!("{timeline}<{}", parents.join("<"))
                };
                Ok(list(files.into_iter().map(line).collect()))
            }
            "reserve" => side.reserve(server, needed()?.parse().map_err(|_| "up to which?".to_owned())?),
            "compare" => Ok(side.compare(server, needed()?)),
            "received" => side.received(server),
            "receiver" => side.receiver(server),
            "sync" => {
                let rows = side.sync(server)?;
                Ok(list(
                    rows.into_iter()
                        .map(|(name, state)| format!("{name}:{state}"))
                        .collect(),
                ))
            }
            "slot" => {
                let name = rest.get(1).copied().ok_or_else(|| "which slot?".to_owned())?;
                side.slot(server, needed()?, name, keyed.contains_key("logical"))
            }
            "slots" => {
                let rows = side.slots(server)?;
                let word = |active| if active { "active" } else { "idle" };
                let line =
                    |(name, active, wal): (String, bool, String)| format!("{name}:{}:{wal}", word(active));
                Ok(list(rows.into_iter().map(line).collect()))
            }
            "rewind" => side.rewind(server, source()?),
            "single" => side.single(server),
            "sleep" => {
                side.sleep(needed()?.parse().map_err(|_| "how long?".to_owned())?);
                Ok(String::new())
            }
            "await" => {
                let (what, other) = (needed()?, rest.get(1).copied());
                self.wait(server, what, other)
            }
            other => Err(format!("there is no command {other}")),
        }
    }
}

impl<S: Side> Runner for Commands<S> {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String, Box<dyn Error>> {
        let server = context.prefix.clone().unwrap_or_default();
        let answer = self.obey(&server, command);
        let text = match answer {
            Ok(text) if text.is_empty() => return Ok(String::new()),
            Ok(text) => text,
            Err(text) => format!("error: {text}"),
        };
        let what = command.to_string();
        Ok(format!("{what}: {text}\n"))
    }
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        mod on_the_model {
            $(
                #[test]
                fn $name() {
                    super::model::run(stringify!($name));
                }
            )*
        }

        mod on_postgresql {
            $(
                #[test]
                fn $name() {
                    super::real::run(stringify!($name));
                }
            )*
        }

        /// The scripts, in the order of their addresses.
        const SCRIPTS: &[&str] = &[$(stringify!($name)),*];
    };
}

#[test]
fn every_script_is_run() {
    super::all_listed("postgres", SCRIPTS);
}

include!("scripts.rs");
