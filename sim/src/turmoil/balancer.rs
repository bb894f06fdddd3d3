//! What stands before etcd where a story's file has `$balancer`: each connection goes to the next member that takes it.

use std::sync::Arc;
use std::time::Duration;

use super::etcd::PORT;
use super::net::Stream;
use super::process::Process;

/// A connection to a member takes no longer; then the next is tried.
const CONNECT: Duration = Duration::from_secs(1);

/// Opens the door to these members of etcd in a router's process.
pub(super) fn start(process: &Process, members: &[String]) {
    let (inside, members) = (process.clone(), Arc::<[String]>::from(members));
    process.spawn(Box::pin(async move {
        let listening = Arc::clone(inside.net()).listen(inside.machine(), PORT).await;
        let mut listener = match listening {
            Ok(listener) => listener,
            Err(error) => panic!("a balancer cannot listen: {error}"),
        };
        let mut turn = 0;
        while let Ok((stream, _)) = listener.accept().await {
            turn += 1;
            let order: Vec<String> = (0..members.len())
                .map(|next| members[(turn + next) % members.len()].clone())
                .collect();
            inside.spawn(Box::pin(carry(inside.clone(), order, stream)));
        }
    }));
}

async fn carry(process: Process, order: Vec<String>, mut client: Stream) {
    for member in order {
        let dialling = Arc::clone(process.net()).dial(process.machine(), &member, PORT);
        if let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT, dialling).await {
            // How it ended shows at both ends.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
