//! `show-config` and `edit-config`: what is shown, what is written, and when nothing is.

use std::io::Write;

use serde_json::{Value, json};

use crate::ctl::fake::{Bench, Outcome};

const BEFORE: &str = r#"{"loop_wait":10,"postgresql":{"parameters":{"max_connections":100}},"ttl":30}"#;

fn stored(bench: &Bench) -> Value {
    serde_json::from_str(bench.world.borrow().value("demo", "config").unwrap()).unwrap()
}

fn unchanged(bench: &Bench) -> bool {
    bench.world.borrow().value("demo", "config") == Some(BEFORE)
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn show_config_is_yaml() {
    let expected = "loop_wait: 10\npostgresql:\n  parameters:\n    max_connections: 100\nttl: 30\n";
    assert_eq!(Bench::demo().run("show-config").out, expected);
}

#[test]
fn edit_config_shows_the_difference_and_writes_it() {
    let bench = Bench::demo();
    let outcome =
        bench.run("edit-config -s ttl=20 -s a.b=x -p max_connections=null -p pg_stat.max=5 --force");
    let expected = "\
--- before
+++ after
@@ -1,5 +1,7 @@
+a:
+  b: x
 loop_wait: 10
 postgresql:
   parameters:
-    max_connections: 100
-ttl: 30
+    pg_stat.max: 5
+ttl: 20
Configuration changed
";
    let warning = "warning: a: unknown key `a`; it has no effect\n";
    assert_eq!(
        outcome,
        Outcome {
            out: expected.to_owned(),
            err: warning.to_owned(),
            code: 0
        }
    );
    let config = json!({"loop_wait": 10, "postgresql": {"parameters": {"pg_stat.max": 5}}, "ttl": 20, "a": {"b": "x"}});
    assert_eq!(stored(&bench), config);
}

#[test]
fn nothing_is_written_without_consent() {
    let bench = Bench::demo();
    let outcome = bench.run("edit-config -s ttl=20");
    assert!(
        outcome
            .out
            .ends_with("+ttl: 20\nUse --force option to apply changes\n"),
        "{}",
        outcome.out
    );
    assert!(unchanged(&bench));

    let outcome = bench.talk("edit-config -s ttl=20", "n\n");
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("Apply these changes? [y/N]") && outcome.err.contains("nothing was changed")
    );
    assert!(unchanged(&bench));

    assert!(
        bench
            .talk("edit-config -s ttl=20", "y\n")
            .out
            .ends_with("Configuration changed\n")
    );
    assert_eq!(stored(&bench)["ttl"], 20);
}

#[test]
fn the_same_configuration_is_no_change() {
    let bench = Bench::demo();
    for arguments in [
        "edit-config -s ttl=30 --force",
        "edit-config -s nosuch.key=null --force",
        "edit-config -s x=null",
    ] {
        assert_eq!(
            bench.run(arguments),
            Outcome {
                out: "Not changed\n".into(),
                err: String::new(),
                code: 0
            }
        );
    }
    assert!(unchanged(&bench));
}

#[test]
fn a_concurrent_change_wins() {
    let bench = Bench::demo().with(|world| {
        world.race = Some(Box::new(|world| world.put("demo", "config", r#"{"ttl":99}"#)));
    });
    let outcome = bench.run("edit-config -s ttl=20 -q --force");
    assert_eq!(outcome.code, 1);
    assert!(
        outcome
            .err
            .starts_with("error: Config modification aborted due to concurrent changes\n"),
        "{}",
        outcome.err
    );
    assert_eq!(outcome.out, "");
    assert_eq!(stored(&bench), json!({"ttl": 99}));
}

#[test]
fn files_are_merged_or_put_in_place() {
    let patch = file("ttl: null\npostgresql:\n  parameters:\n    work_mem: 8MB\n");
    let bench = Bench::demo();
    let outcome = bench.run(&format!(
        "edit-config --apply {} -q --force",
        patch.path().display()
    ));
    assert_eq!(outcome.out, "Configuration changed\n", "{}", outcome.err);
    let merged =
        json!({"loop_wait": 10, "postgresql": {"parameters": {"max_connections": 100, "work_mem": "8MB"}}});
    assert_eq!(stored(&bench), merged);

    let outcome = bench.pipe("edit-config --replace - -q --force", "ttl: 25\nloop_wait: null\n");
    assert_eq!(outcome.out, "Configuration changed\n", "{}", outcome.err);
    assert_eq!(stored(&bench), json!({"ttl": 25}));
}

#[test]
fn wrong_settings_and_files_are_refused() {
    let list = file("- a\n- b\n");
    let empty = file("");
    let broken = file("a: [1\n");
    let cases = [
        ("-s ttl".to_owned(), "there is no `=` in it"),
        ("-s =5".to_owned(), "the key is empty"),
        ("-s a..b=5".to_owned(), "the key is empty, or has an empty part"),
        ("-s ttl=[1".to_owned(), "the value is no YAML"),
        ("-s ttl.x=1".to_owned(), "cannot set ttl.x: ttl is no mapping"),
        ("--apply /nonexistent".to_owned(), "cannot read /nonexistent"),
        (
            format!("--apply {}", list.path().display()),
            "no mapping of keys to values",
        ),
        (format!("--replace {}", empty.path().display()), "it is empty"),
        (
            format!("--replace {}", broken.path().display()),
            "is no configuration",
        ),
        (
            format!("--replace {0} --apply {0}", list.path().display()),
            "cannot be used with",
        ),
        (String::new(), "cannot open an editor: this is no terminal"),
    ];
    for (arguments, expected) in cases {
        let bench = Bench::demo();
        let outcome = bench.run(&format!("edit-config --force {arguments}"));
        assert!(outcome.err.contains(expected), "{arguments}: {}", outcome.err);
        assert_ne!(outcome.code, 0, "{arguments}");
        assert!(unchanged(&bench), "{arguments}");
    }
}

#[test]
fn a_missing_or_broken_configuration_is_named() {
    let bench = Bench::demo().with(|world| {
        world.clusters.get_mut("demo").unwrap().remove("config");
        world.put("bad", "config", "[1]");
    });
    assert!(
        bench
            .run("show-config")
            .err
            .contains("has no dynamic configuration yet")
    );
    assert!(
        bench
            .run("edit-config bad -s a=1 --force")
            .err
            .contains("holds no JSON object")
    );
}
