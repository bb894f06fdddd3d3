//! The model of etcd against etcd itself: golden scripts that both must answer alike, and random requests.
//!
//! The scripts in `sim/conformance/etcd` hold what etcd 3.4 answered. They are run against the model always, and against etcd's processes
//! where the client library is built (the feature `turmoil`, on by default). What is written there is etcd's word: after a change of a
//! script run the tests of etcd with `UPDATE_GOLDENFILES=1`, never those of the model.
#![expect(clippy::unwrap_used, reason = "tests: a failure here is a failed test")]

mod commands;
mod model;
#[cfg(feature = "turmoil")]
mod random;
#[cfg(feature = "turmoil")]
mod real;

use std::path::{Path, PathBuf};
use std::time::Duration;

use commands::Script;
use surus_sim::model::etcd::{Header, Request, Response, Told, Watch};

type Bytes = Vec<u8>;
type Asked = Request<Bytes, Bytes>;
type Answer = Result<(Header, Response<Bytes, Bytes>), (i32, String)>;

/// A cluster of etcd, or its model.
trait Cluster {
    fn ask(&mut self, member: usize, require_leader: bool, asked: Asked) -> Answer;
    fn watch(&mut self, member: usize, id: u64, watch: Watch<Bytes>);
    /// What a watch has told since it was asked last, and the revision of its last header.
    fn told(&mut self, id: u64) -> Vec<Told<Bytes, Bytes>>;
    fn progress(&mut self, id: u64);
    fn sleep(&mut self, span: Duration);
    fn stop(&mut self, member: usize);
    fn start(&mut self, member: usize);
    fn freeze(&mut self, member: usize);
    fn thaw(&mut self, member: usize);
    /// Whom a member takes for the leader.
    fn leader(&mut self, member: usize) -> Option<usize>;
}

fn scripts(members: usize) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/etcd");
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "script"))
        .filter(|path| path.to_string_lossy().contains("three_") == (members == 3))
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// Runs the scripts for clusters of so many members.
fn run<C: Cluster>(members: usize, begin: impl Fn() -> C, write: bool) {
    let mut differing = Vec::new();
    for path in scripts(members) {
        let golden = std::fs::read_to_string(&path).unwrap();
        let mut script = Script::new(begin(), members);
        let said = goldenscript::generate(&mut script, &golden)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if said == golden {
            continue;
        }
        if write {
            std::fs::write(&path, said).unwrap();
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let pairs = golden.lines().zip(said.lines()).enumerate();
        let first = pairs.into_iter().find(|(_, (golden, said))| golden != said);
        differing.push(match first {
            Some((line, (golden, said))) => {
                format!("{name}:{}: etcd said {golden:?}, here {said:?}", line + 1)
            }
            None => format!("{name}: one is longer"),
        });
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn the_model_answers_as_etcd_did() {
    run(1, || model::Model::new(1), false);
    run(3, || model::Model::new(3), false);
}

#[test]
fn there_are_scripts_enough() {
    assert!(40 <= scripts(1).len() + scripts(3).len());
}

#[cfg(feature = "turmoil")]
#[test]
fn etcd_answers_as_it_did_alone() {
    run(
        1,
        || real::Real::new(1),
        std::env::var("UPDATE_GOLDENFILES").is_ok(),
    );
}

#[cfg(feature = "turmoil")]
#[test]
fn etcd_answers_as_it_did_with_three_members() {
    run(
        3,
        || real::Real::new(3),
        std::env::var("UPDATE_GOLDENFILES").is_ok(),
    );
}
