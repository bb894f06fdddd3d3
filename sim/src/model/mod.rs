//! Models of what the agent stands on: they take requests and the time, and give answers; they do no IO.

pub mod etcd;
pub mod guard;
pub mod postgres;
