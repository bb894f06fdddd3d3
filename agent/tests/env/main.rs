//! The whole agent in a world that is not this machine: no sockets, no files, no processes, no clock but a paused one.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use surus::agent::{Source as _, Told, run};
use surus::config::settings::Ctl;
use surus::peers::{Client, member_client};
use tokio::task::JoinHandle;
use world::{ETCD, REST, World};

/// An agent that has begun, and a client for its REST API.
async fn begun(world: &Arc<World>) -> (JoinHandle<Result<surus::agent::Ending, String>>, Client) {
    let (settings, _) = world.load().unwrap();
    let client = member_client(world.dial(), &Ctl::default(), &settings.restapi).unwrap();
    let agent = tokio::spawn(run(settings, world.env()));
    // It looks for a namesake in etcd before it begins, which nothing answers.
    tokio::time::sleep(Duration::from_secs(5)).await;
    (agent, client)
}

async fn explained(client: &Client) -> serde_json::Value {
    let url = format!("http://n1:{REST}/explain");
    let answer = client
        .request(http::Method::GET, &url, None, Duration::from_secs(2))
        .await;
    serde_json::from_slice(&answer.unwrap().body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_runs_and_ends_when_told() {
    let world = World::new();
    let (agent, client) = begun(&world).await;
    let first = explained(&client).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let later = explained(&client).await;
    let seq = |json: &serde_json::Value| json["decision"]["seq"].as_u64().unwrap();
    assert!(
        seq(&first) + 100 < seq(&later),
        "ten minutes pass: {first} {later}"
    );
    assert!(world.dialled(ETCD) > 100, "it asks etcd again and again");

    world.tell(Told::Reload);
    world.tell(Told::Shutdown);
    let ending = agent.await.unwrap().unwrap();
    assert!(!ending.failure && !ending.detach, "{ending:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_it_outlives_its_drop() {
    let world = World::new();
    let (agent, client) = begun(&world).await;
    explained(&client).await;
    // A connection is open, and a request to etcd hangs.
    world.swallow(true);
    let idle = world.dial().dial("n1", REST).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(world.streams() > 1);
    agent.abort();
    assert!(agent.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop((idle, client));
    assert_eq!(world.streams(), 0, "connections are left");
    assert_eq!(Arc::strong_count(&world), 1, "something holds on to the world");
}

#[tokio::test(start_paused = true)]
async fn two_agents_do_not_share_an_address() {
    let world = World::new();
    let (agent, _client) = begun(&world).await;
    let (settings, _) = world.load().unwrap();
    let refused = run(settings, world.env()).await.unwrap_err();
    assert!(refused.contains("cannot listen on"), "{refused}");
    agent.abort();
}
