//! The round trip of any story, and the errors.

use proptest::prelude::*;

use crate::text::{Dice, Name, Nanos, Value};
use crate::{Expectation, Planned, Shape, Step, Story};

fn any_story(dice: &mut Dice) -> Story {
    let mut story = Story {
        name: "B-001".to_owned(),
        title: "a title: with a colon".to_owned(),
        notes: vec![
            "what happened".to_owned(),
            String::new(),
            "  - and then".to_owned(),
        ],
        links: vec!["https://example.org/1#x".to_owned()],
        requires: vec![Name::from("synchronous_mode")],
        stopped_by: vec![Name::from("R01"), Name::from("old-right")],
        returns_with: vec![Name::from("OldRightIgnored")],
        seed: Value::sample(dice),
        shape: Shape::sample(dice),
        steps: (0..dice.below(12))
            .map(|_| Planned {
                at: Nanos::sample(dice),
                step: Step::sample(dice),
            })
            .collect(),
        end: Nanos::sample(dice),
        expectations: (0..dice.below(5)).map(|_| Expectation::sample(dice)).collect(),
    };
    // Every name that is used must be known.
    let mut used = Vec::new();
    for planned in &story.steps {
        planned.step.names(&mut |name| used.push(name.clone()));
    }
    for expectation in &story.expectations {
        expectation.names(&mut |name| used.push(name.clone()));
    }
    for member in &story.shape.members {
        member.tags.names(&mut |name| used.push(name.clone()));
    }
    for client in &story.shape.clients {
        client.route.names(&mut |name| used.push(name.clone()));
    }
    for member in &story.shape.etcd {
        member.names(&mut |name| used.push(name.clone()));
    }
    used.sort();
    used.dedup();
    let known = |name: &Name| story.shape.member(name).is_some();
    used.retain(|name| !known(name));
    let member = |name| crate::Member {
        name,
        tags: crate::Tags::default(),
    };
    story.shape.members.extend(used.into_iter().map(member));
    story
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_printed_is_read_as_the_same(seed: u64) {
        let story = any_story(&mut Dice(seed));
        let text = story.to_string();
        let read: Story = text.parse().map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(&read, &story, "\n{}", text);
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn a_time_is_read_as_written(nanos: u64) {
        let time = Nanos(nanos);
        prop_assert_eq!(Nanos::read(&time.to_string()), Some(time));
    }
}

fn error(line: &str) -> String {
    format!("cluster n1 n2\n{line}\n")
        .parse::<Story>()
        .expect_err(line)
        .to_string()
}

#[test]
fn errors_say_where_what_and_the_nearest_word() {
    for (line, expected) in [
        (
            "at 5s freze-agent n1",
            "line 2, column 7: expected a fault, what a person or clients do, `when`, `expect` or `heal`, found `freze-agent`; did you mean `freeze-agent`?",
        ),
        (
            "at 5s freeze-agent n1 fr=3s",
            "line 2, column 23: expected one of for=, found `fr=3s`; did you mean `for=`?",
        ),
        (
            "at 5s freeze-agent n1 for=3",
            "line 2, column 27: expected a time such as 5s, 250ms, 2min or forever, found `3`",
        ),
        (
            "at 5s freeze-agent",
            "line 2, column 19: expected node: a member's name, leader, former-leader, candidate, replica, any or here, found the end of the line",
        ),
        (
            "at 5s freeze-agent leadr",
            "line 2, column 1: expected the name of a member, etcd member, client or router, found `leadr`; did you mean `leader`?",
        ),
        (
            "ta 5s heal",
            "line 2, column 1: expected one of link, requires, stopped-by, returns-with, seed, cluster, node, etcd, client, router, at, end, expect, found `ta`; did you mean `at`?",
        ),
        (
            "expect los=0",
            "line 2, column 8: expected an expectation, found `los=0`; did you mean `lost=`?",
        ),
        (
            "expect lost=",
            "line 2, column 13: expected max: a whole number, found the end of the line",
        ),
        (
            "at 5s when promote on=n1",
            "line 2, column 25: expected `do` and what shall happen then, found the end of the line",
        ),
        (
            "node n3 nofailover=on",
            "line 2, column 6: expected a member of the `cluster` line above, found `n3`; did you mean `n1`?",
        ),
        (
            "at 5s kill-agent n1 back=1s back=2s",
            "line 2, column 29: expected each key once, found `back=2s`",
        ),
        (
            "at 5s kill-agent \"n1",
            "line 2, column 18: expected a closing quote, found `\"n1`",
        ),
    ] {
        assert_eq!(error(line), expected);
    }
}
