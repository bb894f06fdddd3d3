//! Records made up by hand, for the tests of the families.

use surus_core::types::{LeaseId, Lsn, Revision, SystemId, Term, Timeline};

use super::{Charter, Checker, Fact, Invariant, Violation};
use crate::clock::{MS, SEC, Time};
use crate::record::{Deed, Gate, NodeIndex, OrderEnd, RightBy, Seen, Settings, Standing};

/// A position on a timeline of the made-up cluster.
pub(crate) fn at(timeline: u32, position: u64) -> Standing {
    Standing {
        system_id: SystemId(7),
        timeline: Timeline(timeline),
        position: Lsn(position),
    }
}

/// A record under way, and its checker.
pub(crate) struct MadeUp {
    pub(crate) checker: Checker,
    pub(crate) now: Time,
    count: u64,
    value: u64,
}

impl MadeUp {
    pub(crate) fn new(charter: Charter) -> Self {
        Self {
            checker: Checker::new(charter),
            now: 0,
            count: 0,
            value: 0,
        }
    }

    /// A cluster of which the first member leads, with the usual settings.
    pub(crate) fn leading(nodes: usize) -> Self {
        Self::chartered(Charter {
            nodes,
            rewind: true,
            reclone: true,
            ..Charter::default()
        })
    }

    pub(crate) fn chartered(charter: Charter) -> Self {
        let nodes = charter.nodes;
        let mut run = Self::new(charter);
        for node in 0..nodes {
            run.see(Some(node), Seen::AgentBegan);
            run.settings(node, false);
        }
        run.take_lock(0, at(1, 100));
        run.right(0, 0);
        run.arm(0, 4500);
        run.primary(0, at(1, 100));
        run
    }

    pub(crate) fn settings(&mut self, node: NodeIndex, pause: bool) {
        let settings = Settings {
            ttl: 5 * SEC,
            loop_wait: SEC,
            retry_timeout: 2 * SEC,
            maximum_lag: 1000,
            failsafe: true,
            pause,
            gate: None,
        };
        self.see(Some(node), Seen::Configured(settings));
    }

    pub(crate) fn gated(&mut self, node: NodeIndex, gate: Gate) {
        let member = self.checker.scene().member(node);
        let settings = member
            .and_then(|member| member.settings)
            .expect("it is configured");
        let gate = Some(gate);
        self.see(Some(node), Seen::Configured(Settings { gate, ..settings }));
    }

    pub(crate) fn see(&mut self, node: Option<NodeIndex>, seen: Seen) -> Fact {
        let fact = Fact {
            serial: self.count,
            at: self.now,
            node,
        };
        self.count += 1;
        self.checker.see(self.now, node, &seen);
        fact
    }

    pub(crate) fn later(&mut self, millis: u64) {
        self.now += millis * MS;
    }

    pub(crate) fn primary(&mut self, node: NodeIndex, standing: Standing) -> Fact {
        let as_primary = true;
        self.see(Some(node), Seen::Starting { as_primary, standing });
        self.see(
            Some(node),
            Seen::Up {
                primary: true,
                standing,
            },
        )
    }

    pub(crate) fn replica(&mut self, node: NodeIndex, standing: Standing, upstream: NodeIndex) -> Fact {
        let as_primary = false;
        self.see(Some(node), Seen::Starting { as_primary, standing });
        self.see(
            Some(node),
            Seen::Up {
                primary: false,
                standing,
            },
        );
        self.see(Some(node), Seen::Streaming { upstream, standing })
    }

    /// `node` gets a right and a deadline and is promoted to `standing`, from the timeline before, ten bytes back.
    pub(crate) fn promote(&mut self, node: NodeIndex, standing: Standing) -> Fact {
        self.see(
            Some(node),
            Seen::Right {
                sent: self.now,
                until: self.now + 5 * SEC,
                by: RightBy::Lock,
            },
        );
        self.see(
            Some(node),
            Seen::Armed {
                until: self.now + 4500 * MS,
            },
        );
        self.see(
            Some(node),
            Seen::Promoted {
                from: Timeline(standing.timeline.0 - 1),
                switch: Lsn(standing.position.0 - 10),
                standing,
            },
        )
    }

    /// A person promotes `node` past its agent, and its disk has the timeline that leaves the first one at `switch`.
    pub(crate) fn fork_by_hand(&mut self, node: NodeIndex, switch: u64, standing: Standing) -> Fact {
        self.see(Some(node), Seen::PromotedByHand);
        let (from, switch) = (Timeline(1), Lsn(switch));
        self.see(
            Some(node),
            Seen::Forked {
                from,
                switch,
                standing,
            },
        )
    }

    pub(crate) fn take_lock(&mut self, node: NodeIndex, standing: Standing) -> Fact {
        let optime = self.checker.scene().status.map(|(optime, _)| optime);
        self.see(
            Some(node),
            Seen::LockTaken {
                lease: LeaseId(1),
                revision: Revision(1),
                term: Term(1),
                primary: false,
                standing: Some(standing),
                optime,
            },
        )
    }

    pub(crate) fn release(&mut self, node: NodeIndex) -> Fact {
        self.see(
            Some(node),
            Seen::LockReleased {
                revision: Revision(2),
            },
        )
    }

    pub(crate) fn status(&mut self, node: NodeIndex, optime: u64, unfenced: bool) -> Fact {
        self.see(
            Some(node),
            Seen::StatusWritten {
                optime: Lsn(optime),
                timeline: Some(Timeline(1)),
                next: None,
                vacated: false,
                unfenced,
            },
        )
    }

    /// A person names this node in a manual failover.
    pub(crate) fn person_names(&mut self, node: NodeIndex) -> Fact {
        let (leader, candidate) = (None, Some(node));
        self.see(None, Seen::FailoverWritten { leader, candidate })
    }

    /// A right of five seconds, asked for at this millisecond.
    pub(crate) fn right(&mut self, node: NodeIndex, sent: u64) -> Fact {
        let sent = sent * MS;
        let until = sent + 5 * SEC;
        let by = RightBy::Lock;
        self.see(Some(node), Seen::Right { sent, until, by })
    }

    /// The node's agent hears that such an order is done.
    pub(crate) fn done(&mut self, node: NodeIndex, order: Deed) {
        let ended = Seen::OrderEnded {
            id: 1,
            order,
            end: OrderEnd::Done,
            text: None,
        };
        self.see(Some(node), ended);
    }

    pub(crate) fn arm(&mut self, node: NodeIndex, until: u64) -> Fact {
        self.see(Some(node), Seen::Armed { until: until * MS })
    }

    /// The node's server acknowledges a write of a new value that ends there.
    pub(crate) fn write(&mut self, node: NodeIndex, standing: Standing) -> Fact {
        self.value += 1;
        let value = self.value;
        self.see(
            Some(node),
            Seen::Committed {
                key: 0,
                value,
                standing,
            },
        )
    }

    pub(crate) fn clean(&self) {
        assert_eq!(self.checker.violation, None);
    }

    pub(crate) fn violation(&self) -> &Violation {
        self.checker.violation.as_ref().expect("something is broken")
    }

    pub(crate) fn broken(&self, invariant: Invariant, first: Option<Fact>, second: Fact) {
        let found = self.violation();
        let facts: Vec<u64> = first
            .into_iter()
            .chain([second])
            .map(|fact| fact.serial)
            .collect();
        assert_eq!((found.invariant, &found.facts), (invariant, &facts), "{found}");
    }
}
