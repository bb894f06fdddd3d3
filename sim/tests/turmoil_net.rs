//! What the turmoil world is promised of a network, on both of them: connections, refusals, cuts, slow and lossy links, power, processes
//! that freeze and die; and that a seed is all the chance there is.
#![cfg(feature = "turmoil")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use surus_sim::clock::{MS, SEC, Time};
use surus_sim::turmoil::net::jump::Jumping;
use surus_sim::turmoil::net::tick::Ticking;
use surus_sim::turmoil::net::{BoxFuture, Driver, Machine, Net, Stream};
use surus_sim::turmoil::process::Process;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const A: Machine = Machine(0);
const B: Machine = Machine(1);
const C: Machine = Machine(2);
const PORT: u16 = 80;
/// Longer than anything takes between machines where nothing is wrong, a handshake and an exchange together.
const SOON: Time = 50 * MS;

#[derive(Debug, Clone, Copy)]
enum Network {
    Jump,
    Tick,
}

/// Three machines on a network.
struct Bench {
    driver: Box<dyn Driver>,
    net: Arc<dyn Net>,
    told: Arc<Mutex<Vec<(Time, String)>>>,
}

/// Plays on both networks, each on a thread of its own as a run has it.
fn on_both(script: fn(&mut Bench)) {
    for network in [Network::Jump, Network::Tick] {
        let played = std::thread::spawn(move || script(&mut Bench::new(network, 7))).join();
        assert!(played.is_ok(), "on {network:?}");
    }
}

impl Bench {
    fn new(network: Network, seed: u64) -> Self {
        let names = ["a", "b", "c"].map(str::to_owned);
        let driver: Box<dyn Driver> = match network {
            Network::Jump => Box::new(Jumping::new(seed, &names).expect("file descriptors")),
            Network::Tick => Box::new(Ticking::new(seed, &names)),
        };
        Self {
            net: driver.net(),
            driver,
            told: Arc::default(),
        }
    }

    /// A process with one task, which may say something at its end.
    fn run<F>(&self, on: Machine, task: impl FnOnce(Hand) -> F) -> Process
    where
        F: Future<Output = String> + Send + 'static,
    {
        let process = Process::new(Arc::clone(&self.net), on, "test");
        let hand = Hand {
            net: Arc::clone(&self.net),
            process: process.clone(),
            told: Arc::clone(&self.told),
        };
        let (task, hand) = (task(hand.clone()), hand);
        process.spawn(Box::pin(async move {
            let text = task.await;
            hand.tell(text);
        }));
        process
    }

    /// A server that sends back what it gets.
    fn echo(&self, on: Machine) -> Process {
        self.run(on, |hand| async move {
            let listening = Arc::clone(&hand.net).listen(on, PORT).await;
            let mut listener = match listening {
                Ok(listener) => listener,
                Err(error) => return format!("listen: {:?}", error.kind()),
            };
            while let Ok((mut stream, _)) = listener.accept().await {
                hand.process.spawn(Box::pin(async move {
                    let (mut from, mut to) = tokio::io::split(&mut stream);
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                }));
            }
            "the listener ended".to_owned()
        })
    }

    /// Lets so much time pass.
    fn pass(&mut self, time: Time) {
        let until = self.net.now() + time;
        self.driver.run_until(until);
        assert!(until <= self.net.now());
    }

    /// What was said, with its time.
    fn told(&self) -> Vec<(Time, String)> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    fn texts(&self) -> Vec<String> {
        self.told().into_iter().map(|(_, text)| text).collect()
    }

    /// Lets time pass until there is one thing to hear, and says how long that took.
    fn hear(&mut self, within: Time) -> (Time, String) {
        let begin = self.net.now();
        while self.told.lock().unwrap().is_empty() {
            assert!(
                self.net.now() < begin + within,
                "nothing is heard within {within} ns"
            );
            self.pass(MS);
        }
        let mut told = self.told();
        assert_eq!(told.len(), 1, "{told:?}");
        let (at, text) = told.remove(0);
        (at - begin, text)
    }
}

/// What a task has of its world.
#[derive(Clone)]
struct Hand {
    net: Arc<dyn Net>,
    process: Process,
    told: Arc<Mutex<Vec<(Time, String)>>>,
}

impl Hand {
    fn tell(&self, text: impl Into<String>) {
        let now = self.net.now();
        self.told.lock().unwrap().push((now, text.into()));
    }

    fn dial(&self, to: &str) -> BoxFuture<'static, io::Result<Stream>> {
        Arc::clone(&self.net).dial(self.process.machine(), to, PORT)
    }

    /// Sends something and waits for it to come back.
    async fn exchange(&self, stream: &mut Stream, text: &str) -> io::Result<()> {
        stream.write_all(text.as_bytes()).await?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, text.as_bytes());
        Ok(())
    }
}

/// How a dial, and then an exchange if it had success, ended.
fn dialling(to: &'static str) -> impl FnOnce(Hand) -> BoxFuture<'static, String> {
    move |hand| {
        Box::pin(async move {
            let mut stream = match hand.dial(to).await {
                Ok(stream) => stream,
                Err(error) => return format!("{:?}", error.kind()),
            };
            match hand.exchange(&mut stream, "hello").await {
                Ok(()) => "well".to_owned(),
                Err(error) => format!("{:?} after the dial", error.kind()),
            }
        })
    }
}

#[test]
fn a_listener_is_found_and_nobody_else() {
    on_both(|bench| {
        let server = bench.echo(B);
        bench.pass(SOON);
        bench.run(A, dialling("b"));
        assert_eq!(bench.hear(SOON).1, "well");
        // Where nobody listens, and where nobody is.
        bench.run(A, dialling("c"));
        assert_eq!(bench.hear(SOON).1, "ConnectionRefused");
        bench.run(A, dialling("d"));
        assert_eq!(bench.hear(SOON).1, "NotFound");
        // A machine's own name for itself.
        bench.run(A, dialling("localhost"));
        assert_eq!(bench.hear(SOON).1, "ConnectionRefused");
        bench.run(B, dialling("localhost"));
        assert_eq!(bench.hear(SOON).1, "well");
        bench.run(B, dialling("b"));
        assert_eq!(bench.hear(SOON).1, "well");
        // A port has one listener, and is free when that has gone.
        bench.echo(B);
        assert_eq!(bench.hear(SOON).1, "listen: AddrInUse");
        server.kill();
        bench.pass(MS);
        bench.run(A, dialling("b"));
        assert_eq!(bench.hear(SOON).1, "ConnectionRefused");
        bench.echo(B);
        bench.run(A, dialling("b"));
        assert_eq!(bench.hear(SOON).1, "well");
    });
}

#[test]
fn a_killed_server_can_be_started_again_at_once() {
    on_both(|bench| {
        for _ in 0..20 {
            let server = bench.echo(B);
            bench.pass(SOON);
            bench.run(A, dialling("b"));
            assert_eq!(bench.hear(SOON).1, "well");
            server.kill();
        }
    });
}

#[test]
fn much_arrives_whole_and_in_order() {
    on_both(|bench| {
        bench.echo(B);
        bench.net.lossy(A, B, 7);
        bench.net.slow(B, A, 20 * MS);
        bench.pass(SOON);
        bench.run(A, |hand| async move {
            let Ok(stream) = hand.dial("b").await else {
                return "not connected".to_owned();
            };
            let (mut from, mut to) = tokio::io::split(stream);
            let much: Vec<u8> = (0..400_000_u32)
                .map(|n| n.to_le_bytes()[(n % 3) as usize])
                .collect();
            let mut back = vec![0; much.len()];
            let sending = async {
                for piece in much.chunks(1000) {
                    to.write_all(piece).await?;
                }
                Ok(())
            };
            match tokio::try_join!(biased; sending, from.read_exact(&mut back)) {
                Ok(_) if back == much => "whole".to_owned(),
                Ok(_) => "not the same".to_owned(),
                Err(error) => error.to_string(),
            }
        });
        assert_eq!(bench.hear(300 * SEC).1, "whole");
    });
}

/// Counts aloud over one connection, an exchange every tenth of a second.
fn counting(bench: &Bench) -> Process {
    bench.run(A, |hand| async move {
        let Ok(mut stream) = hand.dial("b").await else {
            return "not connected".to_owned();
        };
        for count in 0_u32.. {
            if let Err(error) = hand.exchange(&mut stream, &format!("{count:06}")).await {
                return format!("{:?}", error.kind());
            }
            hand.tell(count.to_string());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        String::new()
    })
}

/// What was said counts on from `from`, without a gap.
fn counts_on(told: &[String], from: usize) {
    let wanted: Vec<String> = (from..from + told.len()).map(|count| count.to_string()).collect();
    assert_eq!(told, wanted);
}

#[test]
fn what_is_cut_off_is_not_lost() {
    for (there, back) in [(true, true), (true, false), (false, true)] {
        let cut = move |bench: &mut Bench| {
            bench.echo(B);
            bench.pass(SOON);
            counting(bench);
            bench.pass(SEC);
            let before = bench.texts();
            assert!(before.len() >= 8, "{before:?}");
            counts_on(&before, 0);
            assert!(bench.net.reaches(A, B) && bench.net.reaches(B, A));
            bench.net.cut(A, B, there);
            bench.net.cut(B, A, back);
            assert_eq!(bench.net.reaches(A, B), !there);
            assert_eq!(bench.net.reaches(B, A), !back);
            assert!(bench.net.reaches(A, C) && bench.net.reaches(C, B));
            // What was under way may still arrive.
            bench.pass(SOON);
            let last = bench.texts();
            assert!(last.len() <= 1, "{last:?}");
            // Neither an answer nor an error, on the old connection and on a new one.
            bench.run(A, dialling("b"));
            bench.run(C, dialling("b"));
            bench.pass(SOON);
            assert_eq!(bench.texts(), ["well"], "of C, which is not cut off");
            bench.pass(5 * SEC);
            assert_eq!(bench.texts(), [""; 0]);
            bench.net.cut(A, B, false);
            bench.net.cut(B, A, false);
            bench.pass(10 * SEC);
            let mut after = bench.texts();
            let new = after.iter().position(|text| text == "well");
            after.remove(new.expect("the dial has success after the cut"));
            assert!(after.len() > 20, "{after:?}");
            counts_on(&after, before.len() + last.len());
        };
        for network in [Network::Jump, Network::Tick] {
            let played = std::thread::spawn(move || cut(&mut Bench::new(network, 3))).join();
            assert!(played.is_ok(), "on {network:?}, there {there}, back {back}");
        }
    }
}

/// How long each exchange took.
fn times(told: &[(Time, String)]) -> Vec<Time> {
    told.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

#[test]
fn a_slow_link_is_slow_up_to_its_limit() {
    on_both(|bench| {
        bench.echo(B);
        bench.pass(SOON);
        counting(bench);
        bench.pass(3 * SEC);
        let usual = times(&bench.told());
        assert!(usual.iter().all(|time| *time < 100 * MS + SOON), "{usual:?}");
        bench.net.slow(A, B, 400 * MS);
        bench.pass(20 * SEC);
        let slow = times(&bench.told());
        assert!(slow.iter().any(|time| 400 * MS < *time), "{slow:?}");
        assert!(slow.iter().all(|time| *time < 500 * MS + SOON), "{slow:?}");
        bench.net.slow(A, B, 0);
        bench.pass(SEC);
        bench.told();
        bench.pass(3 * SEC);
        let usual = times(&bench.told());
        assert!(usual.iter().all(|time| *time < 100 * MS + SOON), "{usual:?}");
    });
}

#[test]
fn what_a_lossy_link_loses_is_sent_again() {
    on_both(|bench| {
        bench.echo(B);
        bench.pass(SOON);
        counting(bench);
        bench.net.lossy(B, A, 5);
        bench.pass(60 * SEC);
        let told = bench.told();
        let texts: Vec<String> = told.iter().map(|(_, text)| text.clone()).collect();
        counts_on(&texts, 0);
        let times = times(&told);
        let late = times.iter().filter(|time| 300 * MS < **time).count();
        assert!(20 < late && late < times.len() / 2, "{late} of {}", times.len());
    });
}

#[test]
fn a_machine_without_power_is_silent() {
    on_both(|bench| {
        let server = bench.echo(B);
        bench.pass(SOON);
        bench.run(A, |hand| async move {
            let Ok(mut stream) = hand.dial("b").await else {
                return "not connected".to_owned();
            };
            hand.tell("connected");
            match stream.read(&mut [0; 8]).await {
                Ok(length) => format!("{length} bytes"),
                Err(error) => format!("{:?}", error.kind()),
            }
        });
        counting(bench);
        bench.pass(SEC);
        assert!(bench.texts().contains(&"connected".to_owned()));
        bench.net.power(B, false);
        server.kill();
        assert!(!bench.net.reaches(A, B) && !bench.net.reaches(B, A));
        bench.pass(SOON);
        bench.told();
        bench.run(A, dialling("b"));
        bench.pass(10 * SEC);
        // Nobody hears that its processes are gone.
        assert_eq!(bench.texts(), [""; 0]);
        bench.net.power(B, true);
        assert!(bench.net.reaches(A, B) && bench.net.reaches(B, A));
        bench.pass(10 * SEC);
        let mut texts = bench.texts();
        texts.sort();
        // Who has sent something learns that nobody is there; who only listens does not.
        assert_eq!(texts, ["ConnectionRefused", "ConnectionReset"]);
    });
}

#[test]
fn a_killed_process_says_so() {
    on_both(|bench| {
        let server = bench.echo(B);
        bench.pass(SOON);
        counting(bench);
        bench.pass(SEC);
        bench.told();
        server.kill();
        let (after, text) = bench.hear(SEC);
        assert!(after < 100 * MS + SOON, "{after}");
        assert!(
            ["UnexpectedEof", "ConnectionReset", "BrokenPipe"].contains(&text.as_str()),
            "{text}"
        );
    });
}

#[test]
fn a_frozen_process_has_a_kernel_that_lives() {
    on_both(|bench| {
        let server = bench.echo(B);
        bench.pass(SOON);
        server.freeze();
        bench.run(A, |hand| async move {
            match hand.dial("b").await {
                Ok(_) => "connected".to_owned(),
                Err(error) => format!("{:?}", error.kind()),
            }
        });
        assert_eq!(bench.hear(SOON).1, "connected");
        bench.run(A, dialling("b"));
        bench.pass(5 * SEC);
        assert_eq!(bench.texts(), [""; 0]);
        server.thaw();
        assert_eq!(bench.hear(SOON).1, "well");
    });
}

#[test]
fn a_client_that_gives_up_leaves_the_others_alone() {
    on_both(|bench| {
        bench.echo(B);
        bench.pass(SOON);
        bench.net.cut(A, B, true);
        let patient = bench.run(A, dialling("b"));
        for _ in 0..50 {
            let hasty = bench.run(A, dialling("b"));
            bench.pass(100 * MS);
            hasty.kill();
        }
        assert!(patient.alive());
        bench.net.cut(A, B, false);
        assert_eq!(bench.hear(10 * SEC).1, "well");
        bench.pass(10 * SEC);
        bench.run(C, dialling("b"));
        assert_eq!(bench.hear(SOON).1, "well");
    });
}

#[test]
fn a_seed_is_all_the_chance_there_is() {
    let rough = |network: Network, seed: u64| {
        let played = std::thread::spawn(move || {
            let mut bench = Bench::new(network, seed);
            bench.echo(B);
            for from in [A, B, C] {
                bench.run(from, dialling("b"));
            }
            counting(&bench);
            bench.net.lossy(A, B, 4);
            bench.pass(20 * SEC);
            bench.net.cut(B, A, true);
            bench.pass(2 * SEC);
            bench.net.cut(B, A, false);
            bench.net.slow(B, A, 30 * MS);
            bench.pass(5 * SEC);
            (bench.net.hash(), bench.net.packets(), bench.told())
        });
        played.join().unwrap()
    };
    for network in [Network::Jump, Network::Tick] {
        let one = rough(network, 5);
        assert!(one.1 > 100, "{} packets", one.1);
        assert_eq!(one, rough(network, 5), "on {network:?}");
        assert_ne!(one.0, rough(network, 6).0, "on {network:?}");
    }
}
