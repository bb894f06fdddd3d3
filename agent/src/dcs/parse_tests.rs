use proptest::prelude::*;
use surus_core::action::{MemberRecord, StatusRecord};

use super::super::record::{MemberFacts, failsafe_json, history_json, member_json, status_json, sync_json};
use super::super::snapshot::RawKey;
use super::*;

const WALL: Duration = Duration::from_secs(1_800_000_000);

fn raw(keys: &[(&str, &str)]) -> RawCluster {
    let keys = keys.iter().zip(11..).map(|((key, value), revision)| {
        let key_value = RawKey {
            value: (*value).to_owned(),
            create_revision: 5,
            mod_revision: revision,
            lease: 0,
        };
        ((*key).to_owned(), key_value)
    });
    RawCluster {
        keys: keys.collect(),
        revision: 99,
        term: 4,
    }
}

fn facts(keys: &[(&str, &str)]) -> ClusterView {
    view(&raw(keys), WALL, &Snapshot::default())
}

#[test]
fn an_empty_prefix_is_an_empty_view() {
    let view = facts(&[]);
    assert_eq!((view.revision, view.term), (Revision(99), Term(4)));
    assert_eq!(
        ClusterView {
            revision: Revision(0),
            term: Term(0),
            ..view
        },
        ClusterView::default()
    );
}

#[test]
fn a_cluster_of_patronis_is_read() {
    let mut raw = raw(&[
        ("config", r#"{"ttl":30,"loop_wait":10}"#),
        (
            "failover",
            r#"{"leader":"a","member":"b","scheduled_at":"2027-01-15T09:00:00+01:00"}"#,
        ),
        ("failsafe", r#"{"a":"http://10.0.0.1:8008/patroni"}"#),
        (
            "history",
            r#"[[1,67108864,"no recovery target specified","2026-11-20T10:00:00+00:00","b"],[2,70000000,"x"]]"#,
        ),
        ("initialize", "7300000000000000001"),
        ("leader", "a"),
        (
            "members/a",
            r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"primary","version":"4.1.5","xlog_location":67395656,"timeline":3}"#,
        ),
        (
            "members/b",
            r#"{"conn_url":"postgres://10.0.0.2:5432/postgres?application_name=http://10.0.0.2:8008/patroni","state":"running","role":"replica","tags":{"nofailover":"true","clonefrom":true,"replicatefrom":"c","nostream":1,"failover_priority":"3"},"receive_lsn":7,"replay_lsn":9,"pause":true,"surus":"0.1.0","checkpoint_after_promote":false}"#,
        ),
        (
            "status",
            r#"{"optime":67395656,"slots":{"b":5},"retain_slots":["c"],"surus":{"ttl":5.0,"timeline":3,"vacated":"a"}}"#,
        ),
    ]);
    raw.keys.get_mut("leader").unwrap().lease = 77;
    let view = view(&raw, WALL, &Snapshot::default());
    assert_eq!(
        view.initialize,
        Some(Initialize::Done(SystemId(7_300_000_000_000_000_001)))
    );
    assert_eq!(view.config_revision, Some(Revision(11)));
    assert_eq!(view.failsafe_revision, Revision(13));
    assert_eq!(view.status_revision, Revision(19));
    let leader = view.leader.clone().unwrap();
    assert_eq!((leader.lease, leader.created), (Some(LeaseId(77)), Revision(5)));
    assert_eq!(view.timeline(), Some(Timeline(3)));
    assert_eq!(view.fork_of(Timeline(1)), Some(Lsn(67_108_864)));
    assert_eq!(view.history[1].leader, None);
    let failover = view.failover.unwrap();
    // 2027-01-15T08:00:00Z is 1800000000.
    assert_eq!(failover.due, Due::Now);
    assert_eq!(failover.revision, Revision(12));
    let status = view.status.unwrap();
    assert_eq!(status.optime, Lsn(67_395_656));
    assert_eq!(status.slots["b"], Lsn(5));
    assert!(status.retain_slots.contains("c"));
    assert_eq!(status.ttl, Some(Duration::from_secs(5)));
    assert_eq!(status.vacated, Some("a".into()));
    let a = &view.members[&"a".into()];
    assert_eq!(
        (a.position, a.failover_priority, a.surus),
        (Some(Lsn(67_395_656)), 1, false)
    );
    let b = &view.members[&"b".into()];
    assert_eq!(b.conn_url, "postgres://10.0.0.2:5432/postgres");
    assert_eq!(b.api_url, "http://10.0.0.2:8008/patroni");
    assert_eq!(b.position, Some(Lsn(9)));
    assert!(b.nofailover && b.clonefrom && b.nostream && b.surus && b.pause);
    assert_eq!(
        (b.failover_priority, b.checkpoint_after_promote),
        (3, Some(false))
    );
    assert_eq!(b.replicatefrom, Some("c".into()));
}

#[test]
fn garbage_is_read_as_absent_or_empty() {
    let status = |text: &str| facts(&[("status", text)]).status;
    for text in [
        "",
        "garbage",
        "{",
        "null",
        "[]",
        "\"\"",
        "{\"optime\":-1}",
        "{\"optime\":{}}",
        "1.5",
        "-7",
    ] {
        assert_eq!(status(text).as_deref(), Some(&Status::default()), "{text}");
    }
    let optime = |text: &str| status(text).unwrap().optime;
    assert_eq!(optime("67395656"), Lsn(67_395_656));
    assert_eq!(optime(r#"{"optime":"12"}"#), Lsn(12));
    let odd = status(r#"{"optime":1,"slots":[1],"retain_slots":{"a":1},"surus":"no"}"#).unwrap();
    assert_eq!(
        (odd.optime, odd.slots.len(), odd.retain_slots.len(), odd.ttl),
        (Lsn(1), 0, 0, None)
    );
    for ttl in ["-1", "0", "1e300", "\"5\"", "null"] {
        let text = format!(r#"{{"surus":{{"ttl":{ttl},"timeline":0}}}}"#);
        let status = facts(&[("status", text.as_str())]).status.unwrap();
        assert_eq!((status.ttl, status.timeline), (None, None), "{ttl}");
    }
    // `status` wins, garbage or not; without it the old key counts.
    assert_eq!(
        facts(&[("status", "x"), ("optime/leader", "9")])
            .status
            .as_deref(),
        Some(&Status::default())
    );
    assert_eq!(facts(&[("optime/leader", "9")]).status.unwrap().optime, Lsn(9));
    assert_eq!(facts(&[("optime/leader", "nine")]).status, None);

    for text in ["garbage", "12x", "-1", "{}"] {
        assert_eq!(
            facts(&[("initialize", text)]).initialize,
            Some(Initialize::Garbage),
            "{text}"
        );
    }
    for text in ["", " \n"] {
        assert_eq!(
            facts(&[("initialize", text)]).initialize,
            Some(Initialize::InProgress)
        );
    }
    for text in ["", "garbage", "[]", "7", "\"postgres://x\"", "null", "{\"a\":"] {
        assert!(facts(&[("members/a", text)]).members.is_empty(), "{text}");
    }
    assert!(facts(&[("members/a/b", "{}")]).members.is_empty());
    let odd = r#"{"conn_url":7,"xlog_location":-3,"timeline":4294967295,"tags":[],"pause":"maybe"}"#;
    assert_eq!(
        *facts(&[("members/a", odd)]).members[&"a".into()],
        Member {
            failover_priority: 1,
            sync_priority: 1,
            ..Member::default()
        }
    );
    for text in [
        "",
        "garbage",
        "{}",
        "[[]]",
        "[[1]]",
        "[1,2]",
        "[[\"a\",\"b\",\"c\"]]",
        "[[-1,5,\"r\"]]",
    ] {
        assert!(facts(&[("history", text)]).history.is_empty(), "{text}");
    }
    assert_eq!(facts(&[("history", "[[0,5,\"r\"],[2,5]]")]).history.len(), 1);
    for text in ["", "garbage", "[]", "null", "7"] {
        assert_eq!(facts(&[("failsafe", text)]).failsafe, None, "{text}");
    }
    // An entry that nobody can answer still counts as one that must grant.
    assert_eq!(
        facts(&[("failsafe", r#"{"a":null,"b":"u"}"#)])
            .failsafe
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        facts(&[("failsafe", "{}")]).failsafe.as_deref(),
        Some(&BTreeMap::new())
    );
}

#[test]
fn a_failover_key_may_be_of_any_age() {
    let failover = |text: &str| {
        facts(&[("failover", text)]).failover.map(|key| {
            (
                key.leader.map(|name| name.0),
                key.candidate.map(|name| name.0),
                key.due,
            )
        })
    };
    let wish = |leader: &str, candidate: &str, due| {
        let name = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Some((name(leader), name(candidate), due))
    };
    for text in [
        "",
        "{}",
        "null",
        "[]",
        "7",
        ":",
        " : ",
        r#"{"leader":"","member":null}"#,
        r#"{"scheduled_at":"x"}"#,
    ] {
        assert_eq!(failover(text), None, "{text}");
    }
    assert_eq!(failover("a:b"), wish("a", "b", Due::Now));
    assert_eq!(failover("a"), wish("a", "", Due::Now));
    assert_eq!(failover(":b"), wish("", "b", Due::Now));
    assert_eq!(failover(r#"{"member":"b"}"#), wish("", "b", Due::Now));
    let at = |time: &str| {
        failover(&format!(r#"{{"leader":"a","scheduled_at":{time}}}"#))
            .unwrap()
            .2
    };
    assert_eq!(at("null"), Due::Now);
    assert_eq!(
        at(r#""2027-01-15T08:00:10+00:00""#),
        Due::In(Duration::from_secs(10))
    );
    assert_eq!(
        at(r#""2027-01-15T08:00:10.5Z""#),
        Due::In(Duration::from_millis(10_500))
    );
    assert_eq!(at(r#""2027-01-15T07:59:50+00:00""#), Due::Now);
    assert_eq!(at(r#""2027-01-15T07:59:44+00:00""#), Due::Stale);
    for garbage in [r#""2027-01-15T08:00:10""#, r#""tomorrow""#, "7", "{}", "true"] {
        assert_eq!(at(garbage), Due::Stale, "{garbage}");
    }
    // A longer loop_wait gives longer grace.
    let late = r#"{"leader":"a","scheduled_at":"2027-01-15T07:59:20Z"}"#;
    assert_eq!(facts(&[("failover", late)]).failover.unwrap().due, Due::Stale);
    let slow = [("config", r#"{"loop_wait":30}"#), ("failover", late)];
    assert_eq!(facts(&slow).failover.unwrap().due, Due::Now);
}

#[test]
fn nofailover_wins_over_a_contradicting_priority() {
    let tags = |tags: &str| {
        let text = format!(r#"{{"tags":{tags}}}"#);
        let member = facts(&[("members/a", text.as_str())]).members[&"a".into()].clone();
        (member.nofailover, member.failover_priority)
    };
    assert_eq!(tags("{}"), (false, 1));
    assert_eq!(tags(r#"{"failover_priority":0}"#), (true, 0));
    assert_eq!(tags(r#"{"failover_priority":-5}"#), (true, 0));
    assert_eq!(tags(r#"{"failover_priority":0,"nofailover":false}"#), (false, 1));
    assert_eq!(tags(r#"{"failover_priority":9,"nofailover":true}"#), (true, 9));
    assert_eq!(
        tags(r#"{"failover_priority":"x","nofailover":"perhaps"}"#),
        (false, 1)
    );
}

#[test]
fn nosync_wins_over_a_contradicting_priority() {
    let read = |tags: &str| {
        let key = format!(r#"{{"tags":{tags}}}"#);
        let view = facts(&[("members/a", &key)]);
        let member = &view.members[&"a".into()];
        (member.nosync, member.sync_priority)
    };
    assert_eq!(read("{}"), (false, 1));
    assert_eq!(read(r#"{"sync_priority":3}"#), (false, 3));
    assert_eq!(read(r#"{"sync_priority":0}"#), (true, 0));
    assert_eq!(read(r#"{"nosync":true}"#), (true, 1));
    assert!(read(r#"{"nosync":true,"sync_priority":3}"#).0);
    assert_eq!(read(r#"{"nosync":false,"sync_priority":0}"#), (false, 1));
}

#[test]
fn a_sync_key_that_names_no_leader_is_none() {
    let read = |text: &str| {
        let view = facts(&[("sync", text)]);
        assert_eq!(view.sync_revision, Revision(11), "{text}");
        let key = view.sync.map(Arc::unwrap_or_clone)?;
        let voters: Vec<String> = key.voters.into_iter().map(|name| name.0).collect();
        Some((key.leader.0, voters.join("+"), key.quorum))
    };
    let some = |leader: &str, voters: &str, quorum| Some((leader.to_owned(), voters.to_owned(), quorum));
    assert_eq!(
        read(r#"{"leader":"a","quorum":1,"sync_standby":"c, b"}"#),
        some("a", "b+c", 1)
    );
    assert_eq!(
        read(r#"{"leader":"a","quorum":0,"sync_standby":null}"#),
        some("a", "", 0)
    );
    assert_eq!(read(r#"{"leader":"a","sync_standby":""}"#), some("a", "", 0));
    assert_eq!(read(r#"{"leader":"a","quorum":-1}"#), some("a", "", 0));
    for text in [
        "",
        "nonsense",
        "7",
        "{}",
        r#"{"leader":""}"#,
        r#"{"leader":null,"sync_standby":"b"}"#,
    ] {
        assert_eq!(read(text), None, "{text}");
    }
    let none = facts(&[]);
    assert_eq!((none.sync, none.sync_revision), (None, Revision(0)));
}

#[test]
fn what_we_write_is_what_we_read() {
    let status = StatusRecord {
        optime: Lsn(5),
        slots: [("n2".to_owned(), Lsn(4))].into(),
        retain_slots: ["n3".to_owned()].into(),
        ttl: Duration::from_millis(2500),
        next: Some(Timeline(4)),
        timeline: Some(Timeline(3)),
        forks: vec![
            Fork {
                from: Timeline(1),
                at: Lsn(2),
            },
            Fork {
                from: Timeline(2),
                at: Lsn(3),
            },
        ],
        vacated: true,
        unfenced: true,
    };
    let record = MemberRecord {
        ttl: status.ttl,
        lease: None,
        state: "running",
        role: "replica",
        position: Some(Lsn(100)),
        replayed: Some(Lsn(90)),
        timeline: Some(Timeline(3)),
        streaming: true,
        checkpoint_after_promote: Some(false),
        pause: true,
        nosync: true,
    };
    let mut sync = SyncKey::alone("n1".into());
    sync.voters = ["n3".into(), "n2".into()].into();
    sync.quorum = 1;
    let lines = vec![HistoryLine {
        timeline: Timeline(1),
        switch: Lsn(7),
        reason: "r".into(),
        at: Some("t".into()),
        leader: Some("n1".into()),
    }];
    let failsafe: BTreeMap<NodeName, String> = [("n1".into(), "u".to_owned())].into();
    let view = facts(&[
        ("failsafe", &failsafe_json(&failsafe)),
        ("history", &history_json(&lines)),
        ("members/n1", &member_json(&record, &MemberFacts::default())),
        ("status", &status_json(&status, "n1")),
        ("sync", &sync_json(&sync)),
    ]);
    assert_eq!(view.sync.as_deref(), Some(&sync));
    assert_eq!(view.failsafe.as_deref(), Some(&failsafe));
    assert_eq!(*view.history, lines);
    let read = Arc::unwrap_or_clone(view.status.unwrap());
    assert_eq!(
        (read.optime, &read.slots, &read.retain_slots),
        (status.optime, &status.slots, &status.retain_slots)
    );
    assert_eq!(
        (read.ttl, read.timeline, read.vacated, read.unfenced),
        (
            Some(status.ttl),
            status.timeline,
            Some("n1".into()),
            Some("n1".into())
        )
    );
    let member = &view.members[&"n1".into()];
    assert!(member.nosync && member.sync_priority == 0);
    assert_eq!(
        (member.position, member.timeline),
        (record.position, record.timeline)
    );
    assert!(member.surus && member.pause && member.checkpoint_after_promote == Some(false));
}

/// JSON of any shape, rich in the words that the parser looks for.
fn any_json() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "leader",
        "member",
        "scheduled_at",
        "optime",
        "slots",
        "retain_slots",
        "surus",
        "ttl",
        "timeline",
        "vacated",
        "unfenced",
        "tags",
        "nofailover",
        "failover_priority",
        "xlog_location",
        "conn_url",
        "loop_wait",
        "2027-01-15T08:00:00Z",
        "-009999-01-01T00:00:00Z",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
    .prop_map(|value| value.to_string())
}

fn any_keys() -> impl Strategy<Value = BTreeMap<String, RawKey>> {
    let names = prop::sample::select(vec![
        "leader",
        "config",
        "status",
        "optime/leader",
        "failover",
        "history",
        "failsafe",
        "initialize",
        "sync",
        "members/",
        "members/a",
        "members/b",
        "members/a/b",
        "x",
    ]);
    let value = prop_oneof![any_json(), ".{0,40}"];
    let key = (value, any::<i64>(), any::<i64>(), any::<i64>()).prop_map(
        |(value, create_revision, mod_revision, lease)| RawKey {
            value,
            create_revision,
            mod_revision,
            lease,
        },
    );
    prop::collection::btree_map(names.prop_map(str::to_owned), key, 0..14)
}

proptest! {
    #[test]
    fn no_value_makes_it_panic(
        keys in any_keys(),
        revision in any::<i64>(),
        term in any::<u64>(),
        wall in any::<u64>(),
    ) {
        let raw = RawCluster { keys, revision, term };
        let view = view(&raw, Duration::from_nanos(wall), &Snapshot::default());
        let _ = (view.timeline(), view.fork_of(Timeline(1)));
        if raw.text("leader").is_some() {
            prop_assert!(view.leader.is_some());
        }
    }

    #[test]
    fn what_was_known_before_changes_nothing(
        keys in any_keys(),
        others in any_keys(),
        kept in prop::collection::vec(any::<bool>(), 14),
    ) {
        let mut before = others;
        let kept = keys.iter().zip(kept).filter(|(_, kept)| *kept);
        before.extend(kept.map(|((name, key), _)| (name.clone(), key.clone())));
        let cluster = |keys| RawCluster { keys, revision: 1, term: 1 };
        let (raw, before) = (cluster(keys), cluster(before));
        let nothing = Snapshot::default();
        let known = Snapshot { view: view(&before, WALL, &nothing), raw: before };
        prop_assert_eq!(view(&raw, WALL, &known), view(&raw, WALL, &nothing));
    }
}
