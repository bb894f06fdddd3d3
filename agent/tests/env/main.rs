//! The whole agent in a world that is not this machine: no sockets, no files, no processes, no clock but a paused one.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod world;

use std::sync::Arc;
use std::time::Duration;

use surus::agent::record::{self, Recorder, ReplayError};
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
async fn the_first_question_waits_for_a_look_at_etcd_but_not_for_ever() {
    let world = World::new();
    let (settings, _) = world.load().unwrap();
    let client = member_client(world.dial(), &Ctl::default(), &settings.restapi).unwrap();
    let agent = tokio::spawn(run(settings, world.env()));
    while world.dial().dial("n1", REST).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // It takes connections, and looks for a namesake in etcd, for two seconds, before it begins.
    let opened = tokio::time::Instant::now();
    let url = format!("http://n1:{REST}/patroni");
    let limit = Duration::from_secs(10);
    let answer = client.request(http::Method::GET, &url, None, limit).await;
    assert!(answer.is_ok());
    let waited = opened.elapsed();
    let (shortest, longest) = (Duration::from_millis(2900), Duration::from_millis(3200));
    assert!(shortest < waited && waited < longest, "{waited:?}");
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_does_not_hold_up_the_loop() {
    let world = World::new();
    let (agent, client) = begun(&world).await;
    world.hang();
    world.tell(Told::Reload);
    tokio::time::sleep(Duration::from_secs(60)).await;
    // One look at the files, which none follows, and one copy of the configuration.
    assert_eq!(world.hanging(), 2);
    let before = world.dialled(ETCD);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.hanging(), 2);
    assert!(before + 20 < world.dialled(ETCD), "the loop goes on");
    let shown = explained(&client).await;
    assert_eq!(shown["candidate"]["fit"], false, "{shown}");
    agent.abort();
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
async fn a_recording_replays_to_the_same_decisions() {
    let world = World::new();
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let recorder = Recorder::to(move |line| sender.send(line).is_ok());
    *world.observer.lock().unwrap() = Some(Box::new(recorder));
    let (agent, client) = begun(&world).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let shown = explained(&client).await;
    agent.abort();
    assert!(agent.await.is_err());

    let mut text = String::new();
    while let Some(line) = lines.recv().await {
        text.push_str(&line);
        text.push('\n');
    }
    let mut steps = Vec::new();
    let node = record::replay(text.as_bytes(), |step| steps.push(step))
        .unwrap()
        .unwrap();
    assert_eq!(steps.len(), text.lines().count());
    let ordered: usize = steps.iter().map(|step| step.actions.len()).sum();
    assert!(ordered > 60, "a minute of looks and reads, not {ordered} orders");
    // What REST showed is among what was replayed, word for word.
    let seq = shown["decision"]["seq"].as_u64().unwrap();
    let same = steps.iter().find(|step| step.decision.seq == seq).unwrap();
    assert_eq!(shown["decision"]["rule"], same.decision.rule.code());
    assert!(seq <= node.explain().decision.map_or(0, |decision| decision.seq));

    // An agent that was killed leaves half a line at the end, and only there.
    let half = &text[..text.len() - 20];
    assert!(record::replay(half.as_bytes(), |_| ()).is_ok());
    let gap = text.replacen("\n", "\n{\"input\":\n", 1);
    assert!(matches!(
        record::replay(gap.as_bytes(), |_| ()),
        Err(ReplayError::Line { number: 2, .. })
    ));
    let headless = text.split_once('\n').unwrap().1;
    assert!(matches!(
        record::replay(headless.as_bytes(), |_| ()),
        Err(ReplayError::Misplaced(1))
    ));
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
