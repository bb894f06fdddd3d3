//! What the acting commands send, what they print, and what they do when nobody answers.

use crate::ctl::access::Unreachable;
use crate::ctl::fake::Bench;

const A: &str = "POST http://nodea:8008";
const B: &str = "POST http://nodeb:8008";

fn requests(bench: &Bench) -> Vec<String> {
    bench.world.borrow().requests.clone()
}

/// The lines of output that are not part of a table, without timestamps.
fn said(out: &str) -> Vec<String> {
    let lines = out.lines().filter(|line| !line.starts_with(['+', '|', ' ']));
    let bare = |line: &str| {
        let stamped = line.starts_with("2026-11-20 ") && line.len() > 26;
        if stamped {
            line[26..].to_owned()
        } else {
            line.to_owned()
        }
    };
    lines.map(bare).collect()
}

#[test]
fn switchover_goes_to_the_leader() {
    let bench = Bench::demo().with(|world| {
        world.answer(
            &format!("{A}/switchover"),
            200,
            "Successfully switched over to \"nodeb\"",
        );
    });
    let outcome = bench.run("switchover --candidate nodeb --force");
    assert_eq!(
        (outcome.code, outcome.err.as_str()),
        (0, "Switchover of cluster demo\n")
    );
    assert_eq!(
        said(&outcome.out),
        [
            "Current cluster topology",
            "Successfully switched over to \"nodeb\""
        ]
    );
    assert_eq!(outcome.out.matches("+ Cluster: demo").count(), 2);
    assert_eq!(
        requests(&bench),
        [format!(
            r#"{A}/switchover {{"leader":"nodea","candidate":"nodeb"}}"#
        )]
    );
}

#[test]
fn switchover_asks_a_person_for_everything() {
    let bench =
        Bench::demo().with(|world| world.answer(&format!("{A}/switchover"), 202, "Switchover scheduled"));
    let outcome = bench.talk("switchover", "\nnodeb\n2026-11-24T10:33:00+01:00\ny\n");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    for question in [
        "Primary [nodea]: ",
        "Candidate (nodeb; empty for any): ",
        "[now]: ",
        "[y/N]: ",
    ] {
        assert!(outcome.err.contains(question), "{}", outcome.err);
    }
    let body = r#"{"leader":"nodea","candidate":"nodeb","scheduled_at":"2026-11-24T09:33:00+00:00"}"#;
    assert_eq!(requests(&bench), [format!("{A}/switchover {body}")]);
    assert_eq!(said(&outcome.out)[1], "Switchover scheduled");

    let bench = Bench::demo();
    let outcome = bench.talk("switchover", "\n\n\nno\n");
    assert_eq!((outcome.code, requests(&bench).len()), (1, 0));
    assert!(
        outcome.err.ends_with("error: aborted, nothing was changed\n"),
        "{}",
        outcome.err
    );
}

#[test]
fn switchover_reports_a_refusal() {
    let bench = Bench::demo().with(|world| {
        world.answer(
            &format!("{A}/switchover"),
            412,
            "no good candidates have been found",
        );
    });
    let outcome = bench.run("switchover --force");
    assert_eq!(outcome.code, 1);
    let expected = "error: Switchover failed\n  caused by: nodea answered 412: no good candidates have been found\n\nhint: ";
    assert!(outcome.err.contains(expected), "{}", outcome.err);
}

#[test]
fn switchover_asks_the_next_member_and_then_etcd() {
    let bench = Bench::demo().with(|world| {
        world.answer(
            &format!("{B}/switchover"),
            200,
            "Successfully switched over to \"nodeb\"",
        );
    });
    let outcome = bench.run("switchover --force");
    assert_eq!(outcome.code, 0);
    assert!(
        outcome
            .err
            .contains("warning: member nodea at http://nodea:8008/patroni: connection refused")
    );

    let bench = Bench::demo().with(|world| {
        world.events.push_back(Box::new(|world| {
            world.clusters.get_mut("demo").unwrap().remove("leader");
        }));
        world.events.push_back(Box::new(|world| {
            world.put("demo", "leader", "nodeb");
            world.put("demo", "failover", "{}");
        }));
    });
    let outcome = bench.run("switchover --candidate nodeb --force");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(
        said(&outcome.out),
        [
            "Current cluster topology",
            "Could not switchover using Patroni api, falling back to DCS",
            "Successfully switched over to \"nodeb\""
        ]
    );
    assert!(
        outcome.err.contains("Waiting for a new leader\n"),
        "{}",
        outcome.err
    );
    assert_eq!(requests(&bench).len(), 2);
}

#[test]
fn the_wish_in_etcd_has_patronis_form() {
    let bench = Bench::demo();
    let outcome = bench.run("switchover --candidate nodeb --scheduled 2026-11-24T10:33:00Z --force");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let wish = r#"{"leader":"nodea","member":"nodeb","scheduled_at":"2026-11-24T10:33:00+00:00"}"#;
    assert_eq!(bench.world.borrow().value("demo", "failover"), Some(wish));

    let bench = Bench::demo().with(|world| {
        world
            .events
            .push_back(Box::new(|world| world.put("demo", "failover", "{}")));
    });
    let outcome = bench.run("failover --candidate nodeb --force");
    assert_eq!(outcome.code, 1);
    assert!(
        outcome
            .err
            .contains("nodea dropped the request and is still the leader"),
        "{}",
        outcome.err
    );

    let bench = Bench::demo().with(|world| {
        world.race = Some(Box::new(|world| {
            world.put("demo", "failover", r#"{"member":"x"}"#)
        }));
    });
    let outcome = bench.run("failover --candidate nodeb --force");
    assert!(
        outcome
            .err
            .contains("somebody else requested one at the same time"),
        "{}",
        outcome.err
    );
    assert_eq!(
        bench.world.borrow().value("demo", "failover"),
        Some(r#"{"member":"x"}"#)
    );
}

#[test]
fn a_request_whose_answer_was_lost_is_not_sent_twice() {
    let bench = Bench::demo().with(|world| {
        let lost = Unreachable {
            reason: "connection reset".to_owned(),
            sent: true,
        };
        world.answers.insert(format!("{A}/switchover"), Err(lost));
        world
            .events
            .push_back(Box::new(|world| world.put("demo", "leader", "nodeb")));
    });
    let outcome = bench.run("switchover --force");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(requests(&bench).len(), 1);
    assert_eq!(said(&outcome.out)[1], "Successfully switched over to \"nodeb\"");
}

#[test]
fn waiting_for_a_leader_ends() {
    let bench = Bench::demo();
    let outcome = bench.run("failover --candidate nodeb --force");
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("Failover status unknown after 20 seconds"),
        "{}",
        outcome.err
    );
}

#[test]
fn failover_names_its_candidate_and_warns_of_loss() {
    let bench = Bench::demo().with(|world| {
        world.put("demo", "config", r#"{"synchronous_mode":true}"#);
        world.put("demo", "sync", r#"{"leader":"nodea","sync_standby":null}"#);
        world.answer(
            &format!("{A}/failover"),
            200,
            "Successfully failed over to \"nodeb\"",
        );
    });
    let outcome = bench.talk("failover", "nodeb\ny\n");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert!(
        outcome.err.contains("warning: nodeb is not synchronous"),
        "{}",
        outcome.err
    );
    assert_eq!(
        requests(&bench),
        [format!(r#"{A}/failover {{"candidate":"nodeb"}}"#)]
    );
}

#[test]
fn restart_does_replicas_first_and_says_how_each_went() {
    let bench = Bench::demo().with(|world| {
        world.answer(&format!("{A}/restart"), 503, "restart failed");
        world.answer(&format!("{B}/restart"), 200, "restarted successfully");
    });
    let outcome = bench.run("restart demo --force");
    assert_eq!(
        said(&outcome.out),
        [
            "Success: restart on member nodeb",
            "Failed: restart for member nodea, status code=503, (restart failed)"
        ]
    );
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("error: restart failed for nodea\n"),
        "{}",
        outcome.err
    );
    assert_eq!(
        requests(&bench),
        [format!("{B}/restart {{}}"), format!("{A}/restart {{}}")]
    );
}

#[test]
fn restart_sends_its_conditions() {
    let bench = Bench::demo().with(|world| world.answer(&format!("{B}/restart"), 202, "Restart scheduled"));
    let outcome =
        bench.run("restart nodeb --scheduled 2026-11-24T10:33:00Z --pg-version 15.18 --timeout 2min --force");
    assert_eq!(said(&outcome.out), ["Success: restart scheduled on member nodeb"]);
    let body = r#"{"schedule":"2026-11-24T10:33:00+00:00","postgres_version":"15.18","timeout":120}"#;
    assert_eq!(requests(&bench), [format!("{B}/restart {body}")]);

    let bench = Bench::demo().with(|world| world.answer(&format!("{B}/restart"), 409, ""));
    let outcome = bench.run("restart -r replica --any --force");
    assert_eq!(
        said(&outcome.out),
        ["Failed: another restart is already scheduled on member nodeb"]
    );
    assert_eq!(
        said(&bench.run("restart --pending --force").out),
        ["No member waits for a restart"]
    );
}

#[test]
fn reload_says_when() {
    let bench = Bench::demo().with(|world| {
        world.answer(&format!("{A}/reload"), 202, "reload scheduled");
        world.answer(&format!("{B}/reload"), 200, "");
    });
    let expected = [
        "Reload request received for member nodea and will be processed within 10 seconds",
        "No changes to apply on member nodeb",
    ];
    assert_eq!(said(&bench.run("reload demo --force").out), expected);
    let outcome = bench.talk("reload demo nodea", "y\n");
    assert_eq!(said(&outcome.out), expected[..1]);
    assert!(
        outcome
            .err
            .contains("Are you sure you want to reload members nodea? [y/N]")
    );
}

#[test]
fn reinit_offers_to_cancel_what_is_in_progress() {
    let bench = Bench::demo().with(|world| {
        world.answer(
            &format!("{B}/reinitialize"),
            503,
            "restarting after failure already in progress",
        );
    });
    let outcome = bench.talk("reinit nodeb", "y\ny\n");
    assert_eq!(outcome.code, 1);
    let bodies = [
        r#"{"force":false,"from_leader":false}"#,
        r#"{"force":true,"from_leader":false}"#,
    ];
    assert_eq!(
        requests(&bench),
        bodies.map(|body| format!("{B}/reinitialize {body}"))
    );
}

#[test]
fn reinit_waits_and_shows_how_far_it_is() {
    let status = |state: &str, done: u64| {
        format!(
            r#"{{"state":"{state}","surus":{{"progress":{{"what":"base backup","done":{done},"total":200}}}}}}"#
        )
    };
    let (first, second) = (status("creating replica", 10), status("creating replica", 190));
    let bench = Bench::demo().with(|world| {
        world.answer(&format!("{B}/reinitialize"), 200, "reinitialize started");
        for text in [first, second, r#"{"state":"running"}"#.to_owned()] {
            world.events.push_back(Box::new(move |world| {
                world.answer("GET http://nodeb:8008/patroni", 503, &text)
            }));
        }
    });
    let outcome = bench.run("reinit nodeb --force --from-leader --wait");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(
        said(&outcome.out),
        [
            "Success: reinitialize for member nodeb",
            "Reinitialize is completed on: nodeb"
        ]
    );
    let progress =
        "Waiting for reinitialize to complete on: nodeb\nnodeb: base backup: 0 %\nnodeb: base backup: 90 %\n";
    assert_eq!(outcome.err, progress);
    assert_eq!(
        requests(&bench)[0],
        format!(r#"{B}/reinitialize {{"force":true,"from_leader":true}}"#)
    );
}

#[test]
fn pause_and_resume() {
    let patch = "PATCH http://nodea:8008/config";
    let bench = Bench::demo().with(|world| world.answer(patch, 200, "{}"));
    assert_eq!(bench.run("pause").out, "Success: cluster management is paused\n");
    assert_eq!(requests(&bench), [format!(r#"{patch} {{"pause":true}}"#)]);
    assert!(
        bench
            .run("resume")
            .err
            .starts_with("error: Cluster is not paused\n")
    );

    let bench = bench.with(|world| world.put("demo", "config", r#"{"pause":true}"#));
    assert!(
        bench
            .run("pause")
            .err
            .starts_with("error: Cluster is already paused\n")
    );
    assert_eq!(
        bench.run("resume").out,
        "Success: cluster management is resumed\n"
    );
    assert_eq!(requests(&bench)[1], format!(r#"{patch} {{"pause":null}}"#));
}

#[test]
fn pause_waits_for_every_member() {
    let patch = "PATCH http://nodea:8008/config";
    let bench = Bench::demo().with(|world| {
        world.answer(patch, 200, "{}");
        for name in ["nodea", "nodeb"] {
            world.events.push_back(Box::new(move |world| {
                let record = format!(r#"{{"api_url":"http://{name}:8008/patroni","pause":true}}"#);
                world.put("demo", &format!("members/{name}"), &record);
            }));
        }
    });
    let outcome = bench.run("pause --wait");
    let expected = "'pause' request sent, waiting until it is recognized by all nodes\nSuccess: cluster management is paused\n";
    assert_eq!((outcome.code, outcome.out.as_str()), (0, expected));

    let bench = Bench::demo().with(|world| world.answer(patch, 200, "{}"));
    let outcome = bench.run("pause --wait");
    let expected = "nodea, nodeb members didn't recognized pause state after 11 seconds";
    assert!(
        outcome.code == 1 && outcome.err.contains(expected),
        "{}",
        outcome.err
    );

    let outcome = Bench::demo().run("pause");
    assert!(
        outcome
            .err
            .contains("error: Can not find accessible cluster member\n"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.contains("edit-config -s pause=true"),
        "{}",
        outcome.err
    );
}

#[test]
fn flush_drops_what_is_scheduled() {
    let bench = Bench::demo();
    assert_eq!(
        bench.run("flush switchover").out,
        "No pending scheduled switchover\n"
    );
    assert_eq!(
        said(&bench.run("flush demo nodeb restart --force").out),
        ["No scheduled restart for member nodeb"]
    );

    let scheduled = r#"{"leader":"nodea","scheduled_at":"2026-11-24T10:33:00+00:00"}"#;
    let bench = bench.with(|world| {
        world.put("demo", "failover", scheduled);
        world.answer(
            "DELETE http://nodeb:8008/restart",
            200,
            "scheduled restart deleted",
        );
        let record = r#"{"api_url":"http://nodeb:8008/patroni","scheduled_restart":{"schedule":"x"}}"#;
        world.put("demo", "members/nodeb", record);
    });
    let outcome = bench.run("flush demo restart --force");
    let expected = [
        "No scheduled restart for member nodea",
        "Success: flush scheduled restart for member nodeb",
    ];
    assert_eq!(said(&outcome.out), expected);

    assert_eq!(
        bench.run("flush switchover").out,
        "Success: scheduled switchover deleted\n"
    );
    assert_eq!(bench.world.borrow().value("demo", "failover"), Some("{}"));
}

#[test]
fn remove_takes_three_confirmations() {
    for (answers, why) in [
        ("", "no answer to the question"),
        ("other\n", "Cluster names specified do not match"),
        ("demo\nyes\n", "You did not exactly type \"Yes I am aware\""),
        (
            "demo\nYes I am aware\nnodeb\n",
            "You did not specify the current leader",
        ),
    ] {
        let bench = Bench::demo();
        let outcome = bench.pipe("remove demo", answers);
        assert!(outcome.code == 1 && outcome.err.contains(why), "{}", outcome.err);
        assert!(bench.world.borrow().value("demo", "leader").is_some());
    }
    let bench = Bench::demo();
    assert_eq!(bench.pipe("remove demo", "demo\nYes I am aware\nnodea\n").code, 0);
    assert!(bench.world.borrow().clusters.is_empty());
}
