//! Faults of the network.
//!
//! An etcd member that lives on the host of a member of the cluster shares its links, and the two always reach each other.

use std::fmt;

use super::Target;
use crate::text::{Name, Nanos, Value, verbs, words};

words! {
    /// Which way a link fails.
    Way "both, there or back" {
        /// Both.
        Both "both",
        /// From the first to the second.
        There "there",
        /// From the second to the first.
        Back "back",
    }
}

/// One end of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// A member of the cluster: its host's links, but not what runs on the same host.
    Node(Target),
    /// All members of etcd.
    Etcd,
    /// One member of etcd: `etcd:e1`.
    EtcdMember(Name),
    /// All other members of the cluster.
    Peers,
    /// All members of the cluster but the leader.
    Replicas,
    /// All clients.
    Clients,
    /// One client: `client:c1`.
    Client(Name),
    /// One router: `router:r1`.
    Router(Name),
    /// Everything else, clients beside the host left out.
    All,
}

impl Value for End {
    const WHAT: &'static str =
        "a member, etcd, etcd:NAME, peers, replicas, clients, client:NAME, router:NAME or all";
    const WORDS: &'static [&'static str] = &[
        "leader",
        "former-leader",
        "candidate",
        "replica",
        "any",
        "here",
        "etcd",
        "peers",
        "replicas",
        "clients",
        "all",
    ];

    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "etcd" => Self::Etcd,
            "peers" => Self::Peers,
            "replicas" => Self::Replicas,
            "clients" => Self::Clients,
            "all" => Self::All,
            text => match text.split_once(':') {
                Some(("etcd", name)) => Self::EtcdMember(Name::read(name)?),
                Some(("client", name)) => Self::Client(Name::read(name)?),
                Some(("router", name)) => Self::Router(Name::read(name)?),
                _ => Self::Node(Target::read(text)?),
            },
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(target) => target.write(f),
            Self::Etcd => f.write_str("etcd"),
            Self::EtcdMember(name) => {
                f.write_str("etcd:")?;
                name.write(f)
            }
            Self::Peers => f.write_str("peers"),
            Self::Replicas => f.write_str("replicas"),
            Self::Clients => f.write_str("clients"),
            Self::Client(name) => {
                f.write_str("client:")?;
                name.write(f)
            }
            Self::Router(name) => {
                f.write_str("router:")?;
                name.write(f)
            }
            Self::All => f.write_str("all"),
        }
    }

    fn names(&self, visit: &mut dyn FnMut(&Name)) {
        match self {
            Self::Node(target) => target.names(visit),
            Self::EtcdMember(name) | Self::Client(name) | Self::Router(name) => visit(name),
            Self::Etcd | Self::Peers | Self::Replicas | Self::Clients | Self::All => {}
        }
    }

    #[cfg(test)]
    fn sample(dice: &mut crate::text::Dice) -> Self {
        match dice.below(9) {
            0 => Self::Etcd,
            7 => Self::Replicas,
            1 => Self::EtcdMember(Name::sample(dice)),
            2 => Self::Peers,
            3 => Self::Clients,
            4 => Self::Client(Name::sample(dice)),
            5 => Self::Router(Name::sample(dice)),
            6 => Self::All,
            _ => Self::Node(Target::sample(dice)),
        }
    }
}

verbs! {
    /// With the network.
    NetFault "a fault of the network" {
        /// Nothing passes between two ends: packets vanish.
        Cut "cut" (
            /// The one.
            a: End,
            /// The other.
            b: End,
        ) {
            /// Which way.
            way "way": Way = Way::Both,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// A member is alone on the network.
        Isolate "isolate" (
            /// Who.
            node: Target,
        ) {
            /// Clients beside it still reach it.
            clients "clients": bool = true,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// The network falls into two parts; members of the cluster and of etcd that are not named are with the second, clients with both.
        Split "split" (
            /// One part; an etcd member is written `etcd:NAME`.
            part: Vec<End>,
        ) {
            /// Those that both parts still reach: a bridge.
            bridge "bridge": Vec<End> = Vec::new(),
            /// Which way: `there` is from the named part to the other.
            way "way": Way = Way::Both,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Messages between two ends take longer.
        SlowLink "slow-link" (
            /// The one.
            a: End,
            /// The other.
            b: End,
        ) {
            /// By up to this.
            by "by": Nanos,
            /// Never less than this: with both equal, a constant latency.
            least "least": Nanos = Nanos::ZERO,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Some messages between two ends vanish; TCP sends them again later.
        LossyLink "lossy-link" (
            /// The one.
            a: End,
            /// The other.
            b: End,
        ) {
            /// Of a hundred packets, so many.
            percent "percent": u8,
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// Connections between two ends are refused at once (RST), existing ones are reset.
        RefuseLink "refuse-link" (
            /// The one.
            a: End,
            /// The other.
            b: End,
        ) {
            /// How long.
            span "for": Nanos = Nanos::FOREVER,
        },
        /// All that was cut is whole again, and nothing is slow or lossy.
        HealNetwork "heal-network" () {},
    }
}
