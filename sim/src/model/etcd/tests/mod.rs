//! What the model does, by topic.
mod incidents;
mod kv;

use super::api::Range;
use super::*;

pub(super) type Db = Etcd<&'static str, u64>;
pub(super) type Out = Vec<Output<&'static str, u64>>;
pub(super) type Answer = Result<Response<&'static str, u64>, Error>;

/// A cluster, its clock, and what it has said and nobody has looked at.
pub(super) struct Bench {
    pub(super) db: Db,
    pub(super) now: Time,
    pub(super) said: Out,
    calls: u64,
}

impl Bench {
    pub(super) fn new(members: usize) -> Self {
        Self::with(Settings {
            members,
            latency: (0, 0),
            ..Settings::default()
        })
    }

    pub(super) fn with(settings: Settings) -> Self {
        Self {
            db: Etcd::new(settings, 1),
            now: 0,
            said: Vec::new(),
            calls: 0,
        }
    }

    /// Time passes, and everything due happens when it is due.
    pub(super) fn pass(&mut self, span: Time) {
        let end = self.now + span;
        while self.db.next_deadline() <= end {
            self.now = self.now.max(self.db.next_deadline());
            self.db.tick(self.now, &mut self.said);
        }
        self.now = end;
    }

    /// Asks, and gives the number by which to look for the answer.
    pub(super) fn ask(&mut self, member: usize, request: Request<&'static str, u64>) -> u64 {
        self.calls += 1;
        let call = Call {
            require_leader: false,
            ..Call::new(self.calls)
        };
        self.db.handle(self.now, member, call, request, &mut self.said);
        self.calls
    }

    /// The answer to a call, if there is one by now.
    pub(super) fn answer(&mut self, call: u64) -> Option<(Header, Answer)> {
        let is = |output: &Output<_, _>| matches!(output, Output::Answer { call: of, .. } if *of == call);
        let found = self.said.iter().position(is)?;
        match self.said.remove(found) {
            Output::Answer { header, result, .. } => Some((header, result)),
            Output::Watch { .. } => None,
        }
    }

    /// Asks something that is answered at once.
    pub(super) fn get(&mut self, member: usize, request: Request<&'static str, u64>) -> Answer {
        let call = self.ask(member, request);
        self.answer(call).expect("an answer at once").1
    }

    pub(super) fn put(&mut self, member: usize, key: &'static str, value: u64) -> Answer {
        self.get(member, Request::Put(put(key, value, 0)))
    }

    /// The value of a key, as a member answers.
    pub(super) fn read(&mut self, member: usize, key: &'static str, serializable: bool) -> Option<u64> {
        let range = Range {
            serializable,
            ..Range::new(Keys::One(key))
        };
        match self.get(member, Request::Range(range)).unwrap() {
            Response::Range { kvs, .. } => kvs.first().and_then(|kv| kv.value),
            other => panic!("{other:?}"),
        }
    }

    /// What a watch has told.
    pub(super) fn told(&mut self, id: u64) -> Vec<(Header, Told<&'static str, u64>)> {
        let mut told = Vec::new();
        self.said.retain(|output| match output {
            Output::Watch {
                watch,
                header,
                told: what,
                ..
            } if *watch == id => {
                told.push((*header, what.clone()));
                false
            }
            _ => true,
        });
        told
    }

    pub(super) fn links(&mut self, links: Links) {
        self.db.set_links(self.now, links, &mut self.said);
    }
}

pub(super) fn put(key: &'static str, value: u64, lease: LeaseId) -> Put<&'static str, u64> {
    Put {
        key,
        value: Some(value),
        lease: Some(lease),
        previous: false,
    }
}
