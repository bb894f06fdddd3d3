//! What there is to draw: bands and marks, gathered from the entries in one pass.

use std::collections::BTreeMap;

use crate::clock::{MS, SEC, Time};
use crate::net::Place;
use crate::record::{Deed, End, Entry, Fate, LeaseEnd, OrderEnd, Seen, Standing};
use surus_scenarios::Nanos;
use surus_scenarios::text::Value as _;

use crate::run::Outcome;

use super::causes;

/// Something that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Band {
    pub(super) from: Time,
    pub(super) to: Time,
    /// Its class in the style sheet.
    pub(super) class: &'static str,
    /// Written into it if there is room.
    pub(super) label: String,
    /// The entry that began it.
    pub(super) serial: u64,
}

/// Something that happens at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: Time,
    pub(super) class: &'static str,
    pub(super) serial: u64,
}

/// A time that is left from `from` on, until `until`; it ends early at `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) from: Time,
    pub(super) to: Time,
    pub(super) until: Time,
}

/// A node's lane.
#[derive(Debug, Clone, Default)]
pub(super) struct Lane {
    pub(super) name: String,
    /// Agent alive, frozen or gone.
    pub(super) agent: Vec<Band>,
    /// PostgreSQL's role.
    pub(super) server: Vec<Band>,
    /// Power and standstill of the host, hung servers: over the role.
    pub(super) trouble: Vec<Band>,
    /// It holds the leader key.
    pub(super) lock: Vec<Band>,
    /// Until the guard kills.
    pub(super) guard: Vec<Left>,
    /// Until the right to be primary ends.
    pub(super) right: Vec<Left>,
    /// Decisions and other instants.
    pub(super) marks: Vec<Mark>,
    /// Faults whose text names it.
    pub(super) faults: Vec<Band>,
    /// Orders to PostgreSQL and for the lock.
    pub(super) orders: Vec<Band>,
    /// Where its data stands, at most ten times a second.
    pub(super) standings: Vec<(Time, Standing)>,
}

/// Writes of all clients in a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Writes {
    pub(super) ok: u32,
    pub(super) failed: u32,
    pub(super) unknown: u32,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrow {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) sent: Time,
    pub(super) arrives: Option<Time>,
    pub(super) what: &'static str,
}

/// The whole picture.
#[derive(Debug, Clone, Default)]
pub(super) struct Scene {
    pub(super) end: Time,
    /// When all faults ended.
    pub(super) healed: Option<Time>,
    pub(super) lanes: Vec<Lane>,
    /// Faults and acts of people, with the row that each is drawn in.
    pub(super) faults: Vec<(usize, Band)>,
    /// Who holds the leader key.
    pub(super) leader: Vec<Band>,
    /// The state of each etcd member that was ever told of, and who leads them.
    pub(super) members: BTreeMap<usize, Vec<Band>>,
    pub(super) etcd_leader: Vec<Band>,
    /// Writes, by slices of [`SLICE`].
    pub(super) writes: BTreeMap<u64, Writes>,
    /// No write was acknowledged for longer than a second.
    pub(super) outages: Vec<Band>,
    pub(super) arrows: Vec<Arrow>,
}

/// Writes are counted by this.
pub(super) const SLICE: Time = 250 * MS;

/// A silence of acknowledgements that is shown.
const OUTAGE: Time = SEC;
/// The last row of faults, in which they are drawn over one another where all others are taken.
const LAST: usize = 11;

impl Scene {
    pub(super) fn of(outcome: &Outcome) -> Self {
        let mut builder = Builder {
            scene: Self {
                end: outcome
                    .simulated
                    .max(outcome.entries.last().map_or(0, |entry| entry.at))
                    .max(SEC),
                lanes: outcome
                    .names
                    .iter()
                    .map(|name| Lane {
                        name: name.to_string(),
                        ..Lane::default()
                    })
                    .collect(),
                ..Self::default()
            },
            orders: BTreeMap::new(),
            last_ack: None,
        };
        for entry in &outcome.entries {
            builder.see(entry);
        }
        builder.finish()
    }
}

struct Builder {
    scene: Scene,
    orders: BTreeMap<(usize, u64), (Time, Deed, u64)>,
    last_ack: Option<Time>,
}

/// A band ends.
fn close(bands: &mut [Band], at: Time) {
    if let Some(band) = bands.last_mut()
        && at < band.to
    {
        band.to = at;
    }
}

/// A band begins, and the one before it ends.
fn open(bands: &mut Vec<Band>, at: Time, class: &'static str, label: impl Into<String>, serial: u64) {
    close(bands, at);
    bands.push(Band {
        from: at,
        to: Time::MAX,
        class,
        label: label.into(),
        serial,
    });
}

fn stop(lefts: &mut [Left], at: Time) {
    if let Some(left) = lefts.last_mut() {
        left.to = left.to.min(at);
    }
}

impl Builder {
    fn see(&mut self, entry: &Entry) {
        let Entry {
            at,
            node,
            ref seen,
            serial,
            ..
        } = *entry;
        match seen {
            Seen::StepBegan { text, .. } => self.fault(at, text, serial),
            Seen::StepEnded { step } => self.fault_ends(at, *step),
            Seen::Healed => {
                self.scene.healed = Some(at);
                let lanes = self.scene.lanes.iter_mut().flat_map(|lane| &mut lane.faults);
                for band in lanes.chain(self.scene.faults.iter_mut().map(|(_, band)| band)) {
                    band.to = band.to.min(at.max(band.from));
                }
            }
            Seen::EtcdLeader { term, member } => {
                close(&mut self.scene.etcd_leader, at);
                if let Some(member) = member {
                    let label = format!("etcd{} leads, term {}", member + 1, term.0);
                    open(&mut self.scene.etcd_leader, at, "etcd-leader", label, serial);
                }
            }
            Seen::EtcdMember { member, up } => {
                let bands = self.scene.members.entry(*member).or_default();
                if *up {
                    close(bands, at);
                } else {
                    open(bands, at, "etcd-down", format!("etcd{} down", member + 1), serial);
                }
            }
            Seen::WriteEnded { fate, .. } => {
                let slice = self.scene.writes.entry(at / SLICE).or_default();
                match fate {
                    Fate::Ok => {
                        slice.ok += 1;
                        self.acked(at, serial);
                    }
                    Fate::Failed => slice.failed += 1,
                    Fate::Unknown => slice.unknown += 1,
                }
            }
            Seen::Message {
                from,
                to,
                arrives,
                what,
            } => self.scene.arrows.push(Arrow {
                from: *from,
                to: *to,
                sent: at,
                arrives: *arrives,
                what,
            }),
            _ => {}
        }
        if let Some(node) = node.filter(|node| *node < self.scene.lanes.len()) {
            self.at_node(node, entry);
        }
    }

    fn acked(&mut self, at: Time, serial: u64) {
        if let Some(last) = self.last_ack.filter(|last| OUTAGE < at - last) {
            self.scene.outages.push(Band {
                from: last,
                to: at,
                class: "outage",
                label: format!("{:.1} s", (at - last) as f64 / 1e9),
                serial,
            });
        }
        self.last_ack = Some(at);
    }

    fn fault(&mut self, at: Time, text: &str, serial: u64) {
        let span = span(text);
        let to = span.map_or(at, |span| at.saturating_add(span));
        let busy = |row: &usize| {
            let room = self.scene.end / 40;
            let mut bands = self.scene.faults.iter().filter(|(other, _)| other == row);
            bands.any(|(_, band)| at < band.to.min(self.scene.end).max(band.from + 4 * room))
        };
        let row = (0..LAST).find(|row| !busy(row)).unwrap_or(LAST);
        let band = Band {
            from: at,
            to,
            class: "fault",
            label: rounded(text),
            serial,
        };
        for node in causes::named(text) {
            if let Some(lane) = self.scene.lanes.get_mut(node) {
                lane.faults.push(band.clone());
            }
        }
        self.scene.faults.push((row, band));
    }

    fn fault_ends(&mut self, at: Time, step: usize) {
        // Steps are told in the order of their numbers, traps excepted, which end at once.
        if let Some((_, band)) = self
            .scene
            .faults
            .get_mut(step)
            .filter(|(_, band)| band.from <= at)
        {
            band.to = at;
        }
    }

    fn at_node(&mut self, node: usize, entry: &Entry) {
        let Entry {
            at, ref seen, serial, ..
        } = *entry;
        let name = self.scene.lanes[node].name.clone();
        let lane = &mut self.scene.lanes[node];
        match seen {
            Seen::LockTaken { .. } => {
                open(&mut lane.lock, at, "lock", "leader key", serial);
                lane.marks.push(Mark {
                    at,
                    class: "lock",
                    serial,
                });
                open(
                    &mut self.scene.leader,
                    at,
                    LEADERS[node % LEADERS.len()],
                    name,
                    serial,
                );
            }
            Seen::LockReleased { .. } | Seen::LockLost { .. } => {
                close(&mut lane.lock, at);
                close(&mut self.scene.leader, at);
                let class = if matches!(
                    seen,
                    Seen::LockLost {
                        why: LeaseEnd::Expired | LeaseEnd::Deposed,
                        ..
                    }
                ) {
                    "bad"
                } else {
                    "lock"
                };
                lane.marks.push(Mark { at, class, serial });
            }
            Seen::Right { until, .. } => {
                stop(&mut lane.right, at);
                lane.right.push(Left {
                    from: at,
                    to: *until,
                    until: *until,
                });
            }
            Seen::Armed { until } => {
                stop(&mut lane.guard, at);
                lane.guard.push(Left {
                    from: at,
                    to: *until,
                    until: *until,
                });
            }
            Seen::Lifted | Seen::GuardDied => stop(&mut lane.guard, at),
            Seen::Starting { as_primary, standing } => {
                let label = if *as_primary {
                    "starts as primary"
                } else {
                    "starts as replica"
                };
                open(&mut lane.server, at, "starting", label, serial);
                lane.standings.push((at, *standing));
            }
            Seen::Up { primary, standing } => {
                let (class, word) = if *primary {
                    ("primary", "primary")
                } else {
                    ("replica", "replica")
                };
                let label = if *primary {
                    format!("{word}, timeline {}", standing.timeline)
                } else {
                    word.to_owned()
                };
                open(&mut lane.server, at, class, label, serial);
                lane.standings.push((at, *standing));
            }
            Seen::Promoted { standing, .. } => {
                let label = format!("primary, timeline {}", standing.timeline);
                open(&mut lane.server, at, "primary", label, serial);
                lane.standings.push((at, *standing));
                lane.marks.push(Mark {
                    at,
                    class: "server",
                    serial,
                });
            }
            Seen::Streaming { upstream, standing } => {
                lane.standings.push((at, *standing));
                let label = format!("replica of n{}", upstream + 1);
                if let Some(band) = lane
                    .server
                    .last_mut()
                    .filter(|band| band.to == Time::MAX && band.class == "replica")
                {
                    if band.from == at || band.label == label {
                        band.label = label;
                    } else {
                        open(&mut lane.server, at, "replica", label, serial);
                    }
                }
            }
            Seen::Closing => open(&mut lane.server, at, "closing", "stopping", serial),
            Seen::Ended { how, standing } => {
                close(&mut lane.server, at);
                close(&mut lane.trouble, at);
                lane.standings.extend(standing.map(|standing| (at, standing)));
                let class = if *how == End::FastStop { "server" } else { "bad" };
                lane.marks.push(Mark { at, class, serial });
            }
            Seen::Hung { hung } => trouble(lane, at, *hung, "hung", "PostgreSQL hangs", serial),
            Seen::HostFrozen { frozen } => trouble(lane, at, *frozen, "hung", "host stands still", serial),
            Seen::Power { on } => trouble(lane, at, !on, "dark", "no power", serial),
            Seen::Committed { standing, .. }
                if lane
                    .standings
                    .last()
                    .is_none_or(|(last, _)| last + 100 * MS <= at) =>
            {
                lane.standings.push((at, *standing));
            }
            Seen::Rebuilt { standing, .. } => {
                lane.standings.push((at, *standing));
                lane.marks.push(Mark {
                    at,
                    class: "server",
                    serial,
                });
            }
            Seen::WalLost { standing, .. } => {
                lane.standings.push((at, *standing));
                lane.marks.push(Mark {
                    at,
                    class: "bad",
                    serial,
                });
            }
            Seen::Discarded { .. } | Seen::DataGone { .. } | Seen::DataBroken | Seen::Broken { .. } => {
                lane.marks.push(Mark {
                    at,
                    class: "bad",
                    serial,
                });
            }
            Seen::AgentBegan => open(&mut lane.agent, at, "agent", "agent", serial),
            Seen::AgentDied | Seen::AgentEnded { .. } => {
                close(&mut lane.agent, at);
                lane.marks.push(Mark {
                    at,
                    class: "agent",
                    serial,
                });
            }
            Seen::AgentFrozen { frozen: true } => open(&mut lane.agent, at, "frozen", "agent frozen", serial),
            Seen::AgentFrozen { frozen: false } => open(&mut lane.agent, at, "agent", "agent", serial),
            Seen::Decided(_) => lane.marks.push(Mark {
                at,
                class: "decision",
                serial,
            }),
            Seen::OrderBegan { id, order, .. } if shown(*order) => {
                self.orders.insert((node, *id), (at, *order, serial));
            }
            Seen::OrderEnded { id, end, .. } => {
                if let Some((from, order, serial)) = self.orders.remove(&(node, *id)) {
                    let class = if *end == OrderEnd::Done {
                        "order"
                    } else {
                        "order not"
                    };
                    lane.orders.push(Band {
                        from,
                        to: at,
                        class,
                        label: order.name().to_owned(),
                        serial,
                    });
                }
            }
            _ => {}
        }
    }

    fn finish(mut self) -> Scene {
        for ((node, _), (from, order, serial)) in std::mem::take(&mut self.orders) {
            self.scene.lanes[node].orders.push(Band {
                from,
                to: from,
                class: "order not",
                label: order.name().to_owned(),
                serial,
            });
        }
        let end = self.scene.end;
        if let Some(last) = self.last_ack.filter(|last| OUTAGE < end.saturating_sub(*last)) {
            self.scene.outages.push(Band {
                from: last,
                to: end,
                class: "outage",
                label: format!("{:.1} s", (end - last) as f64 / 1e9),
                serial: 0,
            });
        }
        let scene = &mut self.scene;
        let lanes = scene.lanes.iter_mut().flat_map(|lane| {
            [
                &mut lane.agent,
                &mut lane.server,
                &mut lane.trouble,
                &mut lane.lock,
                &mut lane.faults,
                &mut lane.orders,
            ]
        });
        let groups = lanes
            .chain([&mut scene.leader, &mut scene.etcd_leader])
            .chain(scene.members.values_mut());
        let bands = groups
            .flatten()
            .chain(scene.faults.iter_mut().map(|(_, band)| band));
        for band in bands {
            band.to = band.to.min(end).max(band.from);
        }
        for lane in &mut scene.lanes {
            for left in lane.guard.iter_mut().chain(&mut lane.right) {
                left.to = left.to.min(end).max(left.from);
            }
        }
        self.scene
    }
}

/// Classes of the leader's band, by the node's place.
const LEADERS: [&str; 7] = ["who0", "who1", "who2", "who3", "who4", "who5", "who6"];

fn trouble(lane: &mut Lane, at: Time, begins: bool, class: &'static str, label: &str, serial: u64) {
    if begins {
        open(&mut lane.trouble, at, class, label, serial);
    } else {
        close(&mut lane.trouble, at);
    }
}

/// Orders that are drawn: those that change something, not the routine.
fn shown(order: Deed) -> bool {
    !matches!(
        order,
        Deed::Probe
            | Deed::Renew
            | Deed::WriteMember
            | Deed::ReadCluster
            | Deed::SetDeadline
            | Deed::AskPeers
            | Deed::AskFailsafe
            | Deed::SyncSlots
            | Deed::Reply
            | Deed::WriteHistory
            | Deed::WriteFailsafe
    )
}

/// How long a step lasts by its text: `for=8s`, `back=3.2s`. A trap waits, and what springs of it is told when it does.
fn span(text: &str) -> Option<Time> {
    if text.starts_with("when ") {
        return None;
    }
    let mut words = text.split_whitespace();
    let value = words.find_map(|word| word.strip_prefix("for=").or(word.strip_prefix("back=")))?;
    Nanos::read(value).map(|span| span.0)
}

/// The text with times that can be read at a glance: `for=2.14s`.
fn rounded(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let (key, value) = word.split_once('=').unwrap_or(("", word));
        match Nanos::read(value).filter(|time| *time != Nanos::FOREVER && Nanos::ms(1) <= *time) {
            Some(time) => {
                let grain = if time < Nanos::secs(1) {
                    Nanos::ms(1)
                } else {
                    Nanos::ms(10)
                };
                let round = Nanos((time.0 + grain.0 / 2) / grain.0 * grain.0);
                format!("{key}{}{round}", if key.is_empty() { "" } else { "=" })
            }
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
