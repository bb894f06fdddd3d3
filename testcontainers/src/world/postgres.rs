//! Faults of PostgreSQL and its data directory.

use surus_scenarios::{Nanos, PostgresFault, PostgresStep, Taken};

use super::disk::UNDER;
use super::hosts::Who;
use super::{World, nobody, unable, void};
use crate::yml::DATA;
use surus_ci::lock;

/// The programs that can be slow or fail: on each host a wrapper stands before them and reads `/surus/fault-PROGRAM`.
const WRAPPED: &[(&str, PostgresStep)] = &[
    ("pg_rewind", PostgresStep::Rewind),
    ("pg_basebackup", PostgresStep::BaseBackup),
    ("postgres", PostgresStep::Start),
];

/// A script that puts links to PostgreSQL's programs, and the wrappers, where the agent looks for them.
pub(super) fn programs(major: u32) -> String {
    let real = format!("/usr/lib/postgresql/{major}/bin");
    let mut script = format!("mkdir -p /opt/surus/bin && ln -sf {real}/* /opt/surus/bin/");
    for (program, step) in WRAPPED {
        let disk = match step {
            PostgresStep::Start => {
                format!("[ ! -e {UNDER} ] || exec strace $(cat {UNDER}) {real}/{program} \"$@\"\n")
            }
            _ => String::new(),
        };
        // `slow SECONDS COUNT` or `fail 0 COUNT`; a count of zero is all until the file goes.
        script += &format!(
            "
rm -f /opt/surus/bin/{program}; cat >/opt/surus/bin/{program} <<'W'
#!/bin/sh
f=/surus/fault-{program}
case \" $* \" in *' -V '* | *' --version '* | *' -C '*) exec {real}/{program} \"$@\" ;; esac
if read -r kind seconds count 2>/dev/null <$f; then
    case $count in
    0) ;;
    1) rm -f $f ;;
    *) echo \"$kind $seconds $((count - 1))\" >$f ;;
    esac
    echo \"{program}: a fault: $kind $seconds\" >&2
    [ $kind != fail ] || exit 1
    sleep \"$seconds\"
fi
{disk}exec {real}/{program} \"$@\"
W
chmod 755 /opt/surus/bin/{program}"
        );
    }
    script
}

impl World {
    pub(super) fn postgres_fault(&mut self, fault: &PostgresFault) -> Taken {
        match fault {
            PostgresFault::KillPostgres { node } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                self.tell(format!("  at {}", self.hosts[host].name));
                if self.signal(host, Who::Postgres, "KILL") {
                    Taken::Done
                } else {
                    void("PostgreSQL does not run")
                }
            }
            PostgresFault::CrashBackend { node } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                if self.signal(host, Who::Backend, "KILL") {
                    Taken::Done
                } else {
                    void("no backend runs")
                }
            }
            PostgresFault::FreezePostgres { node, span } => {
                self.stop_and_go(node, Who::Postgres, *span, "PostgreSQL does not run")
            }
            // A stopped process takes no signal but SIGKILL.
            PostgresFault::StickBackend { node, span } => {
                self.stop_and_go(node, Who::Backend, *span, "no backend runs")
            }
            PostgresFault::StallReceiver { node, span } => {
                self.stop_and_go(node, Who::Receiver, *span, "nothing is received there")
            }
            PostgresFault::Slow {
                node,
                step,
                by,
                count,
            } => {
                let seconds = by.0 as f64 / 1e9;
                self.wrap(node, *step, &format!("slow {seconds} {count}"))
            }
            PostgresFault::Fail { node, step, count } => self.wrap(node, *step, &format!("fail 0 {count}")),
            PostgresFault::DirGone { node, span } => self.dir_gone(node, *span),
            PostgresFault::DropSlot { node, member } => {
                let (Some(host), Some(member)) = (self.member_at(node), self.member_at(member)) else {
                    return nobody();
                };
                let name = self.hosts[member].name.to_lowercase().replace(['-', '.'], "_");
                let sql = format!(
                    "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{name}' AND active; \
                     SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{name}'"
                );
                if self.awake(host) && self.psql(host, &sql).is_ok() {
                    Taken::Done
                } else {
                    void("there is no such slot, or it is in use again")
                }
            }
            PostgresFault::DiskFull { node, span } => self.disk_full(node, *span),
            PostgresFault::DiskSlow { node, by, span } => self.disk_slow(node, *by, *span),
            PostgresFault::DiskError { node, span } => self.disk_error(node, *span),
            other => unable(format!("not done to containers: {}", other.word())),
        }
    }

    fn stop_and_go(&mut self, node: &surus_scenarios::Target, who: Who, span: Nanos, missing: &str) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        self.tell(format!("  at {}", self.hosts[host].name));
        let script = format!(
            "pids=$({}) && [ -n \"$pids\" ] && kill -STOP $pids && echo $pids",
            who.script()
        );
        let stopped = if self.awake(host) {
            self.ask(host, &script)
        } else {
            Ok((1, String::new()))
        };
        let Ok((0, pids)) = stopped else {
            return void(missing);
        };
        self.lasts(span, move |world| {
            if world.awake(host) {
                // Those that are gone need nothing.
                let _ = world.ask(host, &format!("kill -CONT {}", pids.replace('\n', " ")));
            }
        });
        Taken::Done
    }

    fn wrap(&mut self, node: &surus_scenarios::Target, step: PostgresStep, text: &str) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        let Some((program, _)) = WRAPPED.iter().find(|(_, wrapped)| *wrapped == step) else {
            return unable(format!(
                "`{step}` is no program of its own that could be slow or fail"
            ));
        };
        if !self.awake(host) {
            return void("the host does not go on");
        }
        let script = format!("echo '{text}' >/surus/fault-{program} && chmod 666 /surus/fault-{program}");
        let done = self.sh(host, &script).map(drop);
        self.outcome("arm a wrapper", done)
    }

    /// The directory goes, and with it the server that stands in it.
    fn dir_gone(&mut self, node: &surus_scenarios::Target, span: Nanos) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        if !self.awake(host) {
            return void("the host does not go on");
        }
        let find = Who::Postgres.script();
        let script =
            format!("pids=$({find}); mv {DATA} /data/away && {{ [ -z \"$pids\" ] || kill -9 $pids; }}");
        if !matches!(self.ask(host, &script), Ok((0, _))) {
            return void("there is no data directory");
        }
        if span != Nanos::FOREVER {
            self.lasts(span, move |world| {
                if world.awake(host) {
                    // If the agent has made another meanwhile, that one stays.
                    let _ = world.ask(host, &format!("[ -e {DATA} ] || mv /data/away {DATA}"));
                }
            });
        }
        Taken::Done
    }

    /// Runs SQL on a member, through its own socket.
    pub(super) fn psql(&mut self, host: usize, sql: &str) -> surus_ci::error::Result<String> {
        let password = surus_ci::client::PASSWORD;
        let address = self.hosts[host].address;
        self.sh(
            host,
            &format!(
                "PGPASSWORD={password} PGCONNECT_TIMEOUT=3 psql -h {address} -U postgres -d postgres -v ON_ERROR_STOP=1 -qAtX <<'E'\n{sql}\nE"
            ),
        )
    }

    /// What lies beside the data directories, and which directory each is: a clone is another directory, and a rewind leaves a copy.
    pub(super) fn remains(&mut self) -> Vec<String> {
        let all = 0..self.shape.members.len();
        all.map(|host| {
            let script = format!("stat -c %i {DATA} 2>/dev/null; ls -d {DATA}.* 2>/dev/null; true");
            self.sh(host, &script).unwrap_or_default()
        })
        .collect()
    }

    /// At the first fault, notes what `data-kept` is judged by.
    pub(super) fn remember(&mut self) {
        if self.kept.is_none() && !lock(&self.seen).reigns.is_empty() {
            let remains = self.remains();
            self.kept = Some(remains);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapper_is_slow_or_fails_as_often_as_it_is_told_and_then_no_more() {
        let dir = std::env::temp_dir().join(format!("surus-wrapper-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("bin")).expect("a directory");
        let text = programs(15)
            .replace("/opt/surus/", &format!("{}/", dir.display()))
            .replace("=/surus/", &format!("={}/", dir.display()))
            .replace("/usr/lib/postgresql/15/bin/pg_rewind", "/bin/echo");
        let sh = |script: &str| {
            std::process::Command::new("sh")
                .args(["-c", script])
                .output()
                .expect("sh runs")
        };
        assert!(sh(&text).status.success());
        let wrapper = dir.join("bin/pg_rewind").display().to_string();
        let fault = dir.join("fault-pg_rewind");
        std::fs::write(&fault, "fail 0 2\n").expect("a file");
        assert_eq!(sh(&format!("{wrapper} a")).status.code(), Some(1));
        assert_eq!(sh(&format!("{wrapper} a")).status.code(), Some(1));
        assert_eq!(
            sh(&format!("{wrapper} 'a  b'")).stdout,
            b"a  b\n",
            "arguments go through as they are"
        );
        assert!(!fault.exists());
        std::fs::write(&fault, "slow 0.01 0\n").expect("a file");
        assert!(sh(&format!("{wrapper} a")).status.success());
        assert!(fault.exists(), "a count of zero is for good");
        std::fs::remove_dir_all(dir).expect("it goes");
    }
}
