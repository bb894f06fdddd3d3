//! The network of the turmoil world: machines, connections between them, and what befalls both.
//!
//! One trait and two networks: what an agent does must not hang on the habits of one. [`jump`] moves the packets of `turmoil-net` and
//! jumps from event to event: the work-horse. [`tick`] runs `turmoil` through every millisecond, a runtime for each machine: slower, with
//! another TCP and another order of things. What befalls a packet between two machines is `links` in both, so that a story says the
//! same on either.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use crate::clock::Time;

mod digest;
pub mod jump;
mod links;
pub mod tick;

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A machine with an address of its own, by its place in the list that the network was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Machine(pub usize);

/// Bytes both ways.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection.
pub type Stream = Box<dyn Bytes>;

/// Where connections arrive. Nobody listens there any more once it is dropped.
pub trait Listener: Send {
    /// The next connection, and its client's address. Cancel safe.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>>;
}

/// A network. Its faults stay until they are lifted; what is cut off is not lost, for TCP sends it again.
pub trait Net: Send + Sync + 'static {
    /// World time.
    fn now(&self) -> Time;
    /// The code that follows runs on this machine.
    fn enter(&self, machine: Machine);
    /// Runs a task on a machine.
    fn start(&self, on: Machine, task: BoxFuture<'static, ()>) -> AbortHandle;
    /// Connects. Sets no time limit: where nobody answers it waits. The kernel answers, also for a process that is frozen.
    fn dial(self: Arc<Self>, from: Machine, to: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>>;
    /// Listens.
    fn listen(self: Arc<Self>, on: Machine, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;
    /// Nothing gets from one machine to another any more, until it does again.
    fn cut(&self, from: Machine, to: Machine, cut: bool);
    /// Everything from one machine to another takes up to so much longer.
    fn slow(&self, from: Machine, to: Machine, most: Time);
    /// One packet in so many is lost and sent again a while later; zero: none.
    fn lossy(&self, from: Machine, to: Machine, one_in: u64);
    /// A machine without power neither sends nor gets anything, and has forgotten its connections when it has power again.
    fn power(&self, machine: Machine, on: bool);
    /// Nothing keeps a message of one machine from the other for ever.
    fn reaches(&self, from: Machine, to: Machine) -> bool;
    /// A hash of every byte of every packet, with its time.
    fn hash(&self) -> u64;
    /// How many there were.
    fn packets(&self) -> u64;
}

/// Lets time pass on a network. It stays on the thread that made it.
pub trait Driver {
    /// The network.
    fn net(&self) -> Arc<dyn Net>;
    /// Lets everything happen that happens before then.
    fn run_until(&mut self, time: Time);
}
