use std::time::Duration;

use super::super::cluster::{Cluster, Leader, Member, Role, State};
use super::super::target::{Target, Why};
use super::*;

const RULES: Rules = Rules {
    hold: Duration::from_secs(30),
    max_waiting: 3,
    max_connections: 8,
    maximum_lag: Some(1000),
    fall_back: false,
};

fn at(milliseconds: u64) -> MonoTime {
    MonoTime::ZERO.plus(Duration::from_millis(milliseconds))
}

fn host(name: &str) -> HostPort {
    HostPort {
        host: format!("{name}.example"),
        port: 5432,
    }
}

fn member(name: &str, role: Role, state: State) -> Member {
    Member {
        at: host(name),
        role,
        state,
        streaming: role == Role::Replica,
        balanced: true,
        lag: 0,
    }
}

/// Three members; `leader` holds the key in `reign`, and says that it is primary.
fn led(leader: &str, reign: i64) -> Cluster {
    let members = ["n1", "n2", "n3"].map(|name| {
        let role = if name == leader {
            Role::Primary
        } else {
            Role::Replica
        };
        (name.to_owned(), member(name, role, State::Running))
    });
    Cluster {
        leader: Some(Leader {
            name: leader.to_owned(),
            reign,
        }),
        stopping: None,
        members: members.into(),
    }
}

/// The same, the member `name` in another state.
fn but(mut cluster: Cluster, name: &str, role: Role, state: State) -> Cluster {
    cluster.members.insert(name.to_owned(), member(name, role, state));
    cluster
}

fn arrived(id: u64) -> Input {
    Input::Arrived {
        id: SessionId(id),
        door: Door::Primary,
        plain: true,
    }
}

fn reads(id: u64) -> Input {
    Input::Arrived {
        id: SessionId(id),
        door: Door::Replicas,
        plain: true,
    }
}

fn opened(id: u64, name: &str) -> Input {
    Input::Opened(SessionId(id), name.to_owned())
}

fn failed(id: u64, name: &str) -> Input {
    Input::Failed(SessionId(id), name.to_owned())
}

fn connect(id: u64, name: &str) -> Order {
    Order::Connect(SessionId(id), backend(name, &host(name)))
}

/// A table that has seen `n1` lead, with session 0 open on it.
fn settled() -> Table {
    let mut table = Table::new(RULES);
    assert_eq!(table.step(at(0), Input::View(led("n1", 1))), []);
    assert_eq!(table.step(at(0), arrived(0)), [connect(0, "n1")]);
    assert_eq!(table.step(at(0), opened(0, "n1")), []);
    table
}

#[test]
fn a_client_waits_for_the_first_view() {
    let mut table = Table::new(RULES);
    assert_eq!(table.step(at(0), arrived(1)), []);
    assert_eq!(table.target(at(0), Door::Primary), Target::Wait(Why::NoView));
    assert_eq!(table.step(at(5), Input::View(led("n1", 1))), [connect(1, "n1")]);
    table.step(at(9), opened(1, "n1"));
    let held = table.figures().at(Door::Primary).held;
    assert_eq!(
        (held.count, held.sum, held.classes[0]),
        (1, Duration::from_millis(9), 1)
    );
}

#[test]
fn a_new_leader_gets_nobody_before_it_says_that_it_is_primary() {
    let mut table = settled();
    let promoting = but(led("n2", 2), "n2", Role::Replica, State::Running);
    let orders = table.step(
        at(10),
        Input::View(but(promoting, "n1", Role::Primary, State::Stopping)),
    );
    assert_eq!(orders, [Order::Reset(SessionId(0))]);
    assert_eq!(table.step(at(11), arrived(1)), []);
    assert_eq!(
        table.target(at(11), Door::Primary),
        Target::Wait(Why::NotPromoted)
    );
    assert_eq!(table.step(at(12), Input::View(led("n2", 2))), [connect(1, "n2")]);
    assert_eq!(table.figures().at(Door::Primary).reset, 1);
}

#[test]
fn a_leader_key_that_has_run_out_deposes_nobody_until_another_leads() {
    for members in [led("n1", 1).members, BTreeMap::new()] {
        let mut table = settled();
        let leaderless = Cluster {
            members,
            ..Cluster::default()
        };
        assert_eq!(table.step(at(10), Input::View(leaderless)), []);
        assert_eq!(table.step(at(11), arrived(1)), [connect(1, "n1")]);
        table.step(at(12), opened(1, "n1"));
        let orders = table.step(at(13), Input::View(led("n3", 9)));
        assert_eq!(orders, [Order::Reset(SessionId(0)), Order::Reset(SessionId(1))]);
    }
}

#[test]
fn who_has_stopped_and_given_the_key_back_is_not_tried() {
    let mut table = settled();
    table.step(at(9), Input::Left(SessionId(0)));
    let mut stopped = but(led("n1", 1), "n1", Role::Replica, State::Down);
    stopped.leader = None;
    table.step(at(10), Input::View(stopped));
    assert_eq!(table.step(at(11), arrived(1)), []);
    assert_eq!(table.target(at(11), Door::Primary), Target::Wait(Why::NoLeader));
}

#[test]
fn a_primary_that_restarts_in_place_is_tried_by_one_at_a_time() {
    let mut table = settled();
    table.step(at(1), Input::Left(SessionId(0)));
    assert_eq!(table.step(at(2), arrived(1)), [connect(1, "n1")]);
    assert_eq!(table.step(at(3), failed(1, "n1")), []);
    let crashed = but(led("n1", 1), "n1", Role::Replica, State::Restarting);
    assert_eq!(table.step(at(5), Input::View(crashed)), []);
    assert_eq!(table.step(at(6), arrived(2)), []);
    assert_eq!(table.wake(), Some(at(23)));
    assert_eq!(table.step(at(23), Input::Tick), [connect(1, "n1")]);
    assert_eq!(table.step(at(24), arrived(3)), []);
    let orders = table.step(at(25), opened(1, "n1"));
    assert_eq!(orders, [connect(2, "n1"), connect(3, "n1")]);
}

#[test]
fn a_server_whose_answer_cannot_be_read_is_not_tried_on_suspicion() {
    let mut table = settled();
    table.step(at(1), failed(0, "n1"));
    let sealed = Input::Arrived {
        id: SessionId(1),
        door: Door::Primary,
        plain: false,
    };
    let mut crashed = but(led("n1", 1), "n1", Role::Replica, State::Restarting);
    table.step(at(1), arrived(9));
    table.step(at(2), failed(9, "n1"));
    table.step(at(2), Input::Left(SessionId(9)));
    table.step(at(2), Input::View(crashed.clone()));
    assert_eq!(table.step(at(50), sealed), []);
    assert_eq!(table.step(at(51), arrived(2)), [connect(2, "n1")]);
    // What one has found out holds for the other.
    assert_eq!(table.step(at(52), opened(2, "n1")), [connect(1, "n1")]);
    // In another reign it would be a promotion.
    crashed.leader = Some(Leader {
        name: "n1".to_owned(),
        reign: 2,
    });
    let orders = table.step(at(53), Input::View(crashed));
    assert_eq!(orders, [Order::Wait(SessionId(1))]);
}

#[test]
fn an_attempt_at_a_former_primary_is_taken_back() {
    let mut table = settled();
    assert_eq!(table.step(at(1), arrived(1)), [connect(1, "n1")]);
    let orders = table.step(at(2), Input::View(led("n2", 2)));
    let expected = [
        Order::Reset(SessionId(0)),
        Order::Wait(SessionId(1)),
        connect(1, "n2"),
    ];
    assert_eq!(orders, expected);
    // Late news of the former attempt change nothing.
    assert_eq!(table.step(at(3), opened(1, "n1")), []);
    assert!(!table.holds(SessionId(1), "n1"));
    assert_eq!(table.step(at(4), failed(1, "n1")), []);
    table.step(at(5), opened(1, "n2"));
    assert!(table.holds(SessionId(1), "n2"));
}

#[test]
fn new_sessions_wait_when_the_primary_says_that_it_stops_but_not_for_ever() {
    let mut table = settled();
    let mut stopping = led("n1", 1);
    stopping.stopping = Some(7);
    assert_eq!(table.step(at(10), Input::View(stopping.clone())), []);
    assert_eq!(table.step(at(11), arrived(1)), []);
    assert_eq!(table.target(at(11), Door::Primary), Target::Wait(Why::Stopping));
    // The same word again does not make it longer.
    assert_eq!(table.step(at(3000), Input::View(stopping)), []);
    assert_eq!(table.wake(), Some(at(5010)));
    assert_eq!(table.step(at(5010), Input::Tick), [connect(1, "n1")]);
    assert_eq!(table.wake(), None);
}

#[test]
fn who_has_waited_for_as_long_as_may_be_is_sent_away() {
    let mut table = Table::new(RULES);
    table.step(at(0), arrived(1));
    table.step(at(10), arrived(2));
    assert_eq!(table.wake(), Some(at(30_000)));
    let gone = table.step(at(30_000), Input::Tick);
    assert_eq!(gone, [Order::Refuse(SessionId(1), Refusal::Expired)]);
    assert_eq!(table.wake(), Some(at(30_010)));
}

#[test]
fn waiting_time_counts_from_the_arrival_whatever_was_tried_since() {
    let mut table = settled();
    assert_eq!(table.step(at(100), arrived(1)), [connect(1, "n1")]);
    table.step(at(20_000), failed(1, "n1"));
    assert_eq!(table.step(at(20_020), Input::Tick), [connect(1, "n1")]);
    table.step(at(30_099), failed(1, "n1"));
    let gone = table.step(at(30_100), Input::Tick);
    assert_eq!(gone, [Order::Refuse(SessionId(1), Refusal::Expired)]);
}

#[test]
fn there_are_limits_to_those_who_wait_and_to_all() {
    let mut table = Table::new(RULES);
    for id in 0..3 {
        assert_eq!(table.step(at(0), arrived(id)), []);
    }
    let refused = |id, why| [Order::Refuse(SessionId(id), why)];
    assert_eq!(table.step(at(0), arrived(3)), refused(3, Refusal::TooManyWaiting));
    // The other door has waiting places of its own.
    assert_eq!(table.step(at(0), reads(4)), []);
    table.step(at(1), Input::View(led("n1", 1)));
    for id in 5..9 {
        assert_eq!(table.step(at(2), arrived(id)).len(), 1, "{id}");
    }
    assert_eq!(table.step(at(3), arrived(9)), refused(9, Refusal::TooMany));
    table.step(at(4), Input::Left(SessionId(5)));
    assert_eq!(table.step(at(5), arrived(10)), [connect(10, "n1")]);
    let refusals = table.figures().at(Door::Primary).refused;
    assert_eq!(
        refusals,
        [(Refusal::TooMany, 1), (Refusal::TooManyWaiting, 1)].into()
    );
}

#[test]
fn readers_go_to_fit_replicas_by_turns_and_to_those_with_least_to_do() {
    let mut table = Table::new(RULES);
    table.step(at(0), Input::View(led("n1", 1)));
    assert_eq!(table.step(at(0), reads(1)), [connect(1, "n2")]);
    assert_eq!(table.step(at(0), reads(2)), [connect(2, "n3")]);
    assert_eq!(table.step(at(0), reads(3)), [connect(3, "n2")]);
    table.step(at(0), Input::Left(SessionId(1)));
    table.step(at(0), Input::Left(SessionId(3)));
    assert_eq!(table.step(at(0), reads(4)), [connect(4, "n2")]);
    table.step(at(0), Input::Left(SessionId(2)));
    table.step(at(0), Input::Left(SessionId(4)));
    assert_eq!(
        table.step(at(0), reads(5)),
        [connect(5, "n3")],
        "turns, though both are idle"
    );
}

#[test]
fn a_replica_that_lags_or_does_not_stream_or_does_not_want_to_gets_no_readers() {
    let unfit: [fn(&mut Member); 4] = [
        |member| member.lag = 1001,
        |member| member.streaming = false,
        |member| member.balanced = false,
        |member| member.state = State::Restarting,
    ];
    for spoil in unfit {
        let mut cluster = led("n1", 1);
        spoil(cluster.members.get_mut("n2").unwrap());
        let mut table = Table::new(RULES);
        table.step(at(0), Input::View(cluster.clone()));
        for id in 0..3 {
            assert_eq!(table.step(at(0), reads(id)), [connect(id, "n3")]);
        }
        spoil(cluster.members.get_mut("n3").unwrap());
        table.step(at(1), Input::View(cluster));
        assert_eq!(table.step(at(1), reads(7)), []);
        assert_eq!(table.target(at(1), Door::Replicas), Target::Wait(Why::NoReplica));
    }
}

#[test]
fn a_replica_that_does_not_answer_is_left_out_for_a_while() {
    let mut table = Table::new(RULES);
    table.step(at(0), Input::View(led("n1", 1)));
    assert_eq!(table.step(at(0), reads(1)), [connect(1, "n2")]);
    assert_eq!(table.step(at(1), failed(1, "n2")), [connect(1, "n3")]);
    assert_eq!(table.step(at(2), reads(2)), [connect(2, "n3")]);
    assert_eq!(table.step(at(2001), reads(3)), [connect(3, "n2")]);
    assert_eq!(
        table.step(at(2002), reads(4)),
        [connect(4, "n3")],
        "one try at a time"
    );
    table.step(at(2003), opened(3, "n2"));
    assert_eq!(table.step(at(2004), reads(5)), [connect(5, "n2")]);
}

#[test]
fn readers_fall_back_to_the_primary_only_where_that_is_asked_for() {
    let alone = || {
        let mut cluster = led("n1", 1);
        cluster.members.retain(|name, _| name == "n1");
        cluster
    };
    let mut table = Table::new(RULES);
    table.step(at(0), Input::View(alone()));
    assert_eq!(table.step(at(0), reads(1)), []);
    let mut table = Table::new(Rules {
        fall_back: true,
        ..RULES
    });
    table.step(at(0), Input::View(alone()));
    assert_eq!(table.step(at(0), reads(1)), [connect(1, "n1")]);
    table.step(at(1), opened(1, "n1"));
    // There it is a client of the primary, and shares its fate.
    let orders = table.step(at(2), Input::View(led("n2", 2)));
    assert_eq!(orders, [Order::Reset(SessionId(1))]);
}

#[test]
fn requests_to_cancel_find_a_server_that_may_know_them() {
    let mut table = settled();
    let names = |table: &Table, door| -> Vec<String> {
        table
            .everybody(door)
            .into_iter()
            .map(|backend| backend.name)
            .collect()
    };
    assert_eq!(names(&table, Door::Primary), ["n1"]);
    assert_eq!(names(&table, Door::Replicas), ["n1", "n2", "n3"]);
    table.step(at(1), Input::View(Cluster::default()));
    assert_eq!(names(&table, Door::Primary), ["n1"]);
}

/// Any inputs in any order: nobody is forgotten, nobody has two servers, nobody is on the primary's door with a server that another
/// leader has deposed, and the table never asks to be woken in the past.
#[test]
fn whatever_happens_the_books_are_right() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    let mut runner = TestRunner::new_with_rng(
        Config {
            failure_persistence: None,
            ..Config::with_cases(300)
        },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let happening = (0..8_u8, 0..12_u64, 0..3_usize, 0..5_i64, 0..400_u64);
    let run = proptest::collection::vec(happening, 1..120);
    runner
        .run(&run, |happenings| {
            let mut table = Table::new(RULES);
            let mut now = at(0);
            let mut next = 0;
            let mut at_server: BTreeMap<SessionId, String> = BTreeMap::new();
            let mut living: BTreeSet<SessionId> = BTreeSet::new();
            for (what, session, member_index, reign, pause) in happenings {
                now = now.plus(Duration::from_millis(pause));
                let names = ["n1", "n2", "n3"];
                let name = names[member_index];
                let id = SessionId(session.min(next));
                let mut cluster = led(name, reign);
                let input = match what {
                    0 => arrived(next),
                    1 => reads(next),
                    2 => Input::View(cluster),
                    3 => {
                        cluster.leader = None;
                        Input::View(cluster)
                    }
                    4 => Input::View(but(cluster, name, Role::Replica, State::Restarting)),
                    5 => Input::Opened(id, at_server.get(&id).cloned().unwrap_or_default()),
                    6 => Input::Failed(id, at_server.get(&id).cloned().unwrap_or_default()),
                    _ => Input::Left(id),
                };
                if what < 2 {
                    living.insert(SessionId(next));
                    next += 1;
                } else if what == 7 {
                    living.remove(&id);
                    at_server.remove(&id);
                } else if what == 6 && at_server.get(&id).is_some_and(|name| !table.holds(id, name)) {
                    at_server.remove(&id);
                }
                for order in table.step(now, input) {
                    match order {
                        Order::Connect(id, backend) => {
                            prop_assert!(living.contains(&id));
                            prop_assert_eq!(at_server.insert(id, backend.name), None);
                        }
                        Order::Wait(id) => prop_assert!(at_server.remove(&id).is_some()),
                        Order::Reset(id) => {
                            prop_assert!(at_server.remove(&id).is_some());
                            living.remove(&id);
                        }
                        Order::Refuse(id, _) => {
                            prop_assert!(!at_server.contains_key(&id));
                            living.remove(&id);
                        }
                    }
                }
                prop_assert!(table.wake().is_none_or(|wake| now < wake));
                let counted: BTreeSet<SessionId> = table.sessions.keys().copied().collect();
                prop_assert_eq!(&counted, &living);
                for (id, session) in &table.sessions {
                    let waits = session.backend().is_none();
                    prop_assert_eq!(waits, table.waiting.contains(id));
                    let leader = table.cluster.as_ref().and_then(|cluster| cluster.leader.as_ref());
                    if let (true, Some(on), Some(leader)) = (session.primary, session.backend(), leader) {
                        prop_assert_eq!(on, &leader.name);
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}
