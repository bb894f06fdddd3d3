//! Who may do what: allowlist, client certificates, passwords; and the client of `peers` over all of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;
use surus::config::settings::{BasicAuth, Ctl, RestApi, VerifyClient};
use surus::net::Tcp;
use surus::peers::{Client, FailsafeReply, RequestError, Trust, member_client};
use surus::rest::backend::FailsafeAnswer;
use surus::rest::{Limits, TlsError};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::*;

const SOON: Duration = Duration::from_secs(5);

fn auth() -> Option<BasicAuth> {
    Some(BasicAuth {
        username: "admin".to_owned(),
        password: "s:cret é".to_owned(),
    })
}

#[tokio::test]
async fn passwords_are_asked_for_unsafe_methods_only() {
    let node = Node::with(
        primary(),
        RestApi {
            authentication: auth(),
            ..settings()
        },
        Limits::default(),
    )
    .await;
    assert_eq!(node.get("/primary").await.status, 200);
    let reply = node.post("/restart", "{}").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (401, "no auth header received")
    );
    assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"Patroni\""));
    for header in [
        "Basic",
        "Basic !!!",
        "Basic YWRtaW46",
        "Bearer YWRtaW46czpjcmV0IMOp",
        "Basic YWRtaW46czpjcmV0IMOpCg==",
        "YWRtaW46czpjcmV0IMOp",
    ] {
        let reply = node
            .send_with(
                "POST",
                "/restart",
                Some("{}"),
                &format!("Authorization: {header}\r\n"),
            )
            .await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (401, "not authenticated"),
            "{header}"
        );
    }
    // Refused before the body is looked at, and unknown paths as ever.
    assert_eq!(node.post("/switchover", "nonsense").await.status, 401);
    assert_eq!(node.post("/nonsense", "{}").await.status, 501);
    assert!(node.fake.take_calls().is_empty());
    let reply = node
        .send_with(
            "POST",
            "/restart",
            Some("{}"),
            "Authorization: Basic YWRtaW46czpjcmV0IMOp\r\n",
        )
        .await;
    assert_eq!(reply.status, 200);

    let url = format!("http://{}/patroni", node.address);
    let ours = member_client(
        Arc::new(Tcp),
        &Ctl::default(),
        &RestApi {
            authentication: auth(),
            ..settings()
        },
    );
    let ours = ours.unwrap();
    let granted = ours.ask_failsafe(&url, &json!({"name": "n2"}), SOON).await;
    assert!(
        matches!(granted, Some(FailsafeReply::Granted { position: Some(_) })),
        "{granted:?}"
    );
    *node.fake.failsafe.lock().unwrap() = FailsafeAnswer::Refused(String::new());
    let refused = ours.ask_failsafe(&url, &json!({"name": "n2"}), SOON).await;
    assert_eq!(
        refused,
        Some(FailsafeReply::Refused("Running as a leader".to_owned()))
    );
    *node.fake.failsafe.lock().unwrap() = FailsafeAnswer::Off;
    assert_eq!(ours.ask_failsafe(&url, &json!({"name": "n2"}), SOON).await, None);
    let status = ours.ask_status(&url, SOON).await.unwrap();
    assert!(status.primary && status.running && status.can_take_lock == Some(true));
    let stranger = member_client(Arc::new(Tcp), &Ctl::default(), &settings()).unwrap();
    assert_eq!(
        stranger.ask_failsafe(&url, &json!({"name": "n2"}), SOON).await,
        None
    );
}

#[tokio::test]
async fn allowlists() {
    let node = Node::start(primary()).await;
    let cases: [(&[&str], bool, u16); 9] = [
        (&["127.0.0.1"], false, 200),
        (&["127.0.0.0/8"], false, 200),
        (&["::ffff:127.0.0.1"], false, 200),
        (&["localhost"], false, 200),
        (&["10.0.0.1", "10.0.0.0/8", "192.168.0.0/16"], false, 403),
        (&["no-such-host.invalid"], false, 403),
        (&["10.0.0.1"], true, 200),
        (&[], true, 200),
        (&[], false, 200),
    ];
    for (allowlist, include, code) in cases {
        let settings = RestApi {
            allowlist: allowlist.iter().map(|item| (*item).to_owned()).collect(),
            allowlist_include_members: include,
            ..settings()
        };
        node.rest.reconfigure(settings).unwrap();
        let reply = node.post("/restart", "{}").await;
        assert_eq!(reply.status, code, "{allowlist:?} {include}");
        assert!(code == 200 || reply.body == "Access is denied");
        assert_eq!(node.get("/primary").await.status, 200);
    }
    // Members are on 127.0.0.1 here; with none known, only failsafe questions pass.
    node.rest
        .reconfigure(RestApi {
            allowlist_include_members: true,
            ..settings()
        })
        .unwrap();
    node.publish(surus::rest::NodeStatus {
        cluster: None,
        ..primary()
    });
    assert_eq!(node.post("/restart", "{}").await.status, 403);
    assert_eq!(node.post("/failsafe", r#"{"name":"n2"}"#).await.status, 200);
}

/// A CA, a server certificate for 127.0.0.1 and a client certificate. `None` without openssl.
fn certificates(directory: &Path) -> Option<()> {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(directory).args(arguments.split_whitespace());
        command.output().map(|output| {
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    };
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: openssl is not installed, so TLS of the REST API is not tested");
        return None;
    }
    std::fs::write(
        directory.join("san"),
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for ca in ["ca", "other"] {
        openssl(&format!(
            "req -x509 {key} -keyout {ca}.key -out {ca}.pem -days 2 -subj /CN={ca}"
        ))
        .unwrap();
    }
    for name in ["server", "client"] {
        openssl(&format!(
            "req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ))
        .unwrap();
        openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile san")).unwrap();
    }
    let joined = [
        std::fs::read(directory.join("server.pem")).unwrap(),
        std::fs::read(directory.join("server.key")).unwrap(),
    ];
    std::fs::write(directory.join("both.pem"), joined.concat()).unwrap();
    Some(())
}

#[tokio::test]
async fn tls_and_client_certificates() {
    let directory = tempfile::tempdir().unwrap();
    if certificates(directory.path()).is_none() {
        return;
    }
    let file = |name: &str| Some(directory.path().join(name));
    let tls = RestApi {
        certfile: file("both.pem"),
        cafile: file("ca.pem"),
        https_extra_headers: [("Strict-Transport-Security".to_owned(), "max-age=1".to_owned())].into(),
        ..settings()
    };
    let limits = Limits {
        handshake_timeout: Duration::from_millis(400),
        ..Limits::default()
    };
    let node = Node::with(primary(), tls.clone(), limits).await;
    let client = |trust: Trust| Client::new(Arc::new(Tcp), trust.config().unwrap(), None);
    let ctl = |cacert: Option<PathBuf>, certificate: bool| Ctl {
        cacert,
        certfile: if certificate { file("client.pem") } else { None },
        keyfile: if certificate { file("client.key") } else { None },
        ..Ctl::default()
    };
    let trusting = client(Trust::operator(&ctl(file("ca.pem"), false)));
    let known = client(Trust::operator(&ctl(file("ca.pem"), true)));
    let stranger = client(Trust::operator(&ctl(file("other.pem"), true)));
    let careless = client(Trust::members(&Ctl::default(), &settings()));
    let url = format!("https://{}/", node.address);
    let restart = format!("{url}restart");
    let body = json!({});

    let reply = trusting.request(Method::GET, &url, None, SOON).await.unwrap();
    assert_eq!(
        (reply.status, reply.header("strict-transport-security")),
        (200, Some("max-age=1"))
    );
    assert_eq!(
        careless
            .request(Method::GET, &url, None, SOON)
            .await
            .unwrap()
            .status,
        200
    );
    let error = stranger.request(Method::GET, &url, None, SOON).await.unwrap_err();
    assert!(matches!(error, RequestError::Tls { .. }), "{error:?}");
    let plain = node.get("/primary").await;
    assert_ne!(plain.status, 200);

    // A client that connects and says nothing, or not TLS, is let go.
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(3), silent.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok());

    for (mode, name, reading, restarting) in [
        (VerifyClient::None, "none", 200, 200),
        (VerifyClient::Optional, "optional", 200, 403),
    ] {
        node.rest
            .reconfigure(RestApi {
                verify_client: mode,
                ..tls.clone()
            })
            .unwrap();
        assert_eq!(
            trusting
                .request(Method::GET, &url, None, SOON)
                .await
                .unwrap()
                .status,
            reading,
            "{name}"
        );
        let reply = trusting
            .request(Method::POST, &restart, Some(&body), SOON)
            .await
            .unwrap();
        assert_eq!(reply.status, restarting, "{name}");
        assert_eq!(
            known
                .request(Method::POST, &restart, Some(&body), SOON)
                .await
                .unwrap()
                .status,
            200,
            "{name}"
        );
    }
    node.rest
        .reconfigure(RestApi {
            verify_client: VerifyClient::Required,
            ..tls.clone()
        })
        .unwrap();
    assert!(trusting.request(Method::GET, &url, None, SOON).await.is_err());
    assert_eq!(
        known.request(Method::GET, &url, None, SOON).await.unwrap().status,
        200
    );

    // New settings that cannot be used leave the old ones in force.
    let missing = RestApi {
        certfile: file("missing.pem"),
        ..tls.clone()
    };
    let error = node.rest.reconfigure(missing).unwrap_err();
    assert!(
        matches!(error, TlsError::File { .. }) && error.to_string().contains("missing.pem"),
        "{error}"
    );
    let no_ca = RestApi {
        verify_client: VerifyClient::Required,
        cafile: None,
        ..tls.clone()
    };
    assert!(matches!(node.rest.reconfigure(no_ca), Err(TlsError::NoCa)));
    let unfit = RestApi {
        keyfile: file("client.key"),
        ..tls
    };
    assert!(matches!(node.rest.reconfigure(unfit), Err(TlsError::Unusable(_))));
    assert_eq!(
        known.request(Method::GET, &url, None, SOON).await.unwrap().status,
        200
    );
}

#[tokio::test]
async fn requests_that_get_no_reply_say_why() {
    let client = member_client(Arc::new(Tcp), &Ctl::default(), &settings()).unwrap();
    for url in ["", "x", "ftp://a/", "http://", "/patroni", "http://[::1/"] {
        let error = client.request(Method::GET, url, None, SOON).await.unwrap_err();
        assert!(matches!(error, RequestError::Url(_)), "{url}: {error:?}");
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/patroni", listener.local_addr().unwrap());
    let error = client
        .request(Method::GET, &url, None, Duration::from_millis(200))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::Timeout { .. }), "{error:?}");
    assert_eq!(client.ask_status(&url, Duration::from_millis(200)).await, None);
    drop(listener);
    let error = client.request(Method::GET, &url, None, SOON).await.unwrap_err();
    assert!(matches!(error, RequestError::Connect { .. }), "{error:?}");
}
