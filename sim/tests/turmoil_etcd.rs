//! The agent's etcd adapter over the simulated network, against the served model: does it work, is it the same each time.
#![cfg(feature = "turmoil")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use surus::config::settings::{self, HostPort};
use surus::dcs::{Etcd, Lock};
use surus::machine::Machine as Machinery;
use surus::net::{Dial, Stream};
use surus::task::{BoxFuture, Spawn};
use surus_core::action::{Grounds, StatusRecord};
use surus_core::types::MonoTime;
use surus_sim::clock::SEC;
use surus_sim::model::etcd::Settings;
use surus_sim::turmoil::etcd::Ensemble;
use surus_sim::turmoil::net::jump::Jumping;
use surus_sim::turmoil::net::{Driver, Machine, Net};
use surus_sim::turmoil::process::Process;
use tokio::task::AbortHandle;

struct From(Process);

impl Dial for From {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Stream>> {
        let dialling = Arc::clone(self.0.net()).dial(self.0.machine(), host, port);
        Box::pin(async move { Ok(Box::new(dialling.await?) as Stream) })
    }
}

struct Tasks(Process);

impl Spawn for Tasks {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> AbortHandle {
        self.0.spawn(task)
    }
}

struct Clock(Arc<dyn Net>);

impl surus::clock::Clock for Clock {
    fn now(&self) -> MonoTime {
        MonoTime(self.0.now() + 1_000 * SEC)
    }
    fn wall(&self) -> Duration {
        Duration::from_secs(1_767_225_600) + Duration::from_nanos(self.0.now())
    }
}

async fn hold_the_lock(process: Process, name: String, log: Arc<Mutex<Vec<String>>>) {
    let hosts = (1..=3)
        .map(|n| HostPort {
            host: format!("etcd{n}"),
            port: 2379,
        })
        .collect();
    let settings = settings::Etcd {
        hosts,
        tls: false,
        username: None,
        password: None,
        cacert: None,
        cert: None,
        key: None,
    };
    let clock: Arc<dyn surus::clock::Clock> = Arc::new(Clock(Arc::clone(process.net())));
    let etcd = Arc::new(
        Etcd::new(
            &settings,
            "/service/x/",
            &name,
            Machinery {
                clock,
                dial: Arc::new(From(process.clone())),
                tasks: Arc::new(Tasks(process.clone())),
            },
        )
        .unwrap(),
    );
    let (states, mut changes) = tokio::sync::watch::channel(None);
    let watched = Arc::clone(&etcd);
    process.spawn(Box::pin(async move { watched.watch(states).await }));
    let (ttl, limit) = (Duration::from_secs(5), Duration::from_secs(1));
    let status = StatusRecord::default();
    loop {
        let lock = etcd.renew(ttl, None, &status, limit).await;
        let lock = match lock {
            Ok(Lock::NotHeld { holder: None }) | Err(_) => {
                etcd.acquire(ttl, Grounds::default(), None, &status, limit).await
            }
            other => other,
        };
        let line = format!("{} {name} {lock:?}", process.net().now());
        log.lock().unwrap().push(line);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if changes.has_changed().is_ok_and(|changed| changed) {
            let seen = changes.borrow_and_update().clone();
            let leader = seen.and_then(|seen| seen.raw.text("leader").map(str::to_owned));
            let line = format!("{} {name} saw {leader:?}", process.net().now());
            log.lock().unwrap().push(line);
        }
    }
}

fn play(seed: u64, seconds: u64) -> (u64, u64, Vec<String>) {
    std::thread::spawn(move || {
        let names: Vec<String> = ["etcd1", "etcd2", "etcd3", "n1", "n2"]
            .map(str::to_owned)
            .to_vec();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut driver = Jumping::new(seed, &names).unwrap();
        let net = driver.net();
        let etcd: Vec<Machine> = (0..3).map(Machine).collect();
        let ensemble = Ensemble::start(&net, &etcd, Settings::default(), seed);
        let mut agents = Vec::new();
        for (index, name) in ["n1", "n2"].into_iter().enumerate() {
            let process = Process::new(Arc::clone(&net), Machine(3 + index), name);
            process.spawn(Box::pin(hold_the_lock(
                process.clone(),
                name.to_owned(),
                Arc::clone(&log),
            )));
            agents.push(process);
        }
        let cut = |cut| {
            for member in &etcd {
                net.cut(Machine(3), *member, cut);
                net.cut(*member, Machine(3), cut);
            }
            ensemble.relink();
        };
        for round in (0..seconds).step_by(60) {
            for step in 0..8 {
                driver.run_until((round + [5, 13, 18, 25, 30, 40, 44, 49][step]) * SEC);
                match step {
                    0 => agents[0].freeze(),
                    1 => agents[0].thaw(),
                    2 => ensemble.kill(0),
                    3 => ensemble.revive(0),
                    4 => cut(true),
                    5 => cut(false),
                    6 => ensemble.freeze(1, true),
                    _ => ensemble.freeze(1, false),
                }
            }
        }
        driver.run_until(seconds * SEC);
        let lines = log.lock().unwrap().clone();
        (net.hash(), net.packets(), lines)
    })
    .join()
    .unwrap()
}

#[test]
fn the_adapter_works_and_twice_gives_the_same_bytes() {
    let (hash, packets, lines) = play(1, 60);
    for line in &lines {
        eprintln!("{line}");
    }
    eprintln!("{hash:016x} {packets}");
    assert!(lines.iter().any(|line| line.contains("Held")));
    let again = play(1, 60);
    assert_eq!((hash, packets, lines), again);
}
