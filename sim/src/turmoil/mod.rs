//! The turmoil world (T2): the real agent over a simulated network, against the same models as the fast world, served on sockets.

pub mod etcd;
pub mod interpose;
pub mod net;
pub mod process;
