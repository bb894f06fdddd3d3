//! The page around the drawing: verdict, explanations, list of events, and the data that the script looks things up in.

use std::fmt::Write as _;

use crate::check::Violation;
use crate::clock::Time;
use crate::record::{Entry, Seen};
use crate::run::{Job, Outcome};

use super::scene::{Band, Left, Scene};
use super::svg::{self, escape};
use super::{causes, scene};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page of a run that was kept with its messages.
#[must_use]
pub fn page(job: &Job, outcome: &Outcome) -> String {
    let facts: Vec<Entry> = outcome
        .entries
        .iter()
        .filter(|entry| !entry.seen.is_detail())
        .cloned()
        .collect();
    let causes = causes::causes(&facts);
    let scene = Scene::of(outcome);
    let drawing = svg::draw(&scene);
    let replay = job.replay();
    let title = match &outcome.violation {
        Some(violation) => format!("{} in seed {}", violation.invariant, job.seed),
        None => format!("seed {}", job.seed),
    };
    let duration = format!("{:.3}", scene.end as f64 / 1e6);
    let parts: [(&str, &str); 14] = [
        ("@STYLE@", STYLE),
        ("@TITLE@", &escape(&title)),
        ("@VERDICT@", &verdict(outcome, &facts, &causes, &scene)),
        ("@CHIPS@", &chips(job, outcome)),
        ("@REPLAY@", &escape(&replay)),
        ("@STORY@", &escape(&job.text())),
        ("@HEIGHT@", &drawing.height.to_string()),
        ("@DURATION@", &duration),
        ("@PLOT@", &drawing.plot),
        ("@ARROWS@", &drawing.arrows),
        ("@LABELS@", &drawing.labels),
        ("@GUTTER@", &drawing.gutter),
        ("@DATA@", &data(outcome, &facts, &causes, &scene)),
        ("@SCRIPT@", SCRIPT),
    ];
    let mut page = String::with_capacity(PAGE.len() + drawing.plot.len() * 2);
    let mut rest = PAGE;
    // One pass over the template: what is put in is never looked at again.
    while let Some(begin) = rest.find('@') {
        page.push_str(&rest[..begin]);
        rest = &rest[begin..];
        match parts.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                page.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                page.push('@');
                rest = &rest[1..];
            }
        }
    }
    page.push_str(rest);
    page
}

fn seconds(time: Time) -> String {
    format!("{:.3} s", time as f64 / 1e9)
}

fn chips(job: &Job, outcome: &Outcome) -> String {
    let mut chips = String::new();
    let mut chip = |name: &str, value: String| {
        let _ = write!(
            chips,
            "<span class=\"chip\"><b>{}</b> {name}</span>",
            escape(&value)
        );
    };
    chip("world", job.world.to_string());
    chip("members", outcome.names.len().to_string());
    chip("simulated", format!("{:.0} s", outcome.simulated as f64 / 1e9));
    chip(
        "faults and acts of people",
        outcome.coverage.steps.values().sum::<u64>().to_string(),
    );
    chip("promotions", outcome.promotions.to_string());
    chip("writes acknowledged", outcome.acks.to_string());
    if let Some(bug) = job.bug {
        chip("planted", bug.to_string());
    }
    chip("hash", format!("{:016x}", outcome.hash));
    chips
}

/// What the run came to; for a violation the facts that clash, and what led to each.
fn verdict(outcome: &Outcome, facts: &[Entry], causes: &[Vec<u64>], scene: &Scene) -> String {
    let Some(violation) = &outcome.violation else {
        return format!(
            "<section class=\"verdict good\"><h2>No invariant was broken</h2><p>Everything was well {:.0} s after the last fault.</p></section>",
            outcome.recovered as f64 / 1e9
        );
    };
    let Violation {
        invariant, text, at, ..
    } = violation;
    let mut html = format!(
        "<section class=\"verdict bad\"><h2>{invariant}, {}, is broken at {}</h2><p class=\"law\">{}</p><p>{}</p><div class=\"clash\">",
        escape(invariant.title()),
        seconds(*at),
        escape(invariant.words()),
        escape(text)
    );
    for (index, serial) in violation.facts.iter().enumerate() {
        let Ok(place) = facts.binary_search_by_key(serial, |entry| entry.serial) else {
            continue;
        };
        let letter = char::from(b'A' + u8::try_from(index % 26).unwrap_or(0));
        let _ = write!(
            html,
            "<div class=\"fact\"><h3><i>{letter}</i> {}</h3><ol class=\"chain\">",
            escape(&line(&facts[place], outcome))
        );
        for link in causes::chain(facts, causes, *serial) {
            if let Ok(place) = facts.binary_search_by_key(&link, |entry| entry.serial) {
                html.push_str(&item(&facts[place], outcome));
            }
        }
        let _ = write!(
            html,
            "</ol><p class=\"law\">{}</p></div>",
            escape(&moment(scene, &facts[place]))
        );
    }
    html.push_str(&meanwhile(violation, outcome, facts));
    html.push_str("</div></section>");
    html
}

/// What happened between the facts that clash; nothing if they are one.
fn meanwhile(violation: &Violation, outcome: &Outcome, facts: &[Entry]) -> String {
    const MOST: usize = 12;
    let at = |serial: &u64| {
        facts
            .binary_search_by_key(serial, |entry| entry.serial)
            .map(|place| facts[place].at)
            .ok()
    };
    let times: Vec<Time> = violation.facts.iter().filter_map(at).collect();
    let (Some(from), Some(to)) = (times.iter().min(), times.iter().max()) else {
        return String::new();
    };
    let told: Vec<&Entry> = causes::between(facts, *from, *to).collect();
    if told.is_empty() {
        return String::new();
    }
    let left_out = told.len().saturating_sub(MOST);
    let before = match left_out {
        0 => String::new(),
        more => format!("<li>{more} more before</li>"),
    };
    let items: String = told[left_out..]
        .iter()
        .map(|entry| item(entry, outcome))
        .collect();
    format!("<div class=\"fact\"><h3>Between the two</h3><ol class=\"chain\">{before}{items}</ol></div>")
}

/// An entry as an item of a list that can be clicked.
fn item(entry: &Entry, outcome: &Outcome) -> String {
    let text = escape(&line(entry, outcome));
    format!(
        "<li class=\"{}\" data-s=\"{}\" title=\"{text}\"><time>{}</time> {text}</li>",
        kind(&entry.seen),
        entry.serial,
        seconds(entry.at)
    )
}

/// How things stood with the node of an entry, in a sentence.
fn moment(scene: &Scene, entry: &Entry) -> String {
    let at = entry.at;
    let Some(lane) = entry.node.and_then(|node| scene.lanes.get(node)) else {
        return String::new();
    };
    let during = |bands: &[Band]| {
        let band = bands.iter().rev().find(|band| band.from <= at && at <= band.to);
        band.map(|band| band.label.clone())
    };
    let left = |lefts: &[Left]| {
        lefts
            .iter()
            .rev()
            .find(|left| left.from <= at && at <= left.to)
            .map(|left| left.until)
    };
    let name = &lane.name;
    let holder = during(&scene.leader).unwrap_or_else(|| "nobody".to_owned());
    let agent = match during(&lane.agent).as_deref() {
        Some("agent") => "its agent runs".to_owned(),
        Some(other) => other.replace("agent", "its agent is"),
        None => "no agent runs".to_owned(),
    };
    let right = match left(&lane.right) {
        Some(until) => format!("its right to be primary runs until {}", seconds(until)),
        None => "there is no right to be primary".to_owned(),
    };
    let guard = match left(&lane.guard) {
        Some(until) => format!("its guard kills at {}", seconds(until)),
        None => "no guard has a deadline".to_owned(),
    };
    format!("At that moment {holder} holds the leader key. On {name} {agent}, {right}, and {guard}.")
}

/// What an entry says, with its node.
fn line(entry: &Entry, outcome: &Outcome) -> String {
    match entry.node.and_then(|node| outcome.names.get(node)) {
        Some(name) => format!("{name}: {}", entry.seen),
        None => entry.seen.to_string(),
    }
}

/// The group that an entry is listed in.
fn kind(seen: &Seen) -> &'static str {
    match seen {
        Seen::StepBegan { .. } | Seen::StepEnded { .. } | Seen::Healed => "fault",
        Seen::LockTaken { .. }
        | Seen::LockRenewed { .. }
        | Seen::LockReleased { .. }
        | Seen::LockLost { .. } => "lock",
        Seen::Right { .. } | Seen::Granted { .. } => "right",
        Seen::GuardBegan | Seen::Armed { .. } | Seen::Lifted | Seen::GuardDied => "guard",
        Seen::AgentBegan
        | Seen::AgentEnded { .. }
        | Seen::AgentDied
        | Seen::AgentFrozen { .. }
        | Seen::HostFrozen { .. }
        | Seen::Power { .. }
        | Seen::Configured(_)
        | Seen::Broken { .. } => "agent",
        Seen::Decided(_) => "decision",
        Seen::OrderBegan { .. } | Seen::OrderEnded { .. } => "order",
        Seen::WriteAsked { .. }
        | Seen::WriteEnded { .. }
        | Seen::Committed { .. }
        | Seen::ReadAsked { .. }
        | Seen::ReadEnded { .. }
        | Seen::Health { .. }
        | Seen::Routed { .. } => "client",
        Seen::StatusWritten { .. }
        | Seen::InitializeWritten { .. }
        | Seen::FailsafeWritten { .. }
        | Seen::FailoverWritten { .. }
        | Seen::FailoverCleared
        | Seen::MemberKey { .. }
        | Seen::EtcdLeader { .. }
        | Seen::EtcdMember { .. }
        | Seen::Compacted { .. } => "etcd",
        _ => "server",
    }
}

/// A string of JSON that may stand in a script.
fn json(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => {
                json.push('\\');
                json.push(char);
            }
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => _ = write!(json, "\\u{:04x}", char as u32),
            char if char.is_control() => _ = write!(json, "\\u{:04x}", char as u32),
            char => json.push(char),
        }
    }
    json.push('"');
    json
}

fn list<T>(items: impl IntoIterator<Item = T>, write: impl Fn(T) -> String) -> String {
    let items: Vec<String> = items.into_iter().map(write).collect();
    format!("[{}]", items.join(","))
}

fn ms(time: Time) -> String {
    format!("{:.3}", time as f64 / 1e6)
}

/// The data of the script: events with their causes, and the state of each node over time.
fn data(outcome: &Outcome, facts: &[Entry], causes: &[Vec<u64>], scene: &Scene) -> String {
    let bands = |bands: &[Band]| {
        list(bands, |band| {
            format!("[{},{},{}]", ms(band.from), ms(band.to), json(&band.label))
        })
    };
    let lefts = |lefts: &[Left]| {
        list(lefts, |left| {
            format!("[{},{},{}]", ms(left.from), ms(left.to), ms(left.until))
        })
    };
    let events = list(facts.iter().zip(causes), |(entry, because)| {
        let node = entry
            .node
            .map_or_else(|| "-1".to_owned(), |node| node.to_string());
        format!(
            "[{},{},{node},{},{},[{}]]",
            entry.serial,
            ms(entry.at),
            json(kind(&entry.seen)),
            json(&entry.seen.to_string()),
            because.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
        )
    });
    let nodes = list(&scene.lanes, |lane: &scene::Lane| {
        let standings = list(&lane.standings, |(at, standing)| {
            format!(
                "[{},{}]",
                ms(*at),
                json(&format!(
                    "{} on timeline {}",
                    standing.position, standing.timeline
                ))
            )
        });
        format!(
            "{{\"name\":{},\"server\":{},\"trouble\":{},\"agent\":{},\"lock\":{},\"guard\":{},\"right\":{},\"at\":{standings}}}",
            json(&lane.name),
            bands(&lane.server),
            bands(&lane.trouble),
            bands(&lane.agent),
            bands(&lane.lock),
            lefts(&lane.guard),
            lefts(&lane.right),
        )
    });
    let clash = outcome
        .violation
        .as_ref()
        .map_or(&[][..], |violation| &violation.facts);
    format!(
        "{{\"end\":{},\"events\":{events},\"nodes\":{nodes},\"leader\":{},\"clash\":[{}]}}",
        ms(scene.end),
        bands(&scene.leader),
        clash.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
    )
}
