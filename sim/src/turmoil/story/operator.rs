//! What people do: through etcd's keys where Patroni's own tools write them, through the members' REST API otherwise.

use serde_json::{Value, json};
use surus::agent::Told;
use surus_scenarios::{Load, Operator, Taken};

use super::super::world::World;
use super::{nobody, unable, void};
use crate::clock::SEC;
use crate::model::etcd::{Put, Request};
use crate::model::postgres::StopMode;
use crate::record::Seen;

impl World {
    pub(super) fn operator_act(&mut self, act: &Operator) -> Taken {
        match act {
            Operator::Switchover { to } => {
                let Some(leader) = self.leader() else {
                    return void("there is no leader");
                };
                let mut wish = json!({"leader": self.hub.hosts[leader].name});
                if let Some(to) = to {
                    let Some(host) = self.member_at(to) else {
                        return nobody();
                    };
                    wish["member"] = json!(self.hub.hosts[host].name);
                }
                self.put("failover", &wish);
            }
            Operator::Failover { to } => {
                let Some(host) = self.member_at(to) else {
                    return nobody();
                };
                let wish = json!({"member": self.hub.hosts[host].name});
                self.put("failover", &wish);
            }
            Operator::CancelFailover {} => self.put("failover", &json!({})),
            Operator::Pause { span } => {
                self.configure("pause", json!(true));
                self.lasts(*span, |world| world.insist("pause", false));
            }
            Operator::Resume {} => self.insist("pause", false),
            Operator::Set { key, value } => {
                let value = value
                    .as_str()
                    .parse::<u64>()
                    .map_or_else(|_| word(value.as_str()), |number| json!(number));
                self.configure(key.as_str(), value);
            }
            Operator::Restart { node } => return self.ask(node, "restart", &json!({})),
            Operator::Reinit {
                node,
                force,
                from_leader,
            } => {
                let body = json!({"force": force, "from_leader": from_leader});
                return self.ask(node, "reinitialize", &body);
            }
            Operator::Reload { node } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                let Some(agent) = &self.agents[host] else {
                    return void("no agent runs");
                };
                agent.tell(Told::Reload);
            }
            Operator::StopByHand { node } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                let stopped = self
                    .hub
                    .act(host, |now, inside| inside.server.stop(now, StopMode::Fast));
                if stopped.is_err() {
                    return void("PostgreSQL does not run");
                }
                self.see(host, Seen::Closing);
            }
            Operator::PromoteByHand { node } => {
                let Some(host) = self.member_at(node) else {
                    return nobody();
                };
                let leads = self.hub.record().checker.scene().leads(host);
                if leads {
                    return void("its agent leads, and promotes it or has");
                }
                let promoted = self.hub.act(host, |now, inside| inside.server.promote(now));
                if promoted.is_err() {
                    return void("it is no replica that runs");
                }
                self.see(host, Seen::PromotedByHand);
            }
            other => return unable(&format!("not done here: {}", other.word())),
        }
        Taken::Done
    }

    /// A person writes a key.
    fn put(&self, name: &str, value: &Value) {
        self.etcd.order(Request::Put(Put {
            key: self.key(name),
            value: Some(value.to_string().into_bytes()),
            lease: Some(0),
            previous: false,
        }));
    }

    /// The `config` key.
    fn config(&self) -> Option<Value> {
        let key = self.key("config");
        let text = self
            .etcd
            .model(|_, model| model.agreed(&key).and_then(|kv| kv.value.clone()))?;
        serde_json::from_slice(&text).ok()
    }

    /// Changes a setting of the `config` key.
    fn configure(&mut self, name: &str, value: Value) {
        let Some(mut config) = self.config() else {
            return;
        };
        config[name] = value;
        self.put("config", &config);
    }

    /// Switches a setting, again and again until it is so: etcd may have no leader just then.
    pub(super) fn insist(&mut self, name: &'static str, on: bool) {
        let is = self.config().and_then(|config| config.get(name)?.as_bool());
        if is.unwrap_or(false) != on {
            self.configure(name, json!(on));
            self.after(SEC, move |world| world.insist(name, on));
        }
    }

    pub(super) fn client_load(&mut self, load: &Load) -> Taken {
        match load {
            Load::Pace { client, every } => {
                let Some(number) = self.client_named(client) else {
                    return void("there is no such client");
                };
                self.clients[number].set_pace(every.0);
            }
            Load::Burst { bytes } => {
                let bytes = *bytes;
                let writable = |host: &usize| self.hub.look(*host, |inside| inside.server.writable());
                let Some(host) = (0..self.agents.len()).find(writable) else {
                    return void("nobody takes writes");
                };
                // One that has stopped in the meantime writes nothing.
                let _ = self.hub.act(host, |now, inside| inside.server.write(now, bytes));
            }
            Load::Session { .. } => {}
        }
        Taken::Done
    }

    fn ask(&mut self, node: &surus_scenarios::Target, path: &'static str, body: &Value) -> Taken {
        let Some(host) = self.member_at(node) else {
            return nobody();
        };
        if self.agents[host].is_none() {
            return void("no agent runs");
        }
        super::super::client::post(&self.hub, self.person, host, path, body.to_string());
        Taken::Done
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
