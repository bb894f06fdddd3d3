//! The agent's etcd adapter over the simulated network, against the served model: does it work, is it the same each time, how fast.
#![cfg(feature = "turmoil")]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use surus::config::settings::{self, HostPort};
use surus::dcs::{Etcd, Lock};
use surus::net::{Dial, Stream};
use surus_core::action::StatusRecord;
use surus_core::types::{MonoTime, Revision};
use surus_sim::clock::SEC;
use surus_sim::model::etcd::Settings;
use surus_sim::turmoil::etcd::Ensemble;
use surus_sim::turmoil::interpose::Interposed;
use surus_sim::turmoil::net::{Machine, Net, jump};
use surus_sim::turmoil::process::Process;

#[derive(Clone)]
struct From(Process);

impl Dial for From {
    async fn dial(&self, host: &str, port: u16) -> io::Result<Stream> {
        let stream = Arc::clone(self.0.net())
            .dial(self.0.machine(), host, port)
            .await?;
        Ok(Box::new(stream))
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
    let etcd = Arc::new(Etcd::new(&settings, "/service/x/", &name, &From(process.clone()), clock).unwrap());
    let (states, mut changes) = tokio::sync::watch::channel(None);
    let watched = Arc::clone(&etcd);
    process.spawn(Box::pin(async move { watched.watch(states).await }));
    let (ttl, limit) = (Duration::from_secs(5), Duration::from_secs(1));
    let status = StatusRecord::default();
    loop {
        let lock = etcd.renew(ttl, &status, limit).await;
        let lock = match lock {
            Ok(Lock::NotHeld { holder: None }) | Err(_) => {
                etcd.acquire(ttl, None, Revision(0), None, &status, limit).await
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
        let interposed = Interposed::begin(seed);
        let names: Vec<String> = ["etcd1", "etcd2", "etcd3", "n1", "n2"]
            .map(str::to_owned)
            .to_vec();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let (hash, packets) = jump::run(seed, &names, |jump| async move {
            let net: Arc<dyn Net> = jump.clone();
            let etcd: Vec<Machine> = (0..3).map(Machine).collect();
            let ensemble = Ensemble::start(&net, &etcd, Settings::default(), seed);
            let mut agents = Vec::new();
            for (index, name) in ["n1", "n2"].into_iter().enumerate() {
                let process = Process::new(Arc::clone(&net), Machine(3 + index), name);
                process.spawn(Box::pin(hold_the_lock(
                    process.clone(),
                    name.to_owned(),
                    Arc::clone(&lines),
                )));
                agents.push(process);
            }
            let until = |second: u64| {
                let net = Arc::clone(&net);
                async move {
                    let left = (second * SEC).saturating_sub(net.now());
                    tokio::time::sleep(Duration::from_nanos(left)).await;
                }
            };
            let mut round = 0;
            while round + 60 <= seconds {
                until(round + 5).await;
                agents[0].freeze();
                until(round + 13).await;
                agents[0].thaw();
                until(round + 18).await;
                ensemble.kill(0);
                until(round + 25).await;
                ensemble.revive(0);
                until(round + 30).await;
                for member in &etcd {
                    net.cut(Machine(3), *member, true);
                    net.cut(*member, Machine(3), true);
                }
                ensemble.relink();
                until(round + 40).await;
                for member in &etcd {
                    net.cut(Machine(3), *member, false);
                    net.cut(*member, Machine(3), false);
                }
                until(round + 44).await;
                ensemble.freeze(1, true);
                until(round + 49).await;
                ensemble.freeze(1, false);
                round += 60;
            }
            until(seconds).await;
            (net.hash(), jump.packets())
        });
        drop(interposed);
        (
            hash,
            packets,
            Arc::try_unwrap(log).unwrap_or_default().into_inner().unwrap(),
        )
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

#[test]
#[ignore = "a measurement"]
fn speed() {
    let begin = std::time::Instant::now();
    let (hash, packets, lines) = play(1, 6000);
    let took = begin.elapsed();
    eprintln!(
        "{hash:016x}: 6000 s in {took:?}: {:.0}x, {packets} packets, {} lines",
        6000.0 / took.as_secs_f64(),
        lines.len()
    );
}
