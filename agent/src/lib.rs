//! The production agent of Surus and its command line.

pub mod agent;
mod chain;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod dcs;
pub mod guard;
pub mod log;
pub mod machine;
pub mod net;
pub mod peers;
pub mod postgres;
mod prometheus;
pub mod published;
pub mod rest;
pub mod router;
pub mod task;
pub mod topology;
