//! Faults of the network.

use surus_scenarios::{End, Nanos, NetFault, Taken, Way};

use super::void;
use crate::clock::Time;
use crate::fast::world::World;
use crate::net::{Net, Place};

impl World {
    pub(super) fn net_fault(&mut self, fault: &NetFault) -> Taken {
        match fault {
            NetFault::Cut { a, b, way, span } => self.between(a, b, *way, *span, |net, from, to, until| {
                net.cut(from, to, until);
            }),
            NetFault::SlowLink {
                a,
                b,
                by,
                least,
                span,
            } => self.between(a, b, Way::Both, *span, |net, from, to, until| {
                net.slow(from, to, until, (least.0, by.0));
            }),
            NetFault::LossyLink { a, b, percent, span } => {
                self.between(a, b, Way::Both, *span, |net, from, to, until| {
                    net.lossy(from, to, until, *percent);
                })
            }
            NetFault::RefuseLink { a, b, span } => {
                self.between(a, b, Way::Both, *span, |net, from, to, until| {
                    net.refuse(from, to, until);
                })
            }
            NetFault::Isolate { node, clients, span } => {
                let Some(node) = self.member_at(node) else {
                    return void("nobody is meant by that now");
                };
                let here = Place::Node(node);
                let until = self.until(*span);
                for other in self.places(&End::All).unwrap_or_default() {
                    let beside = self.net.home(other) == here;
                    if other != here && (!beside || !clients && matches!(other, Place::Client(_))) {
                        self.net.cut(here, other, until);
                        self.net.cut(other, here, until);
                    }
                }
                self.lasts(*span);
                Taken::Done
            }
            NetFault::Split {
                part,
                bridge,
                way,
                span,
            } => self.split(part, bridge, *way, *span),
            NetFault::HealNetwork {} => {
                self.net.heal(self.now);
                Taken::Done
            }
        }
    }

    /// Does something to each link between two ends.
    fn between(
        &mut self,
        a: &End,
        b: &End,
        way: Way,
        span: Nanos,
        act: impl Fn(&mut Net, Place, Place, Time),
    ) -> Taken {
        let (Some(these), Some(those)) = (self.places(a), self.places(b)) else {
            return void("nobody is meant by that now");
        };
        let until = self.until(span);
        for a in &these {
            for b in those.iter().filter(|b| *b != a) {
                if way != Way::Back {
                    act(&mut self.net, *a, *b, until);
                }
                if way != Way::There {
                    act(&mut self.net, *b, *a, until);
                }
            }
        }
        self.lasts(span);
        Taken::Done
    }

    fn split(&mut self, part: &[End], bridge: &[End], way: Way, span: Nanos) -> Taken {
        let mut one = Vec::new();
        for end in part {
            let Some(places) = self.places(end) else {
                return void("nobody is meant by that now");
            };
            one.extend(places);
        }
        let mut both = Vec::new();
        for end in bridge {
            both.extend(self.places(end).unwrap_or_default());
        }
        let until = self.until(span);
        for other in self.places(&End::All).unwrap_or_default() {
            let free = matches!(other, Place::Client(_) | Place::Router(_));
            let with = one.contains(&other) || one.contains(&self.net.home(other));
            if free || with || both.contains(&other) {
                continue;
            }
            for place in &one {
                if way != Way::Back {
                    self.net.cut(*place, other, until);
                }
                if way != Way::There {
                    self.net.cut(other, *place, until);
                }
            }
        }
        self.lasts(span);
        Taken::Done
    }
}
