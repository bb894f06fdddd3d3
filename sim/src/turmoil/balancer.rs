//! What stands before etcd where a story's file has `$balancer`: each connection goes to the next member that takes it.

use super::etcd::PORT;
use super::process::Process;
use super::router;

/// Opens the door to these members of etcd in a router's process.
pub(super) fn start(process: &Process, members: &[String]) {
    let (inside, mut members) = (process.clone(), members.to_vec());
    router::serve(process, PORT, move |mut stream| {
        members.rotate_left(1);
        let (process, order) = (inside.clone(), members.clone());
        inside.spawn(Box::pin(async move {
            for member in order {
                match router::carry(&process, stream, &member, PORT).await {
                    Some(client) => stream = client,
                    None => return,
                }
            }
        }));
    });
}
