//! The REST API, for load balancers, people, dashboards and the other members.
//!
//! It keeps Patroni's interface (paths matched by substring, codes, texts, key order) and guarantees more behind it:
//!
//! - `/primary` is 200 only while the right to be primary holds at that very instant and PostgreSQL accepts writes;
//! - requests read a published value, never PostgreSQL: no client can slow the node down;
//! - a slow, silent or malicious client costs its own connection and nothing else: every phase has a time limit, sizes and
//!   connections are bounded, and when there are too many the one that has been idle longest goes;
//! - a request body is judged whole before anything is done, and a refusal says what was wrong.
//!
//! Map: [`state`] what is published · [`backend`] what is asked of the agent · [`server`] connections and limits ·
//! `tls`, `security` who may · `route` which handler · `health`, `status_json`, `metrics` answers ·
//! `dynamic`, `failover`, `restart`, `actions` orders · `answer`, `query`, `body`, `time_text` notation.
//!
//! There is no router library: Patroni's routing (first path component for some methods, ordered substring match for
//! the rest) is a dozen lines of `match`, and none of a router's.
//!
//! Differences from Patroni that a client could see, all deliberate: HTTP/1.1 with keep-alive and `Content-Length`; HEAD and OPTIONS
//! of `/liveness`, `/readiness`, `/patroni` and the like answer what GET answers (Patroni: always 503); texts are `text/plain`,
//! since they may quote the request; `/cluster` says 503 when the DCS does not answer (Patroni: closes the connection);
//! `/config` refuses bad values with 422, and unknown keys in `/switchover` and `/failover` bodies are refused, since a misspelt
//! `candidate` would move the primary anywhere.

mod actions;
mod answer;
pub mod backend;
mod body;
mod dynamic;
mod failover;
mod health;
mod metrics;
mod query;
mod restart;
mod route;
mod security;
pub mod server;
pub mod state;
mod status_json;
mod stream;
mod time_text;
pub(crate) mod tls;

pub use backend::Backend;
pub use server::{Limits, Rest, Schedule};
pub use state::NodeStatus;
pub use tls::TlsError;

/// The version of Patroni whose interfaces these are: members and dashboards decide by it what to expect.
pub const PATRONI_VERSION: &str = "4.1.5";
