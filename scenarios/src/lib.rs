//! Stories: a cluster, what happens to it and when, and what must hold; as text that every world can play.
//!
//! ```text
//! # B-001: a stale primary takes the lock again after a freeze
//! link https://github.com/patroni/patroni/issues/2779
//! cluster n1 n2 n3 ttl=5 failsafe_mode=off
//! at 20s freeze-agent leader for=8s
//! at 26s when promote on=n2 do freeze-agent here for=8s
//! end 60s
//! expect no-dual-primary
//! expect healthy within=60s
//! ```
//!
//! A [`Story`] needs a world of a [`Shape`]. [`Fault`], [`Operator`] and [`Load`] are what happens, [`Trap`] is a fault that
//! strikes inside an act, [`Expectation`] is what must hold, and [`World`] what a world must be able to do. [`text`] is how all
//! of that is written; its errors name line and column, what was expected, and the nearest known word.
pub mod course;
pub mod expect;
pub mod fault;
pub mod library;
pub mod literal;
pub mod load;
pub mod operator;
mod parse;
pub mod play;
pub mod shape;
pub mod story;
pub mod text;
pub mod trap;
pub mod world;

pub use course::Course;
pub use expect::{Expectation, Role};
pub use fault::{
    End, ErrorCode, EtcdFault, EtcdTarget, Fault, HostFault, Keys, Lost, NetFault, PostgresFault,
    PostgresStep, Rpc, Target, Way,
};
pub use literal::Literal;
pub use load::Load;
pub use operator::Operator;
pub use play::{Failure, Outcome, Played, Player, play};
pub use shape::{Client, EtcdMember, Health, Member, Route, Router, Settings, Shape, SyncMode, Tags};
pub use story::{Planned, Step, Story, Strike};
pub use text::{Name, Nanos, ParseError};
pub use trap::{Trap, Trigger};
pub use world::{Taken, Verdict, World};

#[cfg(test)]
mod tests;
