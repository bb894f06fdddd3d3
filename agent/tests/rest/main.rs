//! The REST API over real sockets, in front of a node that does not exist.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking, and say aloud what they skip"
)]

mod abuse;
mod answers;
mod bodies;
mod haproxy;
mod health;
mod orders;
mod seam;
mod secure;
mod speed;
mod support;
