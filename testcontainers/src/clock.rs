//! The time of this machine: what happens on containers is timed by the one clock that all of them share.

use std::time::Instant;

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "real hosts have no other clock, and nothing of the product runs here"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
