//! S9: a health endpoint calls a node the primary only while it is one in its right.
//!
//! Judged at the instant at which the node answers a router:
//! - a right of the node runs at that instant, without any grace: an answer is never older than the lease it rests on;
//! - its server accepts writes, or did so less than [`unnoticed`] ago: the death of a server takes a moment to be noticed, and an agent
//!   that stood still has it all before it.
//!
//! Not counted: a primary without a deadline in a pause has no right that runs out, nor has one that lives by a failsafe list beside which a
//! person named another; what the network does to the answer on its way; a
//! primary that answers "no" (that is L4's matter).

use super::{Invariant, Moment, Violation, name, seconds};
use crate::clock::{SEC, Time};
use crate::record::Seen;

/// How long after its end a server may still be called the primary: the agent believes a look at PostgreSQL for two rounds and a second
/// (a server that ends is told of at once, one that hangs is not).
#[must_use]
pub fn unnoticed(loop_wait: Time) -> Time {
    2 * loop_wait + SEC
}

/// S9.
#[derive(Debug, Clone, Default)]
pub struct Routing;

impl Routing {
    pub(super) fn see(&mut self, moment: &Moment<'_>) -> Option<Violation> {
        let (Seen::Health { primary: true, .. }, Some(node)) = (moment.seen, moment.fact.node) else {
            return None;
        };
        let member = moment.scene.member(node)?;
        let who = format!("{} tells a router that it is the primary", name(node));
        let exempt = moment.scene.unfenced == Some(node) || moment.scene.overruled == Some(node);
        if member.right < moment.at && !exempt {
            let late = seconds(moment.at - member.right);
            let text = format!("{who} {late:.3} s after its right");
            return moment.breaks(Invariant::S9, member.right_by, text);
        }
        let last = if member.is_primary() {
            Some(moment.at)
        } else {
            member.primary_until
        };
        let pace = member.settings.map_or(SEC, |settings| settings.loop_wait);
        let last = last.max(member.woke);
        if last.is_none_or(|last| last + unnoticed(pace) < moment.at) {
            let text = format!("{who} and its PostgreSQL accepts no writes");
            return moment.breaks(Invariant::S9, member.since, text);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{MadeUp, at};
    use super::*;
    use crate::record::End;

    const YES: Seen = Seen::Health {
        router: 0,
        primary: true,
    };

    #[test]
    fn a_primary_in_its_right_may_say_so() {
        let mut run = MadeUp::leading(2);
        run.later(4999);
        run.see(Some(0), YES);
        run.clean();
    }

    #[test]
    fn an_answer_is_never_older_than_the_lease() {
        let mut run = MadeUp::leading(2);
        run.later(5001);
        run.see(Some(0), YES);
        assert_eq!(run.violation().invariant, Invariant::S9);
    }

    #[test]
    fn a_replica_is_no_primary_even_with_a_right() {
        let mut run = MadeUp::leading(2);
        run.replica(1, at(1, 100), 0);
        run.right(1, 0);
        run.see(
            Some(1),
            Seen::Health {
                router: 0,
                primary: false,
            },
        );
        run.clean();
        run.see(Some(1), YES);
        assert_eq!(run.violation().invariant, Invariant::S9);
    }

    #[test]
    fn a_death_is_noticed_in_time() {
        let mut run = MadeUp::leading(2);
        let how = End::Killed;
        run.see(Some(0), Seen::Ended { how, standing: None });
        run.later(2900);
        run.see(Some(0), YES);
        run.clean();
        run.later(200);
        run.see(Some(0), YES);
        assert_eq!(run.violation().invariant, Invariant::S9);
    }
}
