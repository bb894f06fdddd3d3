//! A few stories on real servers, one after another; where there is no Docker, or no image, this says so and tells nothing.

use std::process::Command;

use surus_ci::error::chain;
use surus_ci::{images, tool};
use surus_scenarios::library;
use surus_testcontainers::docker::Docker;
use surus_testcontainers::run::{self, End, Run};
use surus_testcontainers::suite;
use surus_testcontainers::world::Site;

#[test]
fn a_few_stories_hold_on_containers() {
    let postgres = images::POSTGRES[0].0;
    let image = match images::ready(postgres) {
        Ok(image) => image,
        Err(error) => {
            eprintln!("SKIPPED, no story was told on containers: {}", chain(&error));
            return;
        }
    };
    let mut build = Command::new(tool::cargo());
    build.args(["build", "--quiet", "--locked", "-p", "surus"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    tool::output(&mut build).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let runtime = suite::runtime().expect("a runtime");
    let docker = runtime.block_on(Docker::connect());
    let docker = docker.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let swept = runtime.block_on(docker.sweep());
    swept.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let site = Site {
        handle: runtime.handle().clone(),
        docker,
        image,
        postgres,
        agent: suite::agent().unwrap_or_else(|error| panic!("{}", chain(&error))),
    };
    let stories = library::chosen(suite::FEW).unwrap_or_else(|error| panic!("{error}"));
    let runs: Vec<_> = stories.iter().map(|told| Run::of(&told.story)).collect();
    let files = tool::target(&tool::root().expect("a workspace")).join("stories");
    let tales = run::all(&site, &runs, 1, &files, false, &|tale| {
        eprintln!(
            "{}: {:?} after {:.1} s",
            tale.name,
            tale.end,
            tale.took.as_secs_f64()
        );
    });
    let tales = tales.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(tales.len(), stories.len());
    for tale in tales {
        assert_eq!(
            tale.end,
            End::Holds,
            "{}: logs in {:?}",
            tale.name,
            tale.kept.unwrap_or_default()
        );
    }
}
