//! A member's configuration file: the story's own, or one of the story's shape.

use std::fmt::Write as _;

use surus_scenarios::literal::Words;
use surus_scenarios::{Member, Settings, Shape, SyncMode};

use super::agent::{File, REST};
use super::etcd::PORT as ETCD;
use super::postgres::PORT as POSTGRES;

/// The cluster's name, unless a story has a file of its own.
pub(super) const SCOPE: &str = "x";

/// Where everybody is, by name.
pub(super) struct Places {
    /// The members of etcd.
    pub(super) etcd: Vec<String>,
    /// The first router, which stands before etcd as well.
    pub(super) router: Option<String>,
}

impl Places {
    fn etcd(&self) -> Vec<String> {
        self.etcd.iter().map(|host| format!("{host}:{ETCD}")).collect()
    }

    /// The words of a literal file. Members are called by their names, which is what addresses are here.
    fn words(&self, shape: &Shape, member: &Member) -> Words {
        let name = &member.name;
        Words {
            address: name.to_string(),
            members: shape
                .members
                .iter()
                .map(|member| member.name.to_string())
                .collect(),
            etcd: self.etcd(),
            balancer: self.router.as_ref().map(|router| format!("{router}:{ETCD}")),
            data: format!("/pg/{name}"),
            bin: "/usr/bin".to_owned(),
            log: "/log".to_owned(),
            pgpass: format!("/pg/{name}.pass"),
            sockets: "/run".to_owned(),
            password: "x".to_owned(),
        }
    }
}

/// The file of a member.
///
/// # Errors
/// The story's own file has a word that stands for nothing here.
pub(super) fn file(shape: &Shape, member: &Member, places: &Places) -> Result<File, String> {
    let text = if shape.file.given() {
        shape.file.file(member, &places.words(shape, member))?
    } else {
        plain(shape, member, &places.etcd().join(", "))
    };
    Ok(File(text))
}

fn plain(shape: &Shape, member: &Member, hosts: &str) -> String {
    let Settings {
        ttl,
        loop_wait,
        retry_timeout,
        maximum_lag_on_failover,
        failsafe_mode,
        pause,
        use_slots,
        use_pg_rewind,
        ..
    } = shape.settings;
    let name = &member.name;
    let mut text = String::new();
    let settings = &shape.settings;
    let synchronous = match settings.synchronous_mode {
        SyncMode::Off => String::new(),
        SyncMode::On | SyncMode::Quorum => settings.synchronous(),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "scope: {SCOPE}\nname: {name}\nrestapi:\n  listen: {name}:{REST}\n  connect_address: {name}:{REST}\n\
         etcd3:\n  hosts: [{hosts}]\n\
         postgresql:\n  listen: {name}:{POSTGRES}\n  connect_address: {name}:{POSTGRES}\n  data_dir: /pg/{name}\n  \
         bin_dir: /usr/bin\n  pgpass: /pg/{name}.pass\n  use_unix_socket: false\n  \
         remove_data_directory_on_rewind_failure: {}\n  remove_data_directory_on_diverged_timelines: {}\n  \
         authentication:\n    superuser: {{username: postgres, password: x}}\n    replication: {{username: replicator, password: x}}\n",
        settings.remove_data_directory_on_rewind_failure,
        settings.remove_data_directory_on_diverged_timelines,
    );
    let tags = &member.tags;
    let _ = write!(
        text,
        "tags:\n  nofailover: {}\n  failover_priority: {}\n  nosync: {}\n  noloadbalance: {}\n  clonefrom: {}\n  nostream: {}\n",
        tags.nofailover,
        if tags.nofailover {
            0
        } else {
            tags.failover_priority
        },
        tags.nosync,
        tags.noloadbalance,
        tags.clonefrom,
        tags.nostream,
    );
    if !tags.nosync {
        let _ = writeln!(text, "  sync_priority: {}", tags.sync_priority);
    }
    if let Some(from) = &tags.replicatefrom {
        let _ = writeln!(text, "  replicatefrom: {from}");
    }
    if tags.bootstrap {
        let _ = write!(
            text,
            "bootstrap:\n  dcs:\n    ttl: {ttl}\n    loop_wait: {loop_wait}\n    retry_timeout: {retry_timeout}\n    \
             maximum_lag_on_failover: {maximum_lag_on_failover}\n    failsafe_mode: {failsafe_mode}\n    \
             primary_start_timeout: {}\n    pause: {pause}\n    postgresql:\n      use_slots: {use_slots}\n      \
             use_pg_rewind: {use_pg_rewind}\n{synchronous}  initdb: [data-checksums]\n",
            settings.primary_start_timeout,
        );
    }
    text
}
