//! The PostgreSQL model, served: PostgreSQL's wire protocol to whoever dials the host's port 5432.
//!
//! - `wire`: messages of the protocol; `session`: one connection; `statements`: what each statement of the agent, and of clients, says
//!
//! A listener and its sessions belong to one server and end with it. WAL does not pass here: the models' walsenders and walreceivers
//! talk through [`Hub`], over links that are cut, slow and held up together with these.

mod session;
mod statements;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::hub::Hub;
use super::process::Process;
use crate::model::postgres::Txn;

pub use statements::{READ, WRITE};
pub(super) use statements::{data_dir, history};

/// The port.
pub const PORT: u16 = 5432;

/// Registers that clients write: a value's register is its remainder.
const REGISTERS: u64 = 4;

/// The register that a transaction writes.
#[must_use]
pub fn register(txn: Txn) -> u32 {
    u32::try_from(txn % REGISTERS).unwrap_or(0)
}

/// Listens in the process of a server that begins.
pub(super) fn listen(hub: &Arc<Hub>, host: usize, process: &Process) {
    let (hub, inside) = (Arc::clone(hub), process.clone());
    process.spawn(Box::pin(async move {
        let mut listener = loop {
            match Arc::clone(&hub.net).listen(inside.machine(), PORT).await {
                Ok(listener) => break listener,
                // The one before is gone in a moment.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("the model of PostgreSQL cannot listen: {error}"),
            }
        };
        while let Ok((stream, _)) = listener.accept().await {
            let hub = Arc::clone(&hub);
            inside.spawn(Box::pin(async move {
                // How it ended is for its client to know.
                let _ = session::serve(&hub, host, stream).await;
            }));
        }
    }));
}
