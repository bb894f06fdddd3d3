//! The tool as a person uses it: what it prints, keeps and ends with.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use surus_sim::record::Keep;
use surus_sim::report;
use surus_sim::run::Job;
use surus_sim::shrink;
use surus_sim::zoo::Bug;

/// Found within a few seeds.
const BUG: Bug = Bug::GuardAsleep;

fn tool(place: &Path, args: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_surus-sim"))
        .args(args)
        .current_dir(place)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

/// An empty directory of this test's own.
fn place(name: &str) -> PathBuf {
    let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    place
}

#[test]
fn a_failure_is_kept_with_a_command_that_replays_it() {
    let place = place("kept");
    let (output, text) = tool(
        &place,
        &["run", "--seeds", "0..200", "--bug", BUG.name(), "--failures", "1"],
    );
    assert_eq!(output.status.code(), Some(1), "{text}");
    let replay = text
        .lines()
        .find(|line| line.trim().starts_with("surus-sim replay "))
        .unwrap();
    let kept = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("kept in "))
        .unwrap();
    let read = |name: &str| fs::read_to_string(place.join(kept).join(name)).unwrap();
    assert_eq!(read("replay.txt").trim(), replay.trim());

    // The command, the story, and what was kept give the same bytes.
    let words: Vec<&str> = replay.split_whitespace().skip(1).collect();
    let (output, again) = tool(&place, &words);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        again.starts_with(&read("trace.txt")),
        "the replay differs from the trace that was kept"
    );
    let (_, told) = tool(&place, &["replay", kept, "--bug", BUG.name()]);
    assert!(again == told, "the story differs from the seed");
    assert!(again.contains(read("cause.txt").trim()));
}

#[cfg(feature = "turmoil")]
#[test]
fn the_network_is_part_of_the_command_that_replays() {
    use surus_sim::campaign::Bugs;
    use surus_sim::run::Kind;

    let place = place("network");
    // Nobody leads after a hundredth of a second.
    let text = "# Too much is asked\ncluster n1\nat 10ms expect primary within=10ms\nend 1s\n";
    fs::write(place.join("asked.story"), text).unwrap();
    for (world, network) in [(Kind::Turmoil, "jump"), (Kind::TurmoilTick, "tick")] {
        let place_of = ["--world", "turmoil", "--network", network];
        let (output, text) = tool(
            &place,
            &[&["story", "asked.story", "--seed", "3"][..], &place_of].concat(),
        );
        assert_eq!(output.status.code(), Some(1), "{text}");
        let (_, command) = text.split_once("surus-sim ").unwrap();
        let words: Vec<&str> = command.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(words.contains(&"tick"), network == "tick", "{words:?}");
        let (output, replayed) = tool(&place, &words);
        assert_eq!(output.status.code(), Some(1), "{replayed}");

        let job = Job {
            world,
            seed: 3,
            story: Some(text_of(&place, "asked.story").parse().unwrap()),
            file: Some("asked.story".to_owned()),
            ..Job::default()
        };
        let violation = job.run(Keep::Hash).violation.unwrap();
        let kept = Bugs::at(place.join("sim-bugs")).keep(&job, &violation).unwrap();
        assert!(
            kept.directory
                .ends_with(format!("{world}-3-{}", violation.invariant))
        );
        assert_eq!(kept.replay.split_whitespace().skip(1).collect::<Vec<_>>(), words);
        let trace = fs::read_to_string(kept.directory.join("trace.txt")).unwrap();
        assert!(replayed.starts_with(&trace), "the replay on {network} differs");
    }
    for arguments in [
        ["--world", "fast", "--network", "tick"],
        ["--world", "turmoil", "--network", "fast"],
    ] {
        let (output, _) = tool(&place, &[&["replay", "1"][..], &arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[cfg(feature = "turmoil")]
fn text_of(place: &Path, file: &str) -> String {
    fs::read_to_string(place.join(file)).unwrap()
}

#[test]
fn a_sweep_that_was_stopped_goes_on_where_it_was() {
    let place = place("resumed");
    let (_, text) = tool(
        &place,
        &[
            "run",
            "--seeds",
            "0..9",
            "--bug",
            BUG.name(),
            "--failures",
            "1",
            "--jobs",
            "2",
        ],
    );
    let next = fs::read_to_string(place.join("sim-bugs/fast.progress")).unwrap();
    let stopped: u64 = next.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(
        text.contains(&format!("stopped at seed {stopped} of 0..9")),
        "{text}"
    );
    let (output, text) = tool(&place, &["run", "--resume"]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains(&format!("{stopped}..9")), "{text}");
    let (_, text) = tool(&place, &["run", "--resume"]);
    assert_eq!(text, "seeds 0..9 are all done\n");
}

#[test]
fn errors_name_place_and_remedy() {
    let place = place("errors");
    fs::write(
        place.join("wrong.story"),
        "cluster n1 n2\nat 3s kill-agnet n1\nend 9s\n",
    )
    .unwrap();
    for (args, wanted) in [
        (&["run", "--seeds", "9..9"][..], "9..9 holds no seed"),
        (&["run", "--bug", "GuardAslep"], "the nearest is GuardAsleep"),
        (&["run", "--resume"], "nothing to resume"),
        (&["replay", "missing.story"], "missing.story: No such file"),
        (&["replay", "wrong.story"], "kill-agent"),
        (&["replay", "1", "--node", "n9"], "--node n9: this world has n1"),
    ] {
        let (output, _) = tool(&place, args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(wanted), "{args:?}: {text}");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

/// A run that the planted bug breaks, with so many faults at least.
fn broken(faults: usize) -> Job {
    (0..200)
        .map(|seed| Job {
            bug: Some(BUG),
            ..Job::seed(seed)
        })
        .find(|job| faults <= shrink::faults(&job.story()) && job.run(Keep::Hash).violation.is_some())
        .unwrap()
}

#[test]
fn a_failing_run_is_made_short() {
    // Bounded by runs, not by the clock: the same on any machine.
    let job = broken(20);
    let invariant = job.run(Keep::Hash).violation.unwrap().invariant;
    let shrunk = shrink::shrink_job(&job, invariant, &mut |step| step.runs < 250).unwrap();
    assert!(shrink::faults(&shrunk.story) <= 6, "{}", shrunk.story);

    let place = place("short");
    fs::write(place.join("short.story"), shrunk.story.to_string()).unwrap();
    let (output, text) = tool(
        &place,
        &[
            "shrink",
            "short.story",
            "--bug",
            BUG.name(),
            "--minutes",
            "0.05",
            "-o",
            "s.story",
        ],
    );
    assert_eq!(output.status.code(), Some(1), "{text}");
    let replay = text
        .lines()
        .find(|line| line.trim().starts_with("surus-sim replay s.story"))
        .unwrap();
    let words: Vec<&str> = replay.split_whitespace().skip(1).collect();
    let (output, text) = tool(&place, &words);
    assert_eq!(output.status.code(), Some(1), "the short story breaks nothing");
    assert!(text.contains(invariant.words()));
}

#[test]
fn a_report_is_one_page_that_needs_nothing_else() {
    let job = broken(1);
    let outcome = job.run(Keep::Messages);
    let page = report::page(&job, &outcome);
    assert_eq!(
        page,
        report::page(&job, &job.run(Keep::Messages)),
        "the page differs between two runs"
    );
    for part in ["src=", "href=", "url(http", "import "] {
        assert!(!page.contains(part), "the page asks for something else: {part}");
    }
    let leftover = page
        .split('@')
        .skip(1)
        .find(|rest| rest.chars().take_while(char::is_ascii_uppercase).count() > 3);
    assert_eq!(leftover, None, "a place of the template was not filled");
    let violation = outcome.violation.unwrap();
    assert!(page.contains(violation.invariant.words()));
    for name in &outcome.names {
        assert!(page.contains(&format!(">{name}</text>")));
    }
}
