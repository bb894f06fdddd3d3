//! ttl, loop_wait and retry_timeout: our defaults where nobody wrote one, and the rule that binds the three.
//!
//! The rule is Patroni's, `loop_wait + 2 * retry_timeout <= ttl`: a primary that misses one round and retries two requests to
//! their end must still renew in time. What the user wrote is honoured as far as the rule allows; what he left open adapts.

use std::time::Duration;

use super::section::Section;

/// etcd gives no lease a shorter life: its election timeout is 1 s by default, and it grants `1.5 *` that, rounded up.
pub(super) const TTL_FLOOR: Duration = Duration::from_secs(2);
/// Default life of the lease; README, "Defaults", has the reasons.
const TTL: Duration = Duration::from_secs(5);
/// Default and least pause between rounds.
const LOOP_WAIT: Duration = Duration::from_secs(1);
/// Default for retries.
const RETRY_TIMEOUT: Duration = Duration::from_secs(2);
/// Least time for retries: a handful of round trips, also when ttl is at its floor.
const RETRY_FLOOR: Duration = Duration::from_millis(500);

/// The three as written; `None` where nobody wrote one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) ttl: Option<Duration>,
    pub(super) loop_wait: Option<Duration>,
    pub(super) retry_timeout: Option<Duration>,
}

/// The three in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    pub(super) ttl: Duration,
    pub(super) loop_wait: Duration,
    pub(super) retry_timeout: Duration,
}

/// Applies floors, defaults and the rule. Each change of a written value, and a default that had to give way, is reported.
pub(super) fn settle(written: Written, section: &Section<'_>) -> Timing {
    let changed = |key: &str, from: Duration, to: Duration, why: &str| {
        section.warning(
            key,
            format!("{} s is changed to {} s: {why}", seconds(from), seconds(to)),
            "write values with loop_wait + 2 * retry_timeout <= ttl",
        );
    };
    let raised = |key: &str, value: Option<Duration>, floor: Duration| {
        value.map(|value| {
            if value < floor {
                changed(key, value, floor, "the least that works");
            }
            value.max(floor)
        })
    };
    let ttl = raised("ttl", written.ttl, TTL_FLOOR);
    let loop_wait = raised("loop_wait", written.loop_wait, LOOP_WAIT);
    let retry_timeout = raised("retry_timeout", written.retry_timeout, RETRY_FLOOR);

    let Some(ttl) = ttl else {
        let timing = Timing {
            ttl: TTL,
            loop_wait: loop_wait.unwrap_or(LOOP_WAIT),
            retry_timeout: retry_timeout.unwrap_or(RETRY_TIMEOUT),
        };
        let needed = timing.loop_wait + 2 * timing.retry_timeout;
        // The lease's life is in whole seconds.
        let needed = Duration::from_secs(needed.as_secs() + u64::from(needed.subsec_nanos() > 0));
        if needed > TTL {
            changed(
                "ttl",
                TTL,
                needed,
                "the default does not hold the loop_wait and retry_timeout that are written",
            );
        }
        return Timing {
            ttl: TTL.max(needed),
            ..timing
        };
    };

    let room = ttl.saturating_sub(LOOP_WAIT) / 2;
    let retry = match retry_timeout {
        Some(retry) if retry > room => {
            changed(
                "retry_timeout",
                retry,
                room,
                &format!("ttl is {} s", seconds(ttl)),
            );
            room
        }
        Some(retry) => retry,
        None => RETRY_TIMEOUT
            .min(ttl.saturating_sub(loop_wait.unwrap_or(LOOP_WAIT)) / 2)
            .max(RETRY_FLOOR)
            .min(room),
    };
    let most = ttl.saturating_sub(2 * retry);
    let pause = match loop_wait {
        Some(pause) if pause > most => {
            changed(
                "loop_wait",
                pause,
                most,
                &format!("ttl is {} s and retry_timeout {} s", seconds(ttl), seconds(retry)),
            );
            most
        }
        Some(pause) => pause,
        None => LOOP_WAIT,
    };
    Timing {
        ttl,
        loop_wait: pause,
        retry_timeout: retry,
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::problem::{Mark, Report};
    use crate::config::yaml::Node;

    fn run(ttl: Option<u64>, loop_wait: Option<u64>, retry: Option<u64>) -> ((f64, f64, f64), usize) {
        let report = Report::default();
        let [ttl, loop_wait, retry_timeout] = [ttl, loop_wait, retry].map(|s| s.map(Duration::from_secs));
        let nothing = Node::null(Mark::whole("test"));
        let timing = settle(
            Written {
                ttl,
                loop_wait,
                retry_timeout,
            },
            &Section::new("", &nothing, &report),
        );
        assert!(
            timing.loop_wait + 2 * timing.retry_timeout <= timing.ttl,
            "{timing:?}"
        );
        (
            (
                seconds(timing.ttl),
                seconds(timing.loop_wait),
                seconds(timing.retry_timeout),
            ),
            report.take().len(),
        )
    }

    #[test]
    fn written_values_that_fit_are_left_alone() {
        assert_eq!(run(Some(30), Some(10), Some(10)), ((30.0, 10.0, 10.0), 0));
        assert_eq!(run(Some(100), Some(10), Some(10)), ((100.0, 10.0, 10.0), 0));
        assert_eq!(run(Some(20), Some(2), Some(3)), ((20.0, 2.0, 3.0), 0));
    }

    #[test]
    fn our_defaults_fill_what_is_silent() {
        assert_eq!(run(None, None, None), ((5.0, 1.0, 2.0), 0));
        assert_eq!(run(Some(30), None, None), ((30.0, 1.0, 2.0), 0));
        assert_eq!(run(Some(3), None, None), ((3.0, 1.0, 1.0), 0));
        assert_eq!(run(Some(2), None, None), ((2.0, 1.0, 0.5), 0));
        assert_eq!(run(Some(30), Some(29), None), ((30.0, 29.0, 0.5), 0));
        assert_eq!(run(None, Some(2), Some(1)), ((5.0, 2.0, 1.0), 0));
    }

    #[test]
    fn a_silent_ttl_makes_room_for_what_is_written() {
        assert_eq!(run(None, Some(10), Some(10)), ((30.0, 10.0, 10.0), 1));
        assert_eq!(run(None, Some(10), None), ((14.0, 10.0, 2.0), 1));
    }

    #[test]
    fn what_breaks_the_rule_gives_way_with_a_warning() {
        assert_eq!(run(Some(20), Some(15), Some(3)), ((20.0, 14.0, 3.0), 1));
        assert_eq!(run(Some(20), Some(10), Some(10)), ((20.0, 1.0, 9.5), 2));
        assert_eq!(run(Some(5), Some(10), None), ((5.0, 4.0, 0.5), 1));
        assert_eq!(run(Some(1), Some(0), Some(0)), ((2.0, 1.0, 0.5), 3));
    }

    #[test]
    fn every_triple_ends_within_the_rule() {
        for ttl in 0..40 {
            for loop_wait in 0..40 {
                for retry in 0..25 {
                    run(Some(ttl), Some(loop_wait), Some(retry));
                    run(None, Some(loop_wait), Some(retry));
                    run(Some(ttl), Some(loop_wait), None);
                    run(Some(ttl), None, Some(retry));
                }
            }
        }
    }
}
