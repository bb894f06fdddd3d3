//! Faults of a member's disk.
//!
//! - Full: in a story that fills a disk, `/data` of each member is a small filesystem in memory, and a file takes what is left of it.
//! - Slow or broken: strace stands between PostgreSQL and the kernel, and holds up its flushes or fails its calls to files. A server that
//!   is started meanwhile is under it from the first: the wrapper before `postgres` reads [`UNDER`].

use surus_scenarios::{Fault, Nanos, PostgresFault, Story, Taken, Target};

use super::hosts::Who;
use super::{World, nobody, unable, void};

/// What strace is called with while a disk is slow or broken, on the host.
pub(super) const UNDER: &str = "/surus/fault-disk";
/// What takes the rest of a disk.
const FILLER: &str = "/data/full";
/// The size of a disk that a story fills: room for a small cluster, what is moved aside, and a clone beside it.
pub(super) const SMALL: i64 = 1 << 30;
/// What PostgreSQL calls for files and never for connections. The loader reads programs by `pread64`, too: what is started does not start.
const CALLS: &str = "pread64,preadv,pwrite64,pwritev,fsync,fdatasync";
const FLUSHES: &str = "fsync,fdatasync";

/// A script that ends all faults of a host's disk.
pub(super) fn mended() -> String {
    format!("rm -f {UNDER} {FILLER}; pkill -KILL -x strace")
}

/// A story fills a disk.
pub(super) fn fills(story: &Story) -> bool {
    let full = |fault: &Fault| matches!(fault, Fault::Postgres(PostgresFault::DiskFull { .. }));
    story.faults().any(|(_, fault)| full(fault))
}

impl World {
    /// The disk takes no more bytes. The segment at hand is whole on it already, so a primary is made to ask for the next one.
    pub(super) fn disk_full(&mut self, node: &Target, span: Nanos) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        if !self.etcd_on(host).is_empty() {
            return unable("a member of etcd is on the same disk");
        }
        self.tell(format!("  at {}", self.hosts[host].name));
        let fill = format!("fallocate -l $(df --output=avail -B1 /data | tail -n 1) {FILLER}");
        if let Some(taken) = self.befalls(host, &fill, span) {
            return taken;
        }
        // As many segments as a small cluster keeps in store (`min_wal_size`), and one.
        let next = "SELECT pg_switch_wal() FROM (SELECT pg_current_xact_id()) AS written;\n".repeat(6);
        // A replica has none to switch, and a server that has ended is what this is for.
        let _ = self.psql(host, &next);
        Taken::Done
    }

    /// Each flush takes longer.
    pub(super) fn disk_slow(&mut self, node: &Target, by: Nanos, span: Nanos) -> Taken {
        let inject = format!("{FLUSHES}:delay_enter={}", by.0 / 1_000);
        self.traced(node, FLUSHES, &inject, span)
    }

    /// Reads, writes and flushes give EIO.
    pub(super) fn disk_error(&mut self, node: &Target, span: Nanos) -> Taken {
        self.traced(node, CALLS, &format!("{CALLS}:error=EIO"), span)
    }

    fn traced(&mut self, node: &Target, calls: &str, inject: &str, span: Nanos) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        self.tell(format!("  at {}", self.hosts[host].name));
        // Of the same user as PostgreSQL: containers may not trace others. It ends at a signal (`-I2`), and speaks only of what fails.
        let script = format!(
            "echo '-D -I2 -qq -f -o /dev/null -e trace={calls} -e inject={inject}' >{UNDER} && chmod 644 {UNDER}
if pids=$({}); then
    (setsid setpriv --reuid=postgres --regid=postgres --init-groups strace $(sed 's/^-D //' {UNDER}) $(printf ' -p %s' $pids) \\
        >>/surus/strace.log 2>&1 </dev/null &)
fi",
            Who::Postgres.script()
        );
        self.befalls(host, &script, span).unwrap_or(Taken::Done)
    }

    /// What a script does to a host's disk ends after `span`. Says what else came of it, if it could not be done.
    fn befalls(&mut self, host: usize, script: &str, span: Nanos) -> Option<Taken> {
        if !self.awake(host) {
            return Some(void("the host does not go on"));
        }
        let done = self.sh(host, script).map(drop);
        let failed = done.is_err();
        let taken = self.outcome("spoil a disk", done);
        self.lasts(span, move |world| {
            if world.awake(host) {
                // Nothing is traced if nothing ran.
                let _ = world.ask(host, &mended());
            }
        });
        failed.then_some(taken)
    }
}
