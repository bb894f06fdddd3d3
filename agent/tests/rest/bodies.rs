//! Bad bodies: each gets a text that says what is wrong, and reaches nothing.

use crate::support::*;

#[tokio::test]
async fn each_bad_body_is_refused_with_its_reason() {
    let node = Node::start(primary()).await;
    let deep = "[".repeat(100_000);
    let long = format!(r#"{{"leader": "{}"}}"#, "x".repeat(2 << 20));
    let cases: Vec<(&str, &str, Option<&str>, u16, &str)> = vec![
        ("PATCH", "/config", None, 411, "Content-Length"),
        ("PATCH", "/config", Some(""), 400, "empty"),
        ("PATCH", "/config", Some("{}"), 400, "is empty"),
        (
            "PATCH",
            "/config",
            Some("[]"),
            400,
            "must be a JSON object, not an array",
        ),
        ("PATCH", "/config", Some("null"), 400, "not null"),
        ("PATCH", "/config", Some("{\"ttl\": 5"), 400, "no valid JSON: EOF"),
        ("PATCH", "/config", Some("ttl: 5"), 400, "no valid JSON"),
        (
            "PATCH",
            "/config",
            Some("{\"ttl\": 5} x"),
            400,
            "trailing characters",
        ),
        ("PATCH", "/config", Some("{\"a\": \u{1}\"}"), 400, "no valid JSON"),
        ("PATCH", "/config", Some(&deep), 400, "recursion limit"),
        (
            "PATCH",
            "/config",
            Some(r#"{"ttl": "long"}"#),
            422,
            "ttl must be a number of seconds",
        ),
        (
            "PUT",
            "/config",
            Some(r#"{"ttl": -1}"#),
            422,
            "ttl must be a number of seconds",
        ),
        ("PUT", "/config", Some("5"), 400, "not a number"),
        ("PUT", "/config", None, 411, "Content-Length"),
        ("POST", "/switchover", None, 411, "Content-Length"),
        ("POST", "/switchover", Some("{}"), 400, "is empty"),
        (
            "POST",
            "/switchover",
            Some(&long),
            413,
            "longer than 1048576 bytes",
        ),
        (
            "POST",
            "/switchover",
            Some(r#"{"candidate":"n2"}"#),
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (
            "POST",
            "/switchover",
            Some(r#"{"leader":""}"#),
            400,
            "Switchover could be performed only from a specific leader",
        ),
        (
            "POST",
            "/switchover",
            Some(r#"{"leader":1}"#),
            400,
            "\"leader\" must be a string, not a number",
        ),
        (
            "POST",
            "/switchover",
            Some(r#"{"leader":"n1","canddate":"n2"}"#),
            400,
            "unknown key \"canddate\"",
        ),
        (
            "POST",
            "/switchover",
            Some(r#"{"leader":"n1","scheduled_at":"2030-01-01T00:00:00"}"#),
            400,
            "Timezone information is mandatory for the scheduled switchover",
        ),
        (
            "POST",
            "/switchover",
            Some(r#"{"leader":"n1","scheduled_at":"2020-01-01T00:00:00Z"}"#),
            422,
            "Cannot schedule switchover in the past",
        ),
        (
            "POST",
            "/switchover",
            Some(r#"{"leader":"n1","scheduled_at":"soon"}"#),
            422,
            "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601",
        ),
        (
            "POST",
            "/switchover",
            Some(r#"{"leader":"n1","scheduled_at":5}"#),
            400,
            "\"scheduled_at\" must be a string",
        ),
        (
            "POST",
            "/failover",
            Some(r#"{"leader":"n1"}"#),
            400,
            "Failover could be performed only to a specific candidate",
        ),
        (
            "POST",
            "/failover",
            Some(r#"{"candidate":"n2","scheduled_at":"2030-01-01T00:00:00Z"}"#),
            400,
            "Failover can't be scheduled",
        ),
        (
            "POST",
            "/failover",
            Some(r#"{"candidate":["n2"]}"#),
            400,
            "\"candidate\" must be a string, not an array",
        ),
        ("POST", "/restart", Some("[]"), 400, "must be a JSON object"),
        (
            "POST",
            "/restart",
            Some(r#"{"role":"boss"}"#),
            400,
            "PostgreSQL role should be either primary, standby_leader, or replica",
        ),
        (
            "POST",
            "/restart",
            Some(r#"{"role":null}"#),
            400,
            "PostgreSQL role should be either",
        ),
        (
            "POST",
            "/restart",
            Some(r#"{"timeout":-5}"#),
            400,
            "Timeout should be a positive number of seconds",
        ),
        (
            "POST",
            "/restart",
            Some(r#"{"timeout":"x"}"#),
            400,
            "Timeout should be a positive number of seconds",
        ),
        (
            "POST",
            "/restart",
            Some(r#"{"timeout":1e300}"#),
            400,
            "Timeout should be a positive number of seconds",
        ),
        (
            "POST",
            "/restart",
            Some(r#"{"postgres_version":"new"}"#),
            400,
            "Invalid PostgreSQL version format: X.Y or X.Y.Z is accepted: new",
        ),
        (
            "POST",
            "/restart",
            Some(r#"{"forse":true}"#),
            400,
            "Unknown filter for the scheduled restart: forse",
        ),
        (
            "POST",
            "/restart",
            Some(r#"{"schedule":"2030-01-01"}"#),
            400,
            "Timezone information is mandatory for the scheduled restart",
        ),
        (
            "POST",
            "/restart",
            Some(r#"{"schedule":"2020-01-01T00:00Z"}"#),
            422,
            "Cannot schedule restart in the past",
        ),
        (
            "POST",
            "/restart",
            Some(r#"{"schedule":{}}"#),
            400,
            "\"schedule\" must be a string",
        ),
        (
            "POST",
            "/reinitialize",
            Some(r#"{"force":"yes"}"#),
            400,
            "\"force\" must be true or false, not a string",
        ),
        (
            "POST",
            "/reinitialize",
            Some(r#"{"from":true}"#),
            400,
            "unknown key \"from\"",
        ),
        ("POST", "/failsafe", Some("{}"), 400, "is empty"),
        (
            "POST",
            "/failsafe",
            Some(r#"{"api_url":"x"}"#),
            400,
            "\"name\" is missing",
        ),
        (
            "POST",
            "/failsafe",
            Some(r#"{"name":"n2","slots":[]}"#),
            400,
            "\"slots\" must be an object",
        ),
        (
            "POST",
            "/failsafe",
            Some(r#"{"name":"n2","slots":{"a":-1}}"#),
            400,
            "position of slot \"a\"",
        ),
    ];
    println!("{} bad bodies", cases.len());
    for (method, path, body, code, text) in cases {
        let reply = node.send(method, path, body).await;
        let shown = body.map(|body| &body[..body.len().min(80)]);
        assert_eq!(reply.status, code, "{method} {path} {shown:?}: {}", reply.body);
        assert!(
            reply.body.contains(text),
            "{method} {path} {shown:?}: {}",
            reply.body
        );
        assert_eq!(
            node.fake.take_calls(),
            Vec::<String>::new(),
            "{method} {path} {shown:?}"
        );
    }
    assert_eq!(node.get("/primary").await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_not_utf8_or_lie_about_their_length() {
    let node = Node::start(primary()).await;
    let reply = node.raw(b"POST /switchover HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n\xff\xfe{}").await;
    assert_eq!(reply.status, 400);
    let reply = node
        .raw(b"POST /switchover HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n{}")
        .await;
    assert_eq!(reply.status, 400);
    let reply = node
        .raw(b"POST /restart HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
        .await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, "restarted successfully")
    );
    let reply = node
        .raw(b"POST /restart HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n")
        .await;
    assert_eq!(reply.status, 400);
    assert_eq!(node.fake.take_calls(), ["order Restart"]);
}
