//! `/config`: the dynamic configuration. Unlike Patroni, bad values are refused here, before any node sees them.

use hyper::StatusCode;
use serde_json::{Map, Value};

use super::answer::Answer;
use super::backend::DcsError;
use super::server::Shared;

/// `GET /config`.
pub(super) async fn get(shared: &Shared) -> Answer {
    let status = shared.status();
    if let Some(cluster) = status.fresh_cluster(shared.backend.now()) {
        return shown(cluster.config.as_deref());
    }
    match (shared.read_cluster().await, &status.cluster) {
        (Ok(snapshot), _) => shown(snapshot.raw.json("config").as_ref()),
        (Err(_), Some(seen)) => shown(seen.value.config.as_deref()),
        (Err(error), None) => Answer::text(StatusCode::BAD_GATEWAY, error.to_string()),
    }
}

fn shown(config: Option<&Value>) -> Answer {
    match config {
        Some(config) => Answer::json(StatusCode::OK, config),
        None => Answer::text(
            StatusCode::BAD_GATEWAY,
            "there is no config key in the DCS: the cluster has not been bootstrapped yet",
        ),
    }
}

/// `PATCH /config`: merges, `null` deletes; compare-and-swap on the key.
pub(super) async fn patch(shared: &Shared, changes: Map<String, Value>) -> Result<Answer, Answer> {
    let snapshot = shared.read_cluster().await.map_err(unavailable)?;
    let (Some(key), Some(current @ Value::Object(_))) =
        (snapshot.raw.keys.get("config"), snapshot.raw.json("config"))
    else {
        return Err(Answer::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "there is no config key in the DCS to change, or it is no JSON object: PUT /config writes a whole one",
        ));
    };
    let mut config = current.clone();
    merge(&mut config, Value::Object(changes));
    if config == current {
        return Ok(Answer::json(StatusCode::OK, &config));
    }
    check(shared, &config)?;
    match shared
        .of_dcs(shared.backend.cas_config(config.clone(), key.mod_revision))
        .await
    {
        Ok(()) => {
            shared.backend.wake();
            Ok(Answer::json(StatusCode::OK, &config))
        }
        Err(error) => Err(Answer::text(StatusCode::CONFLICT, error.to_string())),
    }
}

/// `PUT /config`: replaces the whole.
pub(super) async fn put(shared: &Shared, config: Map<String, Value>) -> Result<Answer, Answer> {
    let config = Value::Object(config);
    check(shared, &config)?;
    match shared.of_dcs(shared.backend.put_config(config.clone())).await {
        Ok(()) => {
            shared.backend.wake();
            Ok(Answer::json(StatusCode::OK, &config))
        }
        Err(error) => Err(unavailable(error)),
    }
}

fn unavailable(error: DcsError) -> Answer {
    Answer::text(StatusCode::BAD_GATEWAY, error.to_string())
}

fn check(shared: &Shared, config: &Value) -> Result<(), Answer> {
    shared
        .backend
        .check_config(config)
        .map_err(|reason| Answer::text(StatusCode::UNPROCESSABLE_ENTITY, reason))
}

/// Objects are merged key by key, `null` deletes, everything else replaces.
fn merge(target: &mut Value, changes: Value) {
    match (target, changes) {
        (Value::Object(target), Value::Object(changes)) => {
            for (key, change) in changes {
                match (target.get_mut(&key), change) {
                    (_, Value::Null) => {
                        // The order of the other keys is the user's.
                        target.shift_remove(&key);
                    }
                    (Some(present), change) => merge(present, change),
                    (None, change) => {
                        target.insert(key, without_nulls(change));
                    }
                }
            }
        }
        (target, change) => *target = without_nulls(change),
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_merge_and_null_deletes() {
        let mut config =
            json!({"ttl": 30, "postgresql": {"parameters": {"a": 1, "b": 2}, "use_slots": true}, "x": [1]});
        merge(
            &mut config,
            json!({"ttl": null, "postgresql": {"parameters": {"a": null, "c": 3}}, "x": {"y": {"z": null, "w": 1}}, "gone": null}),
        );
        assert_eq!(
            config,
            json!({"postgresql": {"parameters": {"b": 2, "c": 3}, "use_slots": true}, "x": {"y": {"w": 1}}})
        );
    }
}
