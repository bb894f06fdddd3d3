//! The cluster's keys as they are in the DCS, and what the core sees of them.

use std::collections::BTreeMap;

use surus_core::view::ClusterView;

/// One key of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawKey {
    /// Its value. Bytes that are no UTF-8 are replaced.
    pub value: String,
    /// Revision at which it was created.
    pub create_revision: i64,
    /// Revision at which it last changed.
    pub mod_revision: i64,
    /// The lease it hangs on; zero for none.
    pub lease: i64,
}

/// All keys below the cluster's prefix at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RawCluster {
    /// By name below the prefix: `leader`, `members/n1`, `config`, ….
    pub keys: BTreeMap<String, RawKey>,
    /// Revision of the store.
    pub revision: i64,
    /// Raft term of the answer.
    pub term: u64,
}

impl RawCluster {
    /// The text of a key.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(|raw| raw.value.as_str())
    }

    /// A key read as JSON; `None` if it is absent or no JSON.
    #[must_use]
    pub fn json(&self, key: &str) -> Option<serde_json::Value> {
        serde_json::from_str(self.text(key)?).ok()
    }

    /// The members' records by name; a record that is no JSON object is left out, as is a key further down.
    pub fn members(&self) -> impl Iterator<Item = (&str, serde_json::Value)> {
        self.member_keys().filter_map(|(key, name)| {
            let record = self.json(key)?;
            record.is_object().then_some((name, record))
        })
    }

    /// The keys of members, and their names.
    pub fn member_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.keys().filter_map(|key| {
            let name = key.strip_prefix("members/").filter(|name| !name.contains('/'))?;
            Some((key.as_str(), name))
        })
    }
}

/// The same revision twice: as text for people and REST, and as facts for the core.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The keys.
    pub raw: RawCluster,
    /// What the core sees.
    pub view: ClusterView,
}
