//! What people and clients do: through etcd's keys where Patroni's own tools write them, through the members' REST API and PostgreSQL's
//! tools otherwise.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::{Value, json};
use surus_ci::error::Error;
use surus_ci::http;
use surus_scenarios::{Load, Operator, Taken, Target};

use super::hosts::Who;
use super::{World, nobody, span, unable, void};
use crate::yml::{DATA, PROGRAMS, REST};
use surus_ci::lock;

/// How long a person waits for an answer before doing something else; the request is under way by then.
const PATIENCE: Duration = Duration::from_millis(300);

impl World {
    pub(super) fn operator_act(&mut self, act: &Operator) -> Taken {
        match act {
            Operator::Switchover { to } => {
                let leader = lock(&self.seen).leader;
                let Some(leader) = leader else {
                    return void("there is no leader");
                };
                let mut wish = json!({"leader": self.hosts[leader].name});
                if let Some(to) = to {
                    let Some(host) = self.member_at(to) else {
                        return nobody();
                    };
                    wish["member"] = json!(self.hosts[host].name);
                }
                self.put("failover", &wish)
            }
            Operator::Failover { to } => {
                let Some(host) = self.member_at(to) else {
                    return nobody();
                };
                let wish = json!({"member": self.hosts[host].name});
                self.put("failover", &wish)
            }
            Operator::CancelFailover {} => self.put("failover", &json!({})),
            Operator::Pause { span } => {
                let taken = self.configure("pause", json!(true));
                self.lasts(*span, |world| {
                    world.configure("pause", json!(false));
                });
                taken
            }
            Operator::Resume {} => self.configure("pause", json!(false)),
            Operator::Set { key, value } => {
                let text = value.as_str();
                let number = text.parse::<u64>();
                let value = number.map_or_else(|_| word(text), |number| json!(number));
                self.configure(key.as_str(), value)
            }
            Operator::Patch { node, key, value } => {
                let levels = key.as_str().rsplit('.');
                let change = levels.fold(json!(value.as_str()), |inner, level| json!({level: inner}));
                self.ask_agent(node, "PATCH", "/config", &change)
            }
            Operator::Restart { node } => self.ask_agent(node, "POST", "/restart", &json!({})),
            Operator::Reinit {
                node,
                force,
                from_leader,
            } => self.ask_agent(
                node,
                "POST",
                "/reinitialize",
                &json!({"force": force, "from_leader": from_leader}),
            ),
            Operator::Reload { node } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                if self.signal(host, Who::Agent, "HUP") {
                    Taken::Done
                } else {
                    void("no agent runs")
                }
            }
            Operator::PromoteByHand { node } => {
                if let Some(host) = self.member_at(node) {
                    let now = self.time();
                    lock(&self.seen).by_hand.push((host, now));
                    return self.pg_ctl(&Target::Node(self.shape.members[host].name.clone()), "promote -W");
                }
                nobody()
            }
            Operator::StopByHand { node } => self.pg_ctl(node, "stop -m fast -W"),
            Operator::StartByHand { node } => self.pg_ctl(node, "start -W -l /surus/by-hand.log"),
            Operator::ResetSetting { node, name } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                let sql = format!("ALTER SYSTEM RESET {name};\nSELECT pg_reload_conf();");
                if self.awake(host) && self.psql(host, &sql).is_ok() {
                    Taken::Done
                } else {
                    void("PostgreSQL does not answer")
                }
            }
            Operator::Tag { .. } => {
                unable("the files of members are not rewritten here while a story is played")
            }
        }
    }

    /// A person writes a key.
    fn put(&self, name: &str, value: &Value) -> Taken {
        let done = self.handle.block_on(self.etcd.put(name, &value.to_string()));
        done.map_or_else(void, |()| Taken::Done)
    }

    /// Changes a setting of the `config` key.
    fn configure(&mut self, name: &str, value: Value) -> Taken {
        let text = lock(&self.seen).keys.get("config").map(|key| key.value.clone());
        let config = text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let Some(mut config) = config else {
            return void("there is no configuration in etcd");
        };
        config[name] = value;
        self.put("config", &config)
    }

    /// Asks a member's agent for something. Whether it agrees is its business, and told; that it does not understand is the harness's.
    fn ask_agent(&mut self, node: &Target, method: &'static str, path: &str, body: &Value) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        let (address, body, path) = (self.hosts[host].address, body.to_string(), path.to_owned());
        let seen = std::sync::Arc::clone(&self.seen);
        let name = self.hosts[host].name.clone();
        // It may take as long as a base backup; the story goes on.
        let asked = self.handle.spawn(async move {
            let at = SocketAddrV4::new(address, REST);
            let answer = http::request(at, method, &path, &body, Duration::from_secs(60)).await;
            let (said, understood) = match answer {
                Ok(answer) => (
                    format!("{} {}", answer.status, answer.body.trim_end()),
                    answer.status != 400,
                ),
                Err(error) => (error.to_string(), true),
            };
            let line = format!("{name} answers {path}: {said}");
            lock(&seen).tell(line.clone());
            if understood {
                Ok(())
            } else {
                Err(Error::Unmet(line))
            }
        });
        let answered = self
            .handle
            .block_on(async { tokio::time::timeout(PATIENCE, asked).await });
        match answered {
            Ok(Ok(answer)) => self.outcome("ask an agent", answer),
            _ => Taken::Done,
        }
    }

    fn pg_ctl(&mut self, node: &Target, words: &str) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        self.tell(format!("  at {}", self.hosts[host].name));
        let script = format!(
            "cd /data && setpriv --reuid=postgres --regid=postgres --init-groups {PROGRAMS}/pg_ctl -D {DATA} {words}"
        );
        if !self.awake(host) {
            return void("the host does not go on");
        }
        match self.ask(host, &script) {
            Ok((0, _)) => Taken::Done,
            Ok((_, output)) => void(output),
            Err(error) => self.outcome("run pg_ctl", Err(error)),
        }
    }

    pub(super) fn client_load(&mut self, load: &Load) -> Taken {
        match load {
            Load::Pace { client, every } => {
                let Some(number) = self.client_named(client) else {
                    return void("there is no such client");
                };
                let Some(client) = self.clients.get(number) else {
                    return void("clients have not begun");
                };
                client.writer.set_pace(span(*every));
                Taken::Done
            }
            Load::Burst { bytes } => {
                let primary = lock(&self.seen).primaries().first().copied();
                let Some(primary) = primary else {
                    return void("nobody takes writes");
                };
                // Rows of 64 kB that do not compress, in a table of their own.
                let rows = (bytes / 65_536).max(1);
                let sql = format!(
                    "CREATE TABLE IF NOT EXISTS burst (data bytea);\nALTER TABLE burst ALTER data SET STORAGE EXTERNAL;\n\
                     INSERT INTO burst SELECT decode(repeat(md5(random()::text), 4096), 'hex') FROM generate_series(1, {rows});"
                );
                match self.psql(primary, &sql) {
                    Ok(_) => Taken::Done,
                    Err(error) => void(surus_ci::error::chain(&error)),
                }
            }
            Load::Session { .. } => unable("idle sessions are not opened here"),
        }
    }
}

/// A word as YAML has it.
fn word(text: &str) -> Value {
    match text {
        "true" | "on" => json!(true),
        "false" | "off" => json!(false),
        "null" => Value::Null,
        other => json!(other),
    }
}
