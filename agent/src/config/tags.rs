//! `tags`: what a member says about itself, to the others and to load balancers.

use serde_json::{Map, Value};

use super::scalar;
use super::section::Section;
use super::settings::Tags;
use super::yaml::Data;

/// Tags that are on or off, with the priority that says the same in numbers.
const SWITCHES: &[(&str, Option<&str>)] = &[
    ("nofailover", Some("failover_priority")),
    ("nosync", Some("sync_priority")),
    ("noloadbalance", None),
    ("clonefrom", None),
    ("nostream", None),
];

pub(super) fn read(top: &Section<'_>) -> Tags {
    let section = top.section("tags");
    let (nofailover, failover_priority) = switch_and_priority(&section, "nofailover", "failover_priority");
    let (nosync, _) = switch_and_priority(&section, "nosync", "sync_priority");
    let mut tags = Tags {
        nofailover,
        failover_priority,
        nosync,
        noloadbalance: section.boolean("noloadbalance").unwrap_or(false),
        clonefrom: section.boolean("clonefrom").unwrap_or(false),
        nostream: section.boolean("nostream").unwrap_or(false),
        replicatefrom: section.text("replicatefrom"),
        published: published(&section),
    };
    if tags.nostream && tags.replicatefrom.is_some() {
        section.warning(
            "replicatefrom",
            "has no effect on a member with `nostream`",
            "remove one of the two: without streaming there is no upstream",
        );
        tags.replicatefrom = None;
    }
    if let (Some(upstream), Some(name)) = (&tags.replicatefrom, top.text("name"))
        && *upstream == name
    {
        section.error(
            "replicatefrom",
            "a member cannot replicate from itself",
            "name another member, or remove it",
        );
    }
    tags
}

/// A tag pair such as nofailover and failover_priority. The switch wins over the number, as in Patroni.
fn switch_and_priority<'a>(section: &Section<'a>, switch: &'a str, priority: &'a str) -> (bool, u32) {
    let off = section.boolean(switch);
    let number = section.integer(priority, i64::MIN..=i64::MAX);
    if let (Some(off), Some(number)) = (off, number)
        && off == (number > 0)
    {
        section.warning(
            switch,
            format!(
                "Conflicting configuration between {switch}: {off} and {priority}: {number}. Defaulting to {switch}: {off}"
            ),
            format!("write only `{priority}`: 0 or less means the same as {switch}"),
        );
    }
    let off = off.unwrap_or_else(|| number.is_some_and(|number| number <= 0));
    let number = match number {
        Some(number) => u32::try_from(number.max(0)).unwrap_or(u32::MAX),
        None => 1,
    };
    (off, if off { 0 } else { number })
}

fn published(section: &Section<'_>) -> Map<String, Value> {
    let entries = section.entries();
    let mut map = Map::new();
    for entry in entries {
        let switch = SWITCHES.iter().find(|(name, _)| *name == entry.key);
        let value = match (&entry.value.data, switch) {
            (Data::List(_) | Data::Map(_), _) => {
                section.error(&entry.key, "a tag is one value", "write `name: value`");
                continue;
            }
            (Data::Scalar { text, .. }, Some((_, priority))) => match scalar::boolean(text) {
                Some(false) if !priority.is_some_and(|priority| section.key(priority).is_some()) => continue,
                Some(on) => Value::Bool(on),
                None => continue,
            },
            (Data::Scalar { .. }, None) => entry.value.to_json(),
        };
        if !value.is_null() {
            map.insert(entry.key.clone(), value);
        }
    }
    map
}
