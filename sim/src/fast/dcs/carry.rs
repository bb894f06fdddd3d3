//! Requests and answers on their way. A connection that the network has swallowed stays until it is noticed; one that leads to a
//! process that has ended is reset; and what a request may have done is told apart from what it cannot have.

use surus_core::input::{Input, Outcome};
use surus_core::types::ActionId;
use surus_scenarios::{Lost, Rpc};

use super::pool::{BETWEEN_ROUNDS, Failure, Kind};
use super::work::Next;
use super::{Caller, Fate, Heard, Sent, WATCHS_READ, Watching, What};
use crate::clock::{MS, Time};
use crate::fast::event::Event;
use crate::fast::story::Befalls;
use crate::fast::world::World;
use crate::model::etcd::{Call, Output, Request, Told};
use crate::net::Place;
use crate::record::RightBy;
use crate::zoo::Bug;

impl World {
    /// Messages go from a node to a member of etcd, and back.
    fn etcd_reached(&self, node: usize, member: usize) -> (bool, bool) {
        let (here, there) = (Place::Node(node), Place::Etcd(member));
        (
            self.net.up(self.now, here, there),
            self.net.up(self.now, there, here),
        )
    }

    /// How long a message takes to a member, or from it.
    fn etcd_delay(&mut self, member: usize, node: usize, to: bool) -> Time {
        let (here, there) = (Place::Node(node), Place::Etcd(member));
        let (from, to) = if to { (here, there) } else { (there, here) };
        let delay = self.net.delay(self.now, from, to, &mut self.rng);
        let (until, most) = self.etcd.slow[member];
        if self.now < until && self.rng.one_in(2) {
            delay + self.rng.below(most)
        } else {
            delay
        }
    }

    /// A member's host has power.
    pub(super) fn etcd_powered(&self, member: usize) -> bool {
        self.etcd.hosts[member].is_none_or(|node| self.hosts[node].powered)
    }

    /// Connects a node to a member, if there is no connection; whether there is one now, and if not, whether that was said.
    pub(super) fn etcd_connect(&mut self, node: usize, member: usize) -> Result<bool, bool> {
        let process = self.etcd.process[member];
        let (there, back) = self.etcd_reached(node, member);
        let powered = self.etcd_powered(member);
        let runs = self.etcd.cluster.runs(member);
        let refused = self.net.refuses(self.now, Place::Node(node), Place::Etcd(member));
        let Some(agent) = &mut self.hosts[node].agent else {
            return Err(false);
        };
        if agent.dcs.pool.connected(member) == Some(process) && runs && !refused {
            return Ok(there);
        }
        agent.dcs.pool.connect(member, None);
        if (!there || !back || !powered) && !refused {
            return Err(false);
        }
        if !runs || refused {
            return Err(true);
        }
        agent.dcs.pool.connect(member, Some(process));
        Ok(true)
    }

    /// Begins a round of asking.
    pub(crate) fn ask_etcd(&mut self, node: usize, id: ActionId, number: u32) {
        let now = self.now;
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let round = agent.dcs.pool.round(now, number);
        if let Some(work) = agent.dcs.works.get_mut(&id) {
            work.round = round;
            self.ask_next(node, id);
        }
    }

    /// Asks the next endpoint of the round.
    fn ask_next(&mut self, node: usize, id: ActionId) {
        let (now, local) = (self.now, self.local(node));
        self.counter += 1;
        let attempt = self.counter;
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let epoch = agent.epoch;
        let Some(work) = agent.dcs.works.get_mut(&id) else {
            return;
        };
        let Some(member) = work.round.at() else {
            if work.round.denied() {
                let kind = Kind::Denied;
                return self.fail_work(node, id, Failure { kind, maybe: false });
            }
            let pause = BETWEEN_ROUNDS.min(work.deadline.saturating_sub(now));
            let number = work.round.number + 1;
            return self.after(pause, Event::EtcdRound(node, epoch, id, number));
        };
        let Some(share) = agent.dcs.pool.share(now, work.deadline, &work.round) else {
            return self.fail_work(node, id, Failure::REFUSED);
        };
        work.attempt = attempt;
        work.sent = local;
        if self.bug == Some(Bug::AnswerOfAnyAttempt) {
            work.attempts.push((attempt, local));
        }
        let asked = work.request.clone();
        let connected = self.etcd_connect(node, member);
        let befalls = self.mishap(node, kind(&asked));
        if let Some(agent) = &mut self.hosts[node].agent
            && let Some(work) = agent.dcs.works.get_mut(&id)
        {
            work.left = connected.is_ok();
        }
        let heard = |what| {
            Box::new(Heard {
                node,
                epoch,
                id,
                attempt,
                what,
            })
        };
        let (mut late, mut fate, mut twice) = (0, Fate::Usual, false);
        match befalls {
            Some(Befalls::Lost(Lost::Request)) => {
                return self.after(share, Event::EtcdLate(node, epoch, id, attempt));
            }
            Some(Befalls::Error(code, false)) => {
                let failed = heard(What::Failed(Failure::of_code(code)));
                return self.after(2 * MS, Event::EtcdAnswer(failed));
            }
            Some(Befalls::Error(code, true)) => fate = Fate::Error(code),
            Some(Befalls::Lost(Lost::Reply)) => fate = Fate::Mute,
            Some(Befalls::Lost(Lost::Twice)) => twice = true,
            Some(Befalls::Late(by)) => late = by,
            None => {}
        }
        match connected {
            Ok(true) => {
                let delay = late + self.etcd_delay(member, node, true);
                self.draw(Place::Node(node), Place::Etcd(member), Some(delay), "request");
                let caller = Caller {
                    node,
                    epoch,
                    id,
                    member,
                    fate,
                };
                let sent = Sent {
                    caller,
                    attempt,
                    process: self.etcd.process[member],
                    asked,
                };
                if twice {
                    // Nobody waits for what the second says.
                    self.counter += 1;
                    let again = Sent {
                        attempt: self.counter,
                        ..sent.clone()
                    };
                    let delay = self.etcd_delay(member, node, true);
                    self.after(delay, Event::EtcdRequest(Box::new(again)));
                }
                self.after(delay, Event::EtcdRequest(Box::new(sent)));
            }
            Ok(false) | Err(false) => self.draw(Place::Node(node), Place::Etcd(member), None, "request"),
            Err(true) => {
                let delay = self.rng.range(MS / 5, 2 * MS);
                let failed = heard(What::Failed(Failure::REFUSED));
                return self.after(delay, Event::EtcdAnswer(failed));
            }
        }
        self.after(share, Event::EtcdLate(node, epoch, id, attempt));
    }

    /// A request reaches a member's process.
    pub(crate) fn etcd_request(&mut self, sent: Sent) {
        let Sent {
            caller,
            attempt,
            process,
            asked,
        } = sent;
        let member = caller.member;
        if self.etcd.process[member] != process {
            return;
        }
        let (now, etcd) = (self.now, &mut self.etcd);
        etcd.calls.insert(attempt, caller);
        let call = Call::new(attempt);
        etcd.cluster.handle(now, member, call, asked, &mut etcd.out);
        self.etcd_follow();
    }

    /// Somebody who is no agent asks etcd's leader something; whether there is one.
    pub(crate) fn ask_leader_of_etcd(&mut self, asked: super::Asked) -> bool {
        let Some(leader) = self.etcd.cluster.leader() else {
            return false;
        };
        let (now, etcd) = (self.now, &mut self.etcd);
        etcd.cluster
            .handle(now, leader, Call::new(0), asked, &mut etcd.out);
        self.etcd_follow();
        true
    }

    /// Something leaves a member.
    pub(super) fn carry_back(&mut self, output: Output<super::Key, super::Held>) {
        match output {
            Output::Answer {
                at,
                call,
                header,
                result,
            } => {
                let Some(caller) = self.etcd.calls.remove(&call) else {
                    return;
                };
                let (_, back) = self.etcd_reached(caller.node, caller.member);
                let (here, there) = (Place::Node(caller.node), Place::Etcd(caller.member));
                if !back || caller.fate == Fate::Mute {
                    return self.draw(there, here, None, "answer");
                }
                let delay = at - self.now + self.etcd_delay(caller.member, caller.node, false);
                self.draw(there, here, Some(delay), "answer");
                let mut heard = Heard {
                    node: caller.node,
                    epoch: caller.epoch,
                    id: caller.id,
                    attempt: call,
                    what: match result {
                        Ok(answer) => What::Answer(header, answer),
                        Err(error) => What::Failed(Failure::of(error)),
                    },
                };
                if let Fate::Error(code) = caller.fate {
                    heard.what = What::Failed(Failure::of_code(code));
                }
                self.after(delay, Event::EtcdAnswer(Box::new(heard)));
            }
            Output::Watch {
                at,
                watch,
                header,
                told,
            } => {
                let Some(watching) = self.etcd.watches.get(&watch).copied() else {
                    return;
                };
                let Watching {
                    node,
                    epoch,
                    member,
                    last,
                } = watching;
                let (_, back) = self.etcd_reached(node, member);
                if !back || self.now < self.hosts[node].deaf {
                    // The connection hangs: nothing more will come of it, and nobody says so.
                    self.etcd.cluster.unwatch(watch);
                    self.etcd.watches.remove(&watch);
                    return;
                }
                let arrives = at + self.etcd_delay(member, node, false);
                let arrives = arrives.max(last + 1);
                let delay = arrives.saturating_sub(self.now);
                self.draw(Place::Etcd(member), Place::Node(node), Some(delay), "watch");
                if let Some(watching) = self.etcd.watches.get_mut(&watch) {
                    watching.last = arrives;
                }
                self.after(
                    arrives - self.now,
                    Event::EtcdTold(node, epoch, watch, header, Box::new(told)),
                );
            }
        }
    }

    /// The connections to a member's process break, and their other ends hear of it if the network lets them.
    pub(super) fn etcd_reset(&mut self, member: usize) {
        self.etcd.process[member] += 1;
        let lost: Vec<_> = self
            .etcd
            .calls
            .extract_if(.., |_, caller| caller.member == member)
            .collect();
        let watches: Vec<_> = self
            .etcd
            .watches
            .extract_if(.., |_, watching| watching.member == member)
            .collect();
        if !self.etcd_powered(member) {
            return;
        }
        for (attempt, Caller { node, epoch, id, .. }) in lost {
            if self.etcd_reached(node, member).1 {
                let what = What::Failed(Failure::AMBIGUOUS);
                let heard = Heard {
                    node,
                    epoch,
                    id,
                    attempt,
                    what,
                };
                self.after(MS, Event::EtcdAnswer(Box::new(heard)));
            }
        }
        let header = self.etcd.cluster.header(member);
        for (watch, Watching { node, epoch, .. }) in watches {
            if self.etcd_reached(node, member).1 {
                let told = Told::Ended(crate::model::etcd::Error::Stopped);
                self.after(MS, Event::EtcdTold(node, epoch, watch, header, Box::new(told)));
            }
        }
    }

    /// An answer reaches an agent.
    pub(crate) fn etcd_answer(&mut self, heard: Heard) {
        self.etcd_heard(heard.node, heard.id, heard.attempt, heard.what);
    }

    /// An agent hears of its attempt, if only from its own timer.
    pub(crate) fn etcd_heard(&mut self, node: usize, id: ActionId, attempt: u64, what: What) {
        let (now, local, bug) = (self.now, self.local(node), self.bug);
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let dcs = &mut agent.dcs;
        let any = bug == Some(Bug::AnswerOfAnyAttempt) && matches!(what, What::Answer(..));
        let Some(work) = dcs
            .works
            .get_mut(&id)
            .filter(|work| work.attempt == attempt || any)
        else {
            return;
        };
        if work.attempt != attempt {
            let asked = work.attempts.iter().find(|(one, _)| *one == attempt);
            work.late = asked.map(|(_, sent)| *sent);
        }
        let Some(member) = work.round.at() else { return };
        let failure = match what {
            What::Answer(header, answer) if dcs.pool.admit(header.term, now) => {
                dcs.pool.praise(member);
                let (mut worker, works) = dcs.worker(node, &self.names, bug, local);
                let Some(work) = works.get_mut(&id) else { return };
                let next = work.heard(header, answer, &mut worker);
                return self.go_on(node, id, next);
            }
            What::Answer(..) => Failure::AMBIGUOUS,
            What::Failed(failure) => failure,
            What::Late => Failure {
                maybe: work.left,
                ..Failure::REFUSED
            },
        };
        // Whoever waits no longer resets the stream.
        if bug != Some(Bug::AnswerOfAnyAttempt) {
            self.etcd.calls.remove(&attempt);
        }
        if bug != Some(Bug::AnswerOfAnyAttempt) && self.net.up(now, Place::Node(node), Place::Etcd(member)) {
            self.etcd.cluster.cancel(member, attempt);
        }
        work.ambiguous |= failure.maybe && matches!(work.request, Request::Txn(_));
        if failure.kind == Kind::Token && !work.round.retried {
            work.round.retried = true;
            return self.ask_next(node, id);
        }
        if failure.maybe || failure.kind == Kind::Token {
            dcs.pool.connect(member, None);
        }
        match failure.kind {
            Kind::LeaseGone | Kind::NoSpace => return self.fail_work(node, id, failure),
            Kind::Denied => work.round.denied += 1,
            Kind::Elsewhere | Kind::Token => {}
        }
        dcs.pool.avoid(member, now);
        work.round.asked += 1;
        work.round.retried = false;
        self.ask_next(node, id);
    }

    /// No endpoint did what was asked.
    fn fail_work(&mut self, node: usize, id: ActionId, failure: Failure) {
        let (local, bug) = (self.local(node), self.bug);
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        let (mut worker, works) = agent.dcs.worker(node, &self.names, bug, local);
        let Some(work) = works.get_mut(&id) else { return };
        let next = work.failed(failure, &mut worker);
        self.go_on(node, id, next);
    }

    fn go_on(&mut self, node: usize, id: ActionId, next: Next) {
        let Some(agent) = &mut self.hosts[node].agent else {
            return;
        };
        match next {
            Next::Ask(request) => {
                if let Some(work) = agent.dcs.works.get_mut(&id) {
                    work.request = request;
                }
                self.ask_etcd(node, id, 0);
            }
            Next::End(outcome) => {
                let work = agent.dcs.works.remove(&id);
                if let (Outcome::Locked { .. }, Some(work)) = (&outcome, &work)
                    && let Some((sent, ttl)) = work.earned()
                {
                    self.earn(node, sent, ttl, RightBy::Lock);
                }
                let outcome = self.shown(outcome);
                if id == WATCHS_READ {
                    self.watch_read(node, outcome);
                } else {
                    self.step(node, Input::Done { id, outcome });
                }
            }
        }
    }
}

/// The kind of a request, in etcd's words.
fn kind(asked: &super::Asked) -> Rpc {
    match asked {
        Request::Grant { .. } => Rpc::Grant,
        Request::KeepAlive(_) => Rpc::KeepAlive,
        Request::Txn(_) => Rpc::Txn,
        _ => Rpc::Range,
    }
}
