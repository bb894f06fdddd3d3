//! Three etcd members, each on an address of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::process::Child;

use crate::error::{Error, Result};
use crate::gateway;
use crate::ground;
use crate::http;
use crate::layout::{Layout, MEMBERS};
use crate::proc::{self, Account};

/// The etcd of one cluster.
#[derive(Debug)]
pub(crate) struct Etcd {
    layout: Layout,
    account: Account,
    program: PathBuf,
    members: Vec<Child>,
}

impl Etcd {
    /// Prepares directories; nothing runs yet.
    pub(crate) fn prepare(layout: &Layout, account: &Account, program: PathBuf) -> Result<Self> {
        let etcd = Self {
            layout: layout.clone(),
            account: account.clone(),
            program,
            members: Vec::new(),
        };
        for i in 0..MEMBERS {
            account.directory(&etcd.directory(i))?;
        }
        Ok(etcd)
    }

    fn directory(&self, i: u8) -> PathBuf {
        self.layout.root.join(format!("etcd{}", i + 1))
    }

    /// Starts all members and waits until they have a leader.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.members.clear();
        self.revive()?;
        self.wait(Duration::from_secs(30)).await
    }

    fn spawn(&self, i: u8) -> Result<Child> {
        let peer = |i| format!("etcd{}=http://{}", i + 1, self.layout.etcd_peer(i));
        let all = (0..MEMBERS).map(peer).collect::<Vec<_>>().join(",");
        let dir = self.directory(i);
        let client = format!("http://{}", self.layout.etcd_client(i));
        let peer = format!("http://{}", self.layout.etcd_peer(i));
        let words = [
            self.program.display().to_string(),
            format!("--name=etcd{}", i + 1),
            format!("--data-dir={}", dir.join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={all}"),
            "--initial-cluster-state=new".to_owned(),
            "--logger=zap".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        let space = self.layout.space(ground::ETCD + i);
        proc::start(
            &self.account,
            space.as_deref(),
            &words,
            &dir,
            &dir.join("etcd.log"),
        )
    }

    /// Kills one member, if it runs. Its data stay.
    pub(crate) async fn kill_member(&mut self, i: u8) {
        if let Some(member) = self.members.get_mut(usize::from(i)) {
            let _ = member.start_kill();
            let _ = member.wait().await;
        }
    }

    /// Starts every member that has ended, and waits for no leader.
    pub(crate) fn revive(&mut self) -> Result<()> {
        for i in 0..MEMBERS {
            match self.members.get_mut(usize::from(i)).map(Child::try_wait) {
                Some(Ok(None)) => {}
                Some(_) => self.members[usize::from(i)] = self.spawn(i)?,
                None => {
                    let member = self.spawn(i)?;
                    self.members.push(member);
                }
            }
        }
        Ok(())
    }

    /// The member that leads.
    ///
    /// # Errors
    /// [`Error::Unmet`] when none says that it does.
    pub(crate) async fn leader(&self) -> Result<u8> {
        for i in 0..MEMBERS {
            let standing = gateway::standing(self.layout.etcd_client(i), Duration::from_secs(1)).await;
            if standing.is_some_and(|standing| standing.leads()) {
                return Ok(i);
            }
        }
        Err(Error::Unmet("no member of etcd says that it leads".into()))
    }

    /// The store's revision: how often it has been written to.
    ///
    /// # Errors
    /// When the first member does not answer.
    pub(crate) async fn revision(&self) -> Result<u64> {
        let (at, limit) = (self.layout.etcd_client(0), Duration::from_secs(5));
        // Any key: the answer tells of the store.
        let answer = gateway::post(at, "/v3/kv/range", &json!({"key": "AA=="}), limit).await;
        let answer = answer.map_err(Error::Unmet)?;
        Ok(gateway::number(
            answer.get("header").and_then(|header| header.get("revision")),
        ))
    }

    /// How often each key of the cluster has been written since it was made.
    ///
    /// # Errors
    /// When the first member does not answer.
    pub(crate) async fn versions(&self) -> Result<BTreeMap<String, u64>> {
        let (at, limit) = (self.layout.etcd_client(0), Duration::from_secs(5));
        // All keys there are.
        let answer = gateway::post(
            at,
            "/v3/kv/range",
            &json!({"key": "AA==", "range_end": "AA=="}),
            limit,
        )
        .await;
        let answer = answer.map_err(Error::Unmet)?;
        let keys = answer.get("kvs").and_then(Value::as_array);
        let one = |pair: &Value| {
            let key = STANDARD.decode(pair.get("key")?.as_str()?).ok()?;
            let key = String::from_utf8_lossy(&key).into_owned();
            Some((key, gateway::number(pair.get("version"))))
        };
        Ok(keys.into_iter().flatten().filter_map(one).collect())
    }

    async fn wait(&mut self, limit: Duration) -> Result<()> {
        let late = tokio::time::Instant::now() + limit;
        let mut last = String::from("no answer");
        while tokio::time::Instant::now() < late {
            let mut healthy = 0;
            for i in 0..MEMBERS {
                match http::get(self.layout.etcd_client(i), "/health", Duration::from_secs(1)).await {
                    Ok(answer) if answer.status == 200 && answer.body.contains("true") => healthy += 1,
                    Ok(answer) => last = answer.body,
                    Err(error) => last = error.to_string(),
                }
            }
            if healthy == MEMBERS {
                return Ok(());
            }
            for (child, i) in self.members.iter_mut().zip(0..MEMBERS) {
                if let Ok(Some(status)) = child.try_wait() {
                    let log = self.layout.root.join(format!("etcd{}/etcd.log", i + 1));
                    return Err(Error::Unable(format!(
                        "etcd member {} ended ({status}); see {}",
                        i + 1,
                        log.display()
                    )));
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(Error::Late {
            what: "etcd to have a leader".into(),
            limit,
            last,
        })
    }

    /// Kills every member at once. Their data stays.
    pub(crate) async fn kill(&mut self) {
        for member in &mut self.members {
            let _ = member.start_kill();
        }
        for member in &mut self.members {
            let _ = member.wait().await;
        }
        self.members.clear();
    }
}
