//! The model, in the place of a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use surus_sim::clock::{MS, SEC, Time};
use surus_sim::model::etcd::{Call, Etcd, Output, Settings, Told, Watch};

use super::{Answer, Asked, Bytes, Cluster};

/// The model and its clock.
pub(crate) struct Model {
    etcd: Etcd<Bytes, Bytes>,
    now: Time,
    calls: u64,
    said: Vec<Output<Bytes, Bytes>>,
    told: BTreeMap<u64, Vec<Told<Bytes, Bytes>>>,
}

impl Model {
    pub(crate) fn new(members: usize) -> Self {
        let settings = Settings {
            members,
            latency: (0, 0),
            ..Settings::default()
        };
        Self {
            etcd: Etcd::new(settings, 5),
            now: 0,
            calls: 0,
            said: Vec::new(),
            told: BTreeMap::new(),
        }
    }

    /// Time passes, but not beyond the next thing that happens.
    fn pass(&mut self, end: Time) {
        self.now = self.etcd.next_deadline().min(end).max(self.now);
        self.etcd.tick(self.now, &mut self.said);
    }

    fn sort(&mut self) {
        for output in std::mem::take(&mut self.said) {
            match output {
                Output::Watch { watch, told, .. } => self.told.entry(watch).or_default().push(told),
                answer @ Output::Answer { .. } => self.said.push(answer),
            }
        }
    }
}

impl Cluster for Model {
    fn ask(&mut self, member: usize, require_leader: bool, asked: Asked) -> Answer {
        self.calls += 1;
        let call = Call {
            require_leader,
            ..Call::new(self.calls)
        };
        self.etcd.handle(self.now, member, call, asked, &mut self.said);
        let end = self.now + 20 * SEC;
        loop {
            self.sort();
            if let Some(Output::Answer { header, result, .. }) = self.said.pop() {
                self.said.clear();
                return match result {
                    Ok(response) => Ok((header, response)),
                    Err(error) => Err((error.code(), error.message().to_owned())),
                };
            }
            assert!(self.now < end, "no answer");
            self.pass(end);
        }
    }

    fn watch(&mut self, member: usize, id: u64, watch: Watch<Bytes>) {
        self.etcd.watch(self.now, member, id, watch, &mut self.said);
    }

    fn told(&mut self, id: u64) -> Vec<Told<Bytes, Bytes>> {
        self.sort();
        self.told.remove(&id).unwrap_or_default()
    }

    fn progress(&mut self, id: u64) {
        self.etcd.progress(self.now, id, &mut self.said);
    }

    fn sleep(&mut self, span: Duration) {
        let end = self.now + u64::try_from(span.as_millis()).unwrap() * MS;
        while self.now < end {
            self.pass(end);
        }
    }

    fn stop(&mut self, member: usize) {
        self.etcd.stop(self.now, member, &mut self.said);
    }

    fn start(&mut self, member: usize) {
        self.etcd.start(self.now, member, &mut self.said);
    }

    fn freeze(&mut self, member: usize) {
        self.etcd.freeze(self.now, member, &mut self.said);
    }

    fn thaw(&mut self, member: usize) {
        self.etcd.thaw(self.now, member, &mut self.said);
    }

    fn leader(&mut self, member: usize) -> Option<usize> {
        self.etcd.believed_leader(member)
    }
}
