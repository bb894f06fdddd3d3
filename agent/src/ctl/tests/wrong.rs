//! Wrong arguments: each is answered clearly, before anything is changed or sent.

use crate::ctl::fake::Bench;

/// Arguments, exit code, and what the error has to say.
const CASES: &[(&str, u8, &str)] = &[
    ("", 2, "Usage: surus"),
    ("lst", 2, "a similar subcommand exists: 'list'"),
    (
        "list -f xml",
        2,
        "[possible values: pretty, tsv, json, yaml, yml]",
    ),
    ("list -w 0", 2, "expected a positive number of seconds"),
    ("list -w soon", 2, "`soon` is no unit of time"),
    ("list a/b", 1, "`a/b` is no name of a cluster"),
    (
        "show-config nosuch",
        1,
        "there is no cluster `nosuch`: etcd has no keys below /service/nosuch/",
    ),
    ("history nosuch", 1, "there is no cluster `nosuch`"),
    (
        "switchover --leader nodeb --force",
        1,
        "Member nodeb is not the leader of cluster demo",
    ),
    (
        "switchover --candidate nodea --force",
        1,
        "nodea is already the leader of cluster demo",
    ),
    (
        "switchover --candidate nodex --force",
        1,
        "Member nodex does not exist in cluster demo",
    ),
    (
        "switchover --scheduled 2020-01-01T00:00:00Z --force",
        1,
        "it is in the past",
    ),
    (
        "switchover --scheduled 2026-11-24T10:33:00 --force",
        1,
        "it has no time zone",
    ),
    (
        "switchover --scheduled tomorrow --force",
        1,
        "it is no date and time that could be understood",
    ),
    ("switchover", 1, "no answer to the question"),
    ("switchover --to nodeb", 2, "unexpected argument '--to'"),
    (
        "failover --force",
        1,
        "Failover could be performed only to a specific candidate",
    ),
    (
        "failover --candidate nodea --force",
        1,
        "nodea is already the leader",
    ),
    ("failover --candidate nodeb", 1, "no answer to the question"),
    (
        "restart nodex --force",
        1,
        "`nodex` is neither a cluster nor a member of `demo`",
    ),
    (
        "restart demo nodex --force",
        1,
        "nodex is not a member of cluster demo",
    ),
    ("restart nodea -r replica --force", 1, "does not have the role"),
    ("restart -r boss", 2, "invalid value 'boss'"),
    (
        "restart --pg-version 15 --force",
        1,
        "`15` is no version of PostgreSQL",
    ),
    ("restart --timeout -5", 2, "unexpected argument '-5'"),
    ("restart --timeout 0", 2, "expected a positive number of seconds"),
    (
        "restart nodeb",
        1,
        "no answer to the question: Are you sure you want to restart members nodeb?",
    ),
    (
        "reload -r standby-leader --force",
        1,
        "no member of cluster demo matches the request",
    ),
    ("reinit --force", 1, "no member was named"),
    (
        "reinit nodea --force",
        1,
        "nodea is the leader: its data are the ones to keep",
    ),
    (
        "reinit nodeb nodex --force",
        1,
        "nodex is not a member of cluster demo",
    ),
    ("flush", 2, "required arguments were not provided"),
    ("flush everything", 1, "`everything` cannot be flushed"),
    ("dsn -r replica -m nodeb", 2, "cannot be used with"),
    ("dsn -m nodex", 1, "Can not find a suitable member"),
    ("remove", 2, "required arguments were not provided"),
    ("remove nosuch", 1, "there is no cluster `nosuch`"),
    ("explain nodex", 1, "nodex is not a member of cluster demo"),
    ("explain -f xml", 2, "[possible values: text, json]"),
    ("completions basic", 2, "invalid value 'basic'"),
];

#[test]
fn wrong_arguments_are_answered_and_change_nothing() {
    for (arguments, code, expected) in CASES {
        let bench = Bench::demo();
        let before = bench.world.borrow().clusters.clone();
        let outcome = bench.run(arguments);
        assert!(
            outcome.err.contains(expected),
            "surus {arguments}: {}",
            outcome.err
        );
        assert_eq!(outcome.code, *code, "surus {arguments}: {}", outcome.err);
        let world = bench.world.borrow();
        assert!(
            world.requests.is_empty(),
            "surus {arguments} sent {:?}",
            world.requests
        );
        assert!(world.clusters == before, "surus {arguments} changed a key");
        if *code == 1 {
            assert!(
                outcome.err.contains("\n\nhint: "),
                "surus {arguments} gives no hint: {}",
                outcome.err
            );
        }
    }
}

#[test]
fn a_cluster_has_to_be_named_where_the_configuration_does_not() {
    let bench = Bench {
        world: Bench::demo().world,
        scope: None,
    };
    for arguments in [
        "list",
        "topology",
        "show-config",
        "switchover --force",
        "pause",
        "dsn",
        "restart --force",
    ] {
        let outcome = bench.run(arguments);
        assert_eq!(outcome.code, 1, "{arguments}");
        let expected =
            "error: no cluster was named, and /etc/surus/surus.yml has no `scope`\n\nhint: name the cluster";
        assert!(outcome.err.starts_with(expected), "{arguments}: {}", outcome.err);
    }
    assert_eq!(bench.run("list demo").code, 0);
    assert_eq!(bench.run("restart demo nodex --force").code, 1);
}

#[test]
fn clusters_that_cannot_switch_say_why() {
    let cases = [
        ("leader", "", "switchover --force", "This cluster has no leader"),
        (
            "config",
            r#"{"pause":true}"#,
            "switchover --force",
            "only to a specific candidate in a paused state",
        ),
        (
            "config",
            r#"{"pause":true}"#,
            "switchover --scheduled 2026-11-24T10:33:00Z --force",
            "Can't schedule switchover in the paused state",
        ),
        (
            "config",
            r#"{"pause":true}"#,
            "restart --scheduled 2026-11-24T10:33:00Z --force",
            "Can't schedule restart in the paused state",
        ),
        (
            "members/nodeb",
            r#"{"tags":{"nofailover":true}}"#,
            "switchover --force",
            "No candidates found to switchover to",
        ),
        (
            "members/nodeb",
            r#"{"tags":{"nofailover":true}}"#,
            "failover --candidate nodeb --force",
            "Member nodeb has the tag `nofailover`",
        ),
    ];
    for (key, value, arguments, expected) in cases {
        let bench = Bench::demo().with(|world| world.put("demo", key, value));
        let outcome = bench.run(arguments);
        assert!(
            outcome.code == 1 && outcome.err.contains(expected),
            "{arguments}: {}",
            outcome.err
        );
        assert!(outcome.err.contains("\n\nhint: "), "{arguments}: {}", outcome.err);
        assert!(bench.world.borrow().requests.is_empty(), "{arguments}");
    }
}
