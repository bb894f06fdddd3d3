//! The drawing. Across is time in milliseconds, which one transform scales; down are the lanes, in pixels.
//!
//! Only bands, lines and dots are in the scaled group, with strokes that do not scale; names in bands are put in place by the script, and
//! left out where there is no room for them.

use std::fmt::Write as _;

use crate::clock::Time;
use crate::net::Place;

use super::scene::{Arrow, Band, Lane, Left, SLICE, Scene, Writes};

/// The drawing, and where its lanes are.
#[derive(Debug, Clone)]
pub(super) struct Drawing {
    /// The scaled group's content.
    pub(super) plot: String,
    /// Arrows of messages: in the same group, not shown at first.
    pub(super) arrows: String,
    /// Names in bands.
    pub(super) labels: String,
    /// What is drawn at the left, over the plot.
    pub(super) gutter: String,
    /// Lanes: top, height, name.
    pub(super) height: u32,
}

/// Pixels of the parts of a node's lane, from its top.
const MARKS: u32 = 12;
const ORDERS: u32 = 20;
const SERVER: (u32, u32) = (30, 24);
const LOCK: (u32, u32) = (55, 5);
const AGENT: (u32, u32) = (62, 5);
const LEFT: (u32, u32) = (70, 28);
const NODE: u32 = 106;

/// Pixels of a row of faults, of the etcd lane's parts, and of the clients' lane.
const FAULT: u32 = 17;
const KEY: u32 = 20;
const MEMBER: u32 = 8;
const CLIENTS: u32 = 64;

/// Milliseconds for the drawing.
fn ms(time: Time) -> f64 {
    (time as f64 / 1e3).round() / 1e3
}

/// Text that is safe in XML.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            char => safe.push(char),
        }
    }
    safe
}

struct Pen {
    drawing: Drawing,
    y: u32,
    /// Where arrows of a station begin and end.
    stations: Vec<(Place, u32)>,
}

/// Draws.
pub(super) fn draw(scene: &Scene) -> Drawing {
    let mut pen = Pen {
        drawing: Drawing {
            plot: String::new(),
            arrows: String::new(),
            labels: String::new(),
            gutter: String::new(),
            height: 0,
        },
        y: 30,
        stations: Vec::new(),
    };
    pen.faults(scene);
    pen.etcd(scene);
    for (index, lane) in scene.lanes.iter().enumerate() {
        pen.node(index, lane);
    }
    pen.clients(scene);
    pen.arrows(&scene.arrows);
    if let Some(healed) = scene.healed {
        let (x, bottom) = (ms(healed), pen.y);
        pen.put(format_args!("<path class=\"healed\" d=\"M{x} 26V{bottom}\"/>"));
        pen.label(
            healed,
            scene.end,
            40,
            "all faults are over: everything must become well",
            "soft",
        );
    }
    pen.drawing.height = pen.y + 6;
    pen.drawing
}

impl Pen {
    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.drawing.plot.write_fmt(element);
        self.drawing.plot.push('\n');
    }

    fn label(&mut self, from: Time, to: Time, y: u32, text: &str, class: &str) {
        let (a, b, text) = (ms(from), ms(to), escape(text));
        let _ = writeln!(
            self.drawing.labels,
            "<text class=\"{class}\" data-a=\"{a}\" data-b=\"{b}\" y=\"{y}\">{text}</text>"
        );
    }

    fn band(&mut self, band: &Band, y: u32, height: u32) {
        let (x, width) = (ms(band.from), (ms(band.to) - ms(band.from)).max(0.0));
        let Band {
            class, label, serial, ..
        } = band;
        if width < 0.001 {
            // A rectangle without width is not drawn at all.
            return self.put(format_args!(
                "<path class=\"tick {class}\" d=\"M{x} {y}v{height}\" data-s=\"{serial}\"><title>{}</title></path>",
                escape(label)
            ));
        }
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width:.3}\" height=\"{height}\" data-s=\"{serial}\"><title>{}</title></rect>",
            escape(label)
        ));
    }

    /// A lane begins: its name at the left, and a line above it.
    fn lane(&mut self, name: &str, note: &str, height: u32, id: &str) {
        let y = self.y;
        let _ = writeln!(
            self.drawing.gutter,
            "<path class=\"rule\" d=\"M0 {y}H9999\"/><text class=\"name\" x=\"12\" y=\"{}\">{}</text>\
             <text class=\"note\" x=\"12\" y=\"{}\" id=\"{id}\">{}</text>",
            y + 22,
            escape(name),
            y + 38,
            escape(note)
        );
        if 90 <= height {
            for line in 1..4 {
                let _ = writeln!(
                    self.drawing.gutter,
                    "<text class=\"note\" x=\"12\" y=\"{}\" id=\"{id}-{line}\"></text>",
                    y + 38 + 15 * line
                );
            }
        }
    }

    fn faults(&mut self, scene: &Scene) {
        let rows = scene.faults.iter().map(|(row, _)| row + 1).max().unwrap_or(0);
        let height = (u32::try_from(rows).unwrap_or(0) * FAULT + 26).max(48);
        self.lane("faults", "and acts of people", height, "at-faults");
        for (row, band) in &scene.faults {
            let y = self.y + 18 + u32::try_from(*row).unwrap_or(0) * FAULT;
            self.band(band, y, FAULT - 4);
            self.label(band.from, Time::MAX, y + 10, &band.label, "fault-label");
        }
        self.y += height;
    }

    fn etcd(&mut self, scene: &Scene) {
        let members = scene.members.len().max(1);
        let height = KEY + 14 + MEMBER * u32::try_from(members).unwrap_or(1) + 22;
        self.lane("etcd", "who holds the leader key", height.max(56), "at-etcd");
        let top = self.y + 8;
        for band in &scene.leader {
            self.band(band, top, KEY);
            self.label(band.from, band.to, top + 14, &band.label, "in");
        }
        for band in &scene.etcd_leader {
            self.band(band, top + KEY + 3, 6);
        }
        for (row, bands) in scene.members.values().enumerate() {
            let y = top + KEY + 12 + u32::try_from(row).unwrap_or(0) * MEMBER;
            for band in bands {
                self.band(band, y, MEMBER - 2);
            }
        }
        let middle = top + KEY / 2;
        self.stations
            .extend((0..9).map(|member| (Place::Etcd(member), middle)));
        self.y += height.max(56);
    }

    fn node(&mut self, index: usize, lane: &Lane) {
        self.lane(&lane.name, "", NODE, &format!("at-{index}"));
        let y = self.y;
        for band in &lane.faults {
            self.band(band, y + 1, 4);
        }
        for band in &lane.orders {
            self.band(band, y + ORDERS, 7);
            self.label(band.from, band.to, y + ORDERS + 7, &band.label, "tiny");
        }
        for band in &lane.server {
            self.band(band, y + SERVER.0, SERVER.1);
            self.label(band.from, band.to, y + SERVER.0 + 16, &band.label, "in");
        }
        for band in &lane.trouble {
            self.band(band, y + SERVER.0, SERVER.1);
            self.label(band.from, band.to, y + SERVER.0 + 16, &band.label, "in strong");
        }
        for band in &lane.lock {
            self.band(band, y + LOCK.0, LOCK.1);
        }
        for band in &lane.agent {
            self.band(band, y + AGENT.0, AGENT.1);
            if band.class == "frozen" {
                self.label(band.from, band.to, y + AGENT.0 + 16, &band.label, "soft");
            }
        }
        let most = lane
            .right
            .iter()
            .chain(&lane.guard)
            .map(|left| left.until - left.from)
            .max()
            .unwrap_or(1)
            .max(1);
        let base = y + LEFT.0 + LEFT.1;
        for left in &lane.right {
            self.left(left, most, base, "right");
        }
        for left in &lane.guard {
            self.left(left, most, base, "guard");
        }
        for mark in &lane.marks {
            let (x, class, serial) = (ms(mark.at), mark.class, mark.serial);
            self.put(format_args!(
                "<path class=\"mark {class}\" d=\"M{x} {}h0\" data-s=\"{serial}\"/>",
                y + MARKS
            ));
        }
        self.stations
            .push((Place::Node(index), y + SERVER.0 + SERVER.1 / 2));
        self.y += NODE;
    }

    /// Time that is left, as it runs down: an area under a slope.
    fn left(&mut self, left: &Left, most: Time, base: u32, class: &str) {
        let high = |time: Time| {
            let part = left.until.saturating_sub(time) as f64 / most as f64;
            f64::from(base) - part * f64::from(LEFT.1)
        };
        let (a, b) = (ms(left.from), ms(left.to));
        let (from, to) = (high(left.from), high(left.to));
        if class == "right" {
            self.put(format_args!(
                "<path class=\"right\" d=\"M{a} {base}V{from:.1}L{b} {to:.1}V{base}Z\"/>"
            ));
        } else {
            self.put(format_args!(
                "<path class=\"guard\" d=\"M{a} {from:.1}L{b} {to:.1}\"/>"
            ));
        }
    }

    fn clients(&mut self, scene: &Scene) {
        self.lane("clients", "writes per 1/4 s", CLIENTS, "at-clients");
        let (top, base) = (self.y, self.y + CLIENTS - 6);
        let most = scene
            .writes
            .values()
            .map(|Writes { ok, failed, unknown }| ok + failed + unknown)
            .max();
        let scale = f64::from(CLIENTS - 14) / f64::from(most.unwrap_or(1).max(1));
        for (slice, Writes { ok, failed, unknown }) in &scene.writes {
            let (x, width) = (ms(slice * SLICE), ms(SLICE));
            let mut bottom = f64::from(base);
            for (class, count) in [("ok", ok), ("unknown", unknown), ("failed", failed)] {
                let height = f64::from(*count) * scale;
                if *count != 0 {
                    bottom -= height;
                    self.put(format_args!(
                        "<rect class=\"w {class}\" x=\"{x}\" y=\"{bottom:.1}\" width=\"{width}\" height=\"{height:.1}\"/>"
                    ));
                }
            }
        }
        for band in &scene.outages {
            self.band(band, top + 4, CLIENTS - 10);
            self.label(band.from, band.to, top + 18, &band.label, "bad-label");
        }
        self.y += CLIENTS;
        let y = top + CLIENTS / 2;
        self.stations
            .extend((0..9).flat_map(|index| [(Place::Client(index), y), (Place::Router(index), y)]));
    }

    fn arrows(&mut self, arrows: &[Arrow]) {
        let place = |station: Place| {
            self.stations
                .iter()
                .find(|(other, _)| *other == station)
                .map(|(_, y)| *y)
        };
        let mut drawn = String::new();
        for arrow in arrows {
            let (Some(from), Some(to)) = (place(arrow.from), place(arrow.to)) else {
                continue;
            };
            let x = ms(arrow.sent);
            let title = format!("{} to {}: {}", arrow.from, arrow.to, arrow.what);
            let _ = match arrow.arrives {
                Some(arrives) => writeln!(
                    drawn,
                    "<path class=\"arrow\" d=\"M{x} {from}L{} {to}\"><title>{title}</title></path>",
                    ms(arrives)
                ),
                None => writeln!(
                    drawn,
                    "<path class=\"arrow lost\" d=\"M{x} {from}L{x} {}\"><title>{title}, lost</title></path>",
                    (from + to) / 2
                ),
            };
        }
        self.drawing.arrows = drawn;
    }
}
