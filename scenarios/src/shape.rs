//! The shape of a world: members and their tags, settings, etcd, clients and routers.

use std::fmt::{self, Write as _};

use crate::literal::Literal;
use crate::text::{Name, Nanos, Text, Value, records, words};

words! {
    /// Patroni's `synchronous_mode`.
    SyncMode "off, on or quorum" {
        /// Asynchronous.
        Off "off",
        /// Commits wait for named replicas.
        On "on",
        /// Commits wait for any so many of a set.
        Quorum "quorum",
    }
}

records! {
    /// Settings of the cluster, in Patroni's names and units (seconds, bytes). The defaults are those of Surus.
    Settings {
        /// Seconds that the leader key lives without renewal.
        ttl "ttl": u64 = 5,
        /// Seconds between two rounds of routine work.
        loop_wait "loop_wait": u64 = 1,
        /// Seconds that one request may be retried.
        retry_timeout "retry_timeout": u64 = 2,
        /// Bytes by which a candidate may be behind.
        maximum_lag_on_failover "maximum_lag_on_failover": u64 = 1 << 20,
        /// Seconds that a crashed primary may take to come back in place; zero fails over at once.
        primary_start_timeout "primary_start_timeout": u64 = 300,
        /// Seconds that a stop of a primary may take; zero is no bound but the right's end.
        primary_stop_timeout "primary_stop_timeout": u64 = 0,
        /// Seconds that the slot of a vanished member is kept.
        member_slots_ttl "member_slots_ttl": u64 = 1800,
        /// The primary lives on without etcd while every electable member grants it.
        failsafe_mode "failsafe_mode": bool = true,
        /// The cluster begins paused.
        pause "pause": bool = false,
        /// Members get a replication slot each.
        use_slots "use_slots": bool = true,
        /// Diverged data may be rewound.
        use_pg_rewind "use_pg_rewind": bool = false,
        /// Data whose rewind failed may be moved aside and cloned anew.
        remove_data_directory_on_rewind_failure "remove_data_directory_on_rewind_failure": bool = false,
        /// Data that diverged and cannot be rewound may be moved aside and cloned anew.
        remove_data_directory_on_diverged_timelines "remove_data_directory_on_diverged_timelines": bool = false,
        /// Lines of history kept in etcd; zero is all.
        max_timelines_history "max_timelines_history": u64 = 0,
        /// Synchronous replication.
        synchronous_mode "synchronous_mode": SyncMode = SyncMode::Off,
        /// Commits wait even if there is no replica.
        synchronous_mode_strict "synchronous_mode_strict": bool = false,
        /// Replicas that commits wait for.
        synchronous_node_count "synchronous_node_count": u64 = 1,
        /// Bytes by which a synchronous replica may be behind; -1 is any.
        maximum_lag_on_syncnode "maximum_lag_on_syncnode": i64 = -1,
        /// Seconds that clients of a new primary wait for standbys to have what they would see; zero: they do not.
        synchronous_gate_timeout "synchronous_gate_timeout": u64 = 0,
        /// They wait for as long as it takes.
        synchronous_gate_hold "synchronous_gate_hold": bool = false,
        /// WAL is archived, and replicas may recover from the archive.
        archive_mode "archive_mode": bool = false,
        /// PostgreSQL's wal_receiver_timeout in seconds.
        wal_receiver_timeout "wal_receiver_timeout": u64 = 60,
        /// PostgreSQL's wal_retrieve_retry_interval in milliseconds; the default is what the agent writes.
        wal_retrieve_retry_interval "wal_retrieve_retry_interval": u64 = 500,
    }
}

impl Settings {
    /// The keys of synchronous replication, a line each, as they stand below `bootstrap.dcs` of a configuration file.
    #[must_use]
    pub fn synchronous(&self) -> String {
        format!(
            "    synchronous_mode: {}\n    synchronous_mode_strict: {}\n    synchronous_node_count: {}\n    maximum_lag_on_syncnode: {}\n    \
             synchronous_gate_timeout: {}\n    synchronous_gate_hold: {}\n",
            self.synchronous_mode,
            self.synchronous_mode_strict,
            self.synchronous_node_count,
            self.maximum_lag_on_syncnode,
            self.synchronous_gate_timeout,
            self.synchronous_gate_hold,
        )
    }
}

records! {
    /// A member's tags, and what is special about its host.
    Tags {
        /// Never becomes primary.
        nofailover "nofailover": bool = false,
        /// Preference among equals; higher wins.
        failover_priority "failover_priority": u32 = 1,
        /// Never becomes a synchronous replica.
        nosync "nosync": bool = false,
        /// Preference among synchronous replicas.
        sync_priority "sync_priority": u32 = 1,
        /// Read traffic is not sent here.
        noloadbalance "noloadbalance": bool = false,
        /// New members clone from here if they can.
        clonefrom "clonefrom": bool = false,
        /// Streams from this member rather than from the leader.
        replicatefrom "replicatefrom": Option<Name> = None,
        /// Keeps no slot on its upstream.
        nostream "nostream": bool = false,
        /// Seconds by which replay is held back: a delayed replica.
        recovery_min_apply_delay "recovery_min_apply_delay": u64 = 0,
        /// Its file has a `bootstrap` section: it may create the cluster.
        bootstrap "bootstrap": bool = true,
        /// Its first start is this much later than that of the others.
        joins "joins": Nanos = Nanos::ZERO,
        /// Parts per million by which its clock runs fast; else by chance.
        drift_ppm "drift_ppm": Option<i64> = None,
    }
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Name,
    /// Its tags.
    pub tags: Tags,
}

/// A member of etcd: `e1`, or `e1@n1` if it lives on the host of `n1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its name.
    pub name: Name,
    /// The member of the cluster whose host it shares.
    pub host: Option<Name>,
}

impl Value for EtcdMember {
    const WHAT: &'static str = "an etcd member such as e1 or e1@n1";

    fn read(text: &str) -> Option<Self> {
        if let Some(name) = Name::read(text) {
            return Some(Self { name, host: None });
        }
        text.match_indices('@').find_map(|(index, _)| {
            let (name, host) = (Name::read(&text[..index])?, Name::read(&text[index + 1..])?);
            Some(Self {
                name,
                host: Some(host),
            })
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.write(f)?;
        let Some(host) = &self.host else { return Ok(()) };
        f.write_char('@')?;
        host.write(f)
    }

    fn names(&self, visit: &mut dyn FnMut(&Name)) {
        self.host.names(visit);
    }

    #[cfg(test)]
    fn sample(dice: &mut crate::text::Dice) -> Self {
        Self {
            name: Name::sample(dice),
            host: Value::sample(dice),
        }
    }
}

records! {
    /// How a client reaches the cluster, and what it does.
    Route {
        /// Through this router; else it knows all members and looks for the one that takes writes.
        via "via": Option<Name> = None,
        /// It runs on the host of this member, or beside it: what isolates the host leaves it this member.
        beside "beside": Option<Name> = None,
        /// One transaction in this time.
        every "every": Nanos = Nanos::ms(20),
        /// It reads, too, and what it reads is checked.
        reads "reads": bool = false,
        /// It keeps its connection for as long as it stands.
        sticky "sticky": bool = true,
    }
}

/// A client that writes, and remembers what was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its name.
    pub name: Name,
    /// How it reaches the cluster.
    pub route: Route,
}

records! {
    /// How a router finds the primary: it asks the health endpoints.
    Health {
        /// One question in this time.
        poll "poll": Nanos = Nanos::secs(1),
        /// So many bad answers take a member out.
        fall "fall": u64 = 3,
        /// So many good ones take it in.
        rise "rise": u64 = 2,
        /// Sessions to a member that was taken out are cut.
        cut "cut": bool = true,
    }
}

/// A router such as HAProxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// Its name.
    pub name: Name,
    /// How it finds the primary.
    pub health: Health,
}

/// What a world is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The members.
    pub members: Vec<Member>,
    /// Settings of the cluster.
    pub settings: Settings,
    /// The members of etcd.
    pub etcd: Vec<EtcdMember>,
    /// The clients.
    pub clients: Vec<Client>,
    /// The routers.
    pub routers: Vec<Router>,
    /// The members' configuration file, where it is more than what the settings say.
    pub file: Literal,
}

impl Default for Shape {
    fn default() -> Self {
        Self::of(3)
    }
}

impl Shape {
    /// Members `n1`, `n2`, … with everything else as usual: three members of etcd on hosts of their own, one client.
    #[must_use]
    pub fn of(members: usize) -> Self {
        let member = |name| Member {
            name: Name(name),
            tags: Tags::default(),
        };
        Self {
            members: (1..=members).map(|number| member(format!("n{number}"))).collect(),
            settings: Settings::default(),
            etcd: Self::usual_etcd(),
            clients: Self::usual_clients(),
            routers: Vec::new(),
            file: Literal::default(),
        }
    }

    fn usual_etcd() -> Vec<EtcdMember> {
        let member = |name: &str| EtcdMember {
            name: Name::from(name),
            host: None,
        };
        ["e1", "e2", "e3"].map(member).to_vec()
    }

    fn usual_clients() -> Vec<Client> {
        vec![Client {
            name: Name::from("c1"),
            route: Route::default(),
        }]
    }

    /// The place of a member among [`Self::members`].
    #[must_use]
    pub fn member(&self, name: &Name) -> Option<usize> {
        self.members.iter().position(|member| member.name == *name)
    }

    #[cfg(test)]
    pub(crate) fn sample(dice: &mut crate::text::Dice) -> Self {
        let mut shape = Self::of(1 + dice.index(7));
        for member in &mut shape.members {
            if dice.below(3) == 0 {
                member.tags = Tags::sample(dice);
            }
        }
        if dice.below(2) == 0 {
            shape.settings = Settings::sample(dice);
            shape.etcd = Value::sample(dice);
            let mut clients = |_| Client {
                name: Name::sample(dice),
                route: Route::sample(dice),
            };
            shape.clients = (0..2).map(&mut clients).collect();
            shape.routers = vec![Router {
                name: Name::sample(dice),
                health: Health::sample(dice),
            }];
            let line = |index| format!("{:index$}key: $name  # {index}", "");
            shape.file = Literal((0..dice.index(4)).map(line).collect());
        }
        shape
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cluster")?;
        for member in &self.members {
            write!(f, " {}", Text(&member.name))?;
        }
        writeln!(f, "{}", self.settings)?;
        for Member { name, tags } in &self.members {
            if *tags != Tags::default() {
                writeln!(f, "node {}{tags}", Text(name))?;
            }
        }
        if self.etcd != Self::usual_etcd() {
            f.write_str("etcd")?;
            for member in &self.etcd {
                write!(f, " {}", Text(member))?;
            }
            f.write_char('\n')?;
        }
        for Router { name, health } in &self.routers {
            writeln!(f, "router {}{health}", Text(name))?;
        }
        if self.clients != Self::usual_clients() {
            for Client { name, route } in &self.clients {
                writeln!(f, "client {}{route}", Text(name))?;
            }
        }
        self.file.fmt(f)
    }
}
